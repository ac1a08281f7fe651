"""Choices follow the one-standard-error rule, and cost what they should."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping  # noqa: E402
from skcalib.clamping._selection import Candidate, LogLossScore, Table  # noqa: E402
from skcalib.clamping._spans import (  # noqa: E402
    channel_axis,
    columns_within,
    open_basis,
    spans_to_try,
)

pytestmark = pytest.mark.torch


def candidate(log_odds, checked=True):
    """Return a candidate that gives the true class these log-odds, of two classes."""
    logits = np.column_stack([log_odds, np.zeros(len(log_odds))])
    n = len(log_odds)
    return Candidate(0, 4, 0.1, logits=logits, temperature=np.ones(n), checked=checked)


def table(candidates, weight=None):
    n = candidates[0].logits.shape[0]
    weight = np.ones(n) if weight is None else weight
    splits = [(None, np.arange(n))]
    result = Table(LogLossScore(), np.zeros(n, dtype=int), weight, splits)
    for each in candidates:
        result.add(each)
    return result


def test_the_first_that_the_best_does_not_beat_is_chosen():
    rng = np.random.default_rng(0)
    plain = rng.normal(1, 1, 400)
    noisy = candidate(plain + rng.normal(0.01, 1, 400))
    better = candidate(plain + 0.5)
    hardly = candidate(plain + 0.5 + rng.normal(0.001, 0.1, 400))
    simple = candidate(plain)
    assert table([simple, noisy]).choose() is simple
    assert table([simple, better, hardly]).choose() is better
    assert table([simple, better, hardly]).choose("best") in (better, hardly)


@pytest.mark.parametrize(("n_errors", "wins"), [(0.99, False), (1.01, True)])
def test_the_best_has_to_win_by_more_than_one_standard_error(n_errors, wins):
    rng = np.random.default_rng(0)
    codes, noise = np.zeros(400, dtype=int), rng.normal(size=400)
    simple = candidate(rng.normal(1, 1, 400))
    # What is added to the score of a row is added to the logarithm of its probability.
    score = LogLossScore()(simple, codes, None, None) - 5
    simple = candidate(log_odds_of(score))
    noise = 0.1 * (noise - noise.mean()) / noise.std(ddof=1)
    complex_one = candidate(log_odds_of(score + noise + 0.1 * n_errors / 20))
    both = table([simple, complex_one])
    mean, error = both.gain(complex_one, simple)
    assert mean / error == pytest.approx(n_errors)
    assert both.choose() is (complex_one if wins else simple)
    assert both.helps(complex_one, simple) == wins


def log_odds_of(log_proba):
    return log_proba - np.log(-np.expm1(log_proba))


def test_candidates_that_the_network_has_not_judged_are_not_chosen():
    plain = np.random.default_rng(0).normal(1, 1, 400)
    simple, better = candidate(plain), candidate(plain + 1, checked=False)
    assert table([simple, better]).choose() is simple


def test_the_error_is_that_of_the_paired_difference_and_of_repeated_rows():
    rng = np.random.default_rng(0)
    first, second = candidate(rng.normal(size=50)), candidate(rng.normal(size=50))
    weight = rng.integers(0, 4, 50)
    mean, error = table([first, second], weight).gain(second, first)
    rows = np.repeat(np.arange(50), weight)
    score = LogLossScore()
    difference = score(second, np.zeros(50, int), None, None)
    difference = (difference - score(first, np.zeros(50, int), None, None))[rows]
    assert mean == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std(ddof=1) / len(rows) ** 0.5)


def test_small_spans_are_part_of_large_ones():
    shape = (3, 10, 12)
    small, large = open_basis(4, shape), open_basis(8, shape)
    theta = np.random.default_rng(0).normal(size=small.dim)
    inside = np.zeros(large.dim)
    inside[columns_within(small, large)] = theta
    assert_allclose(large.expand(inside), small.expand(theta), atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "names"),
    [((3, 32, 32), [4, 8]), ((5,), ["full"]), ((1, 4, 4), [4]), ((6, 40), [4, 8])],
)
def test_spans_that_are_tried(shape, names):
    assert [name for name, _ in spans_to_try("auto", shape)] == names


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 32, 32), 0), ((32, 32, 3), 2), ((1, 28, 28), 0), ((9,), 0)]
)
def test_the_axis_of_the_channels(shape, axis):
    assert channel_axis(shape) == axis


class Counting:
    """A network that counts the rows it passes forward and backward."""

    def __init__(self, module):
        self.module = module
        self.rows = 0

    def __call__(self, x):
        self._count(x)
        if x.requires_grad:
            x.register_hook(self._count)
        return self.module(x)

    def _count(self, values):
        self.rows += values.shape[0]


def over_confident(n=1500):
    """Draw images for a small network whose logits are three times too large."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.AvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 3),
    )
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2, 8, 8)).astype(np.float32)
    with torch.no_grad():
        logits = 30 * module(torch.from_numpy(X)).numpy()
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return lambda x: 90 * module(x), X + np.float32(0.1), y


def passes(network, X, y, **options):
    """Fit; return the estimator and its passes of the whole set, both ways."""
    counting = Counting(network)
    nc = NeuralClamping(counting, temperature_objective="joint", **options).fit(X, y)
    return nc, counting.rows / len(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("gamma", [0, 1])
@pytest.mark.parametrize(
    ("preset", "epochs", "factor"), [("paper", 1, 50), ("reference", 4, 20)]
)
def test_a_preset_is_undercut_for_a_fraction_of_its_passes(
    preset, epochs, factor, gamma
):
    network, X, y = over_confident()
    slow, slow_passes = passes(network, X, y, preset=preset, gamma=gamma)
    assert slow.n_iter_ == 100
    for solver in ("lbfgs", "sgd"):
        options = {"solver": solver, "perturbation": "full", "max_iter": epochs}
        options |= {"penalty": slow.penalty_, "validation_fraction": None}
        fast, fast_passes = passes(network, X, y, gamma=gamma, **options)
        assert fast.loss_ <= slow.loss_
        assert factor * fast_passes <= slow_passes


@pytest.mark.parametrize("gamma", [0, 1])
def test_the_choice_costs_a_jacobian_and_an_epoch_for_each_candidate(gamma):
    network, X, y = over_confident()
    nc, found = passes(network, X, y, gamma=gamma)
    judged = nc.selection_["by_network"].sum() - 1
    # The probe, the logits and the Jacobian: one pass forward, one back for each class.
    assert found <= 1 + 1 + (1 + 3) + judged + 2 * nc.n_iter_
