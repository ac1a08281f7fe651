import json
import pickle

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from skcalib.metrics import calibration_report
from skcalib.metrics._registry import IN_REPORT, METRICS, evaluate
from skcalib.metrics._resampling import RowStatistics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(400, 5))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return y, softmax(logits, axis=1)


def brier(y, proba, sample_weight=None):
    distance = ((proba - np.eye(proba.shape[1])[y]) ** 2).sum(axis=1)
    return np.average(distance, weights=sample_weight)


OF_OTHERS = {
    "accuracy": lambda y, p, **weight: accuracy_score(y, p.argmax(axis=1), **weight),
    "nll": log_loss,
    "brier": brier,
}


@pytest.mark.parametrize("name", IN_REPORT)
def test_every_value_is_that_of_its_function(predictions, name):
    y, proba = predictions
    function = METRICS[name].function or OF_OTHERS[name]
    counts = np.arange(400) % 4
    options = {"metrics": [name], "n_bootstrap": 0}
    plain = calibration_report(y, proba, **options)
    assert plain[name].value == pytest.approx(function(y, proba), rel=1e-9)
    weighted = calibration_report(y, proba, sample_weight=counts, **options)
    expected = function(y, proba, sample_weight=counts)
    assert weighted[name].value == pytest.approx(expected, rel=1e-9)


def test_brier_is_halved_for_two_classes_only():
    report = calibration_report([0, 1], [0.3, 0.6], n_bootstrap=0)
    assert report["brier"].value == pytest.approx((0.3**2 + 0.4**2) / 2)


def test_a_certain_miss_has_a_finite_log_loss():
    report = calibration_report([0, 1], [[0.0, 1.0], [0.0, 1.0]], n_bootstrap=0)
    expected = log_loss([0, 1], [[0.0, 1.0], [0.0, 1.0]])
    assert report["nll"].value == pytest.approx(expected)


@pytest.mark.parametrize("name", IN_REPORT)
def test_a_replicate_is_the_metric_of_the_drawn_rows(predictions, name):
    y, proba = predictions
    drawn = np.random.default_rng(0).integers(0, 400, 400)
    counts = np.bincount(drawn, minlength=400).astype(float)
    # Among others, as what is computed for many at once is.
    weights = np.stack([np.ones(400), counts, 1 + counts])
    value = evaluate(RowStatistics(proba, y, 15), weights, [name])[name][1]
    repeated = calibration_report(y[drawn], proba[drawn], metrics=[name], n_bootstrap=0)
    assert value == pytest.approx(repeated[name].value, rel=1e-10)


def test_the_interval_of_a_mean_is_that_of_theory(predictions):
    y, proba = predictions
    report = calibration_report(
        y, proba, metrics=["accuracy"], n_bootstrap=4000, random_state=0
    )
    value, low, high = report["accuracy"]
    error = np.sqrt(value * (1 - value) / 400)
    assert low == pytest.approx(value - 1.96 * error, abs=0.006)
    assert high == pytest.approx(value + 1.96 * error, abs=0.006)


def test_a_higher_level_gives_a_wider_interval(predictions):
    options = {"metrics": ["nll"], "random_state": 0}
    narrow, wide = (
        calibration_report(*predictions, confidence_level=level, **options)["nll"]
        for level in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_same_seed_gives_the_same_intervals(predictions):
    reports = [
        calibration_report(*predictions, n_bootstrap=20, random_state=seed).to_dict()
        for seed in (0, 0, 1)
    ]
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_intervals_do_not_depend_on_how_many_are_drawn_at_once(
    predictions, monkeypatch
):
    whole = calibration_report(*predictions, n_bootstrap=20, random_state=0)
    monkeypatch.setattr("skcalib.metrics._resampling.CHUNK_ELEMENTS", 1200)
    parts = calibration_report(*predictions, n_bootstrap=20, random_state=0)
    for name in whole:
        assert parts[name] == pytest.approx(whole[name], rel=1e-12)


def test_rows_without_weight_take_no_part(predictions):
    y, proba = predictions
    weight = np.zeros(400)
    weight[:3] = 1
    options = {"n_bootstrap": 30, "random_state": 0}
    report = calibration_report(y, proba, sample_weight=weight, **options)
    alone = calibration_report(y[:3], proba[:3], **options)
    assert report.to_dict() == alone.to_dict()
    assert np.isfinite(list(report.values())).all()


def test_metrics_chooses_and_orders(predictions):
    report = calibration_report(*predictions, metrics=["ks", "ece"], n_bootstrap=5)
    assert list(report) == ["ks", "ece"]


def test_the_report_is_a_mapping_that_survives_pickle_and_json(predictions):
    report = calibration_report(*predictions, n_bootstrap=10, random_state=0)
    assert dict(pickle.loads(pickle.dumps(report))) == dict(report)  # noqa: S301
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["n_samples"] == 400
    assert plain["metrics"]["ece"] == report["ece"]._asdict()


def test_the_report_becomes_a_frame(predictions):
    pytest.importorskip("pandas")
    report = calibration_report(*predictions, n_bootstrap=10, random_state=0)
    frame = report.to_frame()
    assert list(frame.columns) == ["value", "low", "high"]
    assert frame.loc["ece", "high"] == report["ece"].high
    without = calibration_report(*predictions, n_bootstrap=0).to_frame()
    assert without["low"].isna().all()


def test_the_printed_forms_show_every_metric(predictions):
    report = calibration_report(*predictions, n_bootstrap=10, random_state=0)
    text, html = str(report), report._repr_html_()
    for name in report:
        title = METRICS[name].named(METRICS[name].title)
        assert title in text
        assert f"<td>{title}</td>" in html
    value, low, high = report["nll"]
    assert f"{value:.4f}  [{low:.4f}, {high:.4f}]" in text
    value, low, high = report["ece"]
    assert f"{100 * value:.2f}  [{100 * low:.2f}, {100 * high:.2f}]" in text
    assert "95 % bootstrap intervals" in text
    assert "ece=" in repr(report)
    assert "[" not in str(calibration_report(*predictions, n_bootstrap=0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["ece", "bias"]}, ValueError, r"unknown names: \['bias'\]"),
        ({"metrics": []}, ValueError, "name at least one"),
        ({"metrics": "ece"}, TypeError, "pass a list"),
        ({"n_bootstrap": -1}, ValueError, "n_bootstrap=-1"),
        ({"n_bootstrap": 1.5}, ValueError, "n_bootstrap=1.5"),
        ({"confidence_level": 95}, ValueError, "95 % is 0.95"),
        ({"n_bins": 0}, ValueError, "n_bins=0"),
    ],
)
def test_unusable_options_are_refused(predictions, options, error, message):
    with pytest.raises(error, match=message):
        calibration_report(*predictions, **options)


def test_the_interval_of_a_gap_holds_its_value(predictions):
    # With few samples a bin nearly every replicate has a larger gap than the sample.
    y, proba = (array[:300] for array in predictions)
    report = calibration_report(y, proba, n_bins=100, n_bootstrap=200, random_state=0)
    for name in ("ece", "aece", "sce", "mce", "rmsce", "ks", "smooth_ece"):
        value, low, high = report[name]
        assert 0 <= low <= value <= high, name


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_a_gap_ends_at_one(seed):
    names = [name for name in IN_REPORT if METRICS[name].is_gap]
    report = calibration_report(
        [0, 1], [[1.0, 0.0]] * 2, metrics=names, n_bootstrap=100, random_state=seed
    )
    for name in names:
        value, low, high = report[name]
        assert 0 <= low <= value <= high <= 1, name


def test_the_interval_of_a_gap_covers_the_true_one():
    # Accuracy is 0.12 below every confidence. Chance in bins of 20 rows raises the
    # AECE to 0.134 and that of a replicate once more: of 40 percentile intervals that
    # are not moved down, 7 cover 0.12 and 21 the expected value of the AECE.
    def draw(seed):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.6, 0.9, 1000)
        y = (rng.random(1000) < confidence - 0.12).astype(int)
        return y, np.column_stack([1 - confidence, confidence])

    options = {"metrics": ["aece"], "n_bins": 50}
    values = [
        calibration_report(*draw(1000 + seed), n_bootstrap=0, **options)["aece"].value
        for seed in range(50)
    ]
    expected = np.mean(values)
    assert expected == pytest.approx(0.134, abs=0.005)
    intervals = np.array(
        [
            calibration_report(
                *draw(seed), n_bootstrap=100, random_state=seed, **options
            )["aece"]
            for seed in range(40)
        ]
    )
    _, low, high = intervals.T
    assert np.count_nonzero((low <= 0.12) & (high >= 0.12)) >= 27
    assert np.count_nonzero((low <= expected) & (high >= expected)) >= 32


def test_rows_that_are_all_alike_tell_no_interval():
    proba = np.tile([0.03, 0.97], (30, 1))
    names = ["accuracy", "nll", "brier", "ece"]
    for n_rows in (30, 1):
        sure = calibration_report(
            np.ones(n_rows, int), proba[:n_rows], labels=[0, 1], metrics=names
        )
        assert all(sure[name][1:] == (None, None) for name in names)
        assert "[" not in str(sure)
        json.dumps(sure.to_dict(), allow_nan=False)
    with_a_miss = calibration_report([0] + 29 * [1], proba, metrics=names)
    for name in names:
        _, low, high = with_a_miss[name]
        assert low < high
