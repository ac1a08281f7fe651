"""Beta calibration: a logistic regression on ln p and -ln(1 - p) for each class.

Minimised over a, b >= 0 and c is the log-loss of q with

    ln(q / (1 - q)) = a ln p - b ln(1 - p) + c

[Kull, Silva Filho & Flach, Beta calibration, AISTATS 2017], for every class against the
rest. The variants "am" and "ab" are theirs: a = b, and c such that p = 1/2 stays.

Deviations: where a or b would be negative, the authors' code drops its feature and fits
the rest again, without a second look at the sign; here the constrained problem itself
is solved. Features are computed from log-odds, so that p near 0 or 1 loses no digits.
With a prior, p is that of a temperature where logits are in small units.
"""

from math import log
from typing import Literal

import numpy as np

from skcalib._blocks import CalibrationData
from skcalib._blocks._scores import Block
from skcalib._numerics import log_odds, log_sigmoid
from skcalib._solvers._logistic import LogisticModel, fit_logistic
from skcalib._solvers._result import Result
from skcalib._solvers._units import in_units, nat_of

Variant = Literal["abm", "am", "ab"]

# ln p or ln(1 - p) that varies less than this over the calibration set says nothing;
# a coefficient on it would be huge and arbitrary.
SMALLEST_SPREAD = 1e-8


def fit_beta(
    data: CalibrationData,
    *,
    variant: Variant = "abm",
    prior: float | None = None,
    unit: float = 1.0,
    tol: float = 1e-8,
    max_iter: int = 100,
) -> Result:
    """Fit a, b >= 0 and c; ``result.x`` is (n_classes, 3).

    Two classes have one problem, that of the second. A class that never occurs has no
    finite optimum and keeps its probability: a = b = 1, c = 0. All p are those of the
    logits over `unit`, and what the prior draws to is measured in them.
    """
    n_classes = data.n_classes
    present = data.present if n_classes > 2 else np.array([1])
    features = {"abm": _two_logarithms, "am": _one, "ab": _halves}[variant]
    model = LogisticModel(
        features=in_units(features, unit),
        n_features=1 if variant == "am" else 2,
        low=np.zeros(n_classes),
        high=np.ones(n_classes),
        non_negative=True,
        intercept=variant != "ab",
        smallest_scale=SMALLEST_SPREAD,
        nat=nat_of(data) / unit,
    )
    model = model.drawn(data, prior, unit)
    result = fit_logistic(data, model, present, tol=tol, max_iter=max_iter)
    own = 1.0 if prior is None or model.start is None else model.start
    x = np.tile([own, own, 0.0], (n_classes, 1))
    x[present] = _abc(result.x, variant)
    if n_classes == 2:
        # 1 - q swaps the roles of p and 1 - p.
        x[0] = x[1, [1, 0, 2]] * (1, 1, -1)
    return result.at(x)


def _abc(x: Block, variant: Variant) -> Block:
    if variant == "am":
        return x[:, [0, 0, 1]]
    if variant == "ab":
        # a ln(2p) - b ln(2(1-p)): the map leaves p = 1/2 where it is.
        return np.column_stack([x[:, 0], x[:, 1], (x[:, 0] - x[:, 1]) * log(2)])
    return x


def _one(logits: Block) -> Block:
    return log_odds(logits)[np.newaxis]


def _two_logarithms(logits: Block) -> Block:
    odds = log_odds(logits)
    log_p = log_sigmoid(odds)
    odds -= log_p
    return np.stack([log_p, odds])


def _halves(logits: Block) -> Block:
    features = _two_logarithms(logits)
    features[0] += log(2)
    features[1] -= log(2)
    return features
