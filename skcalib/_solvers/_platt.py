"""Platt scaling: a logistic regression on one score for each class.

Minimised is the log-loss of each class against the rest under 1 / (1 + exp(-(a s + b)))
[Platt, Probabilistic Outputs for Support Vector Machines, 1999]. Smooth targets are his
too: (n + 1) / (n + 2) for the n samples of the class and 1 / (m + 2) for the m others,
the means of their posteriors under a uniform prior.

Deviations: the slope has the sign of a log-odds (his A is -a); for more than two
classes the score is the logit or its log-odds against the rest, and the estimator
divides each row by its sum. With weights, n and m are their sums. With a prior, logits
in small units are divided by a temperature before their log-odds.
"""

from dataclasses import replace

import numpy as np

from skcalib._blocks import CalibrationData
from skcalib._blocks._scores import Block
from skcalib._numerics import log_odds
from skcalib._solvers._logistic import LogisticModel, fit_logistic
from skcalib._solvers._result import Result
from skcalib._solvers._units import in_units, nat_of, typical_top


def fit_platt(
    data: CalibrationData,
    *,
    on_log_odds: bool,
    smooth_targets: bool,
    prior: float | None = None,
    unit: float = 1.0,
    tol: float = 1e-8,
    max_iter: int = 100,
) -> Result:
    """Fit slopes and intercepts; ``result.x`` is (n_classes, 2).

    Two classes have one problem, that of the second on the log-odds. Log-odds are those
    of the logits over `unit`, and what the prior draws to is measured in them.
    """
    n_classes = data.n_classes
    own = data.class_weights() * data.total_weight
    rest = np.maximum(data.total_weight - own, 0)
    smooth_low, smooth_high = 1 / (rest + 2), (own + 1) / (own + 2)
    low = smooth_low if smooth_targets else np.zeros(n_classes)
    high = smooth_high if smooth_targets else np.ones(n_classes)
    use_odds = on_log_odds or n_classes == 2
    features = in_units(_log_odds, unit) if use_odds else _logits
    model = LogisticModel(features, 1, low, high, nat=nat_of(data) / unit)
    if use_odds:
        model = model.drawn(data, prior, unit)
    else:
        model = replace(model, middle=typical_top(data))

    x = np.zeros((n_classes, 2))
    # A class that never occurs has one target only, which its intercept meets.
    if model.prior > 0:
        x[:, 0] = model.start
    else:
        x[:, 1] = np.log(smooth_low) - np.log1p(-smooth_low)
    present = data.present if n_classes > 2 else np.array([1])
    result = fit_logistic(data, model, present, tol=tol, max_iter=max_iter)
    x[present] = result.x
    if n_classes == 2:
        x[0] = x[1] * (1, -1)
    return result.at(x)


def _log_odds(logits: Block) -> Block:
    return log_odds(logits)[np.newaxis]


def _logits(logits: Block) -> Block:
    return logits[np.newaxis]
