import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from skcalib.metrics import calibration_report, expected_calibration_error

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

QUICK = ("--n-bootstrap", 50)


def test_evaluate_prints_what_the_metrics_compute(skcalib, probabilities_file):
    run = skcalib("evaluate", "--probabilities", probabilities_file, "--json", *QUICK)
    assert run.code == 0, run.err
    with np.load(probabilities_file) as arrays:
        proba, y = arrays["proba"], arrays["y"]
    report = calibration_report(y, proba, n_bootstrap=50, random_state=0)
    for name, told in run.json["metrics"].items():
        expected = report[name]._asdict()
        assert told == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("title", "decimals"),
    {
        "Accuracy %": 2,
        "Log loss (NLL)": 4,
        "Brier score": 4,
        "ECE %": 2,
        "ECE, equal mass %": 2,
        "ECE, classwise (SCE) %": 3,
        "KS error, without bins %": 2,
    }.items(),
)
def test_evaluate_writes_a_metric_with_its_unit(skcalib, logits_file, title, decimals):
    run = skcalib("evaluate", "--logits", logits_file, "--n-bootstrap", 2)
    number = rf"\d+\.\d{{{decimals}}}"
    row = rf"^{re.escape(title)} +{number} \[{number}, {number}\]$"
    assert re.search(row, run.out, flags=re.MULTILINE)


def test_evaluate_takes_logits_and_probabilities_alike(
    skcalib, logits_file, probabilities_file
):
    runs = [
        skcalib("evaluate", *arguments, "--json", *QUICK)
        for arguments in (
            ("--logits", logits_file),
            ("--probabilities", probabilities_file),
        )
    ]
    first, second = (run.json["metrics"] for run in runs)
    for name, told in first.items():
        assert told == pytest.approx(second[name], abs=1e-9)


def test_evaluate_runs_the_model(skcalib, demo, images_file):
    run = skcalib(
        "evaluate", demo.model, "--inputs", images_file, "--n-bins", 10, *QUICK
    )
    assert run.code == 0, run.err
    session = pytest.importorskip("onnxruntime").InferenceSession(demo.model)
    proba = session.run(["probabilities"], {"image": demo.X_calibration})[0]
    error = expected_calibration_error(demo.y_calibration, proba, n_bins=10)
    assert f"{100 * error:.2f} [" in run.out
    assert "600 samples of 10 classes" in run.out


def test_a_calibrated_model_evaluates_better(skcalib, demo, images_file):
    np.savez("test.npz", X=demo.X_test, y=demo.y_test)
    assert skcalib(
        "calibrate", demo.model, "--inputs", images_file, "-o", "c.onnx",
        "-m", "temperature", "--n-bootstrap", 0,
    ).code == 0  # fmt: skip
    before, after = (
        skcalib("evaluate", model, "--inputs", "test.npz", "--json", *QUICK).json[
            "metrics"
        ]
        for model in (demo.model, "c.onnx")
    )
    assert after["ece"]["value"] < before["ece"]["low"]
    assert after["accuracy"]["value"] == before["accuracy"]["value"]


def test_compare_lists_the_methods_once_each(skcalib, logits_file):
    run = skcalib(
        "compare", "--logits", logits_file, "--methods", "temperature, vector,isotonic",
        "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    table = run.json["methods"]
    assert list(table) == ["uncalibrated", "temperature", "vector", "isotonic"]
    assert table["temperature"]["nll"]["mean"] < table["uncalibrated"]["nll"]["mean"]


def test_compare_equals_the_comparison_in_python(skcalib, logits_file):
    from skcalib.calibrators import PlattScaling, TemperatureScaling
    from skcalib.model_selection import compare_calibrators

    run = skcalib(
        "compare", "--logits", logits_file, "--methods", "temperature,platt", "--json",
        "--folds", 3, "--seed", 4,
    )  # fmt: skip
    with np.load(logits_file) as arrays:
        table = compare_calibrators(
            {"temperature": TemperatureScaling(), "platt": PlattScaling()},
            arrays["logits"], arrays["y"], cv=3, random_state=4,
        ).to_dict()  # fmt: skip
    for name, row in run.json["methods"].items():
        for metric in ("accuracy", "ece", "sce", "nll"):
            assert row[metric] == pytest.approx(table[name][metric], abs=1e-12)


def test_compare_prints_an_aligned_table_of_all_methods(skcalib, logits_file):
    from skcalib.cli._methods import METHODS

    run = skcalib("compare", "--logits", logits_file, "--folds", 2)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert {line.split()[0] for line in lines[2:]} == {"uncalibrated", *METHODS}
    nll = [float(line.split()[-3].split("±")[0]) for line in lines[2:]]
    assert nll == sorted(nll)


def test_an_unknown_method_stops_the_comparison(refused, logits_file):
    message = refused(
        2, "compare", "--logits", logits_file, "--methods", "temperature,temprature"
    )
    assert "no method 'temprature'. Did you mean 'temperature'?" in message


def test_numbers_unknown_to_json_become_null(capsys):
    import skcalib as package
    from skcalib.cli._console import print_json

    print_json({"a": [1.5, float("inf")], "b": {"c": float("nan"), "d": "text"}})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told.pop("skcalib_version") == package.__version__
    assert told == {"a": [1.5, None], "b": {"c": None, "d": "text"}}


def test_the_version_and_the_exit_codes_are_told(skcalib):
    import skcalib as package

    assert skcalib("--version").out.strip() == f"skcalib {package.__version__}"
    for command in ("demo", "calibrate", "evaluate", "compare", "lab"):
        help_ = " ".join(skcalib(command, "--help").out.split())
        assert "Exit codes: 0 done; 1 a file" in help_


def test_a_table_is_written_for_papers_with_the_best_method_first(skcalib, logits_file):
    told = ("compare", "--logits", logits_file, "--methods", "temperature,vector")
    run = skcalib(*told, "--format", "markdown")
    assert run.code == 0, run.err
    rows = [line for line in run.out.splitlines() if line.startswith("|")]
    assert rows[0].startswith("|  | accuracy % |")
    assert len(rows) == 5
    assert "**" in rows[2]
    assert r"\toprule" in skcalib(*told, "--format", "latex").out


def test_compare_writes_over_no_report_that_came_meanwhile(
    skcalib, refused, logits_file, monkeypatch
):
    pytest.importorskip("matplotlib")
    from skcalib.cli import _commands

    report, compared = logits_file.parent / "r.html", _commands._compared

    def slowly(*arguments):
        report.write_text("another")
        return compared(*arguments)

    monkeypatch.setattr(_commands, "_compared", slowly)
    run = ("compare", "--logits", logits_file, "--methods", "temperature")
    assert "r.html' exists already" in refused(1, *run, "--report", "r.html")
    assert report.read_text() == "another"


def test_a_terminal_sees_progress_on_stderr_only(skcalib, logits_file, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich believe in a terminal
    run = skcalib("compare", "--logits", logits_file, "--methods", "vector", "--json")
    assert run.code == 0, run.err
    assert "Comparing" in run.err
    assert list(run.json["methods"]) == ["uncalibrated", "vector"]


def test_elsewhere_there_is_no_progress(skcalib, logits_file):
    run = skcalib("compare", "--logits", logits_file, "--methods", "vector", "--json")
    assert run.err == ""


def test_a_table_for_a_spreadsheet_holds_fractions_and_nothing_else(
    skcalib, logits_file
):
    told = ("compare", "--logits", logits_file, "--methods", "temperature,vector")
    lines = skcalib(*told, "--format", "csv").out.splitlines()
    rows = list(csv.DictReader(lines))
    assert {row["method"] for row in rows} == {"uncalibrated", "temperature", "vector"}
    exact = skcalib(*told, "--json").json["methods"]
    for row in rows:
        for metric, numbers in exact[row["method"]].items():
            if "seconds" not in metric:
                assert float(row[metric]) == numbers["mean"]
                assert float(row[f"{metric} std"]) == numbers["std"]
    assert "nll" in rows[0]["best"].split()


def test_a_comparison_is_written_as_a_page(skcalib, refused, logits_file):
    told = ("compare", "--logits", logits_file, "--methods", "temperature,isotonic")
    run = skcalib(*told, "--report", "table.html")
    assert run.code == 0, run.err
    assert "Wrote table.html" in run.out
    page = Path("table.html").read_text(encoding="utf-8")
    assert "temperature has the lowest log-loss" in " ".join(page.split())
    assert "300 samples, in 5 folds" in page
    assert "<strong>" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "exists already" in refused(1, *told, "--report", "table.html")
    assert skcalib(*told, "--report", "table.html", "--overwrite").code == 0


def test_integer_labels_get_names_in_the_order_of_the_columns(skcalib, logits_file):
    told = ("--logits", logits_file, "--classes", "cat,dog,owl")
    run = skcalib(
        "calibrate", *told, "-m", "vector", "-o", "c.onnx", "--save", "c.json",
        "--report", "r.html", "--n-bootstrap", 0,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "3: cat, dog, owl" in Path("r.html").read_text(encoding="utf-8")
    again = skcalib("evaluate", *told, "--calibrator", "c.json", "--n-bootstrap", 0)
    assert again.code == 0, again.err


@pytest.mark.parametrize("as_text", ["{a},{b},{y}", '{{"s": [{a}, {b}], "y": "{y}"}}'])
@pytest.mark.parametrize("mark", ["", "\ufeff"])  # some programs write it first
def test_a_table_comes_from_standard_input(as_text, mark, skcalib):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40))
    y = np.where(a > b, "cat", "dog")
    rows = zip(a.tolist(), b.tolist(), y.tolist(), strict=True)
    lines = [as_text.format(a=a, b=b, y=y) for a, b, y in rows]
    header = ["a,b,y"] if as_text.startswith("{a}") else []
    run = skcalib(
        "evaluate", "--logits", "-", "--json", "--n-bootstrap", 0,
        stdin=mark + "\n".join(header + lines),
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["metrics"]["accuracy"]["value"] == 1


def test_what_is_wrong_on_standard_input_is_told_of_it(skcalib):
    run = skcalib("evaluate", "--logits", "-", stdin="a;b;y\n1;2;cat\n")
    assert run.code == 1
    assert "The columns of standard input look as if semicolons" in run.err
