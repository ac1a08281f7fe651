"""The laboratory takes the columns that the command takes, and tells the same."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

import skcalib.cli
from skcalib.datasets import make_logits
from skcalib.metrics import calibration_report

TEMPLATES = Path(skcalib.cli.__file__).parent / "templates"


@pytest.fixture
def run_page():
    """Run a line of code after the scripts of the page; return what it tells."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    names = ("reliability.js", "lab_core.js", "lab_onnx.js", "lab.js")
    scripts = "\n".join((TEMPLATES / n).read_text(encoding="utf-8") for n in names)
    page = """const els = {};
      const made = () => ({ classList: { add() {}, remove() {} } });
      globalThis.document = { getElementById: (id) => els[id] ??= made() };"""

    def run(line, given):
        code = (
            f"{page}\n{scripts}\n"
            'const given = JSON.parse(require("fs").readFileSync(0, "utf8"));\n'
            f"{line}"
        )
        done = subprocess.run(  # noqa: S603
            [node, "-e", code],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


@pytest.fixture
def codes_of(run_page):
    """Read a table as the page does; return the column of each label, or a mistake."""
    line = """
        let told;
        try {
          told = Array.from(makeSet(readCsv(given)).codes);
        } catch (error) {
          told = error.message;
        }
        console.log(JSON.stringify(told));
        """
    return lambda text: run_page(line, text)


def rows_of(n, n_classes):
    X, y = make_logits(n, n_classes, random_state=0)
    return {
        "labels": [str(k) for k in y],
        "scores": {"shape": [n, n_classes], "values": X.ravel().tolist()},
    }, (X, y)


def test_the_interval_of_the_page_is_that_of_the_library(run_page):
    given, (X, y) = rows_of(300, 4)
    line = """const s = summarise(makeSet(given, false));
      console.log(JSON.stringify(eceInterval(s, 15, 2000)));"""
    ece = calibration_report(y, softmax(X, axis=1), metrics=["ece"])["ece"]
    assert run_page(line, given) == pytest.approx([ece.low, ece.high], abs=4e-3)


def test_the_page_tells_how_probabilities_are_read(run_page):
    given, (X, _) = rows_of(200, 3)
    given["scores"]["values"] = softmax(X, axis=1).ravel().tolist()
    line = "open(given, %s); console.log(JSON.stringify(els.python.textContent));"
    told = run_page(line % "true", given)
    assert "logits = logits_from_proba(probabilities)" in told
    assert "skcalib compare --probabilities val.npz" in told
    told = run_page(line % "false", given)
    assert "logits_from_proba" not in told
    assert "skcalib compare --logits val.npz" in told


def table(header, labels):
    """A table whose scores tell nothing."""
    n_columns = len(header.split(",")) - 1 if header else len(set(labels))
    scores = ["0.5"] * n_columns
    rows = [",".join([*scores, label]) for label in labels]
    return "\n".join([header, *rows] if header else rows)


@pytest.mark.parametrize(
    "labels",
    [
        [str(k) for k in range(1, 13)],
        [str(10 * k) for k in range(1, 13)],
        ["-10", "-9", "2"],
        ["-1", "+1"],
        ["1.0", "2.0", "10.0"],
    ],
)
@pytest.mark.parametrize("has_header", [False, True])
def test_labels_that_are_numbers_are_sorted_as_numbers(codes_of, labels, has_header):
    header = ",".join([*(f"c{k}x" for k in range(len(labels))), "y"])
    shuffled = np.random.default_rng(0).permutation(len(labels))
    text = table(header if has_header else "", [labels[k] for k in shuffled])
    assert codes_of(text) == shuffled.tolist()


@pytest.mark.parametrize(
    ("header", "labels", "codes"),
    [
        ("dog,cat,ape,label", ["ape", "dog", "cat"], [2, 0, 1]),
        ('"dog","cat","ape","label"', ['"ape"', '"dog"', '"cat"'], [2, 0, 1]),
        # A class that never occurs.
        ("dog,cat,ape,label", ["ape", "dog"], [2, 0]),
        ("Dog,Cat,Ape,Label", ["Ape", "Dog", "Cat"], [2, 0, 1]),
        ("2,0,1,y", ["0", "1", "2"], [1, 2, 0]),
        ("30,10,20,y", ["10", "20", "30"], [1, 2, 0]),
        ("3.0,1.0,2.0,y", ["1", "2", "3"], [1, 2, 0]),
        ("p_dog,p_cat,p_ape,label", ["ape", "dog", "cat"], [2, 0, 1]),
        ("p(dog),p(cat),p(ape),label", ["ape", "dog", "cat"], [2, 0, 1]),
        ("p_2,p_0,p_1,y", ["0", "1"], [1, 2]),
        # Names that say nothing of the labels.
        ("a,b,c,label", ["z", "x", "y"], [2, 0, 1]),
        ("0,1,2,y", ["2", "3", "1"], [1, 2, 0]),
    ],
)
def test_columns_are_those_of_their_names(codes_of, header, labels, codes):
    assert codes_of(table(header, labels)) == codes


@pytest.mark.parametrize(
    ("header", "labels", "told"),
    [
        (",a,b,c,label", ["0", "1", "2"], "Column 1 has no name.*index=False"),
        ("a,b,a,label", ["0", "1", "2"], "Two columns are called a"),
        ("dog,cat,ape,label", ["dog", "cow"], "labels cow are not among the columns"),
        ("1,2,3,y", ["1", "2"], "may be names or numbers of the columns 1, 2, 3"),
        ("a,b,c,label", ["x", "y"], "2 different labels do not match 3 columns"),
    ],
)
def test_what_names_leave_open_is_refused(codes_of, header, labels, told):
    assert re.search(told, codes_of(table(header, labels)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b,y\n1,2,0\n1,,1", "Line 3 has an empty cell"),
        ("a,b,y\n1,2,\n1,2,1", "Line 2 has an empty cell"),
        # An index without a place in the header, as R writes one.
        ("a,b,y\n7,1,2,0\n8,1,2,1", "Line 2 has 4 cells, and the first line 3"),
    ],
)
def test_cells_that_are_missing_are_no_zeros(codes_of, text, told):
    assert told in codes_of(text)


@pytest.mark.parametrize(
    ("name", "cells", "told"),
    [
        ("id", "78", "numbers the rows"),
        ("Unnamed: 0", "01", "numbers the rows"),
        ("y_pred", "11", "holds predicted classes"),
        # Whole numbers that are not all different.
        ("id", "11", None),
        ("other", "78", None),
    ],
)
def test_numbers_of_rows_and_predicted_classes_are_no_scores(
    codes_of, name, cells, told
):
    found = codes_of(f"{name},a,b,y\n{cells[0]},0.2,0.3,0\n{cells[1]},0.4,0.1,1")
    if told is None:
        assert found == [0, 1]
    else:
        assert f"The column {name} {told}" in found


def test_a_class_may_be_called_as_an_index_is(codes_of):
    assert codes_of("no,yes,y\n3,1,yes\n4,2,no") == [1, 0]
