"""What `trusted_types` names is there, and is enough for skops."""

import io
import pickle
from importlib import import_module

import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline

import skcalib
from skcalib import (
    BoostedCalibration,
    CalibratedClassifier,
    CalibratorSearch,
    MultiLabelCalibration,
    PriorShift,
    VectorScaling,
)
from skcalib.frozen import ClassifierLogits

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


class Types(pickle.Unpickler):
    """Unpickles, and notes the types of skcalib."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.found = set()

    def find_class(self, module, name):
        found = super().find_class(module, name)
        if module.startswith("skcalib.") and isinstance(found, type):
            self.found.add(f"{module}.{name}")
        return found


def types_of(estimator):
    reader = Types(pickle.dumps(estimator))
    reader.load()
    return reader.found


def test_types_of_what_takes_other_input_than_logits_are_trusted(calibration_set):
    X, y = calibration_set
    model = LogisticRegression().fit(X, y)
    labels = y[:, None] == [0, 1]
    fitted = [
        BoostedCalibration().fit(X, y, features=X),
        make_pipeline(ClassifierLogits(model), VectorScaling()).fit(X, y),
        CalibratedClassifier(
            MultiOutputClassifier(LogisticRegression()), MultiLabelCalibration()
        ).fit(X, labels),
    ]
    found = set().union(*map(types_of, fitted))
    assert len(found) > 5
    assert found <= {*skcalib.trusted_types()}
