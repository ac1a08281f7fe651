"""Mini-batch training: the published descents, ours, and what cuts them short."""

import gc
import io

import numpy as np
import pytest
from lacking_offset import OFFSET, draw
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from skcalib.exceptions import InterruptedWarning

torch = pytest.importorskip("torch")

from torch.utils.data import TensorDataset  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402
from skcalib._networks import _inputs  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib._progress import Progress  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import Full, LowFrequency  # noqa: E402
from skcalib.clamping._sgd import (  # noqa: E402
    BETAS,
    RECIPES,
    SLIGHT,
    Adam,
    Recipe,
    train,
)

pytestmark = pytest.mark.torch
SHAPE = (2, 4, 4)


def smooth_module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(32, 8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 3),
    ).double()


def make(n=40, weight=None, batch_size=7, module=None, **options):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, *SHAPE))
    network = open_network(module or smooth_module())
    codes = rng.integers(0, 3, n)
    return Objective(network, Inputs(X, network, batch_size), codes, weight, **options)


def descend_with_torch(objective, recipe, theta, order):
    """The same descent by torch's optimiser and autograd, on the whole loss."""
    module = smooth_module()
    X = torch.from_numpy(objective.inputs._rows.values)
    codes = objective._codes
    theta = torch.tensor(theta, requires_grad=True)
    temperature = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD(
        [theta, temperature], lr=recipe.learning_rate, momentum=recipe.momentum
    )
    penalty = recipe.penalty
    losses = []
    for rows in order:
        for start in range(0, len(rows), recipe.batch_size):
            batch = torch.from_numpy(rows[start : start + recipe.batch_size])
            delta = theta.reshape(SHAPE)
            scores = module(X[batch] + delta) / temperature
            log_p = torch.log_softmax(scores, dim=1)[
                torch.arange(len(batch)), codes[batch]
            ]
            data = -((1 - log_p.exp()) ** objective.gamma * log_p).mean()
            norm = theta.norm()
            if penalty is None:
                with torch.no_grad():
                    whole = module(X + delta)
                    own = torch.log_softmax(whole, dim=1)[torch.arange(len(X)), codes]
                    mean = -((1 - own.exp()) ** objective.gamma * own).mean()
                penalty = 0.1 * mean.item()
            loss = data + penalty * (norm**2 if recipe.squared else norm)
            optimiser.zero_grad()
            (len(batch) * loss if recipe.summed else loss).backward()
            optimiser.step()
            losses.append((loss.item(), len(batch)))
    return theta.detach().numpy(), temperature.item(), losses


@pytest.mark.parametrize("name", ["paper", "reference"])
def test_the_recipes_are_those_of_torch(name):
    settings = vars(RECIPES[name]) | {"batch_size": 16, "max_iter": 3}
    recipe = Recipe(**settings)
    objective = make()
    start = 0.01 * np.random.default_rng(1).normal(size=32)
    rng = np.random.RandomState(3)
    order = [rng.permutation(np.arange(40)) for _ in range(3)]
    found = train(objective, Full(SHAPE), recipe, theta=start, random_state=3)
    theta, temperature, losses = descend_with_torch(objective, recipe, start, order)
    assert_allclose(found.theta, theta, rtol=1e-8)
    assert found.temperature.item() == pytest.approx(temperature, rel=1e-10)
    first = losses[:3]
    assert found.loss_curve[0] == pytest.approx(sum(v * n for v, n in first) / 40)
    assert len(found.loss_curve) == 3


def test_the_settings_are_the_published_ones():
    paper, reference = RECIPES["paper"], RECIPES["reference"]
    assert (paper.learning_rate, paper.momentum, paper.batch_size) == (0.001, 0, 512)
    assert (paper.penalty, paper.squared, paper.max_iter) == (None, True, 100)
    assert (reference.learning_rate, reference.momentum) == (0.01, 0.9)
    assert (reference.batch_size, reference.max_iter) == (1000, 100)
    assert (reference.penalty, reference.squared) == (0.01, False)
    assert (paper.summed, reference.summed) == (True, False)


def test_a_descent_reaches_a_lower_loss():
    objective = make()
    found = train(objective, Full(SHAPE), Recipe(penalty=0.0), random_state=0)
    before = objective.value(None, 0.0)
    assert (
        objective.value(found.perturbation.change.delta, found.temperature.log())
        < before - 0.01
    )
    assert found.loss_curve[-1] < found.loss_curve[0]
    assert len(found.loss_curve) == Recipe().max_iter


def test_the_same_seed_gives_the_same_descent():
    recipe = Recipe(max_iter=2, batch_size=16)
    first, again, other = (
        train(make(), Full(SHAPE), recipe, random_state=seed) for seed in (0, 0, 1)
    )
    assert_array_equal(first.theta, again.theta)
    assert first.temperature == again.temperature
    assert (first.theta != other.theta).all()


def test_steps_do_not_depend_on_the_batch_of_the_network():
    recipe = Recipe(batch_size=10, max_iter=2)
    small, large = (
        train(make(batch_size=size), Full(SHAPE), recipe, random_state=0)
        for size in (3, 100)
    )
    assert_allclose(small.theta, large.theta, rtol=1e-9)


def test_a_streamed_dataset_gives_the_descent_of_the_array(monkeypatch):
    recipe = Recipe(batch_size=10, max_iter=2)
    expected = train(make(), Full(SHAPE), recipe, random_state=0)
    objective = make()
    rows = TensorDataset(torch.from_numpy(objective.inputs._rows.values))
    monkeypatch.setattr(_inputs, "free_memory", lambda: 0)
    objective.inputs = Inputs(rows, objective.network, 7)
    assert not objective.inputs.resident
    found = train(objective, Full(SHAPE), recipe, random_state=0)
    assert_allclose(found.theta, expected.theta, rtol=1e-12)


def test_too_little_memory_does_not_change_the_steps():
    module, failed = smooth_module(), []

    def forward(x):
        if x.shape[0] > 3 and not failed:
            failed.append(x.shape[0])
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return module(x.double())

    recipe = Recipe(batch_size=10, max_iter=2, penalty=0.1)
    plain = make(module=lambda x: module(x.double()))
    expected = train(plain, Full(SHAPE), recipe, random_state=0)
    with pytest.warns(UserWarning, match="batch_size=3"):
        found = train(make(module=forward), Full(SHAPE), recipe, random_state=0)
    assert_allclose(found.theta, expected.theta, rtol=1e-5)


def test_coordinates_of_a_basis_are_learned():
    basis = LowFrequency(SHAPE, 2)
    found = train(make(), basis, Recipe(max_iter=2), random_state=0)
    assert found.theta.shape == (basis.dim,) == (16,)
    assert_allclose(found.perturbation.change.delta, basis.expand(found.theta))


def test_a_descent_goes_on_where_another_ended():
    recipe = Recipe(max_iter=2, momentum=0.0, penalty=0.1)
    rng = np.random.RandomState(0)
    theta = np.zeros(32)
    first = train(make(), Full(SHAPE), recipe, theta=theta, random_state=rng)
    second = train(
        make(),
        Full(SHAPE),
        recipe,
        theta=first.theta.numpy(),
        temperature=first.temperature.item(),
        random_state=rng,
    )
    four = Recipe(max_iter=4, momentum=0.0, penalty=0.1)
    at_once = train(make(), Full(SHAPE), four, theta=theta, random_state=0)
    assert_allclose(second.theta, at_once.theta, rtol=1e-12)
    assert not theta.any()


def test_early_stopping_keeps_the_best_point_on_the_held_out_rows():
    # Coin-flip labels: every epoch fits noise, so held-out loss turns up soon.
    objective = make(gamma=0.0)
    held_out = np.arange(0, 40, 2)
    recipe = Recipe(learning_rate=0.3, penalty=0.0, batch_size=20, max_iter=200)
    found = train(
        objective, Full(SHAPE), recipe, held_out=held_out, patience=3, random_state=0
    )
    assert len(found.loss_curve) < 200
    kept = objective.value(
        found.perturbation.change.delta, found.temperature.log(), held_out
    )
    start = objective.value(None, 0.0, held_out)
    assert kept == pytest.approx(min([kept, *found.held_out_curve]), rel=1e-12)
    assert kept <= start + 1e-3
    assert len(found.held_out_curve) == len(found.loss_curve)


def test_held_out_rows_are_not_learned_from():
    objective = make()
    weight = np.ones(40)
    weight[10:] = 1e9
    spoilt = make(weight=weight)
    held_out = np.arange(10, 40)
    first, second = (
        train(o, Full(SHAPE), Recipe(max_iter=2), held_out=held_out, random_state=0)
        for o in (objective, spoilt)
    )
    assert_allclose(first.theta, second.theta, rtol=1e-6)


def test_steps_of_adam_are_those_of_torch():
    # A rate that falls to 0 is a factor on each step, so torch's is set by hand.
    generator, n_steps = torch.Generator().manual_seed(0), 5
    recipe = Recipe(learning_rate=0.03, input_scale=2.0)
    start = [torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor(1.5).double()]
    ours, theirs = ([point.clone() for point in start] for _ in range(2))
    adam = Adam(recipe, recipe.input_scale, ours, n_steps)
    groups = [
        {"params": [theirs[0]], "lr": 0.03 * 2.0},
        {"params": [theirs[1]], "lr": 0.03 * 1.5},
    ]
    reference = torch.optim.Adam(groups, betas=BETAS, eps=SLIGHT)
    rates = [group["lr"] for group in reference.param_groups]
    for step in range(n_steps):
        gradients = [
            torch.randn(point.shape, generator=generator, dtype=point.dtype)
            for point in start
        ]
        adam(ours, gradients)
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * (n_steps - step) / n_steps
        for point, gradient in zip(theirs, gradients, strict=True):
            point.grad = gradient
        reference.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert_allclose(mine, other, rtol=1e-12)


def test_an_interrupt_keeps_the_best_point_with_a_warning():
    module = smooth_module()
    calls = []

    def forward(x):
        calls.append(1)
        if len(calls) > 21:  # the first call looks whether it acts as in training
            raise KeyboardInterrupt
        return module(x.double())

    objective = make(module=forward, batch_size=40)
    recipe = Recipe(penalty=0.01, batch_size=40)
    with pytest.warns(InterruptedWarning, match="interrupted"):
        found = train(objective, Full(SHAPE), recipe, random_state=0)
    assert len(found.loss_curve) == 20
    same = make(module=lambda x: module(x.double()), batch_size=40)
    shorter = train(
        same,
        Full(SHAPE),
        Recipe(penalty=0.01, batch_size=40, max_iter=20),
        random_state=0,
    )
    assert_array_equal(found.theta, shorter.theta)


def test_a_descent_into_infinity_keeps_the_best_point_with_a_warning():
    objective = make(
        module=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 3))
    )
    recipe = Recipe(learning_rate=1e30, penalty=1.0, max_iter=20)
    with pytest.warns(ConvergenceWarning, match="smaller learning rate"):
        found = train(objective, Full(SHAPE), recipe, random_state=0)
    assert torch.isfinite(found.theta).all()
    assert torch.isfinite(found.temperature)


def test_the_temperature_stays_positive():
    recipe = Recipe(learning_rate=1e3, momentum=0.0, penalty=0.0, max_iter=1)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 3))
    found = train(make(module=module), Full(SHAPE), recipe, random_state=0)
    assert found.temperature > 0


def live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.slow
def test_memory_is_flat_over_epochs():
    objective = make()
    counts = []
    epochs = iter(range(20))
    value = objective.value

    def counting(*arguments):
        # Looking through all objects takes a second.
        if next(epochs) in (4, 12):
            counts.append(live_tensors())
        return value(*arguments)

    objective.value = counting
    held_out = np.arange(5)
    train(objective, Full(SHAPE), Recipe(max_iter=12), held_out=held_out, patience=20)
    assert counts[0] == counts[1]


def test_an_epoch_waits_for_the_device_once(device_reads):
    objective = make(batch_size=4)
    device_reads.clear()
    recipe = Recipe(max_iter=5, penalty=0.1, batch_size=8)
    train(objective, Full(SHAPE), recipe, random_state=0)
    assert device_reads.count("__float__") == 5
    assert len(device_reads) == 5


def test_progress_goes_to_standard_error(capsys):
    for shown, n_lines in ((True, 2), (False, 0)):
        progress = Progress("NeuralClamping", shown)
        recipe = Recipe(max_iter=2)
        train(make(), Full(SHAPE), recipe, random_state=0, progress=progress)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == n_lines
        assert all("[NeuralClamping] epoch " in line for line in lines)


def test_on_a_terminal_an_epoch_takes_the_place_of_the_last(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress("train", shown=True)
    train(make(), Full(SHAPE), Recipe(max_iter=2), random_state=0, progress=progress)
    first, second, rest = stream.getvalue().split("\r")
    assert "epoch 1/2  loss 0." in first
    assert "epoch 2/2  loss 0." in second
    assert rest == "\n"


def test_draws_by_pull_go_deeper_in_as_many_epochs():
    # A few rows are wrong by far, the others right beyond doubt.
    rng = np.random.default_rng(0)
    X = 20 * np.eye(4)[rng.integers(0, 4, 1000)] + rng.normal(size=(1000, 4))
    codes = X.argmax(axis=1)
    codes[:50] = (codes[:50] + 1) % 4
    X[:50] += rng.normal(size=(50, 4)) - 15 * np.eye(4)[(codes[:50] - 1) % 4]
    network = open_network(torch.nn.Identity())
    objective = Objective(network, Inputs(X, network), codes)
    pull = np.where(np.arange(1000) < 50, 1.0, 1e-3)
    recipe = Recipe(batch_size=50, max_iter=2, penalty=0.0, input_scale=1.0)
    drawn, plain = (
        train(objective, Full((4,)), recipe, pull=how, temperature=3.0, random_state=0)
        for how in (pull, None)
    )
    losses = [
        objective.value(end.perturbation.change, end.temperature.log())
        for end in (drawn, plain)
    ]
    assert losses[0] < losses[1]
    # Weights make up for the choice: both curves are of the same mean loss.
    assert drawn.loss_curve[0] == pytest.approx(plain.loss_curve[0], rel=0.2)


def identity(x):
    return 1 * x


def fit(X, y, **options):
    options = {"solver": "sgd", "penalty": 0.0, "gamma": 0, **options}
    return NeuralClamping(identity, **options).fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("fraction", [None, 0.1])
def test_a_lacking_offset_is_found_in_any_units(scale, fraction):
    X, y = draw(2000)
    nc = fit(np.float32(scale) * X, y, validation_fraction=fraction, max_iter=8)
    delta = nc.delta_ / scale
    assert_allclose(delta - delta.mean(), OFFSET - OFFSET.mean(), atol=0.3)
    assert nc.temperature_ / scale == pytest.approx(2, rel=0.1)
    assert nc.n_iter_ <= 8


def test_the_temperature_that_is_served_is_exact():
    X, y = draw(2000)
    nc = fit(X, y, max_iter=2)
    fixed = fit(X, y, solver="fixed_delta", start=nc.delta_)
    assert nc.temperature_ == pytest.approx(fixed.temperature_, rel=1e-6)


def test_the_same_seed_gives_the_same_perturbation():
    X, y = draw(200)
    first, second, other = (fit(X, y, random_state=seed) for seed in (0, 0, 1))
    assert_allclose(first.delta_, second.delta_, atol=0)
    assert not np.array_equal(first.delta_, other.delta_)
