"""Metrics of labels that may occur together."""

import importlib
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from uncomputed import uncomputed

from skcalib import metrics
from skcalib.metrics import calibration_report, expected_calibration_error, per_label
from skcalib.plotting import ClasswiseReliabilityDisplay

# What every metric of one column needs to be called with.
OPTIONS = {"kde_calibration_error": {"bandwidth": 0.1}}
METRICS = [
    metric.function.__name__
    for metric in metrics._registry.METRICS.values()
    if metric.function is not None
]


def make_labels(n=300):
    """Return labels of which some are not known, and their probabilities."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 1.5, (n, 3))
    y = (rng.random((n, 3)) < p**1.5).astype(float)
    y[rng.random((n, 3)) < 0.2] = np.nan
    return y, p


@pytest.mark.parametrize("name", [n for n in METRICS if n != "predictive_entropy"])
def test_a_metric_of_a_label_is_that_of_its_known_rows(name):
    y, p = make_labels()
    metric, options = getattr(metrics, name), OPTIONS.get(name, {})
    weight = np.random.default_rng(1).integers(0, 3, len(y))
    values = per_label(metric, y, p, sample_weight=weight, **options)
    for k in range(3):
        known = np.isfinite(y[:, k])
        alone = metric(
            y[known, k],
            p[known, k],
            pos_label="event",
            sample_weight=weight[known],
            **options,
        )
        assert values[k] == pytest.approx(alone)


def test_the_report_has_the_means_and_the_labels():
    y, p = make_labels()
    report = calibration_report(
        y, p, multilabel=True, labels=["a", "b", "c"], n_bootstrap=50, random_state=0
    )
    assert [*report.labels] == ["a", "b", "c"]
    errors = per_label(expected_calibration_error, y, p)
    assert report["ece"].value == pytest.approx(errors.mean())
    for k, part in enumerate(report.labels.values()):
        assert part["ece"].value == pytest.approx(errors[k])
        assert part.n_samples == np.isfinite(y[:, k]).sum()
        assert part["brier"].low < part["brier"].value < part["brier"].high
    # The mean of three varies less than each of them.
    widths = [part["brier"].high - part["brier"].low for part in report.labels.values()]
    assert 0 < report["brier"].high - report["brier"].low < max(widths)
    brier = np.nanmean((p - y) ** 2, axis=0)
    assert_allclose(per_label("brier", y, p), brier)
    assert "accuracy" not in report
    assert json.loads(json.dumps(report.to_dict()))["labels"]["b"]["n_samples"] > 200


def test_the_intervals_of_a_label_that_is_always_known_are_its_own():
    y, p = make_labels()
    y[:, 1] = p[:, 1] > 0.5
    options = {"metrics": ["brier", "ece"], "n_bootstrap": 40, "random_state": 0}
    report = calibration_report(y, p, multilabel=True, **options)
    alone = calibration_report(y[:, 1], p[:, 1], pos_label="event", **options)
    assert_allclose(report.labels[1]["brier"], alone["brier"])
    assert_allclose(report.labels[1]["ece"], alone["ece"])


def test_a_label_of_few_known_rows_has_intervals():
    y, p = make_labels()
    y[2:, 0] = np.nan
    y[:2, 0] = [0, 1]
    report = calibration_report(y, p, multilabel=True, n_bootstrap=60, random_state=0)
    assert np.isfinite(report.labels[0]["brier"]).all()
    assert np.isfinite(report["brier"]).all()


@pytest.mark.parametrize("n_bootstrap", [1, 50])
@pytest.mark.parametrize("seed", range(4))
def test_draws_without_a_known_row_say_nothing_and_warn_of_nothing(n_bootstrap, seed):
    y, p = make_labels()
    y[0], y[1:] = [1, 0, 1], -1
    report = calibration_report(
        y, p, multilabel=True, n_bootstrap=n_bootstrap, random_state=seed
    )
    for part in (report, *report.labels.values()):
        for value, low, high in part.values():
            assert np.isfinite(value)
            assert low is None or np.isfinite([low, high]).all()


def test_rows_without_weight_are_left_out():
    y, p = make_labels()
    weight = np.where(np.arange(300) < 100, 0, 1)
    options = {"multilabel": True, "n_bootstrap": 20, "random_state": 0}
    weighted = calibration_report(y, p, sample_weight=weight, **options)
    alone = calibration_report(y[100:], p[100:], **options)
    assert_allclose(weighted["ece"], alone["ece"])
    assert weighted.n_samples == alone.n_samples == 200


def test_the_report_is_printed_with_a_row_for_each_label():
    y, p = make_labels()
    names = ["mass", "oedema", "<other>"]
    report = calibration_report(
        y, p, multilabel=True, labels=names, metrics=["ece", "brier"], n_bootstrap=0
    )
    text = str(report).splitlines()
    assert text[0] == "Calibration on 300 samples of 3 labels, the mean over them"
    assert text[-4].split()[:2] == ["Label", "samples"]
    assert [line.split()[0] for line in text[-3:]] == names
    assert "&lt;other&gt;" in report._repr_html_()
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert frame.loc[("mass", "ece"), "value"] == report.labels["mass"]["ece"].value
    assert frame.loc[("mean", "ece"), "value"] == report["ece"].value


def test_lists_of_two_columns_are_what_scikit_learn_gives():
    y, p = make_labels()
    pairs = [np.column_stack([1 - column, column]) for column in p.T]
    assert_allclose(per_label("ece", y, pairs), per_label("ece", y, p))


def test_the_grid_shows_each_label():
    pytest.importorskip("matplotlib")
    plotting = importlib.import_module("skcalib.plotting")
    y, p = make_labels()
    display = plotting.ClasswiseReliabilityDisplay.from_predictions(
        y, p, multilabel=True, labels=["a", "b", "c"], n_bins=15, n_bootstrap=0
    )
    assert display.classes == ["a", "b", "c"]
    assert_allclose(display.errors, per_label(expected_calibration_error, y, p))


def test_what_is_no_table_of_labels_is_refused():
    y, p = make_labels()
    with pytest.raises(ValueError, match=r"y_true has shape \(300,\) and the scores"):
        per_label("ece", y[:, 0], p)
    with pytest.raises(ValueError, match=r"have shape \(300,\). They need a row"):
        per_label("ece", y, p[:, 0])
    with pytest.raises(ValueError, match=r"hold 1\.5 in row 4, column 2"):
        per_label("ece", y, np.where(np.arange(900).reshape(300, 3) == 14, 1.5, p))
    with pytest.raises(ValueError, match=r"shape \(300, 1\) for a label"):
        per_label("ece", y, [column[:, np.newaxis] for column in p.T])
    with pytest.raises(ValueError, match="no known entry of label 2"):
        per_label("ece", np.where(np.arange(3) == 2, -1, y), p)
    with pytest.raises(ValueError, match=r"unknown names: \['accuracy'\]"):
        calibration_report(y, p, multilabel=True, metrics=["accuracy"])
    with pytest.raises(ValueError, match="Leave pos_label out"):
        calibration_report(y, p, multilabel=True, pos_label=1)
    with pytest.raises(TypeError, match="'ece' of a report takes no"):
        per_label("ece", y, p, strategy="quantile")


@pytest.mark.parametrize("outside", ["dask", "hdf5"])
@pytest.mark.parametrize(
    "way",
    [
        lambda y, p: calibration_report(y, p, multilabel=True, n_bootstrap=0),
        lambda y, p: per_label(expected_calibration_error, y, p),
        lambda y, p: ClasswiseReliabilityDisplay.from_predictions(
            y, p, multilabel=True
        ),
        lambda y, p: metrics.neighbor_proximity(p),
        lambda y, p: metrics.neighbor_proximity(y, p),
    ],
    ids=["report", "per_label", "display", "features", "reference"],
)
def test_rows_outside_memory_are_not_brought_here(tmp_path, outside, way):
    y, p = np.eye(3)[[0, 1, 2, 0]], np.full((4, 3), 0.5)
    if outside == "dask":
        array = pytest.importorskip("dask.array")
        rows = uncomputed(array.from_array(p))
        with pytest.raises(TypeError, match=r"Dask collection.* Pass \w+\.compute\(\)"):
            way(y, rows)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "p.h5", "w") as file:
            rows = file.create_dataset("p", data=p)
            with pytest.raises(TypeError, match=r"is a Dataset, a file of 4 rows"):
                way(y, rows)


def test_the_parameter_of_the_names_is_named():
    y, proba = np.array([[0, 1], [1, 1]]), np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"^labels has shape \(1,\)"):
        calibration_report(y, proba, multilabel=True, labels=["a"])
