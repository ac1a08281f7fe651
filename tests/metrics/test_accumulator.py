"""What is added up batch by batch says the same as all rows at once."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skcalib._files import digest
from skcalib.exceptions import OneColumnWarning
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    expected_calibration_error,
    static_calibration_error,
)
from skcalib.metrics._registry import ACCUMULATED, IN_REPORT, METRICS
from skcalib.metrics._sums import cell_edges

EXACT = [name for name in ACCUMULATED if METRICS[name].accumulated == "exact"]
NEAR = [name for name in ACCUMULATED if METRICS[name].accumulated == "near"]


def draw(n_rows=2000, n_classes=5, scale=3.0, seed=0, dtype=np.float64):
    """Return labels, over-confident probabilities and weights."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(n_rows, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1).astype(dtype), rng.integers(0, 4, n_rows)


def in_batches(accumulator, y, proba, weight=None, n_batches=7, seed=0):
    """Add the rows in batches of different sizes."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(y), n_batches - 1))
    for rows in np.split(np.arange(len(y)), cuts):
        part = None if weight is None else weight[rows]
        accumulator.update(y[rows], proba[rows], part)
    return accumulator


def of_all_rows(y, proba, weight=None, n_bins=15):
    report = calibration_report(
        y,
        proba,
        sample_weight=weight,
        n_bins=n_bins,
        metrics=ACCUMULATED,
        n_bootstrap=0,
    )
    return {name: estimate.value for name, estimate in report.items()}


def test_the_names_are_those_of_a_report():
    y, proba, _ = draw()
    report = calibration_report(y, proba, n_bootstrap=0)
    assert list(CalibrationAccumulator().update(y, proba).compute()) == list(report)
    assert set(IN_REPORT) - set(ACCUMULATED) == {"sweep_ece"}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_bins", [1, 10, 15, 5000])
@pytest.mark.parametrize("n_classes", [2, 5, 40])
def test_sums_of_bins_and_of_rows_are_exact(n_classes, n_bins, weighted):
    y, proba, weight = draw(n_classes=n_classes)
    weight = weight if weighted else None
    accumulator = CalibrationAccumulator(n_bins=n_bins, metrics=EXACT)
    values = in_batches(accumulator, y, proba, weight).compute()
    expected = of_all_rows(y, proba, weight, n_bins)
    for name in EXACT:
        assert values[name] == pytest.approx(expected[name], rel=1e-12, abs=1e-14), name


@pytest.mark.parametrize("n_bins", [3, 7, 10, 15, 49, 100])
def test_confidences_on_the_edges_of_bins_stay_in_their_bins(n_bins):
    # Each edge, and the numbers next to it, some of them thrice: sums that round.
    edges = np.arange(1, n_bins + 1) / n_bins
    near = [np.nextafter(edges, 0), edges, np.nextafter(edges, 2)]
    second = np.repeat(np.concatenate(near), 3)
    second = second[(second >= 0.5) & (second <= 1)]
    y = np.random.default_rng(0).integers(0, 2, second.shape[0])
    proba = np.column_stack([1 - second, second])
    accumulator = CalibrationAccumulator(n_bins=n_bins)
    values = in_batches(accumulator, y, proba).compute()
    expected = of_all_rows(y, proba, n_bins=n_bins)
    for name in ("ece", "mce", "rmsce", "sce"):
        assert values[name] == pytest.approx(expected[name], rel=1e-12), name


def test_single_precision_is_summed_in_double_precision():
    y, proba, _ = draw(dtype=np.float32)
    values = in_batches(CalibrationAccumulator(metrics=EXACT), y, proba).compute()
    expected = of_all_rows(y, proba.astype(np.float64))
    for name in set(EXACT) - {"entropy"}:  # whose logarithms are in single precision
        assert values[name] == pytest.approx(expected[name], rel=1e-12), name
    assert values["entropy"] == pytest.approx(expected["entropy"], rel=1e-6)


def share_of_cells(proba, n_bins):
    index = np.searchsorted(cell_edges(n_bins), proba.max(axis=1))
    return np.bincount(index).max() / len(proba)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.01, 0.5, 3.0, 30.0, 300.0]),
    n_rows=st.sampled_from([1, 20, 500]),
)
def test_sorted_metrics_are_off_by_a_few_cells_at_most(seed, scale, n_rows):
    y, proba, _ = draw(n_rows, scale=scale, seed=seed)
    values = in_batches(CalibrationAccumulator(), y, proba).compute()
    expected = of_all_rows(y, proba)
    cell = share_of_cells(proba, 15)
    assert -cell - 1e-12 <= values["ks"] - expected["ks"] <= 1e-12
    assert abs(values["aece"] - expected["aece"]) <= 2 * 14 * cell + 1e-12
    assert abs(values["smooth_ece"] - expected["smooth_ece"]) <= 1e-3


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 10.0])
def test_sorted_metrics_of_many_rows_are_near(scale):
    y, proba, _ = draw(20_000, 10, scale)
    values = in_batches(CalibrationAccumulator(metrics=NEAR), y, proba).compute()
    expected = of_all_rows(y, proba)
    for name in NEAR:
        assert values[name] == pytest.approx(expected[name], abs=3e-4), name


def test_equal_confidences_of_a_cell_are_exact():
    # What single precision rounds to 1 is most of the rows of a trained network.
    y, proba, _ = draw(scale=60.0, dtype=np.float32)
    assert np.mean(proba.max(axis=1) == 1) > 0.5
    values = in_batches(CalibrationAccumulator(), y, proba).compute()
    expected = of_all_rows(y, proba.astype(np.float64))
    assert values["ks"] == pytest.approx(expected["ks"], abs=1e-5)


def test_single_rows_are_the_whole():
    y, proba, weight = draw(700)
    accumulator = CalibrationAccumulator()
    row = np.empty((1, 5))
    for k in range(700):
        row[:] = proba[k]  # The same array each time, as a service would do.
        accumulator.update([y[k]], row, [weight[k]])
        if k in (0, 300, 301):
            assert accumulator.n_samples_ == np.count_nonzero(weight[: k + 1])
    expected = CalibrationAccumulator().update(y, proba, weight).compute()
    assert accumulator.compute() == pytest.approx(expected, rel=1e-12)


def test_rows_that_wait_are_pickled_merged_and_forgotten():
    y, proba, _ = draw(20)
    accumulator = CalibrationAccumulator().update(y, proba)
    expected = CalibrationAccumulator().update(y, proba).compute()
    assert pickle.loads(pickle.dumps(accumulator)).compute() == expected  # noqa: S301
    assert CalibrationAccumulator().merge(accumulator).compute() == expected
    twice = accumulator.merge(accumulator)
    assert twice.n_samples_ == 40
    twice.update(y, proba).reset().update(y, proba)
    assert twice.compute() == expected


def test_merged_parts_are_the_whole():
    y, proba, weight = draw()
    whole = CalibrationAccumulator().update(y, proba, weight)
    parts = [
        CalibrationAccumulator().update(y[rows], proba[rows], weight[rows])
        for rows in np.array_split(np.arange(len(y)), 3)
    ]
    merged = CalibrationAccumulator()  # No rows yet: no classes either.
    for part in [*parts, CalibrationAccumulator()]:
        assert merged.merge(part) is merged
    assert merged.n_samples_ == whole.n_samples_ == np.count_nonzero(weight)
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_merging_leaves_the_other_as_it_is():
    y, proba, _ = draw()
    other = CalibrationAccumulator().update(y, proba)
    before = other.compute()
    CalibrationAccumulator().merge(other).update(y[::-1], proba)
    assert other.compute() == before


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"n_bins": 10}, {}, "different n_bins .* has 10, the other 15"),
        ({"metrics": ["ece"]}, {}, "different metrics"),
        ({"labels": [1, 0]}, {}, r"different labels .* \[1, 0\], the other None"),
        ({"pos_label": 1}, {}, "different pos_label"),
    ],
)
def test_other_settings_are_not_merged(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        CalibrationAccumulator(**ours).merge(CalibrationAccumulator(**theirs))


def test_other_classes_and_other_things_are_not_merged():
    of_two = CalibrationAccumulator().update([0], [[0.5, 0.5]])
    of_three = CalibrationAccumulator().update([0], [[0.5, 0.5, 0]])
    with pytest.raises(ValueError, match=r"different classes .* \[0, 1\], the other"):
        of_two.merge(of_three)
    with pytest.raises(TypeError, match="CalibrationAccumulator, not a dict"):
        of_two.merge(of_two.compute())


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3, 4], list("abcde")])
def test_what_json_gives_back_is_the_same_to_the_last_bit(labels):
    y, proba, weight = draw()
    y = y if labels is None else np.array(labels)[y]
    accumulator = CalibrationAccumulator(n_bins=7, labels=labels)
    accumulator.update(y, proba, weight / 3)
    text = json.dumps(accumulator.to_dict(), allow_nan=False)
    again = CalibrationAccumulator.from_dict(json.loads(text))
    assert again.to_dict() == accumulator.to_dict()
    assert again.compute() == accumulator.compute()
    assert_array_equal(again.classes_, accumulator.classes_)
    # It goes on as the first would have.
    for one in (accumulator, again):
        one.update(y[:10], proba[:10])
    assert again.compute() == accumulator.compute()


def test_labels_that_json_does_not_know_are_written_as_text():
    days = np.array(["2020-01-31", "2020-02-01"], dtype="datetime64[D]")
    accumulator = CalibrationAccumulator(labels=days, pos_label=days[1])
    accumulator.update(days[[0, 1, 1]], [0.3, 0.6, 0.7])
    again = CalibrationAccumulator.from_dict(
        json.loads(json.dumps(accumulator.to_dict()))
    )
    assert again.compute() == accumulator.compute()
    assert again.classes_.tolist() == ["2020-01-31", "2020-02-01"]
    assert again.pos_label == "2020-02-01"
    again.update(["2020-01-31"], [0.2])
    assert again.n_samples_ == 4


def test_an_empty_accumulator_goes_through_json_too():
    content = CalibrationAccumulator(metrics=["ks"]).to_dict()
    again = CalibrationAccumulator.from_dict(json.loads(json.dumps(content)))
    assert again.get_params()["metrics"] == ["ks"]
    assert again.n_samples_ == 0


def cells_at(index):
    return {"index": [index], "weight": [1.0], "confidence": [0.5], "hit": [1.0]}


def with_digest(content):
    """Return content with the checksum that it asks for."""
    head = ("format", "version", "sha256")
    rest = {key: value for key, value in content.items() if key not in head}
    return content | {"sha256": digest(rest)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no accumulator"),
        ({"version": 2}, "of version 2 .* reads version 1"),
        ({"cells": {"index": [10**6]}}, "is damaged: 'weight'"),
        ({"cells": cells_at(10**6)}, "is damaged: cannot reshape"),
        ({"cells": cells_at(-1)}, "is damaged: .*negative"),
        ({"totals": [0.0]}, "is damaged"),
        ({"n_bins": "many"}, "is damaged: n_bins"),
        ({"class_bins": 3}, "is damaged"),
    ],
)
def test_what_is_no_accumulator_is_refused(change, message):
    content = CalibrationAccumulator().update([0, 1], [0.3, 0.6]).to_dict()
    with pytest.raises(ValueError, match=message):
        CalibrationAccumulator.from_dict(with_digest(content | change))


def test_sums_are_known_to_be_those_that_were_written():
    accumulator = CalibrationAccumulator().update([0, 1], [0.3, 0.6])
    content = json.loads(json.dumps(accumulator.to_dict()))
    was = content["cells"]["hit"][0]
    content["cells"]["hit"][0] += 1
    with pytest.raises(ValueError, match="damaged: its content is not what was wri"):
        CalibrationAccumulator.from_dict(content)
    content["cells"]["hit"][0] = np.int64(1)
    with pytest.raises(ValueError, match="damaged: its content is not what was wri"):
        CalibrationAccumulator.from_dict(content)
    content["cells"]["hit"][0] = was
    again = CalibrationAccumulator.from_dict(content)
    assert again.compute() == accumulator.compute()
    del content["sha256"]
    with pytest.raises(ValueError, match="damaged: its content is not what was wri"):
        CalibrationAccumulator.from_dict(content)


def test_it_pickles_and_its_clone_is_empty():
    y, proba, _ = draw()
    accumulator = CalibrationAccumulator(n_bins=9).update(y, proba)
    again = pickle.loads(pickle.dumps(accumulator))  # noqa: S301
    assert again.compute() == accumulator.compute()
    fresh = clone(accumulator)
    assert (fresh.n_bins, fresh.n_samples_) == (9, 0)


def test_reset_forgets_rows_and_classes():
    accumulator = CalibrationAccumulator().update([0, 1], [[0.5, 0.5, 0]] * 2)
    assert accumulator.reset() is accumulator
    with pytest.raises(NotFittedError, match="no rows yet"):
        accumulator.compute()
    accumulator.update([0, 1], [[0.5, 0.5]] * 2)
    assert accumulator.n_classes_ == 2


def test_a_setting_counts_from_the_next_reset_on():
    y, proba, _ = draw()
    accumulator = CalibrationAccumulator(n_bins=5, metrics=["ece"]).update(y, proba)
    accumulator.set_params(n_bins=50).update(y, proba)
    five, fifty = (expected_calibration_error(y, proba, n_bins=b) for b in (5, 50))
    assert accumulator.compute() == {"ece": pytest.approx(five)}
    assert accumulator.reset().update(y, proba).compute()["ece"] == pytest.approx(fifty)


def test_rows_of_no_weight_and_no_rows_change_nothing():
    y, proba, _ = draw()
    accumulator = CalibrationAccumulator().update([], np.empty((0, 5)))
    accumulator.update(y[:5], proba[:5], np.zeros(5))
    with pytest.raises(NotFittedError, match="all have weight 0"):
        accumulator.compute()
    accumulator.update(y, proba).update([], []).update(y[:5], proba[:5], np.zeros(5))
    assert accumulator.n_samples_ == len(y)
    assert accumulator.compute() == CalibrationAccumulator().update(y, proba).compute()


def test_weights_count_alike_in_every_batch():
    y, proba, _ = draw(100)
    weight = np.ones(100)
    weight[50:] = 2.0**-300  # which a function alone would scale to sensible numbers
    values = (
        CalibrationAccumulator()
        .update(y[:50], proba[:50])
        .update(y[50:], proba[50:], weight[50:])
        .compute()
    )
    alone = expected_calibration_error(y, proba, sample_weight=weight)
    assert values["ece"] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    ("y", "proba", "weight", "message"),
    [
        ([0, 1, 2], [[0.4, 0.6]] * 3, None, r"labels .* \[0, 1, 2\].* 2 columns"),
        ([0, -1], [[0.4, 0.6]] * 2, None, r"\[-1, 0\].*labels=\[\.\.\.\]"),
        (
            [0.5, 1],
            [[0.4, 0.6]] * 2,
            None,
            r"\[0\.5, 1\.0\], which are not all numbers",
        ),
        (["a", "b"], [[0.4, 0.6]] * 2, None, r"\['a', 'b'\], which are not"),
        ([0, np.nan], [[0.4, 0.6]] * 2, None, "not all numbers of the 2 columns"),
        (
            [0, 1],
            [[0.4, 0.6], [np.nan, 1]],
            None,
            "Row 1 of the probabilities holds nan",
        ),
        ([0, 1], [[0.4, 0.6], [4, -1]], None, "Row 1 .* need a softmax first"),
        ([0, 1], [[0.4, 0.3, 0.3]] * 2, None, "3 and stood for|but those of the rows"),
        ([0], [[0.4, 0.6]] * 2, None, "inconsistent numbers of samples"),
        ([0, 1], [[0.4, 0.6]] * 2, [1, -1], "negative value: -1.0 in row 1"),
        ([0, 1], [[0.4, 0.6]] * 2, [1, np.inf], "infinity"),
        ([0, 1], [[0.4, 0.6]] * 2, [1], r"shape \(1,\); there are 2 rows"),
        ([0, 1], [[0.4, 0.6]] * 2, [1, 1e40], r"1e\+40 in row 1\. Weights .* 2\^100"),
        ([0, 1], np.empty((0, 2)), None, "0 sample"),
    ],
)
def test_a_batch_that_is_refused_changes_nothing(y, proba, weight, message):
    accumulator = CalibrationAccumulator().update([1], [[0.3, 0.7]])
    before = accumulator.to_dict()
    with pytest.raises(ValueError, match=message):
        accumulator.update(y, proba, weight)
    assert accumulator.to_dict() == before


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"metrics": "ece"}, TypeError, "is a string"),
        ({"metrics": ["sweep_ece"]}, ValueError, r"unknown names: \['sweep_ece'\]"),
        ({"metrics": []}, ValueError, "metrics is empty"),
        ({"n_bins": 0}, ValueError, "n_bins"),
        ({"labels": ["a"]}, ValueError, r"labels has shape \(1,\)"),
    ],
)
def test_parameters_are_checked_at_the_first_rows(parameters, error, message):
    accumulator = CalibrationAccumulator(**parameters)
    with pytest.raises(error, match=message):
        accumulator.update([0, 1], [[0.5, 0.5]] * 2)


def test_named_labels_find_their_columns_in_every_batch():
    y, proba, _ = draw(300, 3)
    names = np.array(["red", "blue", "green"])  # not sorted
    accumulator = CalibrationAccumulator(labels=names)
    for rows in np.array_split(np.argsort(y, kind="stable"), 9):
        accumulator.update(names[y[rows]], proba[rows])  # often of one class only
    plain = CalibrationAccumulator().update(y, proba).compute()
    assert accumulator.compute() == pytest.approx(plain, rel=1e-12)
    assert accumulator.classes_.tolist() == names.tolist()


def test_columns_of_a_frame_are_those_they_are_named_after():
    pandas = pytest.importorskip("pandas")
    y, proba, _ = draw(300, 3)
    names = np.array(["red", "blue", "green"])
    frame = pandas.DataFrame(proba, columns=names)
    accumulator = CalibrationAccumulator().update(names[y], frame)
    assert accumulator.classes_.tolist() == names.tolist()
    assert accumulator.compute()["sce"] == pytest.approx(
        static_calibration_error(y, proba)
    )
    with pytest.raises(ValueError, match="Pass the same columns in every update"):
        accumulator.update(names[y], frame[["blue", "red", "green"]])


@pytest.mark.parametrize("pos_label", [0, 1])
def test_one_column_is_that_of_its_class(pos_label):
    y, proba, _ = draw(300, 2)
    accumulator = CalibrationAccumulator(pos_label=pos_label)
    in_batches(accumulator, y, proba[:, pos_label])
    expected = calibration_report(y, proba, n_bootstrap=0)
    for name, value in accumulator.compute().items():
        assert value == pytest.approx(expected[name].value, abs=1e-3), name


def test_confidences_in_one_column_are_warned_of():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 5000)
    is_right = rng.random(5000) < np.clip(confidence - 0.15, 0, 1)
    with pytest.warns(OneColumnWarning, match='pass pos_label="event"'):
        CalibrationAccumulator().update(is_right, confidence)


def test_what_is_not_asked_for_is_not_summed():
    y, proba, _ = draw(n_classes=40)
    content = CalibrationAccumulator(metrics=["ece"]).update(y, proba).to_dict()
    assert content["class_bins"]["index"] == content["totals"] == []


def test_blocks_of_a_large_batch_are_summed(monkeypatch):
    y, proba, weight = draw()
    whole = CalibrationAccumulator().update(y, proba, weight).compute()
    monkeypatch.setattr("skcalib.metrics._sums.BLOCK_ELEMENTS", 100)
    in_blocks = CalibrationAccumulator().update(y, proba, weight).compute()
    assert in_blocks == pytest.approx(whole, rel=1e-12)


def test_cells_refine_the_bins_and_end_below_one():
    for n_bins in (1, 7, 15, 4096, 10_000):
        edges = cell_edges(n_bins)
        assert (np.diff(edges) > 0).all()
        assert edges[-1] == np.nextafter(1, 0)
        assert set(np.arange(1, n_bins) / n_bins) <= set(edges)
        assert np.diff(edges, prepend=0).max() <= 1 / 4096 + 1e-15


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_reliability_is_what_a_diagram_shows(strategy):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from skcalib.plotting import ReliabilityDisplay

    y, proba, weight = draw()
    accumulator = in_batches(CalibrationAccumulator(), y, proba, weight)
    options = {"strategy": strategy, "name": "net"}
    shown = ReliabilityDisplay.from_accumulator(accumulator, **options)
    expected = ReliabilityDisplay.from_predictions(
        y, proba, sample_weight=weight, n_bootstrap=0, **options
    )
    atol = 1e-12 if strategy == "uniform" else 0.02
    for name in ("confidence", "accuracy", "share", "histogram", "error"):
        np.testing.assert_allclose(
            getattr(shown, name), getattr(expected, name), rtol=0, atol=atol
        )
    assert shown.ax_.get_title() == expected.ax_.get_title()
    matplotlib.pyplot.close("all")


def test_a_binning_that_does_not_exist_is_refused():
    accumulator = CalibrationAccumulator().update([0, 1], [0.3, 0.6])
    with pytest.raises(ValueError, match="strategy='log' is not known"):
        accumulator.reliability("log")


@pytest.mark.torch
def test_rows_of_bfloat16_are_taken_as_by_the_metrics():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    proba = (2 * torch.randn(500, 10)).softmax(dim=1).bfloat16()
    labels = torch.arange(500) % 10
    assert (proba.float().sum(dim=1) - 1).abs().max() > 2e-3
    accumulator = CalibrationAccumulator(metrics=["ece"])
    for rows in torch.arange(500).split(100):
        accumulator.update(labels[rows], proba[rows])
    told = accumulator.compute()["ece"]
    known = calibration_report(labels, proba, metrics=["ece"], n_bootstrap=0)
    assert told == pytest.approx(known["ece"].value)


@pytest.mark.torch
def test_tensors_are_read_where_they_lie():
    torch = pytest.importorskip("torch")
    y, proba, weight = draw(dtype=np.float32)
    logits = torch.tensor(np.log(proba), requires_grad=True)
    accumulator = CalibrationAccumulator()
    accumulator.update(
        torch.tensor(y), torch.softmax(logits, dim=1), torch.tensor(weight)
    )
    expected = CalibrationAccumulator().update(y, proba, weight).compute()
    assert accumulator.compute() == pytest.approx(expected, abs=1e-4)


@pytest.mark.torch
def test_a_tensor_of_the_processor_is_not_copied(monkeypatch):
    torch = pytest.importorskip("torch")
    y, proba, _ = draw()
    tensor = torch.tensor(proba)
    seen = []
    check = CalibrationAccumulator.update.__globals__["check_batch"]

    def spy(*given):
        batch, classes = check(*given)
        seen.append(batch.proba)
        return batch, classes

    monkeypatch.setitem(CalibrationAccumulator.update.__globals__, "check_batch", spy)
    CalibrationAccumulator().update(torch.tensor(y), tensor)
    assert np.shares_memory(seen[0], tensor.numpy())


# What each of two processes runs: it has half of the rows, then settings of its own.
PROCESS = """
import json, sys
import numpy as np, torch.distributed as distributed
from skcalib.metrics import CalibrationAccumulator

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
)
data = np.load(f"{folder}/data.npz")
own = CalibrationAccumulator()
for rows in np.array_split(np.arange(len(data["y"])), 10)[rank::2]:
    own.update(data["y"][rows], data["proba"][rows])
before = own.to_dict()
merged = own.all_reduce().to_dict()
assert own.to_dict() == before
try:
    CalibrationAccumulator(n_bins=15 + rank).all_reduce()
except ValueError as error:
    message = str(error)
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump([merged, message], file)
distributed.destroy_process_group()
"""


def run_two_processes(folder):
    processes = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", PROCESS, str(rank), str(folder)],
            cwd=Path(__file__).resolve().parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.torch
def test_two_processes_have_the_metrics_of_one(tmp_path):
    pytest.importorskip("torch")
    y, proba, _ = draw()
    np.savez(tmp_path / "data.npz", y=y, proba=proba)
    (one, message), (other, message_of_other) = run_two_processes(tmp_path)
    assert one == other
    values = CalibrationAccumulator.from_dict(one).compute()
    alone = CalibrationAccumulator().update(y, proba).compute()
    assert values == pytest.approx(alone, rel=1e-12)
    # No process waits for ever for one that has other settings.
    assert message.startswith("Accumulators of different n_bins cannot be merged")
    assert message_of_other.startswith("Accumulators of different n_bins")


@pytest.mark.parametrize("label", [np.int64(1), np.True_])
def test_a_label_of_numpy_is_written_as_json(label):
    y = np.array([0, 1, 1]).astype(np.asarray(label).dtype)
    accumulator = CalibrationAccumulator(pos_label=label).update(y, [0.2, 0.9, 0.6])
    content = json.loads(json.dumps(accumulator.to_dict()))
    again = CalibrationAccumulator.from_dict(content)
    assert again.merge(accumulator).n_samples_ == 6


def test_rows_added_to_a_shallow_copy_are_its_own():
    y, proba, _ = draw(12)
    first = CalibrationAccumulator().update(y[:4], proba[:4])
    second = copy.copy(first).update(y[4:10], proba[4:10])
    first.update(y[10:], proba[10:])
    assert (first.n_samples_, second.n_samples_) == (6, 10)
    alone = CalibrationAccumulator().update(y[:10], proba[:10])
    assert second.compute() == alone.compute()


@pytest.mark.torch
def test_a_setting_counts_in_all_processes_from_the_next_reset_on(monkeypatch):
    distributed = pytest.importorskip("torch.distributed")
    monkeypatch.setattr(distributed, "get_world_size", lambda _group: 1)
    gather = "all_gather_object"
    monkeypatch.setattr(
        distributed, gather, lambda parts, own, group: parts.__setitem__(0, own)
    )
    y, proba, _ = draw()
    own = CalibrationAccumulator(n_bins=10).update(y, proba).set_params(n_bins=15)
    assert own.all_reduce().to_dict() == own.to_dict()
