"""The methods of the command are the calibrators of the library."""

import re
from pathlib import Path

import pytest

from skcalib import calibrators

pytest.importorskip("typer")

from skcalib.cli._methods import METHODS, NAMES

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "command_line.rst"
NO_METHOD = {
    "DensityRatioCalibration": "looks for neighbours: no map that a file could hold",
    "ProbabilityFloor": "comes before a method; the command has --floor",
}


def test_every_calibrator_is_a_method_or_has_a_reason():
    made = {type(make()).__name__ for make in METHODS.values()}
    assert made - {"CalibratorSearch"} == set(calibrators.__all__) - NO_METHOD.keys()
    assert NO_METHOD.keys() < set(calibrators.__all__)


def test_the_guide_lists_every_method():
    text = GUIDE.read_text(encoding="utf-8")
    (listed,) = re.findall(r"^``--method`` is one of (.*?):$", text, re.M | re.S)
    assert all(f"``{name}``" in listed for name in NAMES)
