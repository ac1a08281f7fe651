"""check_calibrator: one call runs every check of the contract on a calibrator."""

import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from skcalib.testing import _checks_errors, _checks_fit, _checks_labels, _checks_output

CHECKS = (
    *_checks_output.CHECKS,
    *_checks_fit.CHECKS,
    *_checks_labels.CHECKS,
    *_checks_errors.CHECKS,
)


def check_calibrator(calibrator: Any) -> Any:
    """Check that a calibrator keeps the contract of skcalib.

    scikit-learn's `~sklearn.utils.estimator_checks.check_estimator` feeds features of
    any number, but a calibrator needs one column of logits per class. This function
    feeds logits, and repeats on them what those checks cannot: the shape, sum, sign
    and dtype of the probabilities, also for extreme logits; binary logits in one
    column; a row alone and in a batch; weights against repeated and removed rows;
    every kind of label and `classes`; the order of classes and rows; cloning,
    pickling and fitting again; clear errors; and that the calibration map, which is
    what gets exported, computes what `predict_proba` returns.

    Parameters
    ----------
    calibrator : calibrator instance
        Has ``fit(X, y, sample_weight=None)``, `predict_proba`, `predict`, the
        parameter `classes` and, once fitted, `classes_`. It is cloned, not fitted.
        If it has a parameter `cv` that takes splits, the checks that compare fits set
        them. One that chooses a parameter over a mere number of folds is checked with
        that parameter fixed: its folds depend on the order of the rows.

    Raises
    ------
    AssertionError
        At the first broken promise, with the name of the check and what was wrong.

    Notes
    -----
    Warnings that a fit did not converge are ignored; parameters called `random_state`
    are set to 0.

    Examples
    --------
    A calibrator of your own is tested by one line in its test file; together with
    scikit-learn's checks of ``CalibratedClassifier(LogisticRegression(), own)``, which
    do feed features, it covers everything the calibrators of skcalib promise.

    >>> from skcalib import TemperatureScaling
    >>> from skcalib.testing import check_calibrator
    >>> check_calibrator(TemperatureScaling())
    """
    name = type(calibrator).__name__
    for check in CHECKS:
        with warnings.catch_warnings():  # What others wrote may warn by itself.
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                check(calibrator)
            except AssertionError as error:
                raise AssertionError(
                    f"{name} fails {check.__name__}: {error}"
                ) from error
            except Exception as error:
                raise AssertionError(
                    f"{name} fails {check.__name__}, which raised "
                    f"{type(error).__name__}: {error}"
                ) from error
