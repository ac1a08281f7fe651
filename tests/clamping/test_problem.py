"""The calibration set in front of a network, whole or in part."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._descent import NetworkLoss  # noqa: E402
from skcalib.clamping._linearised import linearise_again  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import Channel, Full  # noqa: E402
from skcalib.clamping._problem import Problem  # noqa: E402

pytestmark = pytest.mark.torch

SHAPE = (2, 4, 4)
ROWS = np.array([3, 29, 8, 15, 4, 21, 22, 0, 17, 11])


def make(rows=None, gamma=1.0):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(32, 3), torch.nn.Tanh()
    ).double()
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(30, *SHAPE)), rng.integers(0, 3, 30)
    weight = rng.uniform(1, 2, 30)
    rows = np.arange(30) if rows is None else rows
    network = open_network(module)
    inputs = Inputs(X[rows], network, 7)
    objective = Objective(network, inputs, codes[rows], weight[rows], gamma=gamma)
    return Problem(objective, objective.logits(), "joint")


@pytest.mark.parametrize("nested", [False, True])
def test_some_rows_are_a_problem_like_any_other(nested):
    part = make().within(ROWS)
    if nested:
        order = np.random.default_rng(1).permutation(30)
        part = make().within(order).within(np.argsort(order)[ROWS])
    alone = make(ROWS)
    delta = Full(SHAPE).at(np.random.default_rng(2).normal(size=SHAPE))
    some = np.array([6, 0, 2])
    assert part.shape == alone.shape
    assert_array_equal(part.codes, alone.codes)
    assert_array_equal(part.weight, alone.weight)
    assert_allclose(part.logits, alone.logits, rtol=1e-12)
    assert part.input_variance == pytest.approx(alone.input_variance)
    temperature = part.plain_temperature.x[0]
    assert temperature == pytest.approx(alone.plain_temperature.x[0])
    assert_allclose(part.pull(temperature), alone.pull(temperature))
    found, expected = (p.jacobian(Channel(SHAPE)) for p in (part, alone))
    assert_allclose(found.values, expected.values, atol=1e-7)
    assert_array_equal(found.pools.place, expected.pools.place)
    for rows in (None, some):
        found, expected = (p.perturbed_logits(delta, rows) for p in (part, alone))
        assert_allclose(found, expected, rtol=1e-12)
        for ours, theirs in zip(
            part.evaluate(delta, 0.3, rows),
            alone.evaluate(delta, 0.3, rows),
            strict=True,
        ):
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
    for ours, theirs in zip(part.splits(2, 0), alone.splits(2, 0), strict=True):
        assert_array_equal(np.concatenate(ours), np.concatenate(theirs))


def test_another_exponent_shares_the_network_and_changes_the_loss_alone():
    problem = make()
    twin, fresh = problem.with_gamma(3.0), make(gamma=3.0)
    assert twin.objective.network is problem.objective.network
    assert twin.logits is problem.logits
    assert (problem.gamma, twin.gamma) == (1.0, 3.0)
    assert twin.mean_loss(twin.logits, 2.0) == fresh.mean_loss(fresh.logits, 2.0)
    nothing = Full(SHAPE).at(np.zeros(SHAPE))
    losses = [p.evaluate(nothing, 0.1)[1] for p in (problem, twin, fresh)]
    assert losses[0] != losses[1] == losses[2]


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_at_its_point_a_linear_model_is_the_network(gamma):
    problem, basis = make(gamma=gamma), Full(SHAPE)
    x = np.append(np.random.default_rng(3).normal(size=32) / 2, 0.3)
    loss = NetworkLoss(problem, basis, 0.1)
    value, gradient = loss(x)
    linear, point, weight, hessian = linearise_again(problem, basis, x, loss.logits)
    found = linear.evaluate(point, weight, 0.1)
    assert found[0] == pytest.approx(value, rel=1e-6)
    assert_allclose(found[1], gradient, atol=1e-6)
    assert_allclose(linear.logits(x[:-1]), loss.logits, atol=1e-6)
    step = 1e-4 * np.eye(33)[0]
    above = linear.evaluate(x + step, weight, 0.0)[1]
    below = linear.evaluate(x - step, weight, 0.0)[1]
    slope = (above - below)[0] / 2e-4
    assert hessian[0, 0] == pytest.approx(slope, rel=1e-3 if gamma == 0 else 0.5)
