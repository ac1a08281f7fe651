"""
A calibrated classifier in a pipeline
=====================================

Naive Bayes takes features for independent that are not, and so counts the same
evidence many times: its probabilities are close to 0 or 1 far too often. This example
wraps it in :class:`~skcalib.CalibratedClassifier`, puts that into a pipeline, and tunes
both at once.
"""

# %%
# The classifier as it is
# -----------------------
#
# Handwritten digits, ten classes. The scorer returns minus the expected calibration
# error, as scikit-learn wants higher to be better.

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skcalib import (
    CalibratedClassifier,
    EnsembleTemperatureScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
)
from skcalib.metrics import ece_scorer
from skcalib.plotting import ReliabilityDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.4, stratify=y, random_state=0
)
plain = Pipeline([("scale", StandardScaler()), ("classify", GaussianNB())])
plain.fit(X_train, y_train)
print(f"accuracy {plain.score(X_test, y_test):.3f}")
print(f"ECE      {-ece_scorer(plain, X_test, y_test):.3f}")

# %%
# Calibrated
# ----------
#
# The calibrator is fitted on predictions for folds that the classifier was not trained
# on. Temperature scaling changes no predicted class. The classifier is the same, apart
# from what the calibrator makes of its probabilities.

calibrated = Pipeline(
    [
        ("scale", StandardScaler()),
        ("classify", CalibratedClassifier(GaussianNB(), TemperatureScaling())),
    ]
)
calibrated.fit(X_train, y_train)
print(f"accuracy {calibrated.score(X_test, y_test):.3f}")
print(f"ECE      {-ece_scorer(calibrated, X_test, y_test):.3f}")

# %%
# Classifier and calibrator tuned together
# ----------------------------------------
#
# A grid may hold calibrators as well as parameters of the classifier. The log-loss
# chooses, since it rewards a classifier for being right as well as for being honest;
# the calibration error is recorded beside it.

search = GridSearchCV(
    calibrated,
    {
        "classify__estimator__var_smoothing": [1e-9, 1e-3, 1e-1],
        "classify__calibrator": [
            TemperatureScaling(),
            EnsembleTemperatureScaling(),
            StructuredMatrixScaling(),
        ],
    },
    scoring={"log_loss": "neg_log_loss", "ece": ece_scorer},
    refit="log_loss",
    cv=3,
)
search.fit(X_train, y_train)
for name, value in search.best_params_.items():
    print(f"{name} = {value}")
print(f"accuracy {search.best_estimator_.score(X_test, y_test):.3f}")
print(f"ECE      {-ece_scorer(search.best_estimator_, X_test, y_test):.3f}")

# %%
# Reliability diagrams
# --------------------
#
# Accuracy against confidence on the test samples. The distance from the diagonal is the
# gap that the ECE averages; the histogram below shows where the samples are.

displays = ReliabilityDisplay.compare(
    y_test,
    {
        "naive Bayes": plain.predict_proba(X_test),
        "temperature": calibrated.predict_proba(X_test),
        "tuned": search.predict_proba(X_test),
    },
)
