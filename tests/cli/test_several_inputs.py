"""Models of several inputs at the command line."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from token_model import export, labels_of, make_module, make_tokens  # noqa: E402

pytestmark = [pytest.mark.onnx, pytest.mark.torch]
SITE = "/module/embedding/Gather_output_0"


@pytest.fixture(scope="module")
def model_bytes():
    return export(make_module())


@pytest.fixture
def model(tmp_path, model_bytes):
    path = tmp_path / "tokens.onnx"
    path.write_bytes(model_bytes)
    return path


@pytest.fixture
def tokens(tmp_path):
    """Tokens, their mask, labels and what the model does not take."""
    X, _ = make_tokens(60)
    y = labels_of(make_module(), X)
    np.savez(tmp_path / "val.npz", **X, token_type_ids=X["input_ids"], labels=y)
    return X, y


@pytest.mark.parametrize("key", [(), ("--inputs-key", "input_ids,attention_mask")])
def test_several_inputs_are_found_by_the_names_of_the_model(
    skcalib, model, tokens, tmp_path, key
):
    run = skcalib(
        "calibrate", model, "--inputs", "val.npz", *key, "-m", "temperature",
        "-o", "c.onnx", "--n-bootstrap", 0, "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["n_compared"] == 60
    assert run.json["largest_difference"] < 1e-6
    session = ort.InferenceSession(str(tmp_path / "c.onnx"))
    (logits,) = session.run(None, tokens[0])
    (raw,) = ort.InferenceSession(str(model)).run(None, tokens[0])
    assert_allclose(logits * run.json["learned"]["temperature"], raw, atol=1e-4)
    judged = skcalib("evaluate", model, "--inputs", "val.npz", *key, "--json")
    assert judged.code == 0, judged.err


def test_the_embedding_is_clamped_where_it_is_named(skcalib, refused, model, tokens):
    clamp = (
        "calibrate",
        model,
        "--inputs",
        "val.npz",
        "-m",
        "clamping",
        "-o",
        "c.onnx",
    )
    assert f"such as site='{SITE}'" in refused(1, *clamp)
    run = skcalib(*clamp, "--site", SITE, "--folds", 2, "--n-bootstrap", 0, "--json")
    assert run.code == 0, run.err
    assert run.json["largest_difference"] < 1e-5
    message = refused(2, "calibrate", model, "--inputs", "val.npz", "--site", SITE)
    assert "--site is what clamping perturbs" in message


def test_an_input_that_the_file_lacks_is_named(refused, model, tmp_path):
    np.savez(tmp_path / "half.npz", input_ids=np.ones((5, 8), int), y=np.zeros(5, int))
    message = refused(1, "evaluate", model, "--inputs", "half.npz")
    assert "no 'attention_mask' for the inputs; the names are input_ids, y" in message
    message = refused(
        1, "evaluate", model, "--inputs", "half.npz", "--inputs-key", "input_ids"
    )
    assert "lacks the model's inputs ['attention_mask']" in message


def test_columns_of_a_table_are_inputs_of_their_own(skcalib, tmp_path):
    text = """g (float[n, 1] age, float[n, 1] income) => (float[n, 2] y) {
        both = Concat <axis = 1> (income, age) y = Identity(both) }"""
    graph = onnx.parser.parse_graph(text)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8),
        tmp_path / "m.onnx",
    )
    rows = ["id,age,income,label", "0,1.5,0.5,1", "1,0.5,2.5,0", "2,3.5,1.5,0"]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    run = skcalib("evaluate", "m.onnx", "--inputs", "rows.csv", "--json",
                  "--n-bootstrap", 0)  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
