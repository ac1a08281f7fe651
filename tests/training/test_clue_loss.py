"""The CLUE loss against its formula, its gradients, and the property it promises."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

torch = pytest.importorskip("torch")

from skcalib.training import CLUELoss  # noqa: E402

pytestmark = pytest.mark.torch
REDUCTIONS = ["batch", "group", "sample"]


def draw(*shape, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=dtype)


def draw_labels(n, n_classes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_classes, (n,), generator=generator)


def slow_loss(error, uncertainty, alpha, groups):
    """The definition, with the samples of each group in a list."""
    squares = [
        len(group) * (error[group].mean() - uncertainty[group].mean()) ** 2
        for group in groups
    ]
    return alpha * error.mean() + (1 - alpha) * sum(squares) / len(error)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_classification_follows_the_formula(alpha, reduction):
    z, y = draw(5, 12, 4).numpy(), draw_labels(12, 4).numpy()
    proba = (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).mean(axis=0)
    error = -np.log(proba[np.arange(12), y])
    u = -(proba * np.log(proba)).sum(axis=1)
    groups = {
        "batch": [np.arange(12)],
        "group": np.array_split(np.argsort(u), 3),
        "sample": [[i] for i in range(12)],
    }[reduction]
    loss = CLUELoss(alpha, reduction=reduction, n_groups=3)
    found = loss(torch.from_numpy(z), torch.from_numpy(y))
    assert found.item() == pytest.approx(slow_loss(error, u, alpha, groups))


@pytest.mark.parametrize("head", [False, True])
def test_regression_follows_the_formula(head):
    means, log_variances, y = draw(5, 9), draw(5, 9, seed=2), draw(9, seed=3)
    passes = torch.stack([means, log_variances], -1) if head else means
    u = means.numpy().var(axis=0)
    if head:
        u = u + np.exp(log_variances.numpy()).mean(axis=0)
    error = (means.numpy().mean(axis=0) - y.numpy()) ** 2
    expected = slow_loss(error, u, 0.6, [[i] for i in range(9)])
    loss = CLUELoss(0.6, reduction="sample", task="regression")
    assert loss(passes, y).item() == pytest.approx(expected)
    assert loss(passes, y[:, None]).item() == pytest.approx(expected)


def test_tokens_are_samples_and_padding_does_not_count():
    z, y = draw(3, 2, 5, 4), draw_labels(10, 4).reshape(2, 5)
    padding = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 1, 1]]).bool()
    kept = torch.nonzero(~padding.flatten())[:, 0]
    for reduction in REDUCTIONS:
        flat = CLUELoss(0.5, reduction=reduction, n_groups=2)
        expected = flat(z.flatten(1, 2)[:, kept], y.flatten()[kept])
        loss = CLUELoss(0.5, reduction=reduction, n_groups=2, task="tokens")
        garbage = z.masked_fill(padding[None, :, :, None], math.nan)
        by_mask = loss(garbage, y, padding_mask=padding)
        by_index = loss(garbage, y.masked_fill(padding, -100))
        assert by_mask.item() == pytest.approx(expected.item())
        assert by_index.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_small_whole_numbers_are_column_numbers(dtype):
    # As a byte, -100 is 156.
    z, y = draw(3, 4, 200), torch.tensor([100, 1, 2, 120])
    y = y + 56 if dtype is torch.uint8 else y
    found = CLUELoss()(z, y.to(dtype))
    assert found.item() == pytest.approx(CLUELoss()(z, y).item())


@pytest.mark.parametrize(("task", "shape"), [("classification", 6), ("tokens", (3, 2))])
def test_one_column_is_the_log_odds_of_the_second_class(task, shape):
    z, y = draw(3, 6, 1), draw_labels(6, 2)
    pair = torch.cat([torch.zeros_like(z), z], dim=-1)
    expected = CLUELoss()(pair, y).item()
    passes = z.unflatten(1, shape) if task == "tokens" else z
    found = CLUELoss(task=task)(passes, y.reshape(shape))
    assert found.item() == pytest.approx(expected)


def test_the_weight_of_a_sample_is_that_of_its_tokens():
    z, y = draw(3, 2, 5, 4), draw_labels(10, 4).reshape(2, 5)
    loss = CLUELoss(0.5, task="tokens")
    by_sample = loss(z, y, sample_weight=torch.tensor([1.0, 3.0]))
    by_token = loss(z, y, sample_weight=torch.tensor([[1.0], [3.0]]).expand(2, 5))
    assert by_sample.item() == pytest.approx(by_token.item())


@pytest.mark.parametrize("n_groups", [1, 4, 10])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_whole_weights_equal_repeated_samples(reduction, n_groups):
    z, y, weight = draw(4, 6, 3), draw_labels(6, 3), torch.tensor([0, 1, 2, 3, 1, 1])
    loss = CLUELoss(0.5, reduction=reduction, n_groups=n_groups)
    for shift in range(6):  # Any may be without weight.
        turned = weight.roll(shift)
        repeated = loss(z.repeat_interleave(turned, 1), y.repeat_interleave(turned))
        assert loss(z, y, sample_weight=turned).item() == pytest.approx(repeated.item())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_order_of_samples_does_not_count_where_uncertainties_are_equal(reduction):
    logits, y = draw(1, 4, 3).repeat_interleave(5, 1), draw_labels(20, 3)
    loss, order = CLUELoss(0.5, reduction=reduction), torch.arange(20).flip(0)
    backwards = loss(logits[:, order], y[order])
    assert loss(logits, y).item() == pytest.approx(backwards.item(), rel=1e-12)


def test_a_sample_at_an_edge_is_in_both_groups_by_its_shares():
    # Of weight 1, 2 and 1: the middle one is half in either group.
    means = torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=torch.float64)
    passes = means + torch.tensor([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    loss = CLUELoss(0, task="regression", n_groups=2)
    gaps = np.array([1, 4, 9]) - np.array([0.01, 0.04, 0.09])
    halves = [gaps[:2].mean(), gaps[1:].mean()]
    found = loss(passes, torch.zeros(3), sample_weight=torch.tensor([1.0, 2.0, 1.0]))
    assert found.item() == pytest.approx(np.mean(np.square(halves)), rel=1e-6)


@pytest.mark.parametrize("n_passes", [1, 4])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("task", ["classification", "regression", "tokens"])
def test_gradients_equal_finite_differences(task, reduction, n_passes):
    shape = {"classification": (6, 3), "regression": (6, 2), "tokens": (3, 2, 3)}[task]
    passes = draw(n_passes, *shape).requires_grad_()
    target = draw(6) if task == "regression" else draw_labels(6, 3)
    if task == "tokens":
        target = target.reshape(3, 2)
    weight = torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(target.shape)
    loss = CLUELoss(0.4, reduction=reduction, task=task, n_groups=4)
    assert torch.autograd.gradcheck(
        lambda values: loss(values, target, sample_weight=weight), passes
    )


def test_a_detached_uncertainty_passes_no_gradient():
    passes, y = draw(3, 8, 4), draw_labels(8, 4)

    def gradient(detach):
        values = passes.clone().requires_grad_()
        CLUELoss(0.5, reduction="batch", detach_uncertainty=detach)(
            values, y
        ).backward()
        return values.grad

    error = CLUELoss(1)(passes, y)
    probability = torch.softmax(passes, -1).mean(0)
    u = -(probability * probability.log()).sum(-1).mean()
    values = passes.clone().requires_grad_()
    CLUELoss(1)(values, y).backward()
    slope = 0.5 + 2 * 0.5 * (error - u)
    torch.testing.assert_close(gradient(True), slope * values.grad)
    assert not torch.allclose(gradient(True), gradient(False))


@pytest.mark.parametrize(
    ("reduction", "alpha", "optimum"),
    [
        ("batch", 0.9, 0.8),
        ("batch", 0.1, 0.8),
        ("group", 0.5, 0.8),
        ("sample", 0.9, 0.76),
        ("sample", 0.5, 0.63),
    ],
)
def test_the_truth_is_the_optimum_unless_samples_are_compared_one_by_one(
    reduction, alpha, optimum
):
    # A network that says p for class 1 everywhere, where class 1 has probability 0.8.
    y = torch.tensor([1] * 80 + [0] * 20)
    loss = CLUELoss(alpha, reduction=reduction, n_groups=1)

    def value(p):
        logits = torch.tensor([0.0, math.log(p / (1 - p))], dtype=torch.float64)
        return loss(logits.expand(1, 100, 2), y).item()

    found = minimize_scalar(value, bounds=(0.55, 0.99), method="bounded")
    assert found.x == pytest.approx(optimum, abs=0.006)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_half_precision_is_computed_in_single(dtype, task):
    passes = draw(3, 8, 2, dtype=torch.float32).to(dtype)
    y = draw_labels(8, 2)
    loss = CLUELoss(0.5, task=task)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(passes, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(passes.float(), y))


@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_sure_and_impossible_classes_give_numbers(scale):
    logits = torch.tensor([[scale, 0.0, -scale], [0.0, scale, -math.inf]])
    passes = logits.expand(2, 2, 3).clone().requires_grad_()
    loss = CLUELoss(0.9)(passes, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(passes.grad).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.1}, "alpha=1.1"),
        ({"reduction": "mean"}, "reduction='mean'"),
        ({"task": "ranking"}, "task='ranking'"),
        ({"n_groups": 0}, "n_groups=0"),
    ],
)
def test_impossible_parameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CLUELoss(**arguments)


@pytest.mark.parametrize(
    ("task", "shape", "target", "message"),
    [
        ("classification", (6, 3), (6,), r"needs \(n_passes, n_samples, n_classes\)"),
        ("classification", (2, 6, 3), (5,), r"need \(6,\)"),
        ("tokens", (2, 6, 4, 3), (6,), r"need \(6, 4\)"),
        ("regression", (2, 6, 3), (6,), "n_samples, 1 or 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(task, shape, target, message):
    with pytest.raises(ValueError, match=message):
        CLUELoss(task=task)(torch.zeros(shape), torch.zeros(target, dtype=torch.long))


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
        CLUELoss()(
            torch.zeros(2, 4, 3), torch.zeros(4).long(), sample_weight=torch.ones(3)
        )


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_weights_that_are_negative_or_not_finite_are_refused(bad):
    z, y, weight = draw(2, 4, 3), draw_labels(4, 3), torch.tensor([1.0, 3.0, bad, 1.0])
    with pytest.raises(
        ValueError, match=rf"sample_weight holds \[{bad}\]; weights are"
    ):
        CLUELoss()(z, y, sample_weight=weight)
    hidden = CLUELoss()(z, y, sample_weight=weight, padding_mask=torch.arange(4) == 2)
    assert math.isfinite(hidden)


def test_a_batch_of_padding_is_refused():
    z, y = draw(2, 3, 4), draw_labels(3, 4)
    with pytest.raises(ValueError, match="No sample of the batch counts"):
        CLUELoss()(z, y, padding_mask=torch.ones(3).bool())
