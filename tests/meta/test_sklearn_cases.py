"""CalibratedClassifier does what scikit-learn tests its own class for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn
from sklearn.utils.fixes import parse_version

CASES = Path(__file__).parents[1] / "shared" / "sklearn_calibration.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        parse_version(sklearn.__version__) < parse_version("1.9"),
        reason="its cases of temperatures and arrays are those of 1.9",
    ),
]


def run_cases(*which):
    """Return how many of the cases have each outcome, and what pytest says of them."""
    options = ("-n", "0", "-v", "-p", "no:cacheprovider", "--import-mode=importlib")
    # Their warnings are no errors.
    options += ("-o", "addopts=", "-o", "filterwarnings=", "-W", "ignore")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options, str(CASES), *which],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"::(\S+) (PASSED|XFAIL|SKIPPED)", done.stdout)


def test_temperatures_of_arrays_of_other_libraries_pass():
    pytest.importorskip("array_api_strict")
    pytest.importorskip("torch")
    outcomes = run_cases("-k", "array_api")
    passed = [name for name, outcome in outcomes if outcome == "PASSED"]
    for library in ("array_api_strict", "torch-cpu", "numpy"):
        expected = 8 if library == "numpy" else 16
        assert sum(library in name for name in passed) == expected


def test_all_other_cases_pass_but_those_that_are_otherwise_on_purpose():
    # Processes take long to start, and tests of our own start some.
    outcomes = run_cases("-k", "not array_api and not parallel_execution")
    passed = [name for name, outcome in outcomes if outcome == "PASSED"]
    assert len(passed) > 70
    assert not [name for name, outcome in outcomes if outcome == "SKIPPED"]
    assert sum(outcome == "XFAIL" for _, outcome in outcomes) == 4
