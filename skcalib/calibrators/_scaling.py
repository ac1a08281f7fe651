"""What several calibrators build on: temperatures, and other calibrators."""

from functools import partial

from sklearn.base import clone

from skcalib._base import fit_checked
from skcalib._maps import LogOdds, Scale, evaluate_block
from skcalib._solvers._temperature import inverse_factors


def fit_scaling(owner, scaling, data):
    """Fit a clone of `scaling` to what its `owner` sees, and map the data by it."""
    fitted = fit_checked(clone(scaling), data, owner.n_features_in_)
    if not fitted.has_logits:  # A search knows only now.
        raise ValueError(
            f"{scaling!r} has no decision_function: its map does not end in a "
            f"softmax. The scaling of {type(owner).__name__} must be a parametric "
            "calibrator such as PlattScaling or TemperatureScaling."
        )
    front = fitted.calibration_map().logits
    return fitted, data.used().mapped(partial(evaluate_block, front))


def divisions(temperature):
    """Return the operations that divide logits by a temperature."""
    return tuple(Scale(factor) for factor in inverse_factors(temperature))


def log_odds_after(temperature):
    """Return the operations to log-odds of logits that are divided by a temperature."""
    return (LogOdds(),) if temperature == 1 else (*divisions(temperature), LogOdds())
