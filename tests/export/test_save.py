"""Files are written whole or not at all, and never over another by accident."""

import os

import numpy as np
import pytest

from skcalib._files import text_file, write_together
from skcalib._onnx import _files
from skcalib.calibrators import TemperatureScaling
from skcalib.export import calibrate_onnx_model, save_onnx, to_onnx
from skcalib.frozen import OnnxLogits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx


@pytest.fixture
def calibrator(calibration_set):
    return TemperatureScaling().fit(*calibration_set)


@pytest.fixture
def wide_model(tmp_path):
    """A linear model whose weights lie in a file of their own."""
    weight = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "W"], ["z"])],
        "wide",
        [value("x", 1, ["n", 300])],
        [value("z", 1, ["n", 4])],
        [onnx.numpy_helper.from_array(weight, "W")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    folder = tmp_path / "original"
    folder.mkdir()
    path = folder / "wide.onnx"
    onnx.save(model, path, save_as_external_data=True, location="wide.data")
    assert path.stat().st_size < 1000
    return path


def test_what_is_saved_is_what_is_read(calibrator, tmp_path):
    model = to_onnx(calibrator)
    save_onnx(model, tmp_path / "calibration.onnx")
    assert onnx.load(tmp_path / "calibration.onnx") == model
    assert os.listdir(tmp_path) == ["calibration.onnx"]


def test_a_file_that_exists_is_kept_unless_told_otherwise(calibrator, tmp_path):
    path = tmp_path / "calibration.onnx"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_onnx(to_onnx(calibrator), path)
    assert path.read_text() == "precious"
    save_onnx(to_onnx(calibrator), path, overwrite=True)
    onnx.checker.check_model(path)


def test_nothing_is_left_behind_when_writing_fails(calibrator, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_onnx(to_onnx(calibrator), tmp_path / "calibration.onnx")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing_or_a_file_is_named(calibrator, tmp_path):
    model = to_onnx(calibrator)
    with pytest.raises(ValueError, match="does not exist"):
        save_onnx(model, tmp_path / "missing" / "calibration.onnx")
    with pytest.raises(ValueError, match="is a folder"):
        save_onnx(model, tmp_path)


def test_a_read_only_folder_is_named(calibrator, tmp_path, monkeypatch):
    # The superuser may write anywhere, so the refusal is played.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(ValueError, match=r"Cannot write to the folder .* denied"):
        save_onnx(to_onnx(calibrator), tmp_path / "calibration.onnx")


def test_outside_weights_are_read_into_the_calibrated_model(
    wide_model, calibrator, tmp_path
):
    X = np.random.default_rng(1).normal(size=(9, 300)).astype(np.float32)
    expected = calibrator.decision_function(OnnxLogits(wide_model).fit_transform(X))
    model = calibrate_onnx_model(wide_model, calibrator)
    save_onnx(model, tmp_path / "calibrated.onnx")
    served = run(tmp_path / "calibrated.onnx", X)
    np.testing.assert_allclose(served, expected, rtol=1e-5)


def test_large_outside_weights_stay_outside(
    wide_model, calibrator, tmp_path, monkeypatch
):
    monkeypatch.setattr(_files, "LARGEST_INLINE", 100)
    model = calibrate_onnx_model(wide_model, calibrator)
    with pytest.raises(ValueError, match="data_folder"):
        save_onnx(model, tmp_path / "calibrated.onnx")
    save_onnx(model, tmp_path / "calibrated.onnx", data_folder=wide_model.parent)
    X = np.random.default_rng(1).normal(size=(9, 300)).astype(np.float32)
    expected = calibrator.decision_function(OnnxLogits(wide_model).fit_transform(X))
    served = run(tmp_path / "calibrated.onnx", X)
    np.testing.assert_allclose(served, expected, rtol=1e-5)
    # Beside the original, the two models share the file.
    save_onnx(model, wide_model.parent / "c.onnx", data_folder=wide_model.parent)
    np.testing.assert_allclose(
        run(wide_model.parent / "c.onnx", X), expected, rtol=1e-5
    )


def test_outside_weights_count_as_often_as_they_are_used(
    wide_model, calibrator, monkeypatch
):
    # Two tensors in one place are two copies once they are read in.
    model = onnx.load(wide_model, load_external_data=False)
    twin = onnx.TensorProto.FromString(model.graph.initializer[0].SerializeToString())
    twin.name = "V"
    model.graph.initializer.append(twin)
    model.graph.node.add(op_type="MatMul", input=["x", "V"], output=["z2"])
    model.graph.node.add(op_type="Max", input=["z", "z2"], output=["most"])
    model.graph.output[0].name = "most"
    wide_model.write_bytes(model.SerializeToString())
    size = (wide_model.parent / "wide.data").stat().st_size
    for limit, is_inside in ((size, False), (2 * size, True)):
        monkeypatch.setattr(_files, "LARGEST_INLINE", limit)
        calibrated = calibrate_onnx_model(wide_model, calibrator)
        assert (not _files.outside_files(calibrated)) == is_inside


def test_weights_in_a_folder_of_their_own_are_copied_into_such_a_one(
    wide_model, calibrator, tmp_path, monkeypatch
):
    monkeypatch.setattr(_files, "LARGEST_INLINE", 0)
    model = onnx.load(wide_model)
    (wide_model.parent / "sub").mkdir()
    onnx.save(model, wide_model, save_as_external_data=True, location="sub/w.data")
    model = calibrate_onnx_model(wide_model, calibrator)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "calibrated.onnx"
    save_onnx(model, path, data_folder=wide_model.parent)
    X = np.random.default_rng(1).normal(size=(9, 300)).astype(np.float32)
    expected = calibrator.decision_function(OnnxLogits(wide_model).fit_transform(X))
    np.testing.assert_allclose(run(path, X), expected, rtol=1e-5)


def test_no_folder_is_left_where_a_file_of_weights_is_in_the_way(tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    model = onnx.ModelProto()
    for location in ("a/w1", "w2"):
        (home / location).parent.mkdir(parents=True, exist_ok=True)
        (home / location).write_bytes(bytes(4))
        tensor = model.graph.initializer.add(name=location, data_type=1, dims=[1])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    out.mkdir()
    (out / "w2").write_text("precious")
    with pytest.raises(FileExistsError, match="w2"):
        save_onnx(model, out / "m.onnx", data_folder=home)
    assert os.listdir(out) == ["w2"]
    save_onnx(model, out / "m.onnx", data_folder=home, overwrite=True)
    assert sorted(os.listdir(out)) == ["a", "m.onnx", "w2"]


def test_outside_weights_that_are_missing_are_named(wide_model, calibrator):
    with pytest.raises(ValueError, match="Pass the path of the model file"):
        calibrate_onnx_model(wide_model.read_bytes(), calibrator)
    (wide_model.parent / "wide.data").unlink()
    with pytest.raises(ValueError, match=r"weights in 'wide\.data'"):
        calibrate_onnx_model(wide_model, calibrator)


@pytest.mark.parametrize("location", ["../stolen.data", "/etc/hostname", "a/../../b"])
def test_outside_weights_elsewhere_are_not_copied(wide_model, tmp_path, location):
    model = onnx.load(wide_model, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (tmp_path / "stolen.data").write_text("secret")
    serve = tmp_path / "out" / "serve"
    serve.mkdir(parents=True)
    with pytest.raises(ValueError, match="outside its own folder"):
        save_onnx(model, serve / "m.onnx", data_folder=wide_model.parent)
    assert os.listdir(serve) == []
    assert os.listdir(tmp_path / "out") == ["serve"]


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leaves_the_folder_is_not_followed(
    wide_model, calibrator, tmp_path, link
):
    secret = tmp_path / "secret" / "w.data"
    secret.parent.mkdir()
    (wide_model.parent / "wide.data").rename(secret)
    location = "wide.data" if link == "file" else "away/w.data"
    target = secret if link == "file" else secret.parent
    (wide_model.parent / location.split("/")[0]).symlink_to(target)
    model = onnx.load(wide_model, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    wide_model.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is a link that leaves it"):
        save_onnx(model, tmp_path / "m.onnx", data_folder=wide_model.parent)
    with pytest.raises(ValueError, match="is a link that leaves it"):
        calibrate_onnx_model(wide_model, calibrator)
    assert not (tmp_path / "m.onnx").exists()


def test_files_written_together_are_all_there_or_none(tmp_path):
    def fill(path):
        path.write_text("first")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    old = tmp_path / "old.onnx"
    old.write_text("old")
    report = tmp_path / "report.html"
    with pytest.raises(OSError, match=r"report\.html.*No space left"):
        write_together({old: fill, report: fail})
    assert os.listdir(tmp_path) == ["old.onnx"]
    assert old.read_text() == "old"
    write_together({old: fill, report: fill})
    assert (old.read_text(), report.read_text()) == ("first", "first")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_gets_the_permissions_that_the_process_gives(tmp_path, monkeypatch):
    def refuse(mask):  # Files of other threads would get those permissions meanwhile.
        raise AssertionError("The mask of the process is changed.")

    def write_bytes(path):
        path.write_bytes(b"model")

    new, old = tmp_path / "new.html", tmp_path / "old.onnx"
    old.write_bytes(b"old")
    old.chmod(0o604)
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", refuse)
            write_together({new: text_file("new"), old: write_bytes})
    finally:
        os.umask(mask)
    assert (new.read_text(), old.read_text()) == ("new", "model")
    assert [path.stat().st_mode & 0o777 for path in (new, old)] == [0o640, 0o604]


def test_weights_that_onnx_will_not_read_are_named(wide_model, calibrator, monkeypatch):
    def refuse(*args):
        raise onnx.checker.ValidationError("it is a symbolic link")

    # Which links are refused depends on the version of onnx.
    monkeypatch.setattr(
        "onnx.external_data_helper.load_external_data_for_model", refuse
    )
    with pytest.raises(ValueError, match=r"symbolic link\. Put plain copies"):
        calibrate_onnx_model(wide_model, calibrator)


def run(path, X):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


@pytest.mark.skipif(os.name != "posix", reason="needs permissions and links")
def test_a_file_that_is_replaced_stays_private_and_a_link_a_link(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real.name)
    write_together({link: text_file("new")})
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o600
