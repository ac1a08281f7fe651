"""Parameters that are set after `fit` change nothing before the next one."""

import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_array_equal
from sklearn.base import clone

from skcalib import (
    OptionCalibration,
    PriorShift,
    StructuredMatrixScaling,
    TemperatureScaling,
)
from skcalib._sklearn_compat import StrOptions
from skcalib.datasets import make_logits

MORE = [
    OptionCalibration(position_offset=True),
    PriorShift(TemperatureScaling(), priors=[0.2, 0.3, 0.5]),
]


def others(calibrator):
    """Yield every option that is named or a bool, but for the one it has."""
    for name, allowed in calibrator._parameter_constraints.items():
        for kind in allowed:
            if isinstance(kind, StrOptions):
                yield from ({name: option} for option in kind.options)
            elif isinstance(kind, str) and kind == "boolean":
                yield from ({name: option} for option in (False, True))
            elif isinstance(kind, type) and name in ("scaling", "calibrator"):
                yield {name: None}
                yield {name: StructuredMatrixScaling()}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("calibrator", CALIBRATORS + VARIANTS + MORE, ids=identify)
def test_an_option_set_after_fit_changes_no_prediction(calibrator, n_classes):
    if isinstance(calibrator, PriorShift) and n_classes == 2:
        calibrator = clone(calibrator).set_params(priors=[0.4, 0.6])
    logits, y = make_logits(300, n_classes, random_state=0)
    fitted = clone(calibrator).fit(logits, y)
    proba, labels = fitted.predict_proba(logits), fitted.predict(logits)
    has_logits, keeps_class = fitted.has_logits, fitted.keeps_class
    for option in others(calibrator):
        before = fitted.get_params(deep=False)
        fitted.set_params(**option)
        assert_array_equal(fitted.predict_proba(logits), proba, str(option))
        assert_array_equal(fitted.predict(logits), labels)
        assert (fitted.has_logits, fitted.keeps_class) == (has_logits, keeps_class)
        fitted.set_params(**before)
