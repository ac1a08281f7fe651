"""Hypergradients beside the exact one: error in size and direction, and their cost.

Two inner problems, weighted as in bilevel self-calibration, in double precision and at
their minimum: logistic regression with four coefficients, and a perceptron with eight
hidden units, where the Hessian is ill-conditioned. The exact hypergradient solves with
the whole Hessian. "error" is the norm of the difference, "size" the norm itself, both
as shares of the exact norm, in percent; "cosine" is that of the angle between the two.

"epoch" is the processor time of an epoch of `BilevelCalibratedClassifier`, with five
networks and 600 rows, over that of one with all weights 1.

Needs the `torch` extra.
"""

import time
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks._measure import in_turns
from benchmarks._tables import Table
from skcalib.datasets import make_spirals
from skcalib.training import BilevelCalibratedClassifier, hypergradient

VARIANTS = {
    "one_step": {"method": "one_step"},
    "cg": {"method": "cg"},
    "cg, damping 0.01": {"method": "cg", "damping": 0.01},
    "cg, 50 products": {"method": "cg", "n_products": 50},
    "neumann": {"method": "neumann"},
    "neumann, 50 terms": {"method": "neumann", "n_products": 50},
}
TINY = {"seeds": 1, "repeats": 1, "epochs": 2}


def logistic(seed):
    """Rows, classes and scores of the inner problem, outer rows, a linear module."""
    rng = np.random.default_rng(seed)
    X, X_outer = rng.normal(size=(2, 40, 4))
    y, y_outer = (
        part @ np.arange(1, 5) + rng.normal(size=40) > 0 for part in (X, X_outer)
    )
    return (X, y), (X_outer, y_outer), nn.Linear(4, 2, bias=False), 0.1


def perceptron(seed):
    inner = make_spirals(200, noise=0.12, random_state=seed)
    outer = make_spirals(200, noise=0.12, random_state=100 + seed)
    return (
        inner,
        outer,
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)),
        1e-3,
    )


PROBLEMS = {"logistic": logistic, "perceptron": perceptron}


def losses_at_minimum(problem, seed):
    """Inner and outer loss, parameters and scores, at the minimum of the inner one."""
    torch.manual_seed(seed)
    (X, y), (X_outer, y_outer), module, penalty = PROBLEMS[problem](seed)
    module = module.double()
    parameters = list(module.parameters())
    scores = torch.randn(len(y), dtype=torch.float64, requires_grad=True)

    def inner_loss():
        logits = module(torch.as_tensor(X))
        codes = torch.as_tensor(y, dtype=torch.long)
        losses = functional.cross_entropy(logits, codes, reduction="none")
        squares = sum(p.square().sum() for p in parameters)
        return (2 * torch.sigmoid(scores) * losses).mean() + penalty * squares

    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=5000,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = inner_loss()
        loss.backward()
        return loss

    optimizer.step(closure)
    scores.grad = None
    outer = functional.cross_entropy(
        module(torch.as_tensor(X_outer)), torch.as_tensor(y_outer, dtype=torch.long)
    )
    return inner_loss(), outer, parameters, scores


def exact(inner, outer, parameters, scores):
    """The hypergradient through the whole Hessian."""
    first = torch.autograd.grad(inner, parameters, create_graph=True)
    gradient = torch.cat([part.reshape(-1) for part in first])
    rows = [
        torch.autograd.grad(value, [*parameters, scores], retain_graph=True)
        for value in gradient
    ]
    hessian = torch.stack([torch.cat([p.reshape(-1) for p in r[:-1]]) for r in rows])
    mixed = torch.stack([row[-1] for row in rows])
    parts = torch.autograd.grad(outer, parameters, retain_graph=True)
    right = torch.cat([part.reshape(-1) for part in parts])
    return -mixed.T @ torch.linalg.solve(hessian, right), hessian


def errors(problem, seed):
    """Yield how far each variant is from the exact hypergradient."""
    state = losses_at_minimum(problem, seed)
    right, hessian = exact(*state)
    inner, outer, parameters, scores = state
    curvature = torch.linalg.eigvalsh(hessian)
    length = right.norm()
    for name, options in VARIANTS.items():
        (found,) = hypergradient(inner, outer, parameters, [scores], **options)
        yield {
            "problem": problem,
            "seed": seed,
            "least curvature": float(curvature[0]),
            "method": name,
            "error": 100 * float((found - right).norm() / length),
            "size": 100 * float(found.norm() / length),
            "cosine": float(found @ right / found.norm() / length),
        }


def costs(repeats, epochs):
    """Yield the processor time of an epoch over that without hypergradients."""
    X, y = make_spirals(600, noise=0.12, random_state=0)
    methods = ("one_step", "cg", "neumann")
    settings = [{"weight_lr": 0}, *({"hypergradient": m} for m in methods)]
    fits = [
        partial(
            BilevelCalibratedClassifier(
                max_epochs=epochs, n_iter_no_change=epochs, random_state=0, **options
            ).fit,
            X,
            y,
        )
        for options in settings
    ]
    (base, *others), _ = in_turns(fits, repeats, time.process_time)
    for name, seconds in zip(methods, others, strict=True):
        yield {"method": name, "epoch": float(seconds.min() / base.min())}


def run(*, seeds=5, repeats=3, epochs=10):
    """Yield the errors of each seed, then the costs."""
    for problem in PROBLEMS:
        for seed in range(seeds):
            yield from errors(problem, seed)
    yield from costs(repeats, epochs)


def table(rows):
    """Medians over the seeds."""
    lines = []
    ratios = {row["method"]: row["epoch"] for row in rows if "epoch" in row}
    for name in VARIANTS:
        cells = []
        for problem in PROBLEMS:
            found = [
                row
                for row in rows
                if row.get("problem") == problem and row["method"] == name
            ]
            error, size, cosine = (
                np.median([row[key] for row in found])
                for key in ("error", "size", "cosine")
            )
            cells += [f"{error:.2g}", f"{size:.0f}", f"{cosine:.3f}"]
        # The estimator damps its conjugate gradients.
        key = name.removesuffix(", damping 0.01") if "damping" in name else name
        ratio = f"{ratios[key]:.2f}" if key in ratios and name != "cg" else ""
        lines.append([name, *cells, ratio])
    columns = [
        f"{problem}: {x}" for problem in PROBLEMS for x in ("error", "size", "cosine")
    ]
    return Table(["method", *columns, "epoch"], lines)


def summary(rows):
    return [table(rows)]


TABLES = {"errors": table}
