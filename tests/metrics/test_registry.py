"""What is known of the metrics is complete, and so."""

import inspect
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from scipy.special import softmax

from skcalib import metrics as m
from skcalib.metrics._hypothesis import TEST_METRICS
from skcalib.metrics._paired import COMPARED_METRICS
from skcalib.metrics._registry import COLUMNS, IN_REPORT, METRICS, evaluate
from skcalib.metrics._resampling import RowStatistics, bootstrap_weights

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "metrics.rst"

NOT_LISTED = {
    "area_under_risk_coverage_curve": "judges the order of the rows alone",
    "proximity_calibration_error": "asks for the proximity of each row",
}


def returns_a_float(name):
    signature = inspect.signature(getattr(m, name), eval_str=True)
    returned = signature.return_annotation
    return "y_proba" in signature.parameters and float in (
        returned,
        *get_args(returned),
    )


def test_every_metric_of_probabilities_is_listed_or_has_a_reason():
    functions = [name for name in m.__all__ if inspect.isfunction(getattr(m, name))]
    public = set(filter(returns_a_float, functions))
    listed = {metric.function for metric in METRICS.values() if metric.function}
    assert {function.__name__ for function in listed} == public - NOT_LISTED.keys()
    assert NOT_LISTED.keys() < public
    assert all(getattr(m, function.__name__) is function for function in listed)


@pytest.mark.parametrize("name", dict.fromkeys([*COMPARED_METRICS, *TEST_METRICS]))
def test_the_guide_lists_every_name_with_what_knows_it(name):
    text = GUIDE.read_text(encoding="utf-8")
    (row,) = re.findall(rf"^``{name}`` +(\S+) +(\S+) +(\S+) +(\S+)$", text, re.M)
    metric = METRICS[name]
    if metric.function is not None:
        assert row[0] == f"`{metric.function.__name__}`"
    report = "asked" if metric.on_request else "yes"
    assert row[1:] == (
        report if name in IN_REPORT else r"\-",
        "yes" if name in TEST_METRICS else r"\-",
        "yes" if name in COMPARED_METRICS else r"\-",
    )


def test_accuracy_and_every_calibration_error_are_printed_in_percent():
    in_percent = {n for n, metric in METRICS.items() if metric.percent_decimals}
    assert in_percent == {"accuracy"} | {n for n, m in METRICS.items() if m.is_gap}
    assert METRICS["ece"].written(0.0123, None, None) == ("1.23", "")
    assert METRICS["nll"].written(0.5, 0.4, 0.6) == ("0.5000", "[0.4000, 0.6000]")


def test_what_is_shown_can_be_resampled():
    shown = {name for name, metric in METRICS.items() if metric.plain_title}
    assert shown <= set(IN_REPORT)
    assert {*COLUMNS, *IN_REPORT} <= set(COMPARED_METRICS)


def test_the_docstring_names_what_a_report_holds_unless_it_is_told():
    default = [f'"{name}"' for name in IN_REPORT if not METRICS[name].on_request]
    doc = " ".join(inspect.getdoc(m.calibration_report).split())
    assert f"by default {', '.join(default[:-1])} and {default[-1]}." in doc


@pytest.fixture(scope="module")
def raised():
    """By how much resampling raises each metric of calibrated probabilities."""
    rng = np.random.default_rng(0)
    values, replicates = [], []
    for _ in range(20):
        logits = rng.normal(scale=2, size=(300, 4))
        y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        rows = RowStatistics(softmax(logits, axis=1), y, 15)
        random = np.random.RandomState(rng.integers(1000))
        (weights,) = bootstrap_weights(np.ones(300), 20, random)
        value = evaluate(rows, np.ones((1, 300)), IN_REPORT)
        replicate = evaluate(rows, weights, IN_REPORT)
        values.append([value[name].mean() for name in IN_REPORT])
        replicates.append([replicate[name].mean() for name in IN_REPORT])
    rise = np.mean(replicates, axis=0) / np.mean(values, axis=0) - 1
    return dict(zip(IN_REPORT, rise, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_REPORT)
def test_a_gap_is_what_the_noise_of_resampling_raises(raised, name):
    assert (raised[name] > 0.05) == METRICS[name].is_gap
