"""BatchNorm inside the layer before it: the same logits, gradients and weights."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from added_delta import value_and_gradient  # noqa: E402
from torch import nn  # noqa: E402

from skcalib._networks._folding import fold_batch_norm  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402

pytestmark = pytest.mark.torch


class _TwoReaders(nn.Module):
    """Has a second reader of what a convolution gives, beside BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = _trained(nn.BatchNorm2d(3))

    def forward(self, x):
        x = self.conv(x)
        return (x + self.norm(x)).mean(dim=(2, 3))


class _ReadsWeights(nn.Module):
    """Looks into a layer of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = _trained(nn.BatchNorm2d(3))

    def forward(self, x):
        return self.norm(self.conv(x)).mean(dim=(2, 3)) * self.norm.weight


class _Shared(nn.Module):
    """Uses one convolution before two BatchNorm layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = (
            _trained(nn.BatchNorm2d(3)),
            _trained(nn.BatchNorm2d(3)),
        )

    def forward(self, x):
        x = self.first(self.conv(x)).relu()
        return self.second(self.conv(x)).mean(dim=(2, 3))


def _trained(norm):
    """Give a BatchNorm layer statistics and an affine map of its own."""
    generator = torch.Generator().manual_seed(norm.num_features)
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        tensor.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm


def _network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        _trained(nn.BatchNorm2d(4)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
        _trained(nn.BatchNorm1d(5)),
        nn.Linear(5, 3),
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)


def _fold(module, images):
    x = torch.from_numpy(images)

    @torch.no_grad()
    def run(network):
        return network(x)

    return fold_batch_norm(module, run)


def test_folded_network_has_the_same_logits_and_no_batch_norm(images):
    torch.manual_seed(0)
    module = _network().eval().requires_grad_(False)
    folded = _fold(module, images)
    assert folded is not module
    norms = nn.modules.batchnorm._BatchNorm
    assert not any(isinstance(part, norms) for part in folded.modules())
    x = torch.from_numpy(images)
    torch.testing.assert_close(folded(x), module(x), rtol=1e-5, atol=1e-5)


def test_folding_leaves_the_network_as_it_was(images):
    torch.manual_seed(0)
    module = _network().eval().requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    parts = list(module.modules())
    calls = []
    module[0].register_forward_hook(lambda *arguments: calls.append(1))
    folded = _fold(module, images)
    assert len(calls) == 3  # the plain run, the watched run and the folded run
    folded(torch.from_numpy(images))
    assert all(len(part._forward_hooks) == (part is module[0]) for part in parts)
    assert all(a is b for a, b in zip(module.modules(), parts, strict=True))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("kind", [_TwoReaders, _ReadsWeights, _Shared])
def test_network_that_cannot_be_folded_runs_as_it_is(kind, images):
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    assert _fold(module, images) is module


def test_network_without_batch_norm_runs_as_it_is(images):
    module = nn.Flatten()
    assert _fold(module, images) is module


def test_fit_descends_on_the_same_gradient(images):
    torch.manual_seed(0)
    module = _network().eval()
    y = np.arange(40) % 3
    found = []
    for probed in (False, True):
        network = open_network(module)
        inputs = Inputs(images, network, 16)
        if probed:
            network.probe(inputs)
        objective = Objective(network, inputs, y)
        found.append(value_and_gradient(objective, np.zeros((3, 4, 4)), 0.0))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


def test_mixed_precision_runs_the_folded_network(images):
    torch.manual_seed(0)
    network = open_network(_network().eval(), precision="bf16")
    network.probe(Inputs(images, network, 16))
    with torch.autograd.profiler.profile() as profile:
        network(torch.from_numpy(images))
    operators = {event.name for event in profile.function_events}
    assert "aten::conv2d" in operators
    assert "aten::batch_norm" not in operators
