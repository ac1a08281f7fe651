"""Calibrations of networks with several inputs, written and run."""

import io
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from sklearn.pipeline import make_pipeline  # noqa: E402
from token_model import (  # noqa: E402
    LENGTH,
    WIDTH,
    export,
    labels_of,
    make_module,
    make_tokens,
)

from skcalib import NeuralClamping, TemperatureScaling  # noqa: E402
from skcalib.export import calibrate_onnx_model, to_torch  # noqa: E402
from skcalib.frozen import OnnxLogits  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]
# Adds the word embeddings of the tokens to those of their places.
SITE = "/module/embedding/Gather_output_0"
FULL = {"perturbation": "full", "penalty": 0.01, "solver": "lbfgs", "tol": 1e-4}


@pytest.fixture(scope="module")
def exported():
    return export(make_module())


@pytest.fixture(scope="module")
def calibration_set():
    X, _ = make_tokens(40)
    return X, labels_of(make_module(), X)


def served(model, X):
    session = ort.InferenceSession(model.SerializeToString())
    (logits,) = session.run(["logits"], {k: np.asarray(v) for k, v in X.items()})
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)


def tensors(X):
    return {name: torch.as_tensor(part) for name, part in X.items()}


def test_a_calibrator_is_written_behind_several_inputs(exported, calibration_set):
    X, y = calibration_set
    pipe = make_pipeline(OnnxLogits(exported), TemperatureScaling()).fit(X, y)
    model = calibrate_onnx_model(exported, pipe)
    assert_allclose(served(model, X), pipe.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("bounds", [None, (-9.0, 9.0)])
def test_a_perturbed_embedding_is_written(exported, calibration_set, bounds):
    X, y = calibration_set
    clamping = NeuralClamping(exported, site=SITE, feasible_range=bounds, **FULL)
    clamping.fit(X, y)
    assert clamping.delta_.shape == (LENGTH, WIDTH)
    assert clamping.input_names_ == ["input_ids", "attention_mask"]
    expected = clamping.predict_proba(X)
    assert_allclose(
        served(calibrate_onnx_model(None, clamping), X), expected, atol=1e-5
    )
    module = to_torch(clamping)
    assert_allclose(module(**tensors(X)), expected, atol=1e-5)
    assert_allclose(module(tensors(X)), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"fitted on \['input_ids', 'attention_mask'"):
        clamping.predict_proba({**X, "token_type_ids": X["input_ids"]})


def in_runtime(model, X):
    """Return what a network written from torch serves."""
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(["probabilities"], {k: np.asarray(v) for k, v in X.items()})[0]


@pytest.mark.parametrize("bounds", [None, (-2.0, 2.0)])
@pytest.mark.parametrize("site", ["embedding", None])
def test_a_module_of_several_inputs_is_written(calibration_set, site, bounds, tmp_path):
    X, y = calibration_set
    module = make_module()
    embedded = module.embedding(torch.as_tensor(X["input_ids"])).detach()
    if site is None:
        embedded = embedded if bounds is None else embedded.clip(*bounds)
        X = {"inputs_embeds": embedded, "attention_mask": X["attention_mask"]}
    elif bounds is not None:
        bounds = (float(embedded.min()), float(embedded.max()))
    clamping = NeuralClamping(module, site=site, feasible_range=bounds, **FULL)
    clamping.fit(X, y)
    assert clamping.delta_.any()
    exported = to_torch(clamping)
    expected = clamping.predict_proba(X)
    assert_allclose(exported(**tensors(X)), expected, atol=1e-6)
    torch.save(exported, tmp_path / "module.pt")
    again = torch.load(tmp_path / "module.pt", weights_only=False)
    assert_allclose(again(**tensors(X)), expected, atol=1e-6)
    model = calibrate_onnx_model(None, clamping)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == [*X]
    assert_allclose(in_runtime(model, X), expected, atol=1e-5)
    one = {name: part[:1] for name, part in X.items()}
    assert_allclose(in_runtime(model, one), expected[:1], atol=1e-5)


@pytest.mark.parametrize("named", [True, False])
def test_a_module_of_one_input_is_written_with_its_site(calibration_set, named):
    X, y = calibration_set
    X = X["input_ids"]
    fed = {"input_ids": X} if named else X
    module = make_module()
    clamping = NeuralClamping(module, site="embedding", **FULL).fit(fed, y)
    expected = clamping.predict_proba(fed)
    module = to_torch(clamping)
    x = torch.as_tensor(X)
    assert_allclose(module(input_ids=x) if named else module(x), expected, atol=1e-6)
    model = calibrate_onnx_model(None, clamping)
    served = in_runtime(model, {"input_ids" if named else "input": X})
    assert_allclose(served, expected, atol=1e-5)


def test_a_filter_inside_a_module_is_written():
    torch.manual_seed(0)
    first = torch.nn.Conv2d(1, 3, 3, padding=1)
    module = torch.nn.Sequential(
        first, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(108, 3)
    )
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 1, 6, 6), np.float32), rng.integers(0, 3, 60)
    settings = FULL | {"perturbation": "filter"}
    clamping = NeuralClamping(module, site="0", **settings).fit(X, y)
    assert clamping.filter_.any()
    expected = clamping.predict_proba(X)
    assert_allclose(to_torch(clamping)(torch.as_tensor(X)), expected, atol=1e-5)
    model = calibrate_onnx_model(None, clamping)
    assert_allclose(in_runtime(model, {"input": X}), expected, atol=1e-5)


class TwoInputs(torch.nn.Module):
    """Reads an image beside a row of features, both of real numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.of_image, self.of_row = torch.nn.Linear(16, 3), torch.nn.Linear(4, 3)

    def forward(self, image, row):
        return self.of_image(image.flatten(1)) + self.of_row(row)


def as_onnx(module, X):
    """Write a module by torch, whose result is called logits."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(tensors(X).values()),
            file,
            dynamo=False,
            opset_version=17,
            input_names=[*X],
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in (*X, "logits")},
        )
    return file.getvalue()


@pytest.mark.parametrize("site", ["image", "row"])
def test_one_of_two_real_inputs_is_perturbed_everywhere(site):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((50, 1, 4, 4), np.float32)
    X = {"image": image, "row": rng.standard_normal((50, 4), np.float32)}
    y = rng.integers(0, 3, 50)
    clamping = NeuralClamping(TwoInputs(), site=site, **FULL).fit(X, y)
    assert clamping.delta_.shape == X[site].shape[1:]
    expected = clamping.predict_proba(X)
    assert_allclose(to_torch(clamping)(**tensors(X)), expected, atol=1e-6)
    model = calibrate_onnx_model(None, clamping)
    assert_allclose(in_runtime(model, X), expected, atol=1e-5)
    # The same network as an ONNX model, perturbed there.
    written = as_onnx(TwoInputs(), X)
    again = NeuralClamping(written, site=site, **FULL).fit(X, y)
    assert_allclose(again.predict_proba(X), expected, atol=1e-4)
    expected = again.predict_proba(X)
    assert_allclose(served(calibrate_onnx_model(None, again), X), expected, atol=1e-5)
    assert_allclose(to_torch(again)(**tensors(X)), expected, atol=1e-5)


class NamedX(torch.nn.Module):
    """Has an input of the name by which others call a single one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.of_x = torch.nn.Linear(8, 4)

    def forward(self, x, ids):
        return self.of_x(x) + ids[:, None] * self.of_x.bias


def test_an_input_named_x_is_passed_by_its_name():
    rng = np.random.default_rng(0)
    X = {"x": rng.standard_normal((40, 8), np.float32), "ids": np.arange(40) % 3}
    y = rng.integers(0, 4, 40)
    written = as_onnx(NamedX(), X)
    for network in (NamedX(), written):
        clamping = NeuralClamping(network, site="x", **FULL).fit(X, y)
        expected = clamping.predict_proba(X)
        module = to_torch(clamping)
        assert_allclose(module(**tensors(X)), expected, atol=1e-5)
        assert_allclose(module(tensors(X)), expected, atol=1e-5)
    frozen = OnnxLogits(written).fit(X)
    with torch.no_grad():
        logits = NamedX()(**tensors(X))
    assert_allclose(frozen.transform(X), logits, atol=1e-5)


def test_a_single_input_without_a_name_may_be_called_x():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 8), np.float32), rng.integers(0, 4, 40)
    clamping = NeuralClamping(torch.nn.Linear(8, 4), **FULL).fit(X, y)
    module, x = to_torch(clamping), torch.as_tensor(X)
    assert_allclose(module(x=x), module(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, x)
    assert_allclose(traced(x), module(x))
