import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax

pytest.importorskip("typer")

from skcalib import (
    EnsembleTemperatureScaling,
    TemperatureScaling,
    logits_from_proba,
)
from skcalib import load as load_calibrator
from skcalib.cli._judging import split_rows
from skcalib.cli._scores import Scores

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

QUICK = ("--n-bootstrap", 20)


def run_onnx(path, output, **feeds):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([output], feeds)[0]


def load(path):
    with np.load(path) as arrays:
        return arrays["logits"], arrays["y"]


@pytest.mark.slow
def test_the_default_says_what_it_mixes(skcalib, demo, images_file):
    run = skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-o", "c.onnx", "--json",
        *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["learned"]["best_name"] == "stack"
    assert sum(run.json["learned"]["weights"].values()) == pytest.approx(1)
    assert run.json["largest_difference"] < 1e-6
    before, after = (run.json[key]["metrics"]["nll"] for key in ("before", "after"))
    assert after["value"] < before["value"]


def test_cached_logits_give_the_calibrator_alone(skcalib, logits_file, tmp_path):
    run = skcalib(
        "calibrate", "--logits", logits_file, "-o", "c.onnx",
        "-m", "ensemble-temperature", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    logits, y = load(logits_file)
    fitted = EnsembleTemperatureScaling().fit(logits, y)
    assert f"temperature = {fitted.temperature_:.4g}" in run.out
    written = run_onnx(
        tmp_path / "c.onnx", "probabilities", logits=logits.astype(np.float32)
    )
    assert_allclose(written, fitted.predict_proba(logits), atol=1e-6)


def test_a_model_is_run_calibrated_and_served(skcalib, demo, images_file, tmp_path):
    run = skcalib(
        "calibrate", demo.model, "--inputs", images_file, "--method", "temperature",
        "--output", "calibrated.onnx", "--report", "report.html", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    told = run.json
    assert told["learned"]["temperature"] == pytest.approx(2.264, abs=0.01)
    assert told["n_fit"] == told["n_compared"] == 600
    assert told["largest_difference"] < 1e-6
    before, after = (told[key]["metrics"]["ece"] for key in ("before", "after"))
    assert after["value"] < before["low"]
    original = run_onnx(demo.model, "probabilities", image=demo.X_test)
    written = run_onnx(
        tmp_path / "calibrated.onnx", told["output_name"], image=demo.X_test
    )
    expected = np.log(original.astype(np.float64)) / told["learned"]["temperature"]
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    assert_allclose(written, expected, atol=1e-5)


def test_cached_logits_go_into_the_model_they_came_from(
    skcalib, demo, images_file, tmp_path
):
    from skcalib.frozen import OnnxLogits

    logits = OnnxLogits(demo.model).fit_transform(demo.X_calibration)
    np.savez(tmp_path / "logits.npz", logits=logits, y=demo.y_calibration)
    common = ("--method", "vector", *QUICK)
    first = skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-o", "a.onnx", *common
    )
    second = skcalib(
        "calibrate", demo.model, "--logits", "logits.npz", "-o", "b.onnx", *common
    )
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert_allclose(
        run_onnx(tmp_path / "a.onnx", "probabilities", image=demo.X_test),
        run_onnx(tmp_path / "b.onnx", "probabilities", image=demo.X_test),
        atol=1e-6,
    )


@pytest.mark.slow
def test_original_outputs_can_be_kept(skcalib, demo, images_file, tmp_path):
    run = skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-o", "c.onnx",
        "-m", "temperature", "--keep-outputs", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["output_name"] == "probabilities_calibrated"
    assert run.json["largest_difference"] < 1e-6
    np.testing.assert_array_equal(
        run_onnx(tmp_path / "c.onnx", "probabilities", image=demo.X_test),
        run_onnx(demo.model, "probabilities", image=demo.X_test),
    )


@pytest.fixture
def logits_model(tmp_path):
    """A linear model that serves logits, with inputs that make it over-confident."""
    rng = np.random.default_rng(0)
    weight = 2 * rng.normal(size=(5, 3)).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "W"], ["logits"])],
        "linear",
        [value("x", 1, ["n", 5])],
        [value("logits", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "W")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    x = rng.normal(size=(300, 5)).astype(np.float32)
    logits = x @ weight
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    return x, logits


def test_logits_stay_logits_and_all_that_tells_of_them_says_so(skcalib, logits_model):
    run = skcalib(
        "calibrate", "m.onnx", "--inputs", "x.npz", "-m", "temperature", "-o", "c.onnx",
        "--report", "r.html", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "The output 'logits' holds calibrated logits, whose softmax is" in run.out
    x, logits = logits_model
    served = run_onnx("c.onnx", "logits", x=x)
    assert_allclose(logits / served, (logits / served)[0, 0], rtol=1e-3)
    report = Path("r.html").read_text()
    assert "logits = session.run([&#39;logits&#39;]" in report
    assert "holds calibrated logits" in report


def test_the_code_in_the_report_runs(skcalib, logits_model):
    run = skcalib(
        "calibrate", "m.onnx", "--inputs", "x.npz", "-m", "temperature", "-o", "c.onnx",
        "--report", "r.html", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    (code,) = re.findall(r"<pre><code>(.*?)</code>", Path("r.html").read_text(), re.S)
    x, _ = logits_model
    names = {"x": x}
    exec(html.unescape(code).replace("...", "x"), names)  # noqa: S102
    served = run_onnx("c.onnx", "logits", x=x)
    assert_allclose(names["probabilities"], softmax(served, axis=1), rtol=1e-6)


@pytest.mark.parametrize("shape", [["n", 1], ["n"], ["n", "k"]])
def test_log_odds_in_one_column_are_told_and_read_as_such(skcalib, tmp_path, shape):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 1)[: len(shape)]).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "W"], ["z"])],
        "linear",
        [value("x", 1, ["n", 5])],
        [value("z", 1, shape)],
        [onnx.numpy_helper.from_array(weight, "W")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    x = rng.normal(size=(300, 5)).astype(np.float32)
    is_dog = expit((x @ weight).ravel() / 2) > rng.uniform(size=300)
    np.savez(tmp_path / "x.npz", x=x, y=np.where(is_dog, "dog", "cat"))
    run = skcalib(
        "calibrate", "m.onnx", "--inputs", "x.npz", "-m", "platt", "-o", "c.onnx",
        "--report", "r.html", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "holds calibrated logits, whose sigmoid is the probability of 'dog'." in (
        run.out
    )
    (code,) = re.findall(r"<pre><code>(.*?)</code>", Path("r.html").read_text(), re.S)
    names = {"x": x}
    exec(html.unescape(code).replace("...", "x"), names)  # noqa: S102
    assert_allclose(
        names["probabilities"].ravel(), expit(run_onnx("c.onnx", "z", x=x)).ravel()
    )
    assert names["probabilities"].mean() == pytest.approx(is_dog.mean(), abs=0.02)


def test_probabilities_can_be_added(skcalib, logits_model):
    run = skcalib(
        "calibrate", "m.onnx", "--inputs", "x.npz", "-m", "beta", "-o", "c.onnx",
        "--add-probabilities", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    told = run.json
    assert told["largest_difference"] < 1e-6
    assert (told["output_name"], told["output_holds"]) == ("logits", "logits")
    x, _ = logits_model
    logits = run_onnx("c.onnx", "logits", x=x)
    proba = run_onnx("c.onnx", told["probabilities_name"], x=x)
    assert_allclose(softmax(logits, axis=1), proba, atol=1e-6)


def test_a_model_that_was_calibrated_before_shows_the_new_output(skcalib, logits_model):
    common = ("--inputs", "x.npz", "--keep-outputs", "--json", *QUICK)
    skcalib("calibrate", "m.onnx", "-m", "temperature", "-o", "k1.onnx", *common)
    run = skcalib(
        "calibrate", "k1.onnx", "-m", "vector", "--model-output", "logits",
        "-o", "k2.onnx", "--report", "k2.html", *common,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["output_name"] == "logits_calibrated_2"
    assert run.json["largest_difference"] < 1e-6
    assert "[&#39;logits_calibrated_2&#39;]" in Path("k2.html").read_text()


def test_an_inner_tensor_of_the_usual_name_is_no_obstacle(skcalib, logits_model):
    model = onnx.load("m.onnx")
    model.graph.node[0].output[0] = "logits_calibrated"
    model.graph.node.append(
        onnx.helper.make_node("Identity", ["logits_calibrated"], ["logits"])
    )
    onnx.save(model, "m.onnx")
    run = skcalib(
        "calibrate", "m.onnx", "--inputs", "x.npz", "-m", "temperature", "-o", "c.onnx",
        "--keep-outputs", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["output_name"] == "logits_calibrated_2"


@pytest.mark.slow
def test_every_method_name_calibrates_and_is_written(skcalib, logits_file):
    from skcalib.cli._methods import METHODS

    for method in METHODS:
        run = skcalib(
            "calibrate", "--logits", logits_file, "-m", method, "--json",
            "-o", f"{method}.onnx", "--folds", 2, "--n-bootstrap", 0,
        )  # fmt: skip
        assert run.code == 0, run.err
        assert run.json["largest_difference"] < 1e-6
        assert run.json["after"]["metrics"]["nll"]["low"] is None


def test_held_out_samples_are_not_fitted(skcalib, logits_file):
    run = skcalib(
        "calibrate", "--logits", logits_file, "-o", "c.onnx", "--test-fraction", 0.4,
        "-m", "temperature", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["n_fit"] == 180
    assert run.json["after"]["n_samples"] == 120
    logits, y = load(logits_file)
    train, _ = split_rows(Scores(logits, y, np.arange(3)), 0.4, 0)
    fitted = TemperatureScaling().fit(logits[train], y[train])
    assert run.json["learned"]["temperature"] == pytest.approx(fitted.temperature_)


def test_cross_fitting_judges_all_samples_without_flattery(skcalib, tmp_path):
    # Labels unrelated to the logits: whoever is judged on the rows it was fitted on
    # gains from a flexible method, whoever is not cannot.
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(120, 4)), rng.integers(4, size=120)
    np.savez(tmp_path / "noise.npz", logits=logits, y=y)
    run = skcalib(
        "calibrate", "--logits", "noise.npz", "-o", "c.onnx", "-m", "histogram",
        "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["after"]["n_samples"] == 120
    assert run.json["after"]["metrics"]["nll"]["value"] > np.log(4)


@pytest.mark.slow
def test_the_same_seed_prints_the_same_figures(skcalib, logits_file):
    def figures(seed):
        run = skcalib(
            "calibrate", "--logits", logits_file, "-o", "c.onnx", "--overwrite",
            "--seed", seed, "--json", *QUICK,
        )  # fmt: skip
        return {key: run.json[key] for key in ("learned", "before", "after")}

    first, again, other = map(figures, (1, 1, 2))
    assert first == again
    assert first != other


def test_probabilities_are_calibrated_by_their_logarithms(
    skcalib, logits_file, probabilities_file
):
    common = ("--json", "-m", "temperature", *QUICK)
    first = skcalib("calibrate", "--logits", logits_file, "-o", "a.onnx", *common)
    second = skcalib(
        "calibrate", "--probabilities", probabilities_file, "-o", "b.onnx", *common
    )
    assert (first.code, second.code) == (0, 0), first.err + second.err
    temperatures = [run.json["learned"]["temperature"] for run in (first, second)]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-6)


@pytest.mark.parametrize("more", [(), ("--normalise",), ("--floor", "1e-4")])
def test_a_model_of_probabilities_takes_what_it_was_made_from(
    skcalib, logits_file, probabilities_file, more
):
    given, method = ("--probabilities", probabilities_file), ("-m", "vector")
    run = skcalib(
        "calibrate", *given, *method, *more, "-o", "c.onnx", "--save", "c.json",
        "--report", "c.html", "--json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["largest_difference"] < 1e-6
    with np.load(probabilities_file) as arrays:
        key = next(name for name in arrays if arrays[name].ndim == 2)
        proba = arrays[key].astype(np.float32)
    name = "uncalibrated_probabilities"
    served = run_onnx("c.onnx", "probabilities", **{name: proba})
    # What is saved knows its floor.
    logits = logits_from_proba(proba)
    expected = load_calibrator("c.json").predict_proba(logits)
    assert_allclose(served, expected, atol=1e-6)
    assert f"{name!r}: ..." in html.unescape(Path("c.html").read_text())
    run = skcalib("apply", *given, *more, "--calibrator", "c.json", "-o", "d.onnx")
    assert run.code == 0, run.err
    assert_allclose(run_onnx("d.onnx", "probabilities", **{name: proba}), served)


@pytest.mark.slow
def test_text_labels_follow_the_named_order_of_the_columns(skcalib, logits_file):
    logits, y = load(logits_file)
    names = np.array(["dog", "ant", "cat"])
    np.savez("named.npz", logits=logits, y=names[y])
    options = ("-m", "temperature", "--json", *QUICK)
    runs = [
        skcalib("calibrate", "--logits", file, "-o", f"{k}.onnx", *more, *options)
        for k, (file, more) in enumerate(
            [(logits_file, ()), ("named.npz", ("--classes", "dog, ant,cat"))]
        )
    ]
    assert runs[1].code == 0, runs[1].err
    assert runs[0].json["learned"] == runs[1].json["learned"]
    assert runs[0].json["after"]["metrics"] == runs[1].json["after"]["metrics"]
    labels = run_onnx("1.onnx", "label", logits=logits[:20].astype(np.float32))
    assert [str(name) for name in labels] == list(names[logits[:20].argmax(axis=1)])


@pytest.mark.parametrize("names", ["1,2,x", "01,02,x"])
def test_names_of_columns_are_not_taken_for_their_numbers(skcalib, logits_file, names):
    logits, y = load(logits_file)
    labels = np.array(names.split(","))[y]
    np.savez("named.npz", logits=logits[y < 2], y=labels[y < 2])
    judge = ("evaluate", "--logits", "named.npz", "--classes", names, "--json")
    run = skcalib(*judge, *QUICK)
    if names == "1,2,x":
        assert run.code == 1
        assert "[1, 2] may be names or numbers of the columns" in run.err
    else:
        accuracy = (logits.argmax(axis=1) == y)[y < 2].mean()
        found = run.json["metrics"]["accuracy"]["value"]
        assert found == pytest.approx(accuracy)


def test_csv_parquet_and_npy_give_the_same_numbers(skcalib, logits_file):
    pandas = pytest.importorskip("pandas")
    logits, y = load(logits_file)
    frame = pandas.DataFrame(logits, columns=["a", "b", "c"])
    np.save("logits.npy", logits)
    np.savetxt("labels.csv", y, fmt="%d")
    frame.assign(label=y).to_csv("all.csv", index=False)
    frame.assign(label=y).to_parquet("all.parquet")
    learned = []
    options = ("--json", "--overwrite", "-m", "temperature", *QUICK)
    for arguments in (
        ("--logits", logits_file),
        ("--logits", "logits.npy", "--labels", "labels.csv"),
        ("--logits", "all.csv"),
        ("--logits", "all.parquet"),
    ):
        run = skcalib("calibrate", *arguments, "-o", "c.onnx", *options)
        assert run.code == 0, run.err
        learned.append(run.json["learned"]["temperature"])
    assert_allclose(learned, learned[0], rtol=1e-12)


@pytest.mark.slow
def test_a_labels_key_is_looked_up_in_the_file_of_labels(skcalib, logits_file):
    logits, y = load(logits_file)
    np.save("logits.npy", logits)
    np.savez("labels.npz", truth=y, other=y[::-1])
    options = ("-m", "temperature", "--json", "--overwrite", *QUICK)
    runs = [
        skcalib("calibrate", *arguments, "-o", "c.onnx", *options)
        for arguments in (
            ("--logits", logits_file),
            (
                "--logits",
                "logits.npy",
                "--labels",
                "labels.npz",
                "--labels-key",
                "truth",
            ),
        )
    ]
    assert runs[1].code == 0, runs[1].err
    assert runs[0].json["learned"] == runs[1].json["learned"]


@pytest.mark.parametrize("shape", [(400, 1), (400,)])
def test_binary_log_odds_in_one_column(skcalib, tmp_path, shape):
    rng = np.random.default_rng(0)
    log_odds = 4 * rng.normal(size=400)
    y = (rng.uniform(size=400) < 1 / (1 + np.exp(-log_odds / 2))).astype(int)
    np.savez(tmp_path / "binary.npz", logits=log_odds.reshape(shape), y=y)
    source = ["--logits", "binary.npz", "--method", "temperature"]
    written = ["-o", "c.onnx", "--save", "c.json"]
    run = skcalib("calibrate", *source, *written, "--json", *QUICK)
    assert run.code == 0, run.err
    assert run.json["largest_difference"] < 1e-6
    assert run.json["learned"]["temperature"] == pytest.approx(2, rel=0.3)
    saved = ["--calibrator", "c.json", "-o", "again.onnx", "--json"]
    run = skcalib("apply", "--logits", "binary.npz", *saved)
    assert run.code == 0, run.err
    assert run.json["largest_difference"] < 1e-6


def test_json_is_all_there_is_on_stdout_and_stderr_is_silent(skcalib, logits_file):
    run = skcalib(
        "calibrate", "--logits", logits_file, "-o", "c.onnx", "--json", *QUICK
    )
    assert json.loads(run.out)["method"] == "auto"
    assert run.err == ""


@pytest.mark.parametrize("how", ["--inputs", "--logits"])
def test_the_order_of_the_classes_is_that_of_the_model(skcalib, tmp_path, how):
    from named_model import draw_rows, name_classes

    labels = [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    X, weight, columns = draw_rows(len(labels))
    onnx.save(
        name_classes(weight, [str(label) for label in labels]), tmp_path / "m.onnx"
    )
    rows = X if how == "--inputs" else X @ np.float32(weight)
    np.savez(tmp_path / "x.npz", **{how[2:]: rows, "y": np.array(labels)[columns]})
    run = skcalib(
        "calibrate", "m.onnx", how, "x.npz", "-o", "c.onnx", "-m", "temperature",
        "--save", "c.json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert load_calibrator(tmp_path / "c.json").classes_.tolist() == labels


def test_text_by_which_a_model_names_its_columns_stays_text(skcalib, tmp_path):
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    names = ["10", "02", "1"]
    onnx.save(name_classes(weight, names), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", inputs=X, y=np.array(names)[columns])
    judge = ("evaluate", "m.onnx", "--inputs", "x.npz", "--json", *QUICK)
    run = skcalib(*judge)
    assert run.code == 0, run.err
    accuracy = ((X @ np.float32(weight)).argmax(axis=1) == columns).mean()
    assert run.json["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_a_calibrator_of_another_order_is_not_applied_to_the_model(skcalib, tmp_path):
    from named_model import draw_rows, name_classes

    X, weight, columns = draw_rows(3)
    onnx.save(name_classes(weight, ["low", "mid", "high"]), tmp_path / "m.onnx")
    y = np.array(["low", "mid", "high"])[columns]
    np.savez(tmp_path / "x.npz", inputs=X, logits=X @ weight, y=y)
    fit = ("-m", "temperature", "--save", "c.json", *QUICK)
    assert skcalib("calibrate", "--logits", "x.npz", *fit).code == 0
    for to, more in (("c.onnx", ()), ("p.npy", ("--inputs", "x.npz"))):
        run = skcalib("apply", "m.onnx", "--calibrator", "c.json", *more, "-o", to)
        assert run.code == 1
        assert "The model names the classes of its columns" in run.err
