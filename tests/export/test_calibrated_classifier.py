"""CalibratedClassifier in ONNX: its classifier's model takes up its calibrator.

Converters of scikit-learn's own calibrated classifier get isotonic regression wrong by
up to 0.247 and fail on temperature and on FrozenEstimator.
"""

import numpy as np
import pytest
from every_calibrator import identify
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from skcalib import (
    BetaCalibration,
    CalibratedClassifier,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.export import calibrate_onnx_model, to_onnx, to_torch

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

CALIBRATORS = [
    TemperatureScaling(),
    VectorScaling(),
    BetaCalibration(),
    IsotonicCalibration(),
    IsotonicCalibration(method="strict_temperature"),
    IsotonicCalibration(method="top_label"),
]
every_calibrator = pytest.mark.parametrize("calibrator", CALIBRATORS, ids=identify)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32) / 16, y


def write_model(nodes, n_features, n_classes):
    """A model as converters write it: labels and probabilities."""
    element = onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [info("X", element, [None, n_features])],
        [
            info("label", onnx.TensorProto.INT64, [None]),
            info("probabilities", element, [None, n_classes]),
        ],
    )
    opsets = [
        onnx.helper.make_opsetid("", 17),
        onnx.helper.make_opsetid("ai.onnx.ml", 3),
    ]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def write_logistic_regression(classifier):
    binary = len(classifier.classes_) == 2
    coef, intercept = classifier.coef_, classifier.intercept_
    if binary:
        coef, intercept = np.vstack([-coef, coef]), np.hstack([-intercept, intercept])
    linear = onnx.helper.make_node(
        "LinearClassifier",
        ["X"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=coef.ravel().tolist(),
        intercepts=intercept.tolist(),
        classlabels_ints=classifier.classes_.tolist(),
        multi_class=0,
        post_transform="LOGISTIC" if binary else "SOFTMAX",
    )
    normalise = onnx.helper.make_node(
        "Normalizer", ["scores"], ["probabilities"], domain="ai.onnx.ml", norm="L1"
    )
    return write_model([linear, normalise], coef.shape[1], coef.shape[0])


def write_tree(classifier):
    tree, classes = classifier.tree_, classifier.classes_
    leaf = tree.children_left < 0
    leaves = np.flatnonzero(leaf)
    node = onnx.helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * tree.node_count,
        nodes_nodeids=list(range(tree.node_count)),
        nodes_featureids=np.maximum(tree.feature, 0).tolist(),
        nodes_values=np.where(leaf, 0, tree.threshold).tolist(),
        nodes_modes=["LEAF" if end else "BRANCH_LEQ" for end in leaf],
        nodes_truenodeids=np.maximum(tree.children_left, 0).tolist(),
        nodes_falsenodeids=np.maximum(tree.children_right, 0).tolist(),
        class_treeids=[0] * leaves.size * classes.size,
        class_nodeids=leaves.repeat(classes.size).tolist(),
        class_ids=np.tile(np.arange(classes.size), leaves.size).tolist(),
        class_weights=tree.value[leaves, 0].ravel().tolist(),
        classlabels_int64s=classes.tolist(),
        post_transform="NONE",
    )
    return write_model([node], classifier.n_features_in_, classes.size)


def run(model, X):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(["label", "probabilities"], {"X": X})


def assert_served_as_in_python(classifier, calibrator, write, X, y):
    fit, calibrate = slice(0, 900), slice(900, None)
    classifier.fit(X[fit], y[fit])
    if hasattr(classifier, "coef_"):
        # Their sums are exact in single precision, so that only the calibration is
        # compared: curves can be as steep as their samples are close.
        classifier.coef_ = (classifier.coef_ * 16).round() / 16
        classifier.intercept_ = classifier.intercept_.round()
    clf = CalibratedClassifier(FrozenEstimator(classifier), calibrator)
    clf.fit(X[calibrate], y[calibrate])
    model = calibrate_onnx_model(write(classifier), clf.calibrators_[0])
    label, served = run(model, X)
    assert_allclose(served, clf.predict_proba(X), atol=1e-6)
    assert_array_equal(label, clf.predict(X))


@every_calibrator
def test_a_frozen_classifier_of_ten_classes(calibrator, digits):
    logistic = LogisticRegression(C=100.0, max_iter=1000)
    assert_served_as_in_python(logistic, calibrator, write_logistic_regression, *digits)


@every_calibrator
def test_a_frozen_binary_classifier(calibrator, digits):
    X, y = digits
    logistic = LogisticRegression(C=100.0, max_iter=1000)
    y = (y % 2).astype(np.int64)
    assert_served_as_in_python(logistic, calibrator, write_logistic_regression, X, y)


@every_calibrator
def test_a_frozen_tree_with_its_zeros(calibrator, digits):
    tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=0)
    assert_served_as_in_python(tree, calibrator, write_tree, *digits)


@pytest.mark.parametrize("calibrator", [TemperatureScaling(), IsotonicCalibration()])
def test_a_cross_fitted_classifier(calibrator, digits):
    X, y = digits
    clf = CalibratedClassifier(LogisticRegression(max_iter=1000), calibrator)
    clf.fit(X, y)
    model = write_logistic_regression(clf.estimators_[0])
    _, served = run(calibrate_onnx_model(model, clf.calibrators_[0]), X)
    assert_allclose(served, clf.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("export", [to_onnx, to_torch])
def test_the_whole_is_no_map_of_logits_and_the_way_is_named(export, digits):
    clf = CalibratedClassifier(LogisticRegression(max_iter=1000)).fit(*digits)
    with pytest.raises(TypeError, match=r"calibrators_\[0\].*method=\"predict_proba\""):
        export(clf)
