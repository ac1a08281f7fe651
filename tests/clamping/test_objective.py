"""Losses, gradients and Jacobians of a clamped network."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

torch = pytest.importorskip("torch")

from added_delta import evaluate, value_and_gradient  # noqa: E402

from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import Network, open_network  # noqa: E402
from skcalib.clamping._losses import LOSSES  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import Channel, Full, LowFrequency  # noqa: E402
from skcalib.clamping._pools import Pools  # noqa: E402
from skcalib.exceptions import NotDifferentiableError  # noqa: E402

pytestmark = pytest.mark.torch
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SHAPE = (3, 6, 6)
LOSS_KINDS = [
    ("focal", 0.0),
    ("focal", 0.5),
    ("focal", 1.0),
    ("focal", 3.0),
    ("brier", 0),
]


def smooth_module(n_classes=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(64, n_classes),
    ).double()


def make(loss="focal", gamma=1.0, weight=None, n=11, batch_size=4, **options):
    rng = np.random.default_rng(0)
    module = options.pop("module", None) or smooth_module()
    network = open_network(module, device=options.pop("device", "auto"))
    X = rng.random((n, *SHAPE))
    inputs = Inputs(options.pop("X", X), network, batch_size)
    codes = rng.integers(0, 4, n)
    return Objective(network, inputs, codes, weight, loss, gamma, **options)


def reference_loss(logits, codes, weight, loss, gamma):
    """The loss written as in the papers."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    own = p[np.arange(len(p)), codes]
    if loss == "brier":
        losses = ((p - np.eye(p.shape[1])[codes]) ** 2).sum(axis=1)
    else:
        losses = -((1 - own) ** gamma) * np.log(own)
    return np.average(losses, weights=weight)


@pytest.mark.parametrize(("loss", "gamma"), LOSS_KINDS)
def test_values_are_those_of_the_formula(loss, gamma):
    rng = np.random.default_rng(1)
    weight = rng.random(11)
    objective = make(loss, gamma, weight)
    delta = 0.3 * rng.normal(size=SHAPE)
    logits = objective.logits(delta)
    codes = objective._codes.numpy()
    expected = reference_loss(logits / 1.7, codes, weight, loss, gamma)
    value, _, _ = value_and_gradient(objective, delta, np.log(1.7))
    assert value == pytest.approx(expected, rel=1e-12)
    assert objective.value(delta, np.log(1.7)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bounds", [None, (0.1, 0.8)])
@pytest.mark.parametrize(("loss", "gamma"), LOSS_KINDS)
def test_gradients_are_those_of_finite_differences(loss, gamma, bounds):
    rng = np.random.default_rng(1)
    objective = make(loss, gamma, rng.random(11), feasible_range=bounds)
    delta, direction = 0.1 * rng.normal(size=(2, *SHAPE))
    _, by_delta, by_log_t = value_and_gradient(objective, delta, 0.4)
    assert by_delta.shape == (np.prod(SHAPE),)
    step = 1e-6
    above, below = (objective.value(delta + s * direction, 0.4) for s in (step, -step))
    assert np.vdot(by_delta, direction) == pytest.approx(
        (above - below) / 2 / step, rel=1e-5
    )
    above, below = (objective.value(delta, 0.4 + s) for s in (step, -step))
    assert by_log_t == pytest.approx((above - below) / 2 / step, rel=1e-5)


def test_clipping_happens_before_the_network():
    X = np.random.default_rng(0).random((11, *SHAPE))
    low, high = np.full(SHAPE, 0.2), np.full(SHAPE, 0.7)
    objective = make(feasible_range=(low, high))
    delta = np.random.default_rng(1).normal(size=SHAPE)
    clipped = make(X=np.clip(X + delta, low, high))
    assert_allclose(objective.logits(delta), clipped.logits(), rtol=1e-12)


def test_whole_weights_are_repetitions():
    counts = np.arange(11) % 4
    objective = make(weight=counts)
    rows = np.repeat(np.arange(11), counts)
    delta = np.full(SHAPE, 0.1)
    plain = value_and_gradient(make(), delta, 0.2, rows)
    for found, expected in zip(
        value_and_gradient(objective, delta, 0.2), plain, strict=True
    ):
        assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_the_weights_means_nothing(scale):
    weight = np.random.default_rng(1).random(11)
    for found, expected in zip(
        value_and_gradient(make(weight=scale * weight), None, 0.2),
        value_and_gradient(make(weight=weight), None, 0.2),
        strict=True,
    ):
        assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 3, 11, 50])
def test_the_batch_size_changes_nothing(batch_size):
    rows = np.array([8, 1, 5, 0, 9])
    delta = np.full(SHAPE, 0.1)
    expected = evaluate(make(), delta, 0.2, rows)
    found = evaluate(make(batch_size=batch_size), delta, 0.2, rows)
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
    assert_allclose(found[0], make().logits(delta)[rows], rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_predictions_have_finite_losses_and_gradients(gamma, dtype):
    scores = torch.tensor(
        [[1e4, 0.0], [-1e4, 0.0], [40.0, 0.0], [0.0, 0.0], [700.0, -700.0]], dtype=dtype
    )
    losses, gradient = LOSSES["focal"](scores, torch.zeros(5, dtype=torch.long), gamma)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()
    assert losses[1] == pytest.approx(1e4)
    assert_allclose(gradient.sum(dim=1), 0, atol=1e-6)
    brier, gradient = LOSSES["brier"](scores, torch.zeros(5, dtype=torch.long), gamma)
    assert brier[1] == pytest.approx(2)
    assert torch.isfinite(gradient).all()


def bases():
    return [Full(SHAPE), Channel(SHAPE), LowFrequency(SHAPE, 2)]


@pytest.mark.parametrize("basis", bases(), ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("n_classes", [2, 60])
@pytest.mark.parametrize("bounds", [None, (0.05, 0.95)])
def test_jacobians_are_those_of_finite_differences(basis, n_classes, bounds):
    objective = make(module=smooth_module(n_classes), feasible_range=bounds)
    rows = np.array([3, 10, 0, 7, 8])
    rng = np.random.default_rng(1)
    theta, direction = rng.normal(size=(2, basis.dim))
    theta *= 0.1
    jacobian = objective.jacobian(basis, basis.expand(theta), rows)
    assert jacobian.dtype == np.float32
    assert jacobian.shape == (5, n_classes, basis.dim)
    above, below = (
        objective.logits(basis.expand(theta + s * direction), rows)
        for s in (1e-5, -1e-5)
    )
    assert_allclose(jacobian @ direction, (above - below) / 2e-5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lost", [0.0, 0.3])
@pytest.mark.parametrize("n_classes", [2, 5, 30, 400])
def test_a_jacobian_of_slots_is_that_of_their_mean_logits(n_classes, lost, monkeypatch):
    objective, basis = make(module=smooth_module(n_classes), n=9), Channel(SHAPE)
    rows = np.array([3, 0, 7, 8, 1])
    proba = softmax(4 * objective.logits(rows=rows), axis=1)
    pools = Pools(proba, objective.codes[rows] % n_classes, np.ones(5), lost)
    every = objective.jacobian(basis, rows=rows)
    passes, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k)
    )
    found = objective.jacobian(basis, rows=rows, pools=pools)
    expected = [pools.mean_change(column) for column in np.moveaxis(every, 2, 0)]
    assert_allclose(found, np.transpose(expected), atol=1e-6)
    assert found.dtype == np.float32
    assert not lost or n_classes < 30 or pools.counts.max() < n_classes - 1
    # Batches of four rows with about as many slots; by coordinate where these are few.
    assert not passes or len(passes) == -np.sort(-pools.counts)[::4].sum()
    assert passes or pools.n_slots > 5 * 2.5 * basis.dim


def test_the_cheaper_jacobian_is_computed(monkeypatch):
    asked = []
    for name in ("_by_class", "_by_coordinate"):
        real = getattr(Objective, name)
        monkeypatch.setattr(
            Objective,
            name,
            lambda self, *rest, name=name, real=real: (
                asked.append(name) or real(self, *rest)
            ),
        )
    make(module=smooth_module(2), n=3).jacobian(Channel(SHAPE))
    make(module=smooth_module(60), n=3).jacobian(Channel(SHAPE))
    assert asked == ["_by_class", "_by_coordinate"]


def test_forward_mode_changes_the_filters_of_warnings_but_once(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("Threads that overlap would put back each other's.")

    objective = make(module=smooth_module(60), n=3)
    first = objective.jacobian(Channel(SHAPE))
    monkeypatch.setattr("warnings.catch_warnings", refuse)
    assert_allclose(objective.jacobian(Channel(SHAPE)), first)


def test_operators_without_a_forward_mode_are_differentiated_backward():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    module = smooth_module(60)
    objective = make(module=lambda x: module(Twice.apply(x.double())))
    plain = make(module=lambda x: module(2 * x.double()))
    for basis in bases()[1:2]:
        assert_allclose(objective.jacobian(basis), plain.jacobian(basis), rtol=1e-4)


def out_of_memory_once(module, limit):
    """Fail, as a GPU does, on the first batch of more than `limit` rows."""
    failed = []

    def forward(x):
        if x.shape[0] > limit and not failed:
            failed.append(x.shape[0])
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return module(x.to(torch.float64))

    return forward


@pytest.mark.parametrize(
    "ask",
    [
        Objective.logits,
        partial(value_and_gradient, delta=None, log_temperature=0.1),
        partial(Objective.jacobian, basis=Full(SHAPE)),
    ],
    ids=["logits", "gradient", "jacobian"],
)
def test_too_little_memory_halves_the_batch(ask):
    module = smooth_module()
    objective = make(module=out_of_memory_once(module, 3), batch_size=6)
    plain = make(module=lambda x: module(x.to(torch.float64)), batch_size=6)
    with pytest.warns(UserWarning, match="batch_size=3"):
        found = ask(objective)
    expected = ask(plain)
    found = found if isinstance(found, tuple) else (found,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)
    assert objective.inputs.batch_size == 3


def test_memory_too_small_for_one_row_is_an_error():
    def forward(x):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    objective = make(module=forward, batch_size=1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        objective.logits()


def test_nan_names_the_row():
    X = np.random.default_rng(0).random((11, *SHAPE))
    X[7] = np.nan
    objective = make(X=X)
    with pytest.raises(ValueError, match="nan for row 7"):
        value_and_gradient(objective, None, 0.0)
    with pytest.raises(ValueError, match="nan for row 7"):
        objective.logits(None, np.array([2, 7]))


def test_networks_without_gradient_say_so():
    module = smooth_module()
    objective = make()
    objective.network = Network(module, "cpu", torch.float64, reason="It is a forest.")
    assert objective.logits().shape == (11, 4)
    assert np.isfinite(objective.value(None, 0.0))
    for ask in (
        lambda: value_and_gradient(objective, None, 0.0),
        lambda: objective.jacobian(Full(SHAPE)),
    ):
        with pytest.raises(NotDifferentiableError, match="It is a forest"):
            ask()


def test_an_epoch_waits_for_the_device_once(device_reads):
    objective = make(batch_size=2)
    device_reads.clear()
    value_and_gradient(objective, np.zeros(SHAPE), 0.0)
    # For the logits, the gradient, and loss and slope.
    assert sorted(device_reads) == ["cpu", "cpu", "tolist"]


def test_the_network_runs_once_a_batch_and_no_weight_gradient_is_computed():
    module = smooth_module()
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    objective = make(module=module, n=11, batch_size=4)
    objective.logits(rows=[0])  # the first run looks whether it acts as in training
    calls.clear()
    value_and_gradient(objective, None, 0.0)
    assert len(calls) == 3
    pools = Pools(np.full((11, 4), 0.25), objective.codes, np.ones(11), 0.0)
    calls.clear()
    objective.jacobian(Full(SHAPE), pools=pools)
    assert len(calls) == 3
    assert all(p.grad is None for p in module.parameters())


def test_a_real_network_has_the_gradient_of_finite_differences(cifar):
    module, X, y = cifar
    network = open_network(module)
    objective = Objective(network, Inputs(X, network, 16), y)
    rng = np.random.default_rng(0)
    direction = LowFrequency(X.shape[1:], 4).expand(rng.normal(size=48))
    direction /= np.linalg.norm(direction)
    _, by_delta, _ = value_and_gradient(objective, None, 0.0)
    above, below = (objective.value(s * direction, 0.0) for s in (3e-3, -3e-3))
    assert np.vdot(by_delta, direction) == pytest.approx(
        (above - below) / 6e-3, rel=0.05
    )


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("loss", "gamma"), LOSS_KINDS)
def test_the_gpu_gives_the_numbers_of_the_cpu(loss, gamma):
    delta = 0.1 * np.random.default_rng(1).normal(size=SHAPE)
    module = smooth_module()
    expected = evaluate(make(loss, gamma, module=module), delta, 0.3)
    found = evaluate(make(loss, gamma, module=module, device="cuda"), delta, 0.3)
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
