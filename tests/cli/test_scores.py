"""Equal samples stay together where the command draws folds or a test part."""

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("onnxruntime")

from skcalib import IsotonicCalibration, TemperatureScaling
from skcalib.cli._judging import cross_fit, split_rows
from skcalib.cli._scores import Scores


@pytest.fixture
def repeated(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(300), 4))
    once, often = (Scores(logits[i], y[i], np.arange(4)) for i in (range(300), rows))
    return once, often, rows


def test_repeated_samples_are_judged_by_a_fit_without_their_copies(repeated):
    # Strict isotonic regression would know each by heart.
    losses = []
    for scores in repeated[:2]:
        held_out = cross_fit(IsotonicCalibration(method="strict"), scores, 5, 0)
        own = held_out.after[np.arange(len(scores.codes)), scores.codes]
        losses.append(-np.log(np.maximum(own, 1e-12)).mean())
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


def test_a_test_part_holds_no_copy_of_what_is_fitted_on(repeated):
    _, often, rows = repeated
    train, test = split_rows(often, 0.3, 0)
    assert np.sort(np.append(train, test)).tolist() == list(range(1200))
    assert not np.intersect1d(rows[train], rows[test]).size
    assert len(test) == 360


def test_inputs_tell_samples_apart_that_have_equal_logits():
    scores = Scores(
        np.zeros((40, 2)), np.arange(40) % 2, np.arange(2), inputs=np.eye(40)
    )
    train, test = split_rows(scores, 0.25, 0)
    assert (len(train), len(test)) == (30, 10)


def test_too_few_samples_of_a_class_to_cross_fit_are_named():
    logits = np.random.default_rng(0).normal(size=(9, 2))
    scores = Scores(logits, np.repeat([0, 1], [8, 1]), np.array(["cat", "dog"]))
    with pytest.raises(ValueError, match="one class only to fit on, 'cat'"):
        cross_fit(TemperatureScaling(), scores, 5, 0)
