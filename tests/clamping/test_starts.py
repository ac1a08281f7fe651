"""Where a perturbation starts, Theorem 3.2 included."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping import _starts  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402

pytestmark = pytest.mark.torch


def objective_of(X, function=lambda x: 2 * x.flatten(1)[:, :3]):
    network = open_network(function)
    return Objective(network, Inputs(X, network, 16), np.zeros(len(X), dtype=int))


def draw(n=500, shape=(3,), seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.7, (n, *shape))


def entropy(X):
    log_p = torch.log_softmax(torch.from_numpy(2 * X), dim=1)
    return float(-(log_p.exp() * log_p).sum())


def test_the_entropy_gradient_is_that_of_differences():
    X = draw(40)
    found = _starts.entropy_gradient(objective_of(X))
    for j, step in enumerate(1e-5 * np.eye(3)):
        expected = (entropy(X + step) - entropy(X - step)) / 2e-5
        assert found[j] == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("block", [1 << 24, 1000, 1])
def test_quantiles_are_those_of_the_whole_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr(_starts, "BLOCK_ELEMENTS", block)
    X = draw(200, (2, 3)).astype(np.float32)
    low, high = _starts.coordinate_quantiles(objective_of(X).inputs)
    assert_array_equal(low, np.quantile(X, 0.01, axis=0, method="lower"))
    assert_array_equal(high, np.quantile(X, 0.99, axis=0, method="higher"))


def test_the_data_driven_start_moves_into_the_free_part_of_the_range():
    X = draw()
    objective = objective_of(X)
    delta = _starts.data_driven(objective, (0, 1))
    slope = _starts.entropy_gradient(objective)
    assert_array_equal(np.sign(delta), np.sign(slope))
    # There is room for 0.2 and more; a hundredth of the range is the cap.
    assert_allclose(np.abs(delta), 0.01)
    tight = _starts.data_driven(objective, (0.195, 0.705))
    low, high = _starts.coordinate_quantiles(objective.inputs)
    room = np.where(slope > 0, 0.705 - high, low - 0.195)
    assert_allclose(np.abs(tight), np.minimum(room, 0.0051), rtol=1e-5)


def test_inputs_that_fill_their_range_leave_no_room():
    X = np.random.default_rng(0).choice([0.0, 1.0], (500, 3))
    with pytest.warns(UserWarning, match="zero everywhere"):
        delta = _starts.data_driven(objective_of(X), (0, 1))
    assert not delta.any()


def test_the_random_start_has_a_seed_and_the_published_scale():
    X = draw(20, (3, 30, 30))
    y = np.arange(20) % 3

    def fit(seed):
        nc = NeuralClamping(
            lambda x: x.mean(dim=(2, 3)),
            start="random",
            solver="fixed_delta",
            random_state=seed,
        )
        return nc.fit(X, y).delta_

    assert_array_equal(fit(0), fit(0))
    assert np.abs(fit(1) - fit(0)).max() > 1e-3
    assert fit(0).std() == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("perturbation", ["channel", "filter", "gain", 2, "auto"])
def test_a_fixed_start_is_a_full_tensor_whatever_was_to_be_learned(perturbation):
    X = draw(20, (3, 4, 4))
    nc = NeuralClamping(
        lambda x: x.mean(dim=(2, 3)),
        start="random",
        solver="fixed_delta",
        perturbation=perturbation,
    ).fit(X, np.arange(20) % 3)
    assert nc.perturbation_ == "full"
    assert nc.delta_[0].std() > 0
    assert nc.filter_ is None


@pytest.mark.parametrize("perturbation", ["channel", "gain"])
def test_a_perturbation_that_was_learned_and_then_fixed_keeps_its_name(perturbation):
    torch.manual_seed(0)
    X = draw(60, (3, 4, 4)).astype("f")
    y = X.sum(axis=(2, 3)).argmax(axis=1)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    nc = NeuralClamping(
        net, perturbation=perturbation, penalty=0.01, gamma=0, warm_start=True
    )
    delta = nc.fit(X, y).delta_
    nc.set_params(solver="fixed_delta").fit(X, y)
    assert nc.perturbation_ == perturbation
    assert_allclose(nc.delta_, delta, rtol=1e-5)


def test_the_theorem_to_the_letter_takes_all_the_room_that_extremes_leave():
    X = draw()
    objective = objective_of(X)
    delta = _starts.data_driven(objective, (0, 1), capped=False)
    slope = _starts.entropy_gradient(objective)
    room = np.where(slope > 0, 1 - X.max(axis=0), -X.min(axis=0))
    assert_allclose(delta, room, rtol=1e-6)
    # Of all steps that keep the inputs in the range it is the longest along the slope.
    assert delta @ slope == pytest.approx(np.abs(slope) @ np.abs(room), rel=1e-6)


@pytest.mark.parametrize("start", ["data_driven", "theorem"])
def test_weights_are_repetitions_in_a_start(start):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 6)).astype("f"), rng.integers(0, 3, 60)
    weight = np.where(X[:, 0] > 0.6, 3, 0)
    rows = np.repeat(np.arange(60), weight)
    clamping = NeuralClamping(
        net, gamma=0, solver="fixed_delta", start=start, feasible_range=(-0.5, 1.5)
    )
    weighted = clamping.fit(X, y, sample_weight=weight).delta_
    np.testing.assert_allclose(weighted, clamping.fit(X[rows], y[rows]).delta_)


def test_an_infinite_end_of_the_range_is_none():
    torch.manual_seed(0)
    X = np.random.default_rng(0).random((60, 6)).astype("f")
    clamping = NeuralClamping(
        torch.nn.Linear(6, 3), gamma=0, solver="fixed_delta", start="data_driven",
        feasible_range=(0, np.inf),
    )  # fmt: skip
    assert np.isfinite(clamping.fit(X, np.arange(60) % 3).delta_).all()


def test_a_solver_without_gradients_takes_no_start():
    clamping = NeuralClamping(
        torch.nn.Linear(6, 3), gamma=0, solver="gradient_free", start=np.ones(6)
    )
    with pytest.raises(ValueError, match="begins with no perturbation"):
        clamping.fit(np.ones((30, 6), "f"), np.arange(30) % 3)
