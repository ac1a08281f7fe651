"""Part speed of neural_clamping.py: seconds to where the published recipes end.

What one epoch costs is measured by clamping_speed.py.
"""

import time
from functools import partial

import numpy as np
from scipy.special import log_softmax

from benchmarks._clamping_rows import ENGINE
from benchmarks._networks import make_tasks
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


def speed(name, options, presets, recipe_epochs):
    """Fit by each recipe, and by our solvers with its gamma, penalty and freedom."""
    (task,) = make_tasks(name, 1, options.samples, options.device)
    short = {"max_iter": recipe_epochs} if recipe_epochs else {}
    for preset in presets:
        seconds, recipe = timed(task, preset=preset, **short)
        judged = partial(row, task, preset, recipe.penalty_)
        goal = judged("the recipe", recipe, seconds)
        yield goal
        setting = {
            "perturbation": "full",
            "penalty": recipe.penalty_,
            "temperature_objective": "joint",
        }
        seconds, plain = timed(task, solver="fixed_delta", **setting)
        yield judged("temperature alone", plain, seconds)
        for title, (solver, every) in OURS.items():
            for epochs in every:
                seconds, ours = timed(task, max_iter=epochs, **solver, **setting)
                found = judged(title, ours, seconds)
                if found["objective"] <= goal["objective"]:
                    break
            yield found


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


def row(task, preset, penalty, title, fitted, seconds):
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
        "preset": preset,
        "fit": title,
        "seconds": seconds,
        "objective": loss + cost,
        "temperature": float(fitted.temperature_),
        "norm": norm,
        "epochs": int(fitted.n_iter_),
    }
