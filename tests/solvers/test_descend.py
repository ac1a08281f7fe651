"""The loop, the line search and the jitter that the solvers share."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib._solvers._descend import backtrack, descend, jittered
from skcalib._solvers._result import CONVERGED, Result


class Halving(NamedTuple):
    """A step to half of where one is, which is also what is left."""

    left: float


def test_a_descent_ends_where_no_more_than_tol_is_left():
    found = descend(8.0, Halving, lambda step: step.left / 2, tol=1.0, max_iter=9)
    assert found == (1.0, 4, CONVERGED)


def test_a_descent_reports_its_limit_of_steps():
    point, n_iter, message = descend(
        8.0, Halving, lambda step: step.left / 2, tol=1.0, max_iter=2
    )
    assert (point, n_iter) == (2.0, 2)
    assert message == "max_iter=2 was reached"
    assert not Result(np.zeros(1), point, n_iter, message).converged


def test_a_descent_stays_where_there_is_no_next_point():
    def go(step):
        return step.left / 2 if step.left > 3 else "there is a wall"

    assert descend(8.0, Halving, go, tol=0.0, max_iter=9) == (2.0, 3, "there is a wall")


def lengths_tried(loss_at, **options):
    tried = []

    def at(length):
        tried.append(length)
        return loss_at(length), None

    found = backtrack(at, 0.0, 1.0, **options)
    return tried, None if found is None else found[0]


def test_a_step_is_shortened_to_the_minimum_of_the_parabola():
    # From slope -1 at the start; the minimum lies at 0.25.
    tried, length = lengths_tried(lambda s: 2 * s**2 - s, shortest=0.1)
    assert tried == [1.0, 0.25]
    assert length == 0.25


def test_without_a_shortest_share_steps_are_halved():
    tried, length = lengths_tried(lambda s: 8 * s**2 - s)
    assert tried == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert length == 0.0625


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_where_the_loss_is_not_finite_the_step_keeps_the_shortest_share(value):
    tried, length = lengths_tried(lambda s: value if s > 0.2 else -s, shortest=0.1)
    assert tried == [1.0, 0.1]
    assert length == 0.1


def test_a_step_must_bring_a_share_of_what_its_slope_promises():
    # A fall of 9e-5 of the promise is too little.
    tried, length = lengths_tried(lambda s: -9e-5 * s, max_trials=3)
    assert (len(tried), length) == (3, None)
    assert lengths_tried(lambda s: -1.1e-4 * s) == ([1.0], 1.0)


def test_no_step_is_tried_below_the_least_length():
    tried, length = lengths_tried(lambda s: 1.0, least=0.2)
    assert tried == [1.0, 0.5, 0.25]
    assert length is None


def test_jitter_makes_a_matrix_positive_definite_and_no_more_than_that():
    indefinite = np.array([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1.0]])
    root = jittered(indefinite.copy(), 1e-10, np.linalg.cholesky)
    # Three attempts: 1e-10, 1e-8 and 1e-6 are added.
    raised = indefinite + (1e-10 + 1e-8 + 1e-6) * np.eye(2)
    assert_allclose(root @ root.T, raised, rtol=1e-12)
