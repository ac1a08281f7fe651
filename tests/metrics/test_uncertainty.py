"""UCE, ENCE and prediction intervals, against their formulas and known answers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib.metrics import (
    expected_normalized_calibration_error,
    interval_coverage,
    interval_sharpness,
    uncertainty_calibration_error,
)


def draw(n, factor=1.0, seed=0):
    """Values whose true standard deviation is `factor` times the stated one."""
    rng = np.random.default_rng(seed)
    std, mean = rng.uniform(0.5, 2, n), rng.normal(size=n)
    return mean + factor * std * rng.normal(size=n), mean, std


def uce(y_true, y_pred, y_std, **keywords):
    return uncertainty_calibration_error(
        (np.asarray(y_true) - y_pred) ** 2, np.square(y_std), **keywords
    )


REGRESSION = [uce, expected_normalized_calibration_error, interval_coverage]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_ence_is_the_relative_error_of_the_standard_deviation(factor):
    error = expected_normalized_calibration_error(*draw(200_000, factor))
    assert error == pytest.approx(abs(factor - 1), abs=0.01)


def test_uce_is_the_error_of_the_variance():
    y_true, y_pred, y_std = draw(400_000, 2.0)
    error = uce(y_true, y_pred, y_std)
    assert error == pytest.approx(3 * np.mean(y_std**2), rel=0.01)
    assert uce(*draw(400_000)) < 0.02 * np.mean(y_std**2)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_is_the_level_where_the_deviation_is_right(level):
    sets = draw(100_000)
    coverage = interval_coverage(*sets, confidence_level=level)
    assert coverage == pytest.approx(level, abs=0.005)
    assert interval_coverage(*draw(100_000, 2.0), confidence_level=level) < level - 0.1


def test_sharpness_is_the_mean_width():
    assert interval_sharpness([1.0, 3.0], confidence_level=0.6826894921370859) == (
        pytest.approx(4)
    )


@pytest.mark.parametrize("n_bins", [1, 4, 7])
def test_equal_mass_follows_the_formulas(n_bins):
    y_true, y_pred, y_std = draw(50)
    order = np.array_split(np.argsort(y_std), n_bins)
    squares, variances = (y_true - y_pred) ** 2, y_std**2
    gaps, ratios = [], []
    for rows in order:
        mse, mv = squares[rows].mean(), variances[rows].mean()
        gaps.append(len(rows) / 50 * abs(mse - mv))
        ratios.append(len(rows) / 50 * abs(mse**0.5 - mv**0.5) / mv**0.5)
    assert uce(y_true, y_pred, y_std, n_bins=n_bins) == pytest.approx(sum(gaps))
    error = expected_normalized_calibration_error(y_true, y_pred, y_std, n_bins=n_bins)
    assert error == pytest.approx(sum(ratios))


def test_equal_width_follows_the_formula():
    error, u = np.array([1.0, 0.0, 2.0, 5.0]), np.array([0.0, 0.4, 0.5, 2.0])
    # Bins (0, 0.5] with 0, 0.4 and 0.5, two empty ones, and (1.5, 2] with 2.
    found = uncertainty_calibration_error(error, u, n_bins=4, strategy="uniform")
    assert found == pytest.approx((abs(3 - 0.9) + abs(5 - 2)) / 4)


@pytest.mark.parametrize("metric", REGRESSION)
def test_whole_weights_equal_repeated_rows_in_any_order(metric):
    sets = draw(40)
    weight = np.random.default_rng(1).integers(0, 4, 40)
    expected = metric(*(np.repeat(values, weight) for values in sets))
    assert metric(*sets, sample_weight=weight) == pytest.approx(expected)
    order = np.random.default_rng(2).permutation(40)
    shuffled = [values[order] for values in sets]
    assert metric(*shuffled, sample_weight=weight[order]) == pytest.approx(expected)


def test_weights_of_the_sharpness_equal_repeated_rows():
    std, weight = np.array([1.0, 2.0, 5.0]), [2, 0, 1]
    expected = interval_sharpness(np.repeat(std, weight))
    assert interval_sharpness(std, sample_weight=weight) == pytest.approx(expected)


@pytest.mark.parametrize("factor", [1e-163, 1e155])
def test_the_normalized_error_has_no_unit_where_squares_leave_the_range(factor):
    sets = draw(60)
    scaled = [factor * values for values in sets]
    found, expected = (
        expected_normalized_calibration_error(*s) for s in (scaled, sets)
    )
    assert found == pytest.approx(expected)


def test_levels_next_to_1_have_finite_factors():
    factors = [
        interval_sharpness([1.0], confidence_level=1 - e) for e in (1e-15, 1e-16)
    ]
    assert_allclose(factors, [16.0537, 16.5852], rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_scale_the_uce_and_leave_the_others(factor):
    sets = draw(60)
    scaled = [factor * values for values in sets]
    assert uce(*scaled) == pytest.approx(factor**2 * uce(*sets))
    for metric in REGRESSION[1:]:
        assert metric(*scaled) == pytest.approx(metric(*sets))
    assert_allclose(interval_sharpness(scaled[2]), factor * interval_sharpness(sets[2]))


@pytest.mark.parametrize("metric", REGRESSION)
def test_equal_uncertainties_share_their_errors_whatever_their_order(metric):
    y_true, y_pred, _ = draw(30)
    std = np.repeat([1.0, 2.0], 15)
    order = np.r_[np.random.default_rng(0).permutation(15), 15:30]
    same = metric(y_true[order], y_pred[order], std)
    assert metric(y_true, y_pred, std) == pytest.approx(same)


def test_fewer_samples_than_bins_leave_bins_empty():
    assert expected_normalized_calibration_error([2.0], [0.0], [1.0]) == 1
    assert uncertainty_calibration_error([4.0], [1.0]) == 3


def test_without_any_uncertainty_the_uce_is_the_error():
    for strategy in ("uniform", "quantile"):
        found = uncertainty_calibration_error([1.0, 3.0], [0, 0], strategy=strategy)
        assert found == 2


def test_columns_and_float32_are_taken():
    sets = draw(20)
    columns = [values.astype(np.float32)[:, np.newaxis] for values in sets]
    assert interval_coverage(*columns) == interval_coverage(*sets)


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (uncertainty_calibration_error, ([1, 2], [1.0]), "inconsistent numbers"),
        (uncertainty_calibration_error, ([1, -0.5], [1, 1]), "error holds -0.5 in row"),
        (uncertainty_calibration_error, ([1, 2], [1, -1]), "uncertainty holds -1.0"),
        (interval_coverage, ([1, 2], [1, np.nan], [1, 1]), "y_pred holds nan in row 1"),
        (interval_coverage, ([1, 2], [1, 1], [1, -1]), "y_std holds -1.0 in row 1"),
        (interval_coverage, ([1, 2], [1, 1], np.eye(2)), r"y_std has shape \(2, 2\)"),
        (interval_sharpness, ([],), "minimum of 1 is required"),
        (
            expected_normalized_calibration_error,
            ([1, 2], [1, 1], [0, 0]),
            "needs y_std above 0",
        ),
    ],
)
def test_values_that_make_no_sense_are_named(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric(*arguments)


def test_levels_and_bins_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="confidence_level=95"):
        interval_sharpness([1.0], confidence_level=95)
    with pytest.raises(ValueError, match="n_bins=0"):
        uncertainty_calibration_error([1.0], [1.0], n_bins=0)
    with pytest.raises(ValueError, match="strategy='mass'"):
        uncertainty_calibration_error([1.0], [1.0], strategy="mass")


def test_rows_of_weight_0_move_no_bins():
    options = {"strategy": "uniform", "n_bins": 2}
    alone = uncertainty_calibration_error([0.1, 0.6], [0.2, 0.5], **options)
    beside = uncertainty_calibration_error(
        [0.1, 0.6, 9], [0.2, 0.5, 9], sample_weight=[1, 1, 0], **options
    )
    assert alone == beside > 0


def test_dask_arrays_of_uncertainties_are_refused_unread():
    da = pytest.importorskip("dask.array")
    error, stated = da.from_array(np.ones(4)), np.ones(4)
    for given in ((error, stated), (stated, error)):
        with pytest.raises(TypeError, match="Dask"):
            uncertainty_calibration_error(*given)


def test_one_column_of_a_file_is_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "columns.h5", "w") as file:
        error = file.create_dataset("error", data=[0.1, 0.6])
        stated = file.create_dataset("stated", data=[0.2, 0.5])
        assert uncertainty_calibration_error(error, stated) == pytest.approx(0.1)
