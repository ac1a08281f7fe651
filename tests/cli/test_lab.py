"""The laboratory, run by a real browser, says what the library says."""

import base64
import re
import shutil

import numpy as np
import pytest
from scipy.special import softmax

from skcalib import HistogramBinning, IsotonicCalibration, TemperatureScaling
from skcalib.datasets import load_demo, make_logits
from skcalib.frozen import OnnxLogits
from skcalib.metrics import calibration_report

pytest.importorskip("typer")
pytest.importorskip("jinja2")


@pytest.fixture
def browse(browser):
    """Run a piece of JavaScript in the page, and return what it returns."""
    from skcalib.cli._report import render_lab

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
    told = browse(f"() => openFile({as_file(tmp_path / 'val.csv')})")
    assert told["temperature"] == pytest.approx(in_python(X, y)[0], rel=1e-8)


@pytest.mark.slow
def test_a_mistake_is_told_on_the_page(browse, tmp_path):
    np.savez(tmp_path / "val.npz", logits=np.zeros((4, 3)), y=np.arange(5))
    work = f"openFile({as_file(tmp_path / 'val.npz')})"
    told = browse(
        f'async () => {{ await {work}; return element("mistake").textContent }}'
    )
    assert told == "4 rows of scores and 5 labels do not match."


@pytest.mark.slow
@pytest.mark.onnx
def test_a_model_is_divided_by_the_temperature(browse, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    demo = load_demo()
    X = OnnxLogits(demo.model).fit_transform(demo.X_calibration)
    np.savez(tmp_path / "val.npz", logits=X, y=demo.y_calibration)
    model = tmp_path / "model.onnx"
    shutil.copy(demo.model, model)
    told = browse(f"""async () => {{
      const {{ temperature }} = await openFile({as_file(tmp_path / "val.npz")});
      const model = await openModel({as_file(model)});
      return {{ temperature, model: btoa(String.fromCharCode(...model)) }};
    }}""")
    written = base64.b64decode(told["model"])
    onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
    session = onnxruntime.InferenceSession(written)
    served = session.run(None, {"image": demo.X_test})[0]
    logits = OnnxLogits(demo.model).fit(demo.X_test).transform(demo.X_test)
    expected = softmax(logits / told["temperature"], axis=1)
    np.testing.assert_allclose(served, expected, atol=2e-6)


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
