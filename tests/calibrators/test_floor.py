import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

import skcalib
from skcalib import (
    CalibratorSearch,
    IsotonicCalibration,
    ProbabilityFloor,
    StructuredMatrixScaling,
    TemperatureScaling,
    logits_from_proba,
)
from skcalib.calibrators._floor import DEEP_FLOORS, FLOORS

TINY = FLOORS[0]


def draw_forest(n_samples, seed, n_trees=100):
    """Draw shares of trees that vote, and labels that the vote is too sure of."""
    rng = np.random.default_rng(seed)
    proba = softmax(rng.normal(scale=4, size=(n_samples, 5)), axis=1)
    votes = np.stack([rng.multinomial(n_trees, p) for p in proba]) / n_trees
    mixed = 0.97 * proba + 0.03 / 5
    y = np.stack([rng.multinomial(1, p) for p in mixed]).argmax(axis=1)
    return votes, y


def draw_bayes(n_samples, seed, n_classes=4):
    """Draw log-odds of hundreds, as of a product over many features, and labels."""
    rng = np.random.default_rng(seed)
    logits = 12 * rng.standard_t(2, size=(n_samples, n_classes))
    noise = 8 * rng.gumbel(size=logits.shape)
    return logits, (np.clip(logits, -60, 60) + noise).argmax(axis=1)


def test_half_a_tree_is_learned_of_a_forest_and_pays():
    votes, y = draw_forest(2000, 0)
    test, y_test = draw_forest(4000, 1)
    logits, test = logits_from_proba(votes), logits_from_proba(test)
    learned = ProbabilityFloor().fit(logits, y)
    assert learned.floor_ == 5e-3
    plain = TemperatureScaling().fit(logits, y)
    gain = log_loss(y_test, plain.predict_proba(test))
    gain -= log_loss(y_test, learned.predict_proba(test))
    assert gain > 0.02


def test_a_network_keeps_what_its_small_probabilities_say(calibration_set):
    logits, y = calibration_set
    learned = ProbabilityFloor().fit(logits, y)
    plain = TemperatureScaling().fit(logits, y)
    loss = log_loss(y, learned.predict_proba(logits))
    assert loss < log_loss(y, plain.predict_proba(logits)) + 1e-3
    assert learned.floor_ is None or learned.floor_ <= 1e-3


def test_the_floor_is_the_highest_of_those_that_fit_alike():
    # The smallest probability is one in a million, and the class never comes.
    logits = np.log([[0.7, 0.3 - 1e-6, 1e-6], [0.3 - 1e-6, 0.7, 1e-6]] * 50)
    y = [0, 1] * 35 + [1, 0] * 15
    assert ProbabilityFloor().fit(logits, y).floor_ == 5e-3


@pytest.mark.parametrize("inner", [TemperatureScaling(), IsotonicCalibration()])
def test_the_map_is_floor_then_calibrator(inner):
    votes, y = draw_forest(500, 0)
    logits = logits_from_proba(votes)
    learned = ProbabilityFloor(inner).fit(logits, y)
    floored = np.maximum(log_softmax(logits, axis=1), np.log(learned.floor_))
    expected = type(inner)().fit(floored, y).predict_proba(floored)
    assert_allclose(learned.predict_proba(logits), expected, atol=1e-9)
    # A row alone, moved by a constant, is mapped alike.
    assert_allclose(learned.predict_proba(logits[:1] + 3.7), expected[:1], atol=1e-9)
    assert learned.has_logits == inner.has_logits


def test_what_needs_no_floor_is_left_as_it_is():
    logits = np.log([[0.6, 0.4], [0.3, 0.7]] * 20)
    learned = ProbabilityFloor().fit(logits, [0, 1, 1, 1] * 10)
    assert learned.floor_ is None
    plain = TemperatureScaling().fit(logits, [0, 1, 1, 1] * 10)
    assert_array_equal(learned.predict_proba(logits), plain.predict_proba(logits))


def test_a_search_behind_the_floor_predicts_what_it_has_chosen(calibration_set):
    logits, y = calibration_set
    search = CalibratorSearch([TemperatureScaling(), IsotonicCalibration()])
    floored = ProbabilityFloor(search).fit(logits, y)
    assert_array_equal(
        floored.predict(logits), floored.predict_proba(logits).argmax(axis=1)
    )
    assert hasattr(floored, "decision_function") == floored.calibrator_.has_logits


def test_a_floor_is_saved_and_exported(tmp_path):
    votes, y = draw_forest(300, 0)
    logits = logits_from_proba(votes)
    learned = ProbabilityFloor(StructuredMatrixScaling()).fit(logits, y)
    assert learned.floor_ is not None
    skcalib.save(learned, tmp_path / "floor.json")
    loaded = skcalib.load(tmp_path / "floor.json")
    assert_array_equal(loaded.predict_proba(logits), learned.predict_proba(logits))
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from skcalib.export import to_onnx

    model = to_onnx(learned).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    name = session.get_inputs()[0].name
    served = session.run(None, {name: logits.astype(np.float32)})
    proba = next(out for out in served if out.shape == logits.shape)
    assert_allclose(proba, learned.predict_proba(logits), atol=2e-6)


@pytest.mark.parametrize("structure", ["matrix", "vector"])
def test_structured_scaling_is_not_led_by_a_few_rows_of_logits_far_apart(structure):
    X, y = draw_bayes(2000, 0)
    test, y_test = draw_bayes(4000, 1)
    fitted = StructuredMatrixScaling(structure=structure).fit(X, y)
    assert fitted.floor_ in DEEP_FLOORS
    cut, cut_test = (
        np.maximum(log_softmax(z, axis=1), np.log(TINY)) for z in (X, test)
    )
    other = StructuredMatrixScaling(structure=structure).fit(cut, y)
    loss = log_loss(y_test, fitted.predict_proba(test))
    assert loss < log_loss(y_test, other.predict_proba(cut_test)) + 0.005


def test_structured_scaling_needs_no_floor_for_logits_in_other_units(calibration_set):
    logits, y = calibration_set
    assert StructuredMatrixScaling().fit(1e9 * logits, y).floor_ is None
