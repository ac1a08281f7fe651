"""NeuralClamping from the command line."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
pytestmark = [pytest.mark.onnx, pytest.mark.torch]

CLAMP = ("--method", "clamping", "-o", "c.onnx")


@pytest.fixture
def shifted_file(tmp_path, demo):
    """Images from a pipeline that makes them darker than in training."""
    X = (0.7 * demo.X_calibration + 0.3).astype(np.float32)[:300]
    np.savez(tmp_path / "shifted.npz", X=X, y=demo.y_calibration[:300])
    return tmp_path / "shifted.npz"


@pytest.mark.slow
def test_the_perturbation_is_learned_judged_written_and_shown(
    skcalib, demo, shifted_file, tmp_path
):
    pytest.importorskip("matplotlib")
    run = skcalib(
        "calibrate", demo.model, "--inputs", shifted_file, *CLAMP, "--gamma", 0,
        "--test-fraction", 0.5, "--n-bootstrap", 0, "--json", "--report", "r.html",
    )  # fmt: skip
    assert run.code == 0, run.err
    told = run.json
    assert "gamma=0" in told["calibrator"]
    assert told["learned"]["delta_norm"] > 0
    assert told["n_fit"] == 150
    assert told["n_compared"] == 300
    assert told["largest_difference"] < 1e-5
    before, after = (told[key]["metrics"] for key in ("before", "after"))
    assert after["accuracy"]["value"] > before["accuracy"]["value"]
    assert after["nll"]["value"] < before["nll"]["value"]
    page = (tmp_path / "r.html").read_text()
    assert told["learned"]["perturbation"][0] == "filter"
    assert "Every input is filtered before it enters the network" in page

    session = ort.InferenceSession(str(tmp_path / "c.onnx"))
    with np.load(shifted_file) as arrays:
        (proba,) = session.run([told["output_name"]], {"image": arrays["X"]})
        accuracy = (proba.argmax(axis=1) == arrays["y"]).mean()
    assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert accuracy > before["accuracy"]["value"]


@pytest.mark.parametrize("solver", ["search_linearised", "minimize"])
def test_an_interrupted_search_writes_nothing(
    refused, demo, shifted_file, tmp_path, monkeypatch, solver
):
    from skcalib.clamping import _solve

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_solve, solver, interrupted)
    told = ("--gamma", 0, "--test-fraction", 0.5)
    message = refused(
        130, "calibrate", demo.model, "--inputs", shifted_file, *CLAMP, *told
    )
    assert message == "Interrupted: nothing was written."
    assert not (tmp_path / "c.onnx").exists()


def test_the_report_says_when_there_is_no_perturbation(skcalib, demo, tmp_path):
    pytest.importorskip("matplotlib")
    # Labels unrelated to the images: nothing can be gained by changing these.
    y = np.random.default_rng(0).integers(10, size=200)
    np.savez(tmp_path / "noise.npz", X=demo.X_calibration[:200], y=y)
    run = skcalib(
        "calibrate", demo.model, "--inputs", "noise.npz", *CLAMP,
        "--folds", 2, "--n-bootstrap", 0, "--json", "--report", "r.html",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["learned"]["delta_norm"] == 0
    page = (tmp_path / "r.html").read_text()
    assert "None: a perturbation does not lower the loss" in page


@pytest.mark.parametrize("role", ["logits", "probabilities"])
def test_cached_outputs_are_refused(refused, demo, logits_file, role):
    for model in ((), (demo.model,)):
        message = refused(2, "calibrate", *model, f"--{role}", logits_file, *CLAMP)
        assert "perturbs the inputs of a model: pass MODEL with --inputs" in message


def test_original_outputs_cannot_be_kept(refused, demo, images_file):
    message = refused(
        2, "calibrate", demo.model, "--inputs", images_file, *CLAMP, "--keep-outputs"
    )
    assert "--keep-outputs cannot go with clamping" in message


def test_gamma_is_refused_where_it_would_do_nothing(refused, skcalib, logits_file):
    source = ("calibrate", "--logits", logits_file, "-o", "c.onnx", "--gamma", 2)
    message = refused(2, *source, "-m", "temperature")
    assert "temperature does not use; temperature-focal and clamping do" in message
    run = skcalib(*source, "-m", "temperature-focal", "--n-bootstrap", 0)
    assert "gamma=2.0" in run.out


def test_comparing_clamping_with_others_is_refused(refused, demo, images_file):
    message = refused(
        2,
        "compare",
        demo.model,
        "--inputs",
        images_file,
        "--methods",
        "vector,clamping",
    )
    assert "clamping is fitted on inputs" in message


def test_missing_torch_is_told_with_its_extra(refused, demo, images_file, hide_package):
    hide_package("torch")
    message = refused(4, "calibrate", demo.model, "--inputs", images_file, *CLAMP)
    assert 'pip install "skcalib[torch]"' in message


def test_a_network_without_a_gradient_leads_to_another_method(refused, tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        u (float[n, 3] x) => (float[n, 3] logits) {
            a, s, z = DynamicQuantizeLinear(x)  logits = DequantizeLinear(a, s, z) }""")
    onnx.save(model, tmp_path / "integers.onnx")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "rows.npz", X=X, y=y)
    message = refused(1, "calibrate", "integers.onnx", "--inputs", "rows.npz", *CLAMP)
    assert message.count("--method temperature") == 1
    assert "solver=" not in message
