"""Part speed of neural_clamping.py: seconds to where the published recipes end.

What one epoch costs is measured by clamping_speed.py.
"""

import time

import numpy as np
from _clamping_rows import ENGINE
from _networks import make_tasks
from scipy.special import log_softmax

from skcalib.clamping import NeuralClamping

PRESETS = ["paper", "reference"]
GAMMA = 1.0
MINI_BATCHES = {"solver": "sgd", "validation_fraction": None}
EPOCHS = [1, 2, 4, 5, 6, 8, 12, 16]
# Epochs tried in turn until the objective is at or below the recipe's.
OURS = {
    "mini-batches": (MINI_BATCHES, EPOCHS),
    "mini-batches, bf16": (MINI_BATCHES | {"precision": "bf16"}, EPOCHS),
    "L-BFGS": ({"solver": "lbfgs"}, [2, 3, 4, 6, 8, 12, 20]),
}


def speed(name, keep, options):
    """Fit by each recipe, and by our solvers with its gamma, penalty and freedom."""
    (task,) = make_tasks(name, 1, options.samples, options.device)
    return {
        preset: beside_recipe(task, preset, options.tiny) for preset in options.presets
    }


def beside_recipe(task, preset, tiny):
    short = {"max_iter": 2} if tiny else {}
    seconds, recipe = timed(task, preset=preset, **short)
    goal = row(task, recipe, seconds, preset, recipe.penalty_)
    setting = {
        "perturbation": "full",
        "penalty": recipe.penalty_,
        "temperature_objective": "joint",
    }
    seconds, plain = timed(task, solver="fixed_delta", **setting)
    rows = {
        "the recipe": goal,
        "temperature alone": row(task, plain, seconds, preset, recipe.penalty_),
    }
    for title, (solver, every) in OURS.items():
        for epochs in every:
            seconds, ours = timed(task, max_iter=epochs, **solver, **setting)
            rows[title] = row(task, ours, seconds, preset, recipe.penalty_)
            if rows[title]["objective"] <= goal["objective"]:
                break
    return rows


def timed(task, **settings):
    """Return the seconds of a fit, and the fitted estimator.

    On the CPU these are seconds of the processor, which other programs do not add to.
    """
    estimator = NeuralClamping(
        task.module, gamma=GAMMA, random_state=0, **ENGINE, **settings
    )
    on_cpu = next(task.module.parameters()).device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    start = clock()
    estimator.fit(task.cal.X, task.cal.y)
    return clock() - start, estimator


def row(task, fitted, seconds, preset, penalty):
    """The published objective of what was learned, anew and in full precision."""
    fitted.set_params(precision=None)
    logits = fitted.logits(task.cal.X).astype(np.float64)
    own = log_softmax(logits / fitted.temperature_, axis=1)
    own = own[np.arange(len(task.cal.y)), task.cal.y]
    loss = float(np.mean(-((-np.expm1(own)) ** GAMMA) * own))
    norm = float(np.linalg.norm(fitted.delta_))
    # The reference code penalises the norm itself, the paper its square.
    cost = penalty * (norm if preset == "reference" else norm**2)
    return {
        "seconds": seconds,
        "objective": loss + cost,
        "temperature": float(fitted.temperature_),
        "norm": norm,
        "epochs": int(fitted.n_iter_),
    }
