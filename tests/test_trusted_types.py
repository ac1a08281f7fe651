"""What `trusted_types` names is there, and is enough for skops."""

from importlib import import_module

import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression

import skcalib
from skcalib import CalibratedClassifier, CalibratorSearch, PriorShift

# A search of penalties is kept by pairs of them, and skops has no such keys.
WRITTEN = [v for v in VARIANTS if not getattr(v, "average_folds", False)]


def test_every_trusted_type_exists_and_is_a_class():
    names = skcalib.trusted_types()
    assert names == sorted(set(names))
    for name in names:
        module, _, kind = name.rpartition(".")
        assert isinstance(getattr(import_module(module), kind), type)


@pytest.mark.parametrize(
    "estimator",
    [
        *CALIBRATORS,
        *WRITTEN,
        CalibratorSearch(),
        PriorShift(),
        CalibratedClassifier(LogisticRegression(), CalibratorSearch()),
    ],
    ids=identify,
)
def test_skops_reads_what_consists_of_trusted_types(estimator, calibration_set):
    skops = pytest.importorskip("skops.io")
    X, y = calibration_set
    data = skops.dumps(estimator.fit(X, y))
    assert set(skops.get_untrusted_types(data=data)) <= {*skcalib.trusted_types()}
    loaded = skops.loads(data, trusted=skcalib.trusted_types())
    assert_array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
