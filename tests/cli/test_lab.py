"""The laboratory, run by a real browser, says what the library says.

Networks are run by onnxruntime-web: ``npm install onnxruntime-web``, and NODE_PATH
names the folder ``node_modules``.
"""

import base64
import gzip
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.pipeline import make_pipeline

from skcalib import HistogramBinning, IsotonicCalibration, TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.export import calibrate_onnx_model
from skcalib.frozen import OnnxLogits
from skcalib.metrics import calibration_report

pytest.importorskip("typer")
pytest.importorskip("jinja2")


@pytest.fixture
def browse(browser):
    """Run a piece of JavaScript in the page, and return what it returns."""
    from skcalib.cli._lab import render_lab

    return lambda work: browser(render_lab(), work)


def as_file(path):
    data = base64.b64encode(path.read_bytes()).decode()
    return f'file("{data}", "{path.name}")'


def in_python(X, y):
    """Fit on every other row, and judge on the rest."""
    classes = np.arange(X.shape[1])
    methods = {
        "temperature": TemperatureScaling(classes=classes),
        "isotonic, top probability": IsotonicCalibration(
            method="top_label", classes=classes
        ),
        "histogram, top probability": HistogramBinning(
            method="top_label", classes=classes
        ),
    }
    for calibrator in methods.values():
        calibrator.fit(X[::2], y[::2])
    probas = {"as it comes": softmax(X[1::2], axis=1)}
    probas |= {name: c.predict_proba(X[1::2]) for name, c in methods.items()}
    wanted = ["accuracy", "ece", "nll", "brier"]
    return methods["temperature"].temperature_, {
        name: calibration_report(
            y[1::2], p, metrics=wanted, labels=classes, n_bootstrap=0
        )
        for name, p in probas.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 5, 100])
def test_the_page_finds_what_the_library_finds(browse, tmp_path, n_classes):
    X, y = make_logits(2000, n_classes, random_state=n_classes)
    np.savez_compressed(tmp_path / "val.npz", logits=X, y=y)
    told = browse(f"() => openFile({as_file(tmp_path / 'val.npz')})")
    temperature, reports = in_python(X, y)
    assert told["temperature"] == pytest.approx(temperature, rel=1e-8)
    assert told["methods"].keys() == reports.keys()
    for name, report in reports.items():
        # A histogram's shares of hits lie on edges of bins, or are 1, to the last bit.
        error = 1e-4 if name.startswith("histogram") else 1e-6
        found = told["methods"][name]
        if name.startswith("histogram"):
            del found["ece"]
        for metric, value in found.items():
            assert value == pytest.approx(report[metric].value, abs=error), name


@pytest.mark.slow
def test_tables_and_names_of_classes_are_read(browse, tmp_path):
    X, y = make_logits(600, 3, random_state=0)
    names = np.array(["cat", "dog", "fox"])
    lines = ["cat,dog,fox,label"]
    lines += [
        ",".join([*map(repr, row), name])
        for row, name in zip(X.tolist(), names[y].tolist(), strict=True)
    ]
    (tmp_path / "val.csv").write_text("\n".join(lines))
    np.savez(tmp_path / "val.npz", logits=X, features=X[:, :2], y=names[y])
    for name in ("val.csv", "val.npz"):
        told = browse(f"() => openFile({as_file(tmp_path / name)})")
        assert told["temperature"] == pytest.approx(in_python(X, y)[0], rel=1e-8), name


@pytest.mark.slow
def test_a_mistake_is_told_on_the_page(browse, tmp_path):
    np.savez(tmp_path / "val.npz", logits=np.zeros((4, 3)), y=np.arange(5))
    work = f"openFile({as_file(tmp_path / 'val.npz')})"
    told = browse(
        f'async () => {{ await {work}; return element("mistake").textContent }}'
    )
    assert told == "4 rows of scores and 5 labels do not match."


def as_bytes(work):
    """Code that returns what `work` does, with a model it wrote beside it."""
    return f"""async () => {{
      const told = await {work};
      const model = writeModel();
      const text = Array.from(model, (byte) => String.fromCharCode(byte)).join("");
      return {{ ...told, model: btoa(text) }};
    }}"""


def written_model(told):
    """The model that the page wrote, checked in full."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(base64.b64decode(told["model"]))
    onnx.checker.check_model(model, full_check=True)
    return model


def serve(model, X):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: X})[0]


@pytest.mark.slow
@pytest.mark.onnx
def test_a_model_is_divided_by_the_temperature(browse, tmp_path, demo):
    X = OnnxLogits(demo.model).fit_transform(demo.X_calibration)
    np.savez(tmp_path / "val.npz", logits=X, y=demo.y_calibration)
    model = tmp_path / "model.onnx"
    shutil.copy(demo.model, model)
    rows = as_file(tmp_path / "val.npz")
    told = browse(
        as_bytes(
            f"openFile({rows}).then(async (told) => "
            f"(await openFile({as_file(model)}), told))"
        )
    )
    written = written_model(told)
    logits = OnnxLogits(demo.model).fit(demo.X_test).transform(demo.X_test)
    expected = softmax(logits / told["temperature"], axis=1)
    np.testing.assert_allclose(serve(written, demo.X_test), expected, atol=2e-6)
    (note,) = [m.value for m in written.metadata_props if "skcalib" in m.key]
    assert json.loads(note)["learned"]["temperature_"] == told["temperature"]


@pytest.fixture(scope="module")
def with_runtime():
    """The page that carries onnxruntime-web."""
    from skcalib.cli._lab import read_runtime, render_lab

    package = Path(os.environ.get("NODE_PATH", "."), "onnxruntime-web")
    if not package.is_dir():
        pytest.skip("onnxruntime-web is not there; see the top of this file")
    return render_lab(read_runtime(package))


def check_run(told, model, X, y, X_test):
    """Whether the page found and wrote what the library finds and writes."""
    network = OnnxLogits(model).fit(X)
    logits = network.transform(X)
    temperature, reports = in_python(logits, y)
    # The network computes in single precision, in an order of its own: its logits
    # differ by 1e-5, and what is computed of all rows by less.
    assert told["temperature"] == pytest.approx(temperature, rel=1e-6)
    for name in ("as it comes", "temperature"):
        for metric, value in told["methods"][name].items():
            found = reports[name][metric].value
            assert value == pytest.approx(found, abs=1e-6), (name, metric)
    calibrator = TemperatureScaling(classes=np.arange(logits.shape[1]))
    calibrator.fit(logits[::2], y[::2])
    wanted = calibrate_onnx_model(model, make_pipeline(network, calibrator))
    found = written_model(told)
    assert [o.name for o in found.graph.output] == [o.name for o in wanted.graph.output]
    np.testing.assert_allclose(
        serve(found, X_test), serve(wanted, X_test), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.onnx
def test_a_network_is_run_in_the_page(browser, with_runtime, tmp_path, data_dir):
    model = tmp_path / "resnet8d.onnx"
    shutil.copy(data_dir / "cifar10" / "resnet8d.onnx", model)
    with np.load(data_dir / "cifar10" / "cifar10_test.npz") as arrays:
        rows = arrays["cal_idx"][::8]
        X = np.float32(arrays["x"][rows] / 255).transpose(0, 3, 1, 2)
        y = arrays["y"][rows].astype(np.int64)
    np.savez(tmp_path / "val.npz", X=X[:500], y=y[:500])
    files = f"[{as_file(model)}, {as_file(tmp_path / 'val.npz')}]"
    told = browser(with_runtime, as_bytes(f"openFiles({files})"))
    check_run(told, model, X[:500], y[:500], X[500:])


def ending_in(model, *nodes):
    """A model with more nodes, whose last one makes the output."""
    onnx = pytest.importorskip("onnx")
    made = onnx.load(model)
    for op, before, after in nodes:
        made.graph.node.append(onnx.helper.make_node(op, [before], [after]))
        made.graph.output[0].name = after
    return made


ENDINGS = {
    "softmax": (),
    "a copy of the softmax": [("Identity", "probabilities", "p")],
    # Which only their values tell.
    "probabilities": [("Neg", "probabilities", "n"), ("Neg", "n", "p")],
    "logarithms": [("LogSoftmax", "logits", "p")],
    "logits": [("Identity", "logits", "p")],
}


@pytest.mark.slow
@pytest.mark.onnx
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_network_ends_in_is_kept(browser, with_runtime, tmp_path, demo, ending):
    onnx = pytest.importorskip("onnx")
    made = ending_in(demo.model, *ENDINGS[ending])
    model = tmp_path / "model.onnx"
    onnx.save(made, model)
    X, y = demo.X_calibration, demo.y_calibration
    np.savez(tmp_path / "val.npz", image=X, y=y)
    # One after the other.
    files = [as_file(tmp_path / "val.npz"), as_file(model)]
    told = browser(
        with_runtime,
        as_bytes(f"openFile({files[0]}).then(() => openFile({files[1]}))"),
    )
    check_run(told, model, X, y, demo.X_test)


def of_two_inputs():
    """Numbers and an integer each, four rows at a time; double scores and labels."""
    onnx = pytest.importorskip("onnx")
    helper, of = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Cast", ["numbers"], ["double"], to=of.DOUBLE),
        helper.make_node("MatMul", ["double", "W"], ["ahead"]),
        helper.make_node("Gather", ["table", "kind"], ["offset"]),
        helper.make_node("Add", ["ahead", "offset"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info("numbers", of.FLOAT, [4, 6]),
            helper.make_tensor_value_info("kind", of.INT64, [4]),
        ],
        [
            helper.make_tensor_value_info("label", of.INT64, [4]),
            helper.make_tensor_value_info("scores", of.DOUBLE, [4, 3]),
        ],
        [
            onnx.numpy_helper.from_array(rng.normal(size=(6, 3)), "W"),
            onnx.numpy_helper.from_array(rng.normal(size=(2, 3)), "table"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.slow
@pytest.mark.onnx
def test_a_network_of_two_inputs_and_two_outputs_is_run(
    browser, with_runtime, tmp_path
):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, X = of_two_inputs(), {}
    onnx.save(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    X["numbers"] = np.asfortranarray(rng.normal(size=(402, 6)).astype(np.float32))
    X["kind"] = rng.integers(2, size=402)
    network = OnnxLogits(model).fit(X)
    logits = network.transform(X)
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    np.savez(tmp_path / "val.npz", y=y, **X)
    files = f"[{as_file(tmp_path / 'model.onnx')}, {as_file(tmp_path / 'val.npz')}]"
    told = browser(with_runtime, as_bytes(f"openFiles({files})"))
    temperature, reports = in_python(logits, y)
    assert told["temperature"] == pytest.approx(temperature, rel=1e-8)
    for metric, value in told["methods"]["temperature"].items():
        assert value == pytest.approx(reports["temperature"][metric].value, abs=1e-6)
    written = written_model(told)
    session = onnxruntime.InferenceSession(written.SerializeToString())
    feed = {name: rows[:4] for name, rows in X.items()}
    labels, scores = session.run(None, feed)
    np.testing.assert_array_equal(labels, logits[:4].argmax(axis=1))
    np.testing.assert_allclose(scores, logits[:4] / temperature, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.onnx
def test_a_calibrated_network_is_calibrated_again(
    browser, with_runtime, tmp_path, demo
):
    model = tmp_path / "model.onnx"
    shutil.copy(demo.model, model)
    np.savez(tmp_path / "val.npz", image=demo.X_calibration, y=demo.y_calibration)
    files = f"[{as_file(model)}, {as_file(tmp_path / 'val.npz')}]"
    work = f"""openFiles({files}).then(async ({{ temperature }}) => {{
      const again = new File([writeModel()], "calibrated.onnx");
      const second = await openFile(again);
      lab.temperature = 2;
      return {{ temperature, second: second.temperature }};
    }})"""
    told = browser(with_runtime, as_bytes(work))
    # Some rows speak for a temperature of one, beforehand and each time.
    assert told["second"] == pytest.approx(1, abs=0.05)
    written = written_model(told)
    assert len([m for m in written.metadata_props if "skcalib" in m.key]) == 1
    logits = OnnxLogits(demo.model).fit(demo.X_test).transform(demo.X_test)
    expected = softmax(logits / (2 * told["temperature"]), axis=1)
    np.testing.assert_allclose(serve(written, demo.X_test), expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.onnx
def test_without_a_runtime_the_page_says_what_to_do(browse, tmp_path, demo):
    np.savez(tmp_path / "val.npz", X=demo.X_test[:9], y=demo.y_test[:9])
    files = f"[{as_file(Path(demo.model))}, {as_file(tmp_path / 'val.npz')}]"
    told = browse(
        f"async () => {{ await openFiles({files}); "
        'return element("mistake").textContent }'
    )
    assert "carries no runtime" in told
    assert "npm pack onnxruntime-web" in told
    assert "skcalib lab --onnx-runtime" in told


@pytest.mark.slow
@pytest.mark.onnx
def test_inputs_that_do_not_fit_are_told(browser, with_runtime, tmp_path, demo):
    wrong = {
        "shape": (
            {"X": demo.X_test[:9, 0]},
            "X has the shape (9, 8); the network's",
        ),
        "names": (
            {"a": demo.X_test[:9], "b": demo.X_test[:9]},
            "The network takes image",
        ),
        "labels": ({"X": demo.X_test[:5]}, "5 rows of scores and 9 labels"),
    }
    for case, (arrays, message) in wrong.items():
        np.savez(tmp_path / f"{case}.npz", y=demo.y_test[:9], **arrays)
        files = f"[{as_file(Path(demo.model))}, {as_file(tmp_path / f'{case}.npz')}]"
        told = browser(
            with_runtime,
            f"async () => {{ await openFiles({files}); "
            'return element("mistake").textContent }',
        )
        assert message in told, case


@pytest.mark.slow
def test_the_page_can_send_nothing(browse):
    told = browse("() => fetch('data:,x').then(() => 'sent', () => 'kept')")
    assert told == "kept"


@pytest.fixture
def package(tmp_path):
    """A folder like that of onnxruntime-web, and its archive."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    about = {"name": "onnxruntime-web", "version": "9.8.7"}
    (folder / "package.json").write_text(json.dumps(about))
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_text("let code;</script>")
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    with tarfile.open(tmp_path / "runtime.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    return folder, tmp_path / "runtime.tgz"


def test_a_runtime_is_read_from_its_folder_and_its_archive(skcalib, package):
    pages = []
    for path in package:
        run = skcalib("lab", "-o", "lab.html", "--onnx-runtime", path, "--overwrite")
        assert run.code == 0, run.err
        pages.append(Path("lab.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "ONNX Runtime Web 9.8.7" in pages[0]
    packed = re.search(r'id="runtime-code">([^<]*)<', pages[0]).group(1)
    assert gzip.decompress(base64.b64decode(packed)) == b"let code;</script>"


@pytest.mark.parametrize("broken", ["gone", "other", "old", "partial", "text"])
def test_what_is_no_runtime_is_refused(refused, package, broken):
    folder, archive = package
    if broken == "gone":
        folder = folder / "nowhere"
    elif broken == "other":
        about = '{"name": "left-pad", "version": "9.8.7"}'
        (folder / "package.json").write_text(about)
    elif broken == "old":
        about = '{"name": "onnxruntime-web", "version": "1.24.1"}'
        (folder / "package.json").write_text(about)
    elif broken == "partial":
        (folder / "dist" / "ort.wasm.bundle.min.mjs").unlink()
    else:
        folder = archive
        archive.write_text("no archive")
    told = refused(1, "lab", "--onnx-runtime", folder)
    assert f"{folder} is not onnxruntime-web" in told
    assert "npm pack onnxruntime-web" in told
    assert not Path("lab.html").exists()


@pytest.mark.slow
def test_ten_thousand_rows_of_a_hundred_classes_are_read_and_shown(browse):
    told = browse("""() => {
      const rows = exampleRows(10000, 100), start = Date.now();
      return { ...open(rows), milliseconds: Date.now() - start };
    }""")
    assert 1.9 < told["temperature"] < 2.1


def test_the_page_loads_nothing_and_is_not_overwritten(skcalib, refused):
    run = skcalib("lab", "--output", "lab.html")
    assert run.code == 0, run.err
    with open("lab.html", encoding="utf-8") as file:
        page = file.read()
    assert "{%" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:""", page)
    assert "lab.html" in refused(1, "lab", "--output", "lab.html")
