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


def run_cases():
    """Return the outcome of each of the cases, by name."""
    options = ("-n", "0", "-v", "-p", "no:cacheprovider", "--import-mode=importlib")
    # Their warnings are no errors.
    options += ("-o", "addopts=", "-o", "filterwarnings=", "-W", "ignore")
    # Others read the sources of what an expected failure passed.
    options += ("--tb=native",)
    # Processes take long to start, and tests of our own start some.
    options += ("-k", "not parallel_execution")
    # The second seed of the same eight cases, the longest of all.
    options += ("--deselect", f"{CASES}::test_calibration_multiclass[1-")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", *options, str(CASES)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"::(\S+) (PASSED|XFAIL|SKIPPED)", done.stdout))


def test_the_cases_of_scikit_learn_pass_but_those_otherwise_on_purpose():
    outcomes = run_cases()
    others = [outcomes[name] for name in outcomes if "array_api" not in name]
    assert others.count("PASSED") > 70
    assert "SKIPPED" not in others
    assert others.count("XFAIL") == 4
    # Those of arrays of other libraries.
    pytest.importorskip("array_api_strict")
    pytest.importorskip("torch")
    passed = [name for name, outcome in outcomes.items() if outcome == "PASSED"]
    for library in ("array_api_strict", "torch-cpu", "numpy"):
        expected = 8 if library == "numpy" else 16
        found = sum("array_api" in name and library in name for name in passed)
        assert found == expected
