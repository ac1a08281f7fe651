"""Networks as they are handed over: what they are, and what was said of them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skcalib import TemperatureScaling
from skcalib.frozen import ClassifierLogits, OnnxLogits, TorchLogits

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from skcalib._networks._given import Given, perturbs_inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib._networks._result import as_logits  # noqa: E402
from skcalib._onnx._outputs import as_columns  # noqa: E402
from skcalib.clamping import NeuralClamping, NeuralClampingCV  # noqa: E402


def flatten(x):
    return x.flatten(1)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (torch.nn.Identity(), "module"),
        ("model.onnx", "onnx"),
        (b"model", "onnx"),
        (flatten, "callable"),
        (3, "callable"),
    ],
)
def test_networks_are_told_apart(model, kind):
    assert Given.of(model, output=1) == Given(kind, model, 1)


def test_what_a_transformer_says_of_its_network_holds():
    module = torch.nn.Identity()
    found = Given.of(TorchLogits(module, device="cpu", output="logits"))
    assert found == Given("module", module, "logits", "cpu")
    providers = ["CPUExecutionProvider"]
    found = Given.of(OnnxLogits("a.onnx", output="z", providers=providers), "p")
    assert found == Given("onnx", "a.onnx", "p", providers=providers)


def test_a_module_may_hold_what_a_transformer_does():
    module = torch.nn.Identity()
    module._network = "resnet18"
    assert Given.of(module) == Given("module", module)


def test_a_classifier_s_logits_are_no_network():
    classifier = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module.* LogisticReg"):
        open_network(ClassifierLogits(classifier))


class Spanned:
    """Has what NeuralClamping has, and is none."""

    feasible_range = delta_ = None


@pytest.mark.parametrize("kind", [NeuralClamping, NeuralClampingCV])
def test_a_class_says_that_it_perturbs_inputs(kind):
    assert perturbs_inputs(kind(torch.nn.Identity()))
    assert not perturbs_inputs(TemperatureScaling())
    assert not perturbs_inputs(Spanned())


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 3, 1, 1)])
def test_scores_are_laid_out_alike_in_arrays_and_tensors(shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    columns = as_columns(values, 4, "The output")
    assert columns.shape == (4, values[0].size)
    np.testing.assert_array_equal(
        as_columns(torch.from_numpy(values), 4, "The output"), columns
    )
    logits = as_logits(torch.from_numpy(values), 4).numpy()
    if columns.shape[1] == 1:
        columns = np.hstack([np.zeros_like(columns), columns])
    np.testing.assert_array_equal(logits, columns)


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
@pytest.mark.parametrize("shape", [(), (3,), (4, 2, 2)])
def test_what_is_no_row_of_scores_is_refused(make, shape):
    values = make(shape)
    with pytest.raises(ValueError, match=r"has shape \(.* for 4 rows.*output="):
        as_columns(values, 4, "The output")


@pytest.mark.parametrize("values", [np.zeros(4, int), torch.zeros(4, dtype=int)])
def test_whole_numbers_are_no_scores(values):
    with pytest.raises(ValueError, match=r"has type .*int64; logits are floating"):
        as_columns(values, 4, "The output")
