"""Groups of rows that belong together, in the folds that a calibrator draws."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GroupKFold

from skcalib import calibrate
from skcalib._validation import make_splits
from skcalib.calibrators import (
    DirichletCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    ProbabilityFloor,
    TemperatureScaling,
    VennAbersCalibration,
)
from skcalib.datasets import make_logits
from skcalib.meta import PriorShift
from skcalib.model_selection import CalibratorSearch, compare_calibrators
from tests.shared.every_calibrator import identify

VIDEO = np.repeat(np.arange(40), 5)
FOLDING = [
    MatrixScaling(cv=3),
    MatrixScaling(off_diagonal_penalty=1, intercept_penalty=1, average_folds=True),
    DirichletCalibration(cv=3, intercept_penalty=1.0),
    VennAbersCalibration(cv=4),
]


def draw_frames():
    """Draw the logits of 40 videos, five frames each that are nearly equal."""
    logits, y = make_logits(40, 4, random_state=1)
    noise = np.random.default_rng(0).normal(size=(200, 4))
    return logits[VIDEO] + 0.01 * noise, y[VIDEO]


def with_folds_of_videos(calibrator):
    """Return a clone that is given the folds which it should draw."""
    logits, y = draw_frames()
    splits = make_splits(calibrator.cv, logits, y, np.ones(200), 0, VIDEO)
    return clone(calibrator).set_params(cv=splits)


@pytest.mark.parametrize("calibrator", FOLDING, ids=identify)
def test_folds_keep_a_group_together(calibrator):
    logits, y = draw_frames()
    by_hand = with_folds_of_videos(calibrator).fit(logits, y)
    told = clone(calibrator).fit(logits, y, groups=VIDEO)
    assert_array_equal(told.predict_proba(logits), by_hand.predict_proba(logits))
    blind = clone(calibrator).fit(logits, y)
    assert (blind.predict_proba(logits) != told.predict_proba(logits)).any()


@pytest.mark.parametrize("wrap", [ProbabilityFloor, OrderPreservingScaling, PriorShift])
def test_a_calibrator_within_another_is_told_of_the_groups(wrap):
    logits, y = draw_frames()
    told = wrap(MatrixScaling(cv=3)).fit(logits, y, groups=VIDEO)
    by_hand = wrap(with_folds_of_videos(MatrixScaling(cv=3))).fit(logits, y)
    assert_array_equal(told.predict_proba(logits), by_hand.predict_proba(logits))


def test_a_candidate_of_a_search_is_told_of_the_groups():
    logits, y = draw_frames()
    folding = MatrixScaling(cv=3)
    search = CalibratorSearch([folding], cv=2).fit(logits, y, groups=VIDEO)
    alone = clone(folding).fit(logits, y, groups=VIDEO)
    assert search.best_calibrator_.cv_losses_ == alone.cv_losses_
    train, test = make_splits(2, logits, y, np.ones(200), 0, VIDEO)[0]
    part = clone(folding).fit(logits[train], y[train], groups=VIDEO[train])
    splits = [(train, test)]
    judged = CalibratorSearch([folding], cv=splits).fit(logits, y, groups=VIDEO)
    own = part.predict_proba(logits[test])[np.arange(test.size), y[test]]
    found = judged.cv_results_["mean_test_score"][0]
    assert found == pytest.approx(np.log(own).mean())


def test_calibrate_and_a_comparison_tell_of_the_groups():
    logits, y = draw_frames()
    folding = MatrixScaling(cv=3)
    options = {"groups": VIDEO, "calibrator": folding, "n_bootstrap": 0}
    result = calibrate(logits=logits, y=y, **options)
    alone = clone(folding).fit(logits, y, groups=VIDEO)
    assert result.calibrator.cv_losses_ == alone.cv_losses_
    new, true = make_logits(300, 4, random_state=2)
    table = compare_calibrators(
        {"drawn": folding, "given": with_folds_of_videos(folding)},
        logits,
        y,
        X_test=new,
        y_test=true,
        groups=VIDEO,
    ).to_dict()
    assert table["drawn"]["nll"] == table["given"]["nll"]


def test_rows_of_shares_are_kept_together_in_groups():
    logits, y = draw_frames()
    shares = 0.8 * np.eye(4)[y] + 0.05
    told = MatrixScaling(cv=GroupKFold(3)).fit(logits, shares, groups=VIDEO)
    splits = list(GroupKFold(3).split(logits, y, VIDEO))
    by_hand = MatrixScaling(cv=splits).fit(logits, shares)
    assert told.cv_losses_ == by_hand.cv_losses_


@pytest.mark.parametrize(
    "calibrator",
    [
        VennAbersCalibration(),
        MatrixScaling(off_diagonal_penalty=1.0, intercept_penalty=1.0),
        ProbabilityFloor(TemperatureScaling()),
    ],
    ids=identify,
)
def test_two_groups_do_for_a_calibrator_that_draws_no_folds(calibrator):
    logits, y = draw_frames()
    options = {"calibrator": calibrator, "groups": VIDEO < 20, "n_bootstrap": 0}
    result = calibrate(logits=logits, y=y, **options)
    assert result.held_out.how.endswith("cross-fitted in 2 folds")


def test_a_candidate_that_is_fitted_to_one_group_draws_folds_of_its_rows():
    logits, y = draw_frames()
    search = CalibratorSearch([TemperatureScaling(), MatrixScaling(cv=2)], cv=2)
    search.fit(logits, y, groups=VIDEO < 20)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_groups_that_are_not_one_a_row_are_refused():
    logits, y = draw_frames()
    with pytest.raises(ValueError, match=r"groups has shape \(199,\); it needs one"):
        MatrixScaling().fit(logits, y, groups=VIDEO[1:])
    with pytest.raises(ValueError, match="groups holds one group only: 3"):
        MatrixScaling().fit(logits, y, groups=np.full(200, 3))


def test_groups_of_dask_collections_are_refused():
    array = pytest.importorskip("dask.array")
    logits, y = draw_frames()
    logits, y = array.from_array(logits, (100, 4)), array.from_array(y, 100)
    with pytest.raises(ValueError, match="folds of its rows know no groups"):
        MatrixScaling().fit(logits, y, groups=VIDEO)
