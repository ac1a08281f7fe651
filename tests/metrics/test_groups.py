import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from streams import draw_stream

from skcalib.metrics import calibration_report, compare_groups


def draw_groups(rng, sizes, factors):
    """Rows of groups, in each of which the logits are off by a factor."""
    parts = [
        draw_stream(rng, n, 3, factor=factor)
        for n, factor in zip(sizes, factors, strict=True)
    ]
    y, proba = (np.concatenate(part) for part in zip(*parts, strict=True))
    return y, proba, np.repeat(np.arange(len(sizes)), sizes)


def test_the_gaps_are_those_of_the_rows():
    y, proba, groups = draw_groups(np.random.default_rng(0), [80, 120], [1, 2])
    found = compare_groups(y, proba, np.array(["x", "b"])[groups])
    assert found.groups == ["b", "x"]
    rows = groups == 1
    hit = proba[rows].argmax(axis=1) == y[rows]
    assert found.gap[0] == pytest.approx((proba[rows].max(axis=1) - hit).mean())
    assert found.accuracy[0] == pytest.approx(hit.mean())
    assert found.weight.tolist() == [120, 80]
    assert "no group has a gap: p = " in str(found)


def test_a_comparison_is_a_table():
    pytest.importorskip("pandas")
    y, proba, groups = draw_groups(np.random.default_rng(0), [80, 120], [1, 2])
    found = compare_groups(y, proba, np.array(["x", "b"])[groups])
    assert found.to_frame().loc["x", "gap"] == found.gap[1]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[300] * 5, [30, 60, 200, 1000]])
def test_intervals_hold_together_and_tests_keep_their_level(sizes):
    rng = np.random.default_rng(0)
    held, any_, equal = [], [], []
    for _ in range(300):
        y, proba, groups = draw_groups(rng, sizes, [1] * len(sizes))
        found = compare_groups(y, proba, groups, confidence_level=0.9)
        held.append(((found.low <= 0) & (found.high >= 0)).all())
        any_.append(found.pvalue_any < 0.1)
        equal.append(found.pvalue_equal < 0.1)
    # 300 draws at 10 %: three standard errors are 5 percentage points.
    assert np.mean(held) > 0.85
    assert np.mean(any_) < 0.15
    assert 0.04 < np.mean(equal) < 0.16


def draw_weighted(rng):
    return {"sample_weight": rng.exponential(size=2000)}


@pytest.mark.slow
@pytest.mark.parametrize("options", [lambda rng: {}, draw_weighted])
@pytest.mark.parametrize("confidences", [[0.99], [0.6, 0.8, 0.95, 0.99]])
def test_groups_that_are_too_sure_hold_together_and_keep_the_level(
    confidences, options
):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 100)
    held, equal = [], []
    for _ in range(200):
        confidence = rng.choice(confidences, 2000)
        hit = rng.random(2000) < confidence - 0.04
        found = compare_groups(
            hit, confidence, groups, pos_label="event", **options(rng)
        )
        held.append(((found.low <= 0.04) & (found.high >= 0.04)).all())
        equal.append(found.pvalue_equal <= 0.05)
    # 200 draws at 5 %: three standard errors are 5 percentage points.
    assert np.mean(held) > 0.93
    assert np.mean(equal) < 0.1


@pytest.mark.slow
def test_predicted_classes_that_are_too_sure_hold_together_and_keep_the_level():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 100)
    proba = np.tile([0.98, 0.01, 0.01], (2000, 1))
    held, equal = [], []
    for _ in range(200):
        y = rng.choice(3, 2000, p=[0.95, 0.03, 0.02])
        found = compare_groups(y, proba, groups)
        held.append(((found.low <= 0.03) & (found.high >= 0.03)).all())
        equal.append(found.pvalue_equal <= 0.05)
    assert np.mean(held) > 0.93
    assert np.mean(equal) < 0.1


def test_the_interval_of_one_confidence_reaches_as_far_as_wilsons():
    hit = np.arange(200) < 199
    found = compare_groups(hit, np.full(200, 0.99), ["a"] * 200, pos_label="event")
    t, share = 1.97196, 0.995
    half = t * np.sqrt(share * (1 - share) / 200 + (t / 400) ** 2)
    lowest = (share + t**2 / 400 - half) / (1 + t**2 / 200)
    assert found.high[0] == pytest.approx(0.99 - lowest, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_zero_lies_at_the_end_of_the_interval_whose_level_is_the_p_value(seed):
    rng = np.random.default_rng(seed)
    y, proba, groups = draw_groups(rng, [200], [1.5])
    pvalue = compare_groups(y, proba, groups).pvalue[0]
    found = compare_groups(y, proba, groups, confidence_level=1 - pvalue)
    assert min(abs(found.low[0]), abs(found.high[0])) == pytest.approx(0, abs=1e-9)


def test_rows_that_are_sure_and_right_are_not_taken_to_be_known():
    found = compare_groups([1] * 50, np.ones(50), ["a"] * 50, pos_label="event")
    assert found.pvalue[0] == 1
    assert found.low[0] == pytest.approx(0, abs=1e-5)
    assert 0.05 < found.high[0] < 0.1


def test_a_group_that_is_off_is_seen():
    rng = np.random.default_rng(0)
    found = compare_groups(*draw_groups(rng, [2000, 2000, 500], [1, 1, 2]))
    assert found.low[2] > 0 > found.low[0]
    assert found.pvalue_any < 0.001
    assert found.pvalue_equal < 0.001
    alike = compare_groups(*draw_groups(rng, [2000, 2000], [2, 2]))
    assert alike.pvalue_any < 0.001
    assert alike.pvalue_equal > 0.01


def test_few_rows_that_went_alike_are_not_taken_to_be_known():
    proba = np.tile([0.7, 0.3], (4, 1))
    found = compare_groups([0] * 4, proba, ["a"] * 4)
    assert found.gap[0] == pytest.approx(-0.3)
    assert found.low[0] < -0.6
    assert found.pvalue_equal == 1


def test_weights_are_repetitions():
    y, proba, groups = draw_groups(np.random.default_rng(0), [40, 50], [1, 2])
    weight = np.random.default_rng(1).integers(0, 3, 90)
    weighted = compare_groups(y, proba, groups, sample_weight=weight)
    repeated = compare_groups(
        *(part.repeat(weight, axis=0) for part in (y, proba, groups))
    )
    for name in ("gap", "low", "high", "pvalue"):
        assert_allclose(getattr(weighted, name), getattr(repeated, name))


@pytest.mark.parametrize("scale", [1 / 90, 1e-200])
def test_weights_of_another_scale_are_no_fewer_rows(scale):
    y, proba, groups = draw_groups(np.random.default_rng(0), [40, 50], [1, 2])
    plain = compare_groups(y, proba, groups)
    weighted = compare_groups(y, proba, groups, sample_weight=np.full(90, scale))
    for name in ("gap", "low", "high", "pvalue"):
        assert_allclose(getattr(weighted, name), getattr(plain, name))


def test_what_cannot_be_compared_is_refused():
    proba = [[0.5, 0.5]] * 3
    with pytest.raises(ValueError, match="one entry for each of the 3 rows"):
        compare_groups([0, 1, 0], proba, ["a", "b"])
    with pytest.raises(ValueError, match="nan in row 1"):
        compare_groups([0, 1, 0], proba, [1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match="'b' has rows of weight 0 only"):
        compare_groups([0, 1, 0], proba, ["a", "b", "a"], sample_weight=[1, 0, 1])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        compare_groups([0, 1, 0], proba, ["a", "b", "a"], confidence_level=95)


def test_groups_without_any_gap_have_the_p_value_one():
    found = compare_groups([0, 1], [[0.5, 0.5], [0.5, 0.5]], ["a", "a"])
    assert found.pvalue_any == 1


def test_a_report_holds_the_comparison_of_groups():
    y, groups = [0, 1, 1, 0] * 20, ["a", "a", "b", "b"] * 20
    proba = [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]] * 20
    options = {"sample_weight": np.arange(80.0), "confidence_level": 0.9}
    report = calibration_report(y, proba, groups=groups, n_bootstrap=20, **options)
    alone = compare_groups(y, proba, groups, **options)
    assert str(report).endswith(f"\n\n{alone}")
    assert str(alone) in report._repr_html_()
    assert report.to_dict()["groups"] == alone.to_dict()
    json.dumps(report.to_dict())
    assert calibration_report(y, proba, n_bootstrap=0).groups is None


def test_a_report_of_several_labels_has_no_groups():
    with pytest.raises(ValueError, match="groups beside multilabel=True"):
        calibration_report([[0, 1]], [[0.2, 0.7]], multilabel=True, groups=["a"])


def test_the_printed_table_is_in_percent():
    y, groups = [0, 0, 0, 1] * 100, ["a"] * 400
    found = compare_groups(y, [[0.8, 0.2]] * 400, groups)
    header, row, *_ = str(found).splitlines()
    assert header.split()[2:7] == ["accuracy", "%", "confidence", "%", "gap"]
    assert row.split()[:5] == ["a", "400", "75.00", "80.00", "+5.00"]
    assert found.gap[0] == pytest.approx(0.05)


def test_weights_that_are_no_repetitions_are_as_many_rows_as_they_amount_to():
    y, proba, groups = draw_groups(np.random.default_rng(0), [400, 500], [1, 2])
    weight = 100 * np.random.default_rng(1).lognormal(size=900)
    found = compare_groups(y, proba, groups, sample_weight=weight)
    for k, width in enumerate(found.high - found.low):
        rows = groups == k
        share = weight[rows] / weight[rows].sum()
        hit = proba[rows].argmax(axis=1) == y[rows]
        away = proba[rows].max(axis=1) - hit - found.gap[k]
        # 2.24 is the quantile of a normal distribution for two intervals.
        expected = 2 * 2.24 * np.sqrt((share**2).sum() * (share @ away**2))
        assert width == pytest.approx(expected, rel=0.15)
    options = {"sample_weight": weight, "groups": groups, "n_bootstrap": 0}
    assert calibration_report(y, proba, **options).groups.high[0] == found.high[0]


def test_names_that_json_does_not_know_are_written_as_text():
    pandas = pytest.importorskip("pandas")
    y, proba = [0, 1, 1, 0], [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]]
    ages = pandas.cut([20, 30, 60, 70], [0, 50, 100])
    found = compare_groups(y, proba, ages)
    assert json.loads(json.dumps(found.to_dict()))["groups"] == ["(0, 50]", "(50, 100]"]
    days = pandas.to_datetime(["2020-01-31"] * 2 + ["2020-02-01"] * 2)
    for unit in ("s", "ns"):
        found = compare_groups(y, proba, days.as_unit(unit))
        assert found.to_dict()["groups"] == ["2020-01-31", "2020-02-01"]
        assert "\n2020-02-01  " in str(found)
        found = compare_groups(y, proba, (days - days[0]).as_unit(unit))
        assert found.to_dict()["groups"] == ["0:00:00", "1 day, 0:00:00"]


def test_groups_beside_shares_of_classes_are_refused():
    proba = [[0.9, 0.1], [0.2, 0.8]]
    with pytest.raises(ValueError, match="groups beside shares of classes"):
        calibration_report(proba, proba, groups=["a", "b"], n_bootstrap=0)
