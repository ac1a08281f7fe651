"""Warnings point at the line of the user's that led to them."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, current_thread, main_thread

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcalib import BetaCalibration, TemperatureScaling, calibrate
from skcalib._warnings import quiet, warn
from skcalib.calibrators import VectorScaling
from skcalib.model_selection import CalibratorSearch


@pytest.mark.parametrize(
    "estimator",
    [
        TemperatureScaling(prior=None),
        BetaCalibration(max_iter=1),
        make_pipeline(StandardScaler(), TemperatureScaling(prior=None)),
    ],
    ids=["one call deep", "by its own fit", "in a pipeline"],
)
def test_a_fit_that_stops_early_warns_with_the_line_that_fits(estimator):
    separable = np.array([[2.0, -2.0], [1.0, -1.0], [-1.0, 1.0], [-2.0, 2.0]])
    with pytest.warns(UserWarning, match="stopped early") as caught:
        estimator.fit(separable, [0, 0, 1, 1])
    assert [warning.filename for warning in caught] == [__file__]


def warns():
    """Whether a warning of a fit that stops early leaves this thread."""
    try:
        warn("stopped early", ConvergenceWarning)
    except ConvergenceWarning:  # As pytest is told to take all warnings.
        return True
    return False


def test_a_quiet_block_leaves_out_its_categories_and_those_of_blocks_around_it():
    with quiet(FutureWarning, RuntimeWarning):
        assert warns()
        with quiet(ConvergenceWarning):
            assert not warns()
            warn("renamed", FutureWarning)
        assert warns()
    with pytest.raises(FutureWarning):
        warn("renamed", FutureWarning)


def test_quiet_blocks_of_two_threads_may_overlap():
    with ThreadPoolExecutor(1) as pool:
        here, there = ExitStack(), ExitStack()
        pool.submit(there.enter_context, quiet(ConvergenceWarning)).result()
        assert warns()
        here.enter_context(quiet(ConvergenceWarning))
        pool.submit(there.close).result()
        assert pool.submit(warns).result()
        assert not warns()
        here.close()
    assert warns()


def search(calibrator, X, y):
    CalibratorSearch([VectorScaling(), calibrator], rule="stack", cv=2).fit(X, y)


def judge(calibrator, X, y):
    calibrate(logits=X, y=y, calibrator=calibrator, cv=2, n_bootstrap=0)


@pytest.mark.parametrize(
    ("work", "of_all"),
    # Where a search judges, scikit-learn changes the filters itself.
    [(search, True), (judge, True), (judge, False)],
)
def test_fits_of_two_threads_leave_the_filters_of_warnings_alone(work, of_all):
    """A first fit, to all rows or to a part, ends while a second one is under way."""
    rng = np.random.default_rng(0)
    X = rng.normal(scale=2, size=(60, 3))
    y = np.arange(60) % 3
    first_began, second_began = Event(), Event()

    class Meeting(TemperatureScaling):
        def fit(self, X, y, sample_weight=None):
            if (len(X) == 60) == of_all:
                meet()
            return super().fit(X, y, sample_weight)

    def meet():
        if current_thread() is main_thread():
            second_began.set()
            first.result(60)
        else:
            first_began.set()
            assert second_began.wait(60)

    before = list(warnings.filters)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(work, Meeting(), X, y)
        assert first_began.wait(60)
        work(Meeting(), X, y)
    assert warnings.filters == before
