"""Calibrators that one run of the command saves and others apply or judge."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skcalib as package

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

UNUSABLE, USAGE = 1, 2
QUICK = ("--n-bootstrap", 0)


def load(path):
    with np.load(path) as arrays:
        return arrays["logits"], arrays["y"]


def write_table(logits_file):
    """Write t.csv with named columns, dog last; return the logits with dog first."""
    logits, y = load(logits_file)
    names = np.array(["dog", "ant", "cat"])[y]
    rows = (
        f"{cat},{ant},{dog},{name}"
        for (dog, ant, cat), name in zip(logits.tolist(), names, strict=True)
    )
    Path("t.csv").write_text("\n".join(["cat,ant,dog,label", *rows]))
    return logits, y


@pytest.fixture
def saved(logits_file, tmp_path):
    """Vector scaling for three classes, fitted on the logits of the file."""
    fitted = package.VectorScaling().fit(*load(logits_file))
    package.save(fitted, tmp_path / "c.json")
    return fitted


@pytest.fixture
def named(logits_file, tmp_path):
    """The same for classes with names, not in alphabetical order."""
    logits, y = load(logits_file)
    names = np.array(["dog", "ant", "cat"])
    fitted = package.VectorScaling(classes=names).fit(logits, names[y])
    package.save(fitted, tmp_path / "named.json")
    np.savez(tmp_path / "named.npz", logits=logits, y=names[y])
    return fitted


@pytest.mark.parametrize("output", [(), ("-o", "c.onnx")])
def test_calibrate_saves_the_calibrator_it_has_fitted(skcalib, logits_file, output):
    run = skcalib(
        "calibrate", "--logits", logits_file, "-m", "vector", "--save", "c.json",
        "--json", *output, *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    logits, y = load(logits_file)
    fitted = package.VectorScaling().fit(logits, y)
    assert_array_equal(
        package.load("c.json").predict_proba(logits), fitted.predict_proba(logits)
    )
    assert run.json["saved"] == "c.json"
    assert run.json["output"] == ("c.onnx" if output else None)
    assert os.path.exists("c.onnx") == bool(output)


def test_what_was_saved_is_told(skcalib, logits_file):
    run = skcalib(
        "calibrate", "--logits", logits_file, "-m", "beta", "--save", "c.json", *QUICK
    )
    assert run.code == 0, run.err
    assert run.out.rstrip().endswith("Wrote c.json")


def test_nothing_onnx_is_needed_to_save(skcalib, logits_file, hide_package):
    hide_package("onnx")
    run = skcalib(
        "calibrate", "--logits", logits_file, "-m", "beta", "--save", "c.json", *QUICK
    )
    assert run.code == 0, run.err


@pytest.mark.parametrize("ending", ["npy", "csv"])
def test_apply_writes_the_probabilities_without_labels(
    skcalib, logits_file, named, ending
):
    logits, _ = load(logits_file)
    np.save("logits.npy", logits)
    run = skcalib(
        "apply", "--calibrator", "named.json", "--logits", "logits.npy",
        "-o", f"p.{ending}", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert (run.json["n_samples"], run.json["n_classes"]) == (300, 3)
    expected = named.predict_proba(logits)
    if ending == "npy":
        assert_array_equal(np.load("p.npy"), expected)
        return
    assert Path("p.csv").read_text().startswith("dog,ant,cat\n")
    assert_array_equal(np.loadtxt("p.csv", delimiter=",", skiprows=1), expected)


def test_apply_needs_no_labels_in_a_column_of_labels(skcalib, logits_file, saved):
    with np.load(logits_file) as arrays:
        rows = "".join(f"{a},{b},{c},\n" for a, b, c in arrays["logits"])
    Path("new.csv").write_text(f"a,b,c,label\n{rows}", encoding="utf-8")
    options = ("--calibrator", "c.json", "-o", "proba.npy")
    assert skcalib("apply", "--logits", "new.csv", *options).code == 0
    assert np.load("proba.npy").shape == (300, 3)


def test_what_apply_writes_evaluates_as_the_calibrator_does(
    skcalib, logits_file, named
):
    np.save("labels.npy", np.load("named.npz")["y"])
    assert skcalib(
        "apply", "--calibrator", "named.json", "--logits", "named.npz", "-o", "p.csv"
    ).code == 0  # fmt: skip
    written, direct = (
        skcalib("evaluate", *arguments, "--json", *QUICK).json
        for arguments in (
            ("--probabilities", "p.csv", "--labels", "labels.npy"),
            ("--logits", "named.npz", "--calibrator", "named.json"),
        )
    )
    assert direct["calibrator"] == "named.json"
    for name, told in direct["metrics"].items():
        assert told["value"] == pytest.approx(written["metrics"][name]["value"])


@pytest.mark.parametrize("classes", [[1, 2, 3], [30, 10, 20], [-1, 1, 0]])
def test_what_apply_writes_is_read_row_by_row(skcalib, logits_file, classes):
    logits, y = load(logits_file)
    classes = np.array(classes)
    fitted = package.TemperatureScaling(classes=classes).fit(logits, classes[y])
    package.save(fitted, "c.json")
    np.save("logits.npy", logits)
    apply = ("apply", "--calibrator", "c.json")
    assert skcalib(*apply, "--logits", "logits.npy", "-o", "proba.csv").code == 0
    assert skcalib(*apply, "--probabilities", "proba.csv", "-o", "t.npy").code == 0
    twice = fitted.predict_proba(np.log(fitted.predict_proba(logits)))
    assert_allclose(np.load("t.npy"), twice, rtol=1e-9)


def test_numbers_of_columns_are_no_classes_in_another_order(skcalib, refused):
    logits = np.random.default_rng(0).normal(size=(60, 3))
    y = np.random.default_rng(1).integers(1, 4, 60)
    package.save(package.TemperatureScaling().fit(logits, y), "c.json")
    apply = ("apply", "--calibrator", "c.json", "-o", "t.npy", "--logits")
    np.savetxt("numbers.csv", logits, delimiter=",", header="0,1,2", comments="")
    assert skcalib(*apply, "numbers.csv").code == 0
    np.savetxt("turned.csv", logits, delimiter=",", header="a,1,2", comments="")
    told = refused(1, *apply, "turned.csv", "--overwrite")
    assert "stand for ['a', '1', '2']" in told


def test_apply_writes_into_a_model_what_calibrate_wrote(
    skcalib, demo, images_file, tmp_path
):
    run = skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-m", "vector",
        "-o", "at_once.onnx", "--save", "c.json", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    run = skcalib("apply", demo.model, "--calibrator", "c.json", "-o", "later.onnx")
    assert run.code == 0, run.err
    assert "The output 'probabilities' holds calibrated probabilities" in run.out
    at_once, later = (
        ort.InferenceSession(tmp_path / name).run(None, {"image": demo.X_test})[0]
        for name in ("at_once.onnx", "later.onnx")
    )
    assert_allclose(later, at_once, atol=1e-6)


def test_apply_compares_the_model_with_python_on_inputs(skcalib, demo, images_file):
    skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-m", "beta",
        "--save", "c.json", *QUICK,
    )  # fmt: skip
    np.save("x.npy", demo.X_test)
    run = skcalib(
        "apply", demo.model, "--calibrator", "c.json", "--inputs", "x.npy",
        "-o", "c.onnx", "--add-probabilities", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["n_compared"] == len(demo.X_test)
    assert run.json["largest_difference"] < 1e-6
    assert run.json["probabilities_name"] == "probabilities_2"


def test_apply_runs_the_model_for_probabilities(skcalib, demo, images_file):
    skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-m", "beta",
        "--save", "c.json", "-o", "c.onnx", *QUICK,
    )  # fmt: skip
    run = skcalib(
        "apply", demo.model, "--calibrator", "c.json", "--inputs", images_file,
        "-o", "p.npy",
    )  # fmt: skip
    assert run.code == 0, run.err
    session = ort.InferenceSession("c.onnx")
    served = session.run(["probabilities"], {"image": demo.X_calibration})[0]
    assert_allclose(np.load("p.npy"), served, atol=1e-6)


def test_apply_writes_the_calibrator_alone_as_onnx(skcalib, logits_file, saved):
    run = skcalib("apply", "--calibrator", "c.json", "-o", "c.onnx")
    assert run.code == 0, run.err
    logits, _ = load(logits_file)
    served = ort.InferenceSession("c.onnx").run(
        ["probabilities"], {"logits": logits.astype(np.float32)}
    )[0]
    assert_allclose(served, saved.predict_proba(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "floor"),
    [("vector", 1e-12), ("matrix", 1e-12), ("temperature", 0.02), ("vector", 1e-20)],
)
def test_what_was_fitted_to_probabilities_takes_logits(
    skcalib, logits_file, probabilities_file, method, floor
):
    run = skcalib(
        "calibrate", "--probabilities", probabilities_file, "-m", method, "--floor",
        floor, "--save", "c.json", "-o", "fitted.onnx", *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    files = {"logits": logits_file, "probabilities": probabilities_file}
    for role, path in files.items():
        run = skcalib(
            "apply", "--calibrator", "c.json", f"--{role}", path, "-o", f"{role}.npy"
        )
        assert run.code == 0, run.err
        assert "constant" not in run.err
    with np.load(probabilities_file) as arrays:
        feed = {"uncalibrated_probabilities": arrays["proba"].astype(np.float32)}
    judged = ort.InferenceSession("fitted.onnx").run(["probabilities"], feed)[0]
    assert_allclose(np.load("logits.npy"), judged, atol=1e-5)
    assert_allclose(np.load("probabilities.npy"), judged, atol=1e-5)


def test_a_floor_is_not_raised_above_that_of_the_fit(skcalib, probabilities_file):
    skcalib(
        "calibrate", "--probabilities", probabilities_file, "-m", "temperature",
        "--floor", 0.02, "--save", "c.json", *QUICK,
    )  # fmt: skip
    for floor, code in ((0.02, 0), (1e-20, 0), (0.05, USAGE)):
        run = skcalib(
            "evaluate", "--probabilities", probabilities_file, "--calibrator",
            "c.json", "--floor", floor, *QUICK,
        )  # fmt: skip
        assert run.code == code, run.err
    assert "--floor 0.05 is higher than that of the calibrator, 0.02" in run.err


@pytest.mark.parametrize("command", ["apply", "evaluate"])
def test_what_was_fitted_to_logits_warns_of_probabilities(
    skcalib, probabilities_file, saved, command
):
    output = ("-o", "p.npy") if command == "apply" else QUICK
    run = skcalib(
        command, "--calibrator", "c.json", "--probabilities", probabilities_file,
        *output,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "c.json holds a VectorScaling, to which a constant" in " ".join(
        run.err.split()
    )


@pytest.mark.slow
def test_evaluate_judges_scores_after_a_calibrator(skcalib, logits_file, saved):
    run = skcalib("evaluate", "--logits", logits_file, "--calibrator", "c.json", *QUICK)
    assert run.code == 0, run.err
    logits, y = load(logits_file)
    loss = package.metrics.calibration_report(y, saved.predict_proba(logits))["nll"]
    assert f"{loss.value:.4f}" in run.out
    assert "300 samples of 3 classes, after c.json:" in run.out


def test_the_classes_of_the_calibrator_name_the_columns(skcalib, named):
    # A class that never occurs cannot be known from the labels.
    with np.load("named.npz") as arrays:
        present = arrays["y"] != "ant"
        np.savez("two.npz", logits=arrays["logits"][present], y=arrays["y"][present])
    run = skcalib(
        "evaluate",
        "--logits",
        "two.npz",
        "--calibrator",
        "named.json",
        "--json",
        *QUICK,
    )
    assert run.code == 0, run.err
    assert run.json["n_classes"] == 3


def test_compare_judges_a_saved_calibrator_as_it_is(skcalib, logits_file, saved):
    run = skcalib(
        "compare", "--logits", logits_file, "--methods", "temperature",
        "--calibrator", "c.json", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    table = run.json["methods"]
    assert list(table) == ["uncalibrated", "temperature", "c.json"]
    # Folds of one size: their mean is that of all samples, with one calibrator.
    logits, y = load(logits_file)
    proba = saved.predict_proba(logits)
    loss = -np.log(proba[np.arange(len(y)), y]).mean()
    assert table["c.json"]["nll"]["mean"] == pytest.approx(loss, rel=1e-12)


class TestMistakes:
    @pytest.fixture(params=["apply", "evaluate", "compare"])
    def use(self, request, refused, logits_file):
        """Refused use of a file as a calibrator by any of the commands."""
        output = ("-o", "p.npy") if request.param == "apply" else ()

        def run(code, path, logits=logits_file):
            return refused(
                code, request.param, "--calibrator", path, "--logits", logits, *output
            )

        return run

    by_one_command = pytest.mark.parametrize("use", ["evaluate"], indirect=True)

    def test_a_missing_file(self, use):
        assert "There is no file no.json" in use(UNUSABLE, "no.json")

    @by_one_command
    @pytest.mark.parametrize("content", ['{"a": 1}', "[]", '"skcalib calibrator"'])
    def test_a_file_that_is_no_calibrator(self, use, content):
        Path("c.json").write_text(content)
        assert "'c.json' holds no calibrator; skcalib.save" in use(UNUSABLE, "c.json")

    @by_one_command
    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY\xff", b"{"])
    def test_a_file_that_is_no_json(self, use, content):
        Path("c.json").write_bytes(content)
        assert "'c.json' is not a JSON file" in use(UNUSABLE, "c.json")

    @by_one_command
    def test_a_newer_version(self, use, saved):
        document = json.loads(Path("c.json").read_text())
        Path("c.json").write_text(json.dumps({**document, "version": 2}))
        assert "is of version 2 of its format" in use(UNUSABLE, "c.json")

    @by_one_command
    def test_a_damaged_calibrator(self, use, saved):
        text = Path("c.json").read_text()
        Path("c.json").write_text(text.replace("VectorScaling", "BetaCalibration"))
        assert "its content is not what was written" in use(UNUSABLE, "c.json")

    def test_another_number_of_classes(self, use, saved):
        np.savez("four.npz", logits=np.eye(4)[[0, 1, 2, 3]], y=[0, 1, 2, 3])
        message = use(UNUSABLE, "c.json", "four.npz")
        assert "four.npz gives 4 columns of logits, but the calibrator was" in message
        assert "on 3, for the classes [0, 1, 2]" in message

    def test_a_table_with_its_columns_in_another_order(self, use, named, logits_file):
        write_table(logits_file)
        message = use(UNUSABLE, "named.json", "t.csv")
        assert "t.csv stand for ['cat', 'ant', 'dog']" in message
        assert "fitted for ['dog', 'ant', 'cat'], in this order" in message
        assert "--logits-key dog,ant,cat" in message

    def test_more_than_logits_needed(self, use, logits_file):
        logits, y = load(logits_file)
        fitted = package.DensityRatioCalibration()
        fitted.fit(logits, y, features=logits)
        package.save(fitted, "c.json")
        assert "DensityRatioCalibration, which needs more" in use(UNUSABLE, "c.json")


@pytest.mark.parametrize("command", ["apply", "evaluate"])
def test_named_columns_can_be_put_into_the_order_of_the_calibrator(
    skcalib, named, logits_file, command
):
    logits, y = write_table(logits_file)
    options = {"apply": ("-o", "p.npy"), "evaluate": QUICK}
    run = skcalib(
        command, "--calibrator", "named.json", "--logits", "t.csv", "--json",
        "--logits-key", "dog,ant,cat", *options[command],
    )  # fmt: skip
    assert run.code == 0, run.err
    proba = named.predict_proba(logits)
    if command == "apply":
        assert_array_equal(np.load("p.npy"), proba)
    else:
        loss = -np.log(proba[np.arange(len(y)), y]).mean()
        assert run.json["metrics"]["nll"]["value"] == pytest.approx(loss)


def test_labels_of_other_classes_are_refused(refused, logits_file, named):
    message = refused(
        UNUSABLE, "evaluate", "--logits", logits_file, "--calibrator", "named.json"
    )
    assert (
        f"{logits_file} holds labels that the calibrator does not know: [0" in message
    )
    assert "It was fitted for ['dog', 'ant', 'cat']" in message


@pytest.fixture
def one_column(tmp_path):
    """Platt scaling of one column of log-odds, and the table it was fitted on."""
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=300)
    labels = np.where(rng.random(300) < 1 / (1 + np.exp(-z / 2)), "spam", "ham")
    fitted = package.PlattScaling().fit(z, labels)
    package.save(fitted, tmp_path / "c.json")
    for name in ("spam", "ham"):
        lines = [f"{name},label", *map("{},{}".format, z.tolist(), labels)]
        Path(f"{name}.csv").write_text("\n".join(lines))
    loss = -np.log(
        fitted.predict_proba(z)[np.arange(300), (labels == "spam").astype(int)]
    )
    return fitted.predict_proba(z), loss.mean()


def test_one_column_is_applied_judged_and_compared(skcalib, one_column):
    proba, loss = one_column
    arguments = ("--logits", "spam.csv", "--calibrator", "c.json", "--json")
    assert skcalib("apply", *arguments, "-o", "p.npy").code == 0
    assert_array_equal(np.load("p.npy"), proba)
    judged = skcalib("evaluate", *arguments, *QUICK).json["metrics"]["nll"]["value"]
    table = skcalib("compare", *arguments, "--methods", "platt").json["methods"]
    assert judged == pytest.approx(loss, rel=1e-9)
    assert table["c.json"]["nll"]["mean"] == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("command", [("apply", "-o", "p.npy"), ("evaluate",)])
def test_one_column_of_the_other_class_is_refused(refused, one_column, command):
    message = refused(
        UNUSABLE, *command, "--logits", "ham.csv", "--calibrator", "c.json"
    )
    assert "ham.csv stand for ['ham'], but" in message
    assert "fitted for ['spam'], in this order. Pass the log-odds" in message


def test_a_model_of_another_number_of_classes_is_refused(refused, demo, saved):
    message = refused(
        UNUSABLE, "apply", demo.model, "--calibrator", "c.json", "-o", "c.onnx"
    )
    assert "3" in message
    assert "10" in message
    assert not Path("c.onnx").exists()


@pytest.mark.parametrize(
    "option", ["--method", "--gamma", "--folds", "--labels", "--classes"]
)
def test_applying_takes_no_options_of_a_fit(refused, logits_file, saved, option):
    message = refused(
        USAGE, "apply", "--calibrator", "c.json", "--logits", logits_file,
        "-o", "p.npy", option, "1",
    )  # fmt: skip
    assert f"No such option: {option}" in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--add-probabilities",), "--add-probabilities is about the outputs of MODEL"),
        (("m.onnx",), "MODEL is run on --inputs"),
    ],
)
def test_options_that_say_nothing_to_apply(
    refused, logits_file, saved, arguments, told
):
    message = refused(
        USAGE, "apply", *arguments, "--calibrator", "c.json", "--logits", logits_file,
        "-o", "p.npy",
    )  # fmt: skip
    assert told in message
    assert not Path("p.npy").exists()


def test_an_output_of_a_model_is_none_of_probabilities(refused, demo, saved):
    message = refused(
        USAGE, "apply", demo.model, "--calibrator", "c.json", "--keep-outputs",
        "-o", "p.npy",
    )  # fmt: skip
    assert "--keep-outputs is about the outputs of a model, but p.npy" in message


def test_probabilities_of_nothing(refused, saved):
    message = refused(USAGE, "apply", "--calibrator", "c.json", "-o", "p.npy")
    assert "Pass exactly one of --inputs" in message


def test_an_ending_of_neither_model_nor_probabilities(refused, saved):
    message = refused(USAGE, "apply", "--calibrator", "c.json", "-o", "p.parquet")
    assert "let its name end in .onnx for a model, or in .npy or .csv" in message


@pytest.mark.parametrize(
    ("command", "target"),
    [
        (("calibrate", "-m", "beta", "--save"), "there.json"),
        (("apply", "--calibrator", "c.json", "-o"), "there.npy"),
    ],
)
def test_files_are_replaced_only_when_told_to(
    skcalib, refused, logits_file, saved, command, target
):
    Path(target).write_text("precious")
    arguments = (*command, target, "--logits", logits_file)
    message = refused(UNUSABLE, *arguments)
    assert f"'{target}' exists already" in message
    assert Path(target).read_text() == "precious"
    assert skcalib(*arguments, "--overwrite").code == 0
    assert Path(target).read_bytes() != b"precious"


def test_the_calibrator_that_is_read_is_never_written_to(refused, saved):
    os.rename("c.json", "c.npy")
    message = refused(
        USAGE, "apply", "--calibrator", "c.npy", "-o", "c.npy", "--overwrite"
    )
    assert "c.npy is read by this command, so it is never written to" in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--output for an ONNX model, --save for a calibrator"),
        (("--save", "c.pkl"), "has the ending '.pkl'"),
        (("--save", "c.json", "--report", "r.html"), "--report is about the ONNX"),
        (("--save", "c.json", "--report", "c.json", "-o", "c.onnx"), "the same file"),
    ],
)
def test_options_of_saving_that_do_not_go_together(
    refused, logits_file, arguments, told
):
    message = refused(USAGE, "calibrate", "--logits", logits_file, *arguments)
    assert told in message
    assert not Path("c.json").exists()


def test_clamping_is_not_saved(refused, demo, images_file):
    pytest.importorskip("torch")
    message = refused(
        USAGE, "calibrate", demo.model, "--inputs", images_file, "-m", "clamping",
        "--save", "c.json",
    )  # fmt: skip
    assert "--save cannot go with clamping" in message


@pytest.mark.slow
def test_one_process_saves_and_another_applies(skcalib, logits_file):
    logits, method = ("--logits", str(logits_file)), ("-m", "vector")
    assert skcalib("calibrate", *logits, *method, "--save", "c.json", *QUICK).code == 0
    apply = ("apply", *logits, "--calibrator", "c.json", "-o", "p.npy")
    subprocess.run([sys.executable, "-m", "skcalib", *apply], check=True)  # noqa: S603
    expected = package.load("c.json").predict_proba(load(logits_file)[0])
    assert_array_equal(np.load("p.npy"), expected)


def test_a_file_of_some_classes_is_read_as_the_calibrator_names_them(
    skcalib, draw_calibration_set, tmp_path
):
    logits, y = draw_calibration_set(n_classes=3)
    names = np.array(["01", "2", "2b"])
    for name, kept in {"all": y < 3, "few": y < 2}.items():
        np.save(tmp_path / f"{name}.npy", logits[kept])
        (tmp_path / f"{name}.csv").write_text("label\n" + "\n".join(names[y[kept]]))
    fit = ("-m", "temperature", "--save", "c.json", *QUICK)
    run = skcalib("calibrate", "--logits", "all.npy", "--labels", "all.csv", *fit)
    assert run.code == 0, run.err
    judge = ("evaluate", "--calibrator", "c.json", "--logits", "few.npy")
    run = skcalib(*judge, "--labels", "few.csv", *QUICK)
    assert run.code == 0, run.err


def test_text_and_options_name_bool_classes(skcalib, draw_calibration_set, tmp_path):
    logits, y = draw_calibration_set(n_classes=2)
    np.savez(tmp_path / "b.npz", logits=logits, y=y == 1)
    (tmp_path / "y.csv").write_text("label\n" + "\n".join(map(str, y == 1)))
    fit = ("--classes", "False,True", "-m", "temperature", "--save", "c.json", *QUICK)
    run = skcalib("calibrate", "--logits", "b.npz", *fit)
    assert run.code == 0, run.err
    judge = ("evaluate", "--calibrator", "c.json", "--logits", "b.npz")
    run = skcalib(*judge, "--labels", "y.csv", "--json", *QUICK)
    assert run.code == 0, run.err
    accuracy = (logits.argmax(axis=1) == y).mean()
    assert run.json["metrics"]["accuracy"]["value"] == accuracy


def test_a_saved_calibrator_is_compared_behind_its_own_floor(skcalib, tmp_path):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 400)
    proba[:, 2] *= 1e-25
    y = np.where(rng.random(400) < 0.1, 2, (rng.random(400) > proba[:, 0]).astype(int))
    np.savez(tmp_path / "deep.npz", proba=proba / proba.sum(axis=1)[:, None], y=y)
    deep = "--probabilities", "deep.npz"
    fixed = "--floor", "1e-30", "--method", "platt", "--save", "c.json"
    assert skcalib("calibrate", *deep, *fixed, "--test-fraction", 0.5, *QUICK).code == 0
    told = skcalib("evaluate", *deep, "--calibrator", "c.json", "--json", *QUICK)
    compared = skcalib(
        "compare", *deep, "--calibrator", "c.json", "--methods", "temperature",
        "--folds", 2, "--json",
    )  # fmt: skip
    nll = json.loads(told.out)["metrics"]["nll"]["value"]
    assert_allclose(
        json.loads(compared.out)["methods"]["c.json"]["nll"]["mean"], nll, rtol=1e-6
    )


def test_columns_of_other_names_are_those_of_the_calibrator(skcalib, tmp_path):
    rng = np.random.default_rng(0)
    logits, names = 2 * rng.normal(size=(90, 3)), np.array(["dog", "cat", "owl"])
    rows = [",".join([*map(str, row), names[row.argmax()]]) for row in logits]
    (tmp_path / "a.csv").write_text("\n".join(["s0,s1,s2,label", *rows]))
    own = ["s0,s1,s2,label", *(row for row in rows if row.endswith("owl"))]
    (tmp_path / "owls.csv").write_text("\n".join(own))
    fit = "--classes", "dog,cat,owl", "--method", "temperature", "--save", "v.json"
    run = skcalib("calibrate", "--logits", "a.csv", *fit, *QUICK)
    assert run.code == 0, run.err
    for file in ("a.csv", "owls.csv"):
        told = "--logits", file, "--calibrator", "v.json", "--json", *QUICK
        run = skcalib("evaluate", *told)
        assert run.code == 0, run.err
        # Every label is that of the largest column.
        assert run.json["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize("command", [("evaluate", *QUICK), ("compare",)])
def test_columns_that_hold_the_classes_in_another_order_are_refused(
    refused, logits_file, named, command
):
    write_table(logits_file)
    header, *rows = Path("t.csv").read_text().splitlines()
    assert header == "cat,ant,dog,label"
    Path("t.csv").write_text("\n".join(["z_cat,z_ant,z_dog,label", *rows]))
    message = refused(
        UNUSABLE, *command, "--logits", "t.csv", "--calibrator", "named.json"
    )
    assert "stand for ['cat', 'ant', 'dog']" in message


@pytest.mark.parametrize("classes", [[0, 1, 2], [3, 5, 9]])
def test_a_header_of_numbers_in_another_order_is_refused(
    skcalib, refused, logits_file, classes
):
    logits, y = load(logits_file)
    np.savez("fit.npz", logits=logits, y=np.array(classes)[y])
    told = ",".join(map(str, classes))
    fit = ("calibrate", "--logits", "fit.npz", "--classes", told, "--save", "c.json")
    assert skcalib(*fit, "-m", "vector", *QUICK).code == 0
    order = [2, 0, 1]
    header = ",".join(str(classes[k]) for k in order)
    np.savetxt("new.csv", logits[:, order], delimiter=",", header=header, comments="")
    apply = ("apply", "--logits", "new.csv", "--calibrator", "c.json", "-o", "p.npy")
    message = refused(UNUSABLE, *apply)
    assert "calibrator was fitted for" in message
    assert f"--logits-key {told}" in message
    assert skcalib(*apply, "--logits-key", told).code == 0
    expected = package.load("c.json").predict_proba(logits)
    assert_allclose(np.load("p.npy"), expected)


def test_rows_of_one_class_are_judged(skcalib, tmp_path):
    logits = np.random.default_rng(0).normal(size=(30, 3))
    np.savez(tmp_path / "one.npz", logits=logits, y=np.zeros(30, int))
    run = skcalib("evaluate", "--logits", "one.npz", *QUICK)
    assert run.code == 0, run.err
    run = skcalib("calibrate", "--logits", "one.npz", "--save", "c.json", *QUICK)
    assert run.code == UNUSABLE
