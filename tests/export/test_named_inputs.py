"""Calibrations of networks with several inputs, written and run."""

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
FULL = {"perturbation": "full", "penalty": 0.01, "solver": "lbfgs"}


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


@pytest.mark.parametrize("site", ["embedding", None])
def test_a_module_of_several_inputs_becomes_one_module(calibration_set, site, tmp_path):
    X, y = calibration_set
    module = make_module()
    if site is None:
        embedded = module.embedding(torch.as_tensor(X["input_ids"])).detach()
        X = {"inputs_embeds": embedded, "attention_mask": X["attention_mask"]}
    clamping = NeuralClamping(module, site=site, **FULL).fit(X, y)
    assert clamping.delta_.any()
    with pytest.raises(ValueError, match=r"by torch\.onnx\.export, or fit on the ONNX"):
        calibrate_onnx_model(None, clamping)
    exported = to_torch(clamping)
    expected = clamping.predict_proba(X)
    assert_allclose(exported(**tensors(X)), expected, atol=1e-6)
    torch.save(exported, tmp_path / "module.pt")
    again = torch.load(tmp_path / "module.pt", weights_only=False)
    assert_allclose(again(**tensors(X)), expected, atol=1e-6)
