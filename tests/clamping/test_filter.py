"""Filters of the inputs: their arithmetic, their bases, and what they mend."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

torch = pytest.importorskip("torch")

from skcalib import (  # noqa: E402
    NeuralClamping,
    NeuralClampingCV,
    StructuredMatrixScaling,
)
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._change import convolve, correlation  # noqa: E402
from skcalib.clamping._filter import Filter  # noqa: E402
from skcalib.clamping._linearised import linearise_again  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import (  # noqa: E402
    Channel,
    LowFrequency,
    channel_axis,
)
from skcalib.clamping._spans import canonical, spans_to_try, together  # noqa: E402

pytestmark = pytest.mark.torch

unfinished = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SHAPES = [(3, 6, 7), (6, 7, 3), (1, 6, 6), (2, 9), (5,), (2, 5, 6, 5)]
BLUR = np.array([[0.0, 0.15, 0.0], [0.15, 0.4, 0.15], [0.0, 0.15, 0.0]])


def moments(n_channels):
    rng = np.random.default_rng(3)
    return rng.normal(size=n_channels), rng.uniform(0.5, 2, n_channels)


def a_filter(shape, size=3, own=True, offset=None):
    size = size if len(shape) > 1 else 1
    axis = channel_axis(shape)
    offset = offset or Channel(shape)
    return Filter(shape, size, own, offset, *moments(shape[axis]))


def filtered_slowly(x, kernel, axis):
    """The formula in NumPy, channel by channel."""
    x = np.moveaxis(x, 1 + axis, 1)
    reach = [(0, 0), (0, 0), *((n // 2, n // 2) for n in kernel.shape[2:])]
    spatial = tuple(range(2, x.ndim))
    seen = np.pad(x, reach, mode="reflect")
    if spatial:
        seen = np.lib.stride_tricks.sliding_window_view(
            seen, kernel.shape[2:], axis=spatial
        )
    taps = tuple(range(x.ndim - len(seen.shape), 0))
    own = kernel.shape[1] == 1
    out = np.zeros_like(x)
    for o, i in np.ndindex(kernel.shape[:2]):
        weights = kernel[o, i]
        out[:, o] += (
            (seen[:, o if own else i] * weights).sum(axis=taps or None)
            if taps
            else seen[:, o if own else i] * weights
        )
    return np.moveaxis(out, 1, 1 + axis)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_convolution_is_that_of_the_formula(shape, own):
    rng = np.random.default_rng(0)
    axis = channel_axis(shape)
    c, n_axes = shape[axis], len(shape) - 1
    for size in (1, 3, 5):
        kernel = rng.normal(size=(c, 1 if own else c, *[size] * n_axes))
        x = rng.normal(size=(4, *shape))
        found = convolve(torch.from_numpy(x), torch.from_numpy(kernel), axis)
        assert_allclose(found, filtered_slowly(x, kernel, axis), atol=1e-12)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_correlation_is_the_transpose_of_the_convolution(shape, own):
    axis = channel_axis(shape)
    size = [3] * (len(shape) - 1)
    c = shape[axis]
    x, gradient = torch.randn(2, 4, *shape, dtype=torch.float64)
    kernel = torch.randn(c, 1 if own else c, *size, dtype=torch.float64)
    by_kernel = correlation(x, size, axis, own=own)(gradient)
    assert by_kernel.shape == (4, kernel.numel())
    rows = (convolve(x, kernel, axis) * gradient).flatten(1).sum(1)
    assert_allclose(by_kernel @ kernel.flatten(), rows, rtol=1e-10)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_coordinates_are_found_again_in_the_change(shape, own):
    basis = a_filter(shape, own=own)
    theta = np.random.default_rng(0).normal(size=basis.dim)
    change = basis.at(theta).change
    assert change.delta.shape == shape
    assert_allclose(basis.coordinates(change), theta, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_turn_about_the_mean_of_a_channel(shape):
    basis = a_filter(shape)
    theta = np.random.default_rng(0).normal(size=basis.dim)
    theta[-basis.offset.dim :] = 0
    axis = channel_axis(shape)
    along = [-1 if a == axis else 1 for a in range(len(shape))]
    mean = np.broadcast_to(moments(shape[axis])[0].reshape(along), shape)
    change = basis.at(theta).change.map(torch.from_numpy)
    assert_allclose(change(torch.from_numpy(mean[np.newaxis].copy())), 0, atol=1e-12)


def test_small_filters_are_part_of_large_ones():
    shape = (3, 8, 8)
    large = a_filter(shape, 5, own=False)
    x = torch.randn(2, *shape, dtype=torch.float64)
    for size, own in ((1, True), (3, True), (3, False), (5, True)):
        small = a_filter(shape, size, own)
        theta = np.random.default_rng(0).normal(size=small.dim)
        inside = np.zeros(large.dim)
        inside[large.columns_of(small)] = theta
        found, expected = (
            basis.at(values).change.map(torch.from_numpy)(x)
            for basis, values in ((large, inside), (small, theta))
        )
        assert_allclose(found, expected, atol=1e-12)
    assert a_filter(shape, 5).columns_of(a_filter(shape, 3, own=False)) is None
    with_cosines = a_filter(shape, 3, offset=LowFrequency(shape, 2))
    assert large.columns_of(with_cosines) is None
    with_more = a_filter(shape, 3, offset=LowFrequency(shape, 4))
    assert with_more.columns_of(with_cosines) is None


def smooth(shape, n_classes=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(int(np.prod(shape)), 6),
        torch.nn.Tanh(),
        torch.nn.Linear(6, n_classes),
    ).double()


def objective_of(shape, n_classes=4, **options):
    rng = np.random.default_rng(0)
    network = open_network(smooth(shape, n_classes))
    inputs = Inputs(rng.random((11, *shape)), network, 4)
    return Objective(network, inputs, rng.integers(0, n_classes, 11), **options)


@pytest.mark.parametrize("bounds", [None, (0.1, 0.8)])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape, own, bounds):
    objective = objective_of(shape, feasible_range=bounds)
    basis = a_filter(shape, own=own, offset=LowFrequency(shape, 2))
    theta, direction = 0.1 * np.random.default_rng(1).normal(size=(2, basis.dim))
    _, _, gradient, _ = objective.evaluate(basis.at(theta), 0.3)
    above, below = (
        objective.value(basis.at(theta + step * direction).change, 0.3)
        for step in (1e-6, -1e-6)
    )
    assert gradient @ direction == pytest.approx((above - below) / 2e-6, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [3, 400])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_jacobian_serves_all_spans(shape, n_classes, monkeypatch):
    # By backward passes, one a class; by forward-mode passes where these are fewer.
    objective = objective_of(shape, n_classes)
    problem = SimpleNamespace(
        shape=shape, channel_moments=moments(shape[channel_axis(shape)]), scale=None
    )
    spans = spans_to_try("auto", problem)
    whole = together(spans)
    assert whole.dim <= sum(basis.dim for _, basis in spans)
    rows = np.array([3, 10, 0])
    passes, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k)
    )
    jacobian = objective.jacobian(whole, rows=rows)
    assert len(passes) == (n_classes if n_classes < 2.5 * whole.dim else 0)
    for _, basis in spans:
        direction = np.random.default_rng(1).normal(size=basis.dim)
        above, below = (
            objective.logits(basis.at(step * direction).change, rows)
            for step in (1e-5, -1e-5)
        )
        part = jacobian[:, :, whole.columns_of(basis)]
        assert_allclose(part @ direction, (above - below) / 2e-5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("perturbation", "shape", "name"),
    [
        ("filter", (3, 8, 8), ("filter", 3, "depthwise")),
        ("filter", (7,), "gain"),
        (("filter", 1), (3, 8, 8), "gain"),
        (["filter", 5, "full"], (3, 8, 8), ("filter", 5, "full")),
        (("filter", 5, "full"), (1, 8, 8), ("filter", 5, "depthwise")),
        (("filter", 3, "full"), (7,), ("filter", 1, "full")),
        (("filter", 3, "full", "low_frequency"), (3, 8, 8), ("filter", 3, "full", 8)),
        ("low_frequency", (3, 8, 8), 8),
    ],
)
def test_what_a_perturbation_is_called(perturbation, shape, name):
    assert canonical(perturbation, shape) == name


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((5,), ["full", "gain"]),
        ((1, 4, 4), ["gain", ("filter", 3, "depthwise"), 4]),
        (
            (6, 40),
            ["gain", 4, ("filter", 3, "depthwise"), ("filter", 5, "depthwise"), 8],
        ),
        (
            (3, 32, 32),
            [
                "gain",
                ("filter", 3, "depthwise"),
                4,
                ("filter", 5, "depthwise"),
                ("filter", 3, "full"),
                8,
            ],
        ),
    ],
)
def test_spans_that_are_tried(shape, names):
    n_channels = shape[channel_axis(shape)]
    problem = SimpleNamespace(
        shape=shape, channel_moments=moments(n_channels), scale=None
    )
    assert [name for name, _ in spans_to_try("auto", problem)] == names


def detail_network(channels=1):
    """A network that lives on differences of neighbours; its logits are of size 3."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3),
        torch.nn.Tanh(),
        torch.nn.AvgPool2d(6),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    ).requires_grad_(False)
    usual = module(torch.randn(500, channels, 8, 8))
    mean, spread = usual.mean(0), usual.std(0)
    return lambda x: 3 * (module(x) - mean) / spread


def images(n=1200, channels=1, seed=0):
    """Images as the network knows them, and labels."""
    network = detail_network(channels)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, channels, 8, 8)).astype(np.float32)
    logits = network(torch.from_numpy(X)).double().numpy()
    return network, X, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def blurred(n=1200, channels=1, seed=0):
    """The same after a lens that blurs was put before the camera."""
    network, X, y = images(n, channels, seed)
    kernel = torch.from_numpy(BLUR).float().expand(channels, 1, 3, 3)
    return network, convolve(torch.from_numpy(X), kernel).numpy(), y


def log_loss(estimator, X, y):
    return -np.log(estimator.predict_proba(X)[np.arange(len(y)), y]).mean()


def test_a_blur_is_undone():
    network, X, y = blurred()
    _, X_test, y_test = blurred(seed=1)
    nc = NeuralClamping(network, gamma=0).fit(X, y)
    assert nc.perturbation_[0] == "filter"
    assert nc.filter_.shape[:2] == (1, 1)
    plain = NeuralClamping(network, gamma=0, solver="fixed_delta").fit(X, y)
    assert log_loss(nc, X_test, y_test) < log_loss(plain, X_test, y_test) - 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_as_in_training_are_left_alone_or_nearly(seed):
    network, X, y = images(900, seed=seed)
    nc = NeuralClamping(network, gamma=0).fit(X[:600], y[:600])
    plain = NeuralClamping(network, gamma=0, solver="fixed_delta")
    plain.fit(X[:600], y[:600])
    rest = X[600:], y[600:]
    assert log_loss(nc, *rest) < log_loss(plain, *rest) + 0.01


def test_gain_and_offset_of_features_are_found_whatever_their_units():
    rng = np.random.default_rng(0)
    unit = np.array([1.0, 1e3, 1e-3, 1.0])
    Z = 3 * rng.normal(size=(800, 4))
    y = (Z + rng.gumbel(size=Z.shape)).argmax(axis=1)
    gain, offset = np.array([0.5, 1.0, 2.0, 1.0]), np.array([1.0, 0.0, -1.0, 0.5])
    seen = Z * gain + offset

    def network(x):
        return x / torch.from_numpy(unit).to(x)

    nc = NeuralClamping(network, gamma=0, perturbation="gain").fit(seen * unit, y)
    alike = NeuralClamping(lambda x: x, gamma=0, perturbation="gain").fit(seen, y)
    assert nc.filter_.shape == (4, 1)
    # softmax(z) does not tell the scale of z from T.
    found = (1 + nc.filter_[:, 0]) / nc.temperature_
    assert_allclose(found * gain, 1, atol=0.25)
    assert nc.loss_ == pytest.approx(alike.loss_, abs=1e-4)


@unfinished
@pytest.mark.parametrize("perturbation", ["gain", "filter", ("filter", 3, "full")])
def test_bytes_channels_last_and_fractions_are_alike(perturbation):
    network, X, y = blurred(300, channels=3)
    for other, inputs in (
        (network, X),
        (lambda x: network((x - 100) / 50), 50 * X + 100),
        (lambda x: network(x.movedim(-1, 1)), np.moveaxis(X, 1, -1)),
    ):
        found = NeuralClamping(
            other,
            gamma=0,
            perturbation=perturbation,
            penalty=1e-3 / inputs.var(),
            max_iter=8,
        ).fit(inputs, y)
        if other is network:
            expected = found
        assert found.loss_ == pytest.approx(expected.loss_, abs=2e-4)
        assert_allclose(found.filter_, expected.filter_, atol=0.02)


@pytest.mark.slow
@unfinished
@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_other_solvers_find_the_filter(solver):
    network, X, y = blurred(600)
    options = {"gamma": 0, "perturbation": "filter", "penalty": 1e-3}
    best = NeuralClamping(network, max_iter=60, **options).fit(X, y)
    found = NeuralClamping(network, solver=solver, max_iter=12, **options).fit(X, y)
    plain = NeuralClamping(network, solver="fixed_delta", gamma=0).fit(X, y)
    assert found.loss_ < best.loss_ + 0.25 * (plain.loss_ - best.loss_)


@pytest.mark.filterwarnings("ignore:Without gradients:UserWarning")
def test_forward_passes_alone_find_the_filter():
    network, X, y = blurred(600)
    nc = NeuralClamping(
        lambda x: network(x.detach()), gamma=0, solver="gradient_free"
    ).fit(X, y)
    assert nc.perturbation_[0] == "filter"
    by_gradient = NeuralClamping(network, gamma=0, perturbation="filter").fit(X, y)
    assert nc.loss_ < by_gradient.loss_ + 0.05
    assert nc.n_iter_ <= 203


@unfinished
def test_a_warm_start_goes_on_with_the_filter():
    network, X, y = blurred(400)
    options = {"gamma": 0, "perturbation": "filter", "penalty": 1e-4}
    nc = NeuralClamping(network, max_iter=3, warm_start=True, **options)
    first = nc.fit(X, y).loss_
    assert nc.fit(X, y).loss_ < first


@unfinished
def test_perturbed_inputs_stay_in_the_feasible_range():
    network, X, y = blurred(300)
    low, high = float(X.min()), float(X.max())
    seen = []

    def watched(x):
        seen.append((x.min().item(), x.max().item()))
        return network(x)

    options = {"gamma": 0, "perturbation": "filter", "penalty": 1e-4, "max_iter": 4}
    NeuralClamping(watched, feasible_range=(low, high), **options).fit(X, y)
    assert min(a for a, _ in seen) >= low
    assert max(b for _, b in seen) <= high


@pytest.mark.slow
def test_the_choice_is_one_of_a_grid_search():
    network, X, y = blurred(300)
    grid = {"perturbation": [4, "filter"]}
    search = GridSearchCV(NeuralClamping(network, cv=2), grid, cv=2).fit(X, y)
    assert search.best_params_["perturbation"] != 4
    assert search.best_estimator_.filter_ is not None


def test_the_exponent_is_chosen_beside_the_filter():
    network, X, y = blurred(400)
    calibrator = StructuredMatrixScaling()
    search = NeuralClampingCV(network, cv=2, output_calibrator=calibrator).fit(X, y)
    assert search.perturbation_[0] == "filter"
    assert search.filter_ is not None
    assert search.output_calibrator_.predict_proba(search.logits(X)).shape == (400, 3)


@pytest.mark.parametrize(
    "perturbation",
    [("filter", 4), ("filter", 3, "both"), ("gain", 3), ("filter", 3, "full", 0), ()],
)
def test_a_filter_that_is_none_is_refused(perturbation):
    network, X, y = blurred(30)
    with pytest.raises(ValueError, match="with an odd size"):
        NeuralClamping(network, perturbation=perturbation).fit(X, y)


def test_inputs_that_the_filter_does_not_fit_are_refused():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 2, 4)).astype(np.float32), np.arange(30) % 2
    nc = NeuralClamping(lambda x: x.mean(2), perturbation=("filter", 5))
    with pytest.raises(
        ValueError, match=r"size 5 does not fit inputs of shape \(2, 4\)"
    ):
        nc.fit(X, y)
    X = rng.normal(size=(30, 2, 3, 3, 3, 3)).astype(np.float32)
    nc = NeuralClamping(lambda x: x.flatten(2).mean(2), perturbation="filter")
    with pytest.raises(ValueError, match="have 4 axes beside that of their channels"):
        nc.fit(X, y)


def test_a_filter_that_goes_far_is_derived_again(monkeypatch):
    network, X, y = blurred(400)
    derived = []
    monkeypatch.setattr(
        "skcalib.clamping._solve.linearise_again",
        lambda *given: derived.append(given[2]) or linearise_again(*given),
    )
    monkeypatch.setattr("skcalib.clamping._solve.AGAIN", 2)
    fit = NeuralClamping(network, gamma=0, perturbation="filter", tol=1e-9)
    found = clone(fit).fit(X, y)
    assert len(derived) == 1
    assert found.n_iter_ <= 20
    assert (np.diff(found.loss_curve_) <= 0).all()
    assert found.loss_ == pytest.approx(found.loss_curve_[-1], abs=1e-3)
    clone(fit).set_params(max_iter=2).fit(X, y)
    assert len(derived) == 1
