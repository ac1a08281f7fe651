"""OnnxLogits on real networks and on what users get wrong."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from skcalib._onnx._recent import Recent
from skcalib.calibrators import TemperatureScaling
from skcalib.exceptions import ModelFormatError
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def network(data_dir):
    return data_dir / "cifar10" / "resnet8d.onnx"


@pytest.fixture(scope="module")
def images(data_dir):
    """200 images as the network takes them, their labels, and their true logits."""
    with np.load(data_dir / "cifar10" / "cifar10_test.npz") as arrays:
        rows = arrays["cal_idx"][::25]
        X, y = arrays["x"][rows], arrays["y"][rows]
    with np.load(data_dir / "cifar10" / "cifar10_logits.npz") as arrays:
        logits = arrays["resnet8d"][rows]
    return np.float32(X.transpose(0, 3, 1, 2) / 255), y, logits


def one_input(op, shape, element=1, **attributes):
    """A model of one operator on one input."""
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node(op, ["x"], ["z"], **attributes)]
    graph = onnx.helper.make_graph(
        nodes, "one", [value("x", element, shape)], [value("z", 1, None)]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_the_logits_of_a_real_network(network, images):
    X, _, logits = images
    found = OnnxLogits(network).fit_transform(X)
    assert found.dtype == np.float32
    assert_allclose(found, logits, atol=5e-5)


@pytest.mark.parametrize("form", ["path", "str", "bytes", "proto"])
def test_a_network_comes_as_path_bytes_or_message(network, images, form, monkeypatch):
    forms = {
        "path": network,
        "str": str(network),
        "bytes": network.read_bytes(),
        "proto": onnx.load(network),
    }
    X, _, logits = images
    frozen = OnnxLogits(forms[form], batch_size=64)
    data = pickle.dumps(clone(frozen).fit(X))
    # As in a process where no network is open.
    monkeypatch.setattr("skcalib._onnx._session._sessions", Recent(8))
    copied = pickle.loads(data)  # noqa: S301
    assert_allclose(copied.transform(X[:9]), logits[:9], atol=5e-5)
    assert len(repr(frozen)) < 200
    assert len(repr(make_pipeline(frozen))) < 2000
    assert len(frozen._repr_html_()) < 100_000


def test_a_clone_shares_the_network(network):
    data = network.read_bytes()
    frozen = OnnxLogits(data, batch_size=7).set_output(transform="pandas")
    twin = clone(frozen)
    assert twin.model is data
    assert twin.get_params() == frozen.get_params()
    assert twin._sklearn_output_config == frozen._sklearn_output_config
    assert twin is not frozen


def test_transform_works_without_fit(network, images):
    X, _, logits = images
    frozen = OnnxLogits(network)
    assert_allclose(frozen.transform(X[:5]), logits[:5], atol=5e-5)
    assert not get_tags(frozen).requires_fit
    assert not hasattr(frozen, "readout_")


def test_what_was_never_fitted_returns_frames_too(network, images):
    pytest.importorskip("pandas")
    frozen = OnnxLogits(network).set_output(transform="pandas")
    frame = frozen.transform(images[0][:5])
    assert list(frame.columns) == [f"onnxlogits{k}" for k in range(10)]


def test_a_row_is_mapped_alike_alone_and_in_a_batch(network, images):
    X, _, _ = images
    alone = np.vstack([OnnxLogits(network, batch_size=1).transform(X[:20])])
    assert_allclose(alone, OnnxLogits(network).transform(X[:20]), atol=1e-5)


def test_a_file_mapped_into_memory_is_read_in_batches(network, images, tmp_path):
    X, _, logits = images
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = OnnxLogits(network, batch_size=33).fit_transform(mapped)
    assert_allclose(found, logits, atol=5e-5)


def test_columns_have_names(network, images):
    frozen = OnnxLogits(network)
    with pytest.raises(NotFittedError):
        frozen.get_feature_names_out()
    names = frozen.fit(images[0]).get_feature_names_out()
    assert names.tolist() == [f"onnxlogits{k}" for k in range(10)]


def test_a_real_network_is_calibrated_and_run_by_onnxruntime(network, images):
    X, y, _ = images
    pipe = make_pipeline(OnnxLogits(network), TemperatureScaling()).fit(X, y)
    model = calibrate_onnx_model(network, pipe)
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"image": X})
    assert_allclose(logits, pipe.decision_function(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda X: X.transpose(0, 2, 3, 1),
            r"channels last: X\.transpose\(0, 3, 1, 2\)",
        ),
        (lambda X: X.reshape(len(X), -1), r"X\.reshape\(-1, 3, 32, 32\)"),
        (lambda X: X[0], r"single sample: X\[np\.newaxis\]"),
        (lambda X: X[:, :, 1:], r"takes \(n_samples, 3, 32, 32\)"),
        (lambda X: X[:0], "no samples"),
        (lambda X: (255 * X).astype(np.uint8), r"Scale them as in training"),
        (lambda X: X.astype(complex), "type complex128 but .* float32"),
    ],
)
def test_inputs_that_the_model_does_not_take(network, images, change, match):
    with pytest.raises(ValueError, match=match):
        OnnxLogits(network).fit(change(images[0]))


def test_double_precision_and_lists_are_converted(network, images):
    X, _, logits = images
    assert_allclose(
        OnnxLogits(network).transform(X[:3].astype(float)), logits[:3], atol=5e-5
    )
    assert_allclose(
        OnnxLogits(network).transform(X[:3].tolist()), logits[:3], atol=5e-5
    )


def test_channels_first_for_a_model_with_channels_last():
    model = one_input("Flatten", ["n", 8, 8, 3])
    with pytest.raises(ValueError, match=r"channels first: X\.transpose\(0, 2, 3, 1\)"):
        OnnxLogits(model).fit(np.zeros((2, 3, 8, 8), dtype=np.float32))


def test_integer_inputs_are_converted_only_without_loss():
    model = one_input("Cast", ["n", 3], onnx.TensorProto.INT32, to=1)
    values = np.array([[1, 2, 70000]])
    assert_array_equal(OnnxLogits(model).fit_transform(values), values)
    with pytest.raises(ValueError, match=r"type float64 but .* int32"):
        OnnxLogits(model).fit(values / 2)
    with pytest.raises(ValueError, match="not every value"):
        OnnxLogits(model).fit(values * 2**31)


def test_several_inputs_are_named():
    pd = pytest.importorskip("pandas")
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Concat", ["a", "b"], ["z"], axis=1)]
    inputs = [value("a", 1, ["n", 1]), value("b", 1, ["n", 1])]
    graph = onnx.helper.make_graph(nodes, "two", inputs, [value("z", 1, ["n", 2])])
    opsets = [onnx.helper.make_opsetid("", 17)]
    frozen = OnnxLogits(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )
    expected = [[1.0, 3.0], [2.0, 4.0]]
    columns = {"b": [3.0, 4.0], "a": [1.0, 2.0]}
    frozen.fit(pd.DataFrame(columns)[["a", "b"]])
    assert frozen.transform(pd.DataFrame(columns)).tolist() == expected
    assert frozen.transform(columns).tolist() == expected
    with pytest.raises(ValueError, match="a dict or a DataFrame"):
        frozen.transform(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"lacks the model's inputs \['b'\]"):
        frozen.transform({"a": [1.0]})


def test_nan_logits_are_named(network, images):
    X = images[0][:5].copy()
    X[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="nan for row 3 of X"):
        OnnxLogits(network).transform(X)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("missing.onnx", "No such file"),
        (b"", "empty one"),
        (b"not a model", "damaged one"),
        (".", "is a folder"),
    ],
)
def test_files_that_are_no_models(model, match):
    with pytest.raises(ModelFormatError, match=match):
        OnnxLogits(model).fit(np.zeros((2, 2)))


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "net.ckpt"])
def test_a_pickled_network_is_not_opened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelFormatError, match="weights_only=True"):
        OnnxLogits(path).fit(np.zeros((2, 3), dtype=np.float32))


def test_a_damaged_copy_of_a_model_is_refused(network, tmp_path):
    (tmp_path / "half.onnx").write_bytes(network.read_bytes()[:100_000])
    with pytest.raises(ModelFormatError):
        OnnxLogits(tmp_path / "half.onnx").fit(np.zeros((2, 3, 32, 32)))


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    X = np.ones((2, 3), dtype=np.float32)
    path = tmp_path / "model.onnx"
    for op, expected in (("Neg", -1.0), ("Exp", np.float32(np.e))):
        onnx.save(one_input(op, ["n", 3]), path)
        assert_allclose(OnnxLogits(path).transform(X), expected, rtol=1e-6)


@pytest.mark.parametrize("ops", [("Neg", "Softmax"), ("Softmax", "Neg")])
def test_a_file_that_was_replaced_since_fit_is_read_as_it_is_now(tmp_path, ops):
    X = np.array([[3.0, 1.0, 0.5]], dtype=np.float32)
    path = tmp_path / "model.onnx"
    onnx.save(one_input(ops[0], ["n", 3]), path)
    frozen = OnnxLogits(path).fit(X)
    onnx.save(one_input(ops[1], ["n", 3]), path)
    assert_array_equal(frozen.transform(X), OnnxLogits(path).fit_transform(X))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="'model' parameter of OnnxLogits"):
        OnnxLogits(3).fit(np.zeros((2, 2)))


def test_another_model_is_read_as_its_own_output_says():
    def probabilities(shape):
        return one_input("Softmax", shape, axis=1)

    X = np.array([[3.0, 1.0, 0.5]], dtype=np.float32)
    frozen = OnnxLogits(one_input("Neg", ["n", 3])).set_output(transform="pandas")
    assert_array_equal(frozen.fit_transform(X), -X)
    frozen.set_params(model=probabilities(["n", 3]))
    shown = OnnxLogits(probabilities(["n", 3])).fit_transform(X)
    assert_allclose(frozen.transform(X), shown, rtol=1e-6)
    frozen.set_params(model=probabilities(["n", 2]))
    assert frozen.transform(X[:, :2]).shape == (1, 2)


def test_a_collection_of_chunks_is_refused_before_it_is_read():
    da = pytest.importorskip("dask.array")
    frozen = OnnxLogits(one_input("Neg", ["n", 3]))
    X = np.ones((4, 3), dtype=np.float32)
    chunks = da.from_array(X, chunks=(2, 3))
    for method in (frozen.fit, frozen.transform):
        with pytest.raises(TypeError, match=r"Dask collection.*X\.map_blocks"):
            method(chunks)
    assert_array_equal(chunks.map_blocks(frozen.transform, dtype=np.float32), -X)


def test_columns_of_a_frame_in_another_order_are_refused():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({name: np.ones(4, dtype=np.float32) for name in "abc"})
    frozen = OnnxLogits(one_input("Neg", ["n", 3])).fit(frame)
    assert frozen.n_features_in_ == 3
    assert frozen.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="same order as they were in fit"):
        frozen.transform(frame[["c", "a", "b"]])
