"""Networks of all kinds behind one call, none of them changed."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from added_delta import value_and_gradient  # noqa: E402

from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.exceptions import ModelFormatError  # noqa: E402
from skcalib.frozen import TorchLogits  # noqa: E402

pytestmark = pytest.mark.torch
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Shared(torch.nn.Module):
    """Convolution, BatchNorm and dropout; one layer is used twice under two names."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.again = self.first
        self.norm = torch.nn.BatchNorm2d(3)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(3 * 4 * 4, 5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = torch.relu(self.norm(self.first(x)))
        return self.head(self.drop(self.again(x)).flatten(1))


@pytest.fixture
def images():
    return np.random.default_rng(0).random((12, 3, 4, 4), dtype=np.float32)


@pytest.fixture
def shared():
    torch.manual_seed(0)
    return Shared()


def state_of(module):
    """Everything about a module that a fit could change."""
    return {
        "weights": [p.detach().clone() for p in module.parameters()],
        "same": [id(p) for p in module.parameters()],
        "buffers": [b.clone() for b in module.buffers()],
        "gradients": [
            None if p.grad is None else p.grad.clone() for p in module.parameters()
        ],
        "flags": [p.requires_grad for p in module.parameters()],
        "modes": [part.training for part in module.modules()],
        "calls": getattr(module, "calls", None),
    }


def assert_same_state(before, after):
    for key, value in before.items():
        for old, new in (
            zip(value, after[key], strict=True)
            if isinstance(value, list)
            else [(value, after[key])]
        ):
            if isinstance(old, torch.Tensor):
                assert torch.equal(old, new), key
            else:
                assert old == new, key


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_a_module_is_left_as_it_was(shared, images, mode):
    shared.train(mode != "eval")
    if mode == "mixed":
        shared.norm.eval()
        shared.head.requires_grad_(False)
    shared(torch.from_numpy(images)).sum().backward()
    before = state_of(shared)
    network = open_network(shared)
    inputs = Inputs(images, network, 5)
    network.probe(inputs)
    objective = Objective(network, inputs, np.arange(12) % 5)
    value_and_gradient(objective, np.zeros((3, 4, 4)), 0.0)
    assert_same_state(before, state_of(shared))


def test_a_module_in_train_mode_runs_as_at_inference(shared, images):
    network = open_network(shared.train())
    logits = network(torch.from_numpy(images))
    expected = copy.deepcopy(shared).eval()(torch.from_numpy(images))
    assert torch.equal(logits, expected.detach())


def test_no_parameter_asks_for_a_gradient_and_none_is_copied(shared):
    network = open_network(shared)
    view = network._module
    assert not any(p.requires_grad for p in view.parameters())
    theirs = [p.data_ptr() for p in shared.parameters()]
    assert [p.data_ptr() for p in view.parameters()] == theirs
    assert view.again is view.first


def test_recurrent_layers_ask_for_no_gradient_either():
    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = torch.nn.LSTM(4, 6, batch_first=True)

        def forward(self, x):
            return self.cells(x)[0][:, -1]

    module = Recurrent()
    logits = open_network(module)(torch.zeros(2, 3, 4))
    assert not logits.requires_grad
    assert torch.equal(logits, module(torch.zeros(2, 3, 4)).detach())


def test_one_column_becomes_the_log_odds_of_the_second_class():
    network = open_network(lambda x: x.sum(dim=1, keepdim=True))
    assert_array_equal(network(torch.ones(2, 3)), [[0, 3], [0, 3]])
    flat = open_network(lambda x: x.sum(dim=1))
    assert_array_equal(flat(torch.ones(2, 3)), [[0, 3], [0, 3]])


def test_frozen_transformers_bring_their_own_settings():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, {"logits": 2 * x}

    transformer = TorchLogits(Pair(), output=0)
    assert_array_equal(open_network(transformer)(torch.ones(1, 3)), [[1, 1, 1]])


@pytest.mark.parametrize(
    ("output", "result"),
    [("scores", {"scores": 1}), (1, (0, 1)), (None, {"logits": 1})],
)
def test_the_output_that_was_named_is_taken(output, result):
    class Result(dict):
        __getattr__ = dict.__getitem__

    def network(x):
        if isinstance(result, dict):
            return Result(dict.fromkeys(result, x))
        return tuple(x * part for part in result)

    assert torch.equal(
        open_network(network, output=output)(torch.ones(2, 3)), torch.ones(2, 3)
    )


@pytest.mark.parametrize("result", [(1,), {"a": 1}])
def test_an_unnamed_output_is_refused(result, images):
    network = open_network(lambda x: result)
    with pytest.raises(ValueError, match="output=<name or position>"):
        network.probe(Inputs(images, network))


def test_a_shape_that_the_network_refuses(shared, images):
    network = open_network(shared)
    with pytest.raises(ValueError, match=r"batch of shape \(12, 2, 4, 4\)"):
        network.probe(Inputs(images[:, :2], network))


def test_scores_of_a_wrong_shape(images):
    network = open_network(lambda x: x)
    with pytest.raises(ValueError, match="a row a sample and a column a class"):
        network.probe(Inputs(images, network))


def test_whole_numbers_are_no_logits(images):
    network = open_network(lambda x: x.flatten(1).long())
    with pytest.raises(ValueError, match="logits are floating-point"):
        network.probe(Inputs(images, network))


def test_another_number_of_columns(shared, images):
    network = open_network(shared)
    with pytest.raises(ValueError, match="5 columns of logits for 3 classes"):
        network.probe(Inputs(images, network), n_classes=3)


def test_probabilities_are_noticed(images):
    network = open_network(lambda x: torch.softmax(x.flatten(1), dim=1))
    with pytest.warns(UserWarning, match="Remove the softmax"):
        network.probe(Inputs(images, network))


def test_one_column_of_probabilities_is_noticed_too(images):
    network = open_network(lambda x: torch.sigmoid(x.flatten(1).sum(dim=1)))
    with pytest.warns(UserWarning, match="Remove the softmax or sigmoid"):
        network.probe(Inputs(images, network))


def test_nan_names_the_row(images):
    images[7, 0, 0, 0] = np.nan
    network = open_network(lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="nan for row 7"):
        network.probe(Inputs(images, network))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.flatten(1).detach(),
        lambda x: torch.from_numpy(x.detach().numpy()).flatten(1),
        lambda x: torch.ones(x.shape[0], 3, requires_grad=True) * 2,
    ],
)
def test_a_callable_that_hides_its_gradient(forward, images):
    network = open_network(forward)
    with pytest.raises(ValueError, match="no gradient with respect to its inputs"):
        network.probe(Inputs(images, network))


def test_networks_of_tokens_are_told_apart():
    module = torch.nn.Sequential(torch.nn.EmbeddingBag(9, 4), torch.nn.Linear(4, 3))
    network = open_network(module)
    tokens = np.random.default_rng(0).integers(0, 9, (5, 6))
    with pytest.raises(ValueError, match=r"whole numbers, .*, such as site='0'"):
        network.probe(Inputs(tokens, network))


def test_networks_that_write_into_their_input_leave_the_data_alone(images):
    network = open_network(lambda x: x.sub_(0.5).relu_().flatten(1))
    before = images.copy()
    inputs = Inputs(images, network, 5)
    network.probe(inputs)
    objective = Objective(network, inputs, np.zeros(12, dtype=int))
    objective.logits()
    value_and_gradient(objective, None, 0.0)
    assert_array_equal(images, before)


def test_double_and_half_precision_weights():
    double = open_network(torch.nn.Linear(3, 2).double())
    assert double.dtype == torch.float64
    assert double(torch.zeros(1, 3, dtype=torch.float64)).dtype == torch.float64
    half = open_network(torch.nn.Linear(3, 2).bfloat16())
    assert half.dtype == torch.float32
    assert half(torch.zeros(1, 3)).dtype == torch.float32


def test_autocast_rounds_the_logits_and_not_the_sums(shared, images):
    exact = open_network(shared)
    rounded = open_network(shared, precision="bf16")
    codes = np.arange(12) % 5
    results = []
    for network in (exact, rounded):
        objective = Objective(network, Inputs(images, network), codes)
        results.append(value_and_gradient(objective, None, 0.0))
    assert results[0][0] != results[1][0]
    assert results[0][0] == pytest.approx(results[1][0], rel=2e-2)
    assert results[1][1].dtype == np.float64
    cosine = np.vdot(results[0][1], results[1][1])
    cosine /= np.linalg.norm(results[0][1]) * np.linalg.norm(results[1][1])
    assert cosine > 0.99
    with pytest.raises(ValueError, match="precision must be"):
        open_network(shared, precision="int8")


def test_channels_last_changes_the_layout_and_nothing_else(shared, images):
    before = [p.stride() for p in shared.parameters()]
    network = open_network(shared, channels_last=True)
    plain = open_network(shared)
    x = torch.from_numpy(images)
    assert_allclose(network(x), plain(x), rtol=1e-5, atol=1e-6)
    assert [p.stride() for p in shared.parameters()] == before
    layouts = []
    seeing = open_network(
        lambda x: layouts.append(x) or x.flatten(1), channels_last=True
    )
    seeing(x)
    assert layouts[0].is_contiguous(memory_format=torch.channels_last)


# The tracer looks at the gradient of its inputs, which are sums and not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_network_gives_the_same_gradients(monkeypatch, shared, images):
    # The compiler proper takes a minute; what is traced here is what it would compile.
    compiled = []

    def trace(network, real=torch.compile):
        compiled.append(network)
        return real(network, backend="eager")

    monkeypatch.setattr(torch, "compile", trace)
    codes = np.arange(12) % 5
    results = []
    for network in (open_network(shared), open_network(shared, compile=True)):
        objective = Objective(network, Inputs(images, network, 6), codes)
        results.append(value_and_gradient(objective, None, 0.0))
    assert len(compiled) == 1
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert_allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-8)


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(TypeError, match="got int"):
        open_network(3)
    with pytest.raises(ModelFormatError, match="weights_only=True"):
        open_network(tmp_path / "network.pt")


@pytest.mark.gpu
@needs_gpu
def test_a_module_moved_to_the_gpu_is_copied(shared, images):
    network = open_network(shared, device="cuda")
    assert next(shared.parameters()).device.type == "cpu"
    logits = network(torch.from_numpy(images).cuda()).cpu()
    assert_allclose(logits, open_network(shared)(torch.from_numpy(images)), atol=1e-4)
