"""scikit-learn's own cases of CalibratedClassifierCV, for CalibratedClassifier.

Not collected with the tests: `tests/meta/test_sklearn_cases.py` runs this file with
SCIPY_ARRAY_API set, which SciPy reads when it is imported.
"""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.tests import test_calibration as theirs
from sklearn.tests.test_calibration import (  # noqa: F401  (fixtures)
    data,
    dict_data,
    dict_data_pipeline,
)
from sklearn.utils import get_tags
from sklearn.utils._array_api import get_namespace_and_device
from sklearn.utils.validation import check_is_fitted

from skcalib import (
    CalibratedClassifier,
    IsotonicCalibration,
    PlattScaling,
    TemperatureScaling,
)

CALIBRATORS = {
    "sigmoid": PlattScaling(prior=None, smooth_targets=True, tol=1e-12),
    "isotonic": IsotonicCalibration(),
    "temperature": TemperatureScaling(prior=None),
}
# What is so on purpose.
OTHERWISE = {
    "test_calibration_default_estimator": "the default is LogisticRegression",
    "test_calibration_cv_nfold": "poor folds share a calibrator, with a warning",
    "test_calibration_ensemble_false[isotonic-calibrator1]": "log(1e-101) is no -inf",
    "test_calibration_less_classes[True]": "an unseen class has 1 / (n + 1), not 0",
}


class CalibratedClassifierCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """What scikit-learn's class has, by CalibratedClassifier."""

    def __init__(
        self, estimator=None, *, method="sigmoid", cv=None, n_jobs=None, ensemble="auto"
    ):
        self.estimator = estimator
        self.method = method
        self.cv = cv
        self.n_jobs = n_jobs
        self.ensemble = ensemble

    def _adapted(self):
        if self.method not in CALIBRATORS:
            raise ValueError(
                "The 'method' parameter of CalibratedClassifierCV must be a str among "
                f"{set(CALIBRATORS)}. Got {self.method!r} instead."
            )
        if self.ensemble == "auto":
            ensemble = not isinstance(self.estimator, FrozenEstimator)
        else:
            ensemble = self.ensemble
        return CalibratedClassifier(
            self.estimator,
            CALIBRATORS[self.method],
            cv=self.cv,
            n_jobs=self.n_jobs,
            ensemble=ensemble,
        )

    def fit(self, X, y, sample_weight=None, **fit_params):
        self._fitted = self._adapted().fit(X, y, sample_weight, **fit_params)
        for name in ("classes_", "n_features_in_", "feature_names_in_"):
            if hasattr(self._fitted, name):
                setattr(self, name, getattr(self._fitted, name))
        parts = zip(
            self._fitted._scores,
            self._fitted.estimators_,
            self._fitted.calibrators_,
            strict=True,
        )
        self.calibrated_classifiers_ = [Calibrated(X, *part) for part in parts]
        return self

    def predict_proba(self, X):
        check_is_fitted(self)
        return self._fitted.predict_proba(X)

    def predict(self, X):
        check_is_fitted(self)
        return self._fitted.predict(X)

    def get_metadata_routing(self):
        return self._adapted().get_metadata_routing()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self._adapted()).input_tags
        return tags


class Calibrated:
    """A classifier and its calibrator."""

    def __init__(self, X, scores, estimator, calibrator):
        self.estimator = estimator
        self.calibrators = [Temperature(X, calibrator)]
        self.predict_proba = lambda X: calibrator.predict_proba(scores(X))


class Temperature(BaseEstimator):
    """A temperature as scikit-learn keeps it: an array of the kind of X."""

    def __init__(self, X, calibrator):
        calibrator = getattr(calibrator, "calibrator_", calibrator)
        if hasattr(calibrator, "temperature_"):
            xp, is_standard, device = get_namespace_and_device(X)
            like = {"dtype": X.dtype, "device": device} if is_standard else {}
            self.beta_ = xp.asarray(1 / calibrator.temperature_, **like)

    def fit(self, X, y):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _ours(request, monkeypatch):
    monkeypatch.setattr(theirs, "CalibratedClassifierCV", CalibratedClassifierCV)
    if request.node.name in OTHERWISE:
        reason = OTHERWISE[request.node.name]
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))


@pytest.fixture
def global_random_seed():
    np.random.seed(0)  # noqa: NPY002
    return 42


for name, case in vars(theirs).copy().items():
    if name.startswith("test_") and "CalibratedClassifierCV" in case.__code__.co_names:
        globals()[name] = case
