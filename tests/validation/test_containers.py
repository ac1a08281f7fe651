"""Tensors and dates, wherever numbers are taken."""

import datetime
import warnings
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from skcalib import (
    BoostedCalibration,
    CalibratedClassifier,
    DenseCalibration,
    DensityRatioCalibration,
    MultiLabelCalibration,
    PlattScaling,
    PriorShift,
    TemperatureScaling,
    VectorScaling,
    as_rows,
    calibrate,
    logits_from_proba,
)
from skcalib.datasets import corrupt_images, make_logits
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    expected_calibration_error,
    interval_sharpness,
    neighbor_proximity,
    ood_auroc,
    proximity_calibration_error,
    static_calibration_error,
    uncertainty_calibration_error,
)
from skcalib.monitoring import CalibrationMonitor

DAYS = np.array(["2020-01-01", "2020-01-05", "2020-02-01"], dtype="datetime64[D]")
DATES = np.column_stack([DAYS, DAYS[::-1]])


@pytest.mark.parametrize(
    "X",
    [DATES, DATES - DATES[0, 0], list(map(list, DATES)), DATES[:, 0]],
    ids=["dates", "durations", "lists", "one column"],
)
def test_dates_and_durations_are_no_logits(X):
    with pytest.raises(TypeError, match=r"X holds values of type .*; it needs numbers"):
        TemperatureScaling().fit(X, [0, 1, 0])
    with pytest.raises(TypeError, match="y_proba holds values of type"):
        expected_calibration_error([0, 1, 0], X)


def test_a_column_of_dates_in_a_frame_is_refused():
    for library in ("pandas", "polars"):
        frames = pytest.importorskip(library)
        X = frames.DataFrame({"a": [1.0, 2.0, 3.0], "b": [datetime.date.today()] * 3})
        X = X.astype({"b": "datetime64[ns]"}) if library == "pandas" else X
        with pytest.raises(TypeError, match=r"X holds values of type [Dd]ate"):
            TemperatureScaling().fit(X, [0, 1, 0])


def fits_of_features(features):
    logits = np.random.default_rng(0).normal(size=(len(features), 3))
    y = np.arange(len(features)) % 3
    yield lambda: BoostedCalibration().fit(logits, y, features=features)
    yield lambda: DensityRatioCalibration().fit(logits, y, features=features)
    yield lambda: neighbor_proximity(features, n_neighbors=1)


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "category"])
@pytest.mark.parametrize("others", [[], [1.5]])
def test_dates_and_durations_are_no_features(dtype, others):
    pandas = pytest.importorskip("pandas")
    days = DAYS - DAYS[0] if dtype.startswith("t") else DAYS
    frame = pandas.DataFrame({"day": days}).astype({"day": dtype})
    frame = frame.assign(**{f"x{i}": value for i, value in enumerate(others)})
    for fit in fits_of_features(frame):
        with pytest.raises(TypeError, match=r"features holds values of type .*64\["):
            fit()


def test_dates_among_logits_and_features_are_refused():
    model = DensityRatioCalibration(n_logits=2)
    with pytest.raises(TypeError, match="X holds values of type datetime64"):
        model.fit(np.column_stack([DATES, DAYS]), [0, 1, 0])


LASTING = DAYS - DAYS[0]


@pytest.mark.parametrize("library", ["numpy", "pandas", "polars", "pyarrow"])
def test_durations_are_no_uncertainties(library):
    arrays = pytest.importorskip(library)
    kind = {"numpy": "array", "pyarrow": "array"}.get(library, "Series")
    values = getattr(arrays, kind)(LASTING.astype("timedelta64[ms]"))
    y, proba = [0, 1, 2], np.eye(3)
    takers = {
        "uncertainty_in": lambda: ood_auroc(values, [1.0, 2.0]),
        "uncertainty": lambda: uncertainty_calibration_error([1.0, 2.0, 3.0], values),
        "y_std": lambda: interval_sharpness(values),
        "proximity": lambda: proximity_calibration_error(y, proba, proximity=values),
    }
    for name, take in takers.items():
        with pytest.raises(TypeError, match=f"^{name} holds values of type"):
            take()


@pytest.mark.parametrize("values", [DAYS, LASTING], ids=["dates", "durations"])
def test_dates_and_durations_are_no_weights(values):
    logits, y = np.eye(3), [0, 1, 2]
    images, places = np.dstack([logits, logits]), np.column_stack([y, y])
    for take in (
        lambda: TemperatureScaling().fit(logits, y, sample_weight=values),
        lambda: expected_calibration_error(y, logits, sample_weight=values),
        lambda: CalibrationAccumulator().update(y, logits, sample_weight=values),
        lambda: DenseCalibration().fit(images, places, sample_weight=values),
        lambda: CalibratedClassifier(LogisticRegression()).fit(
            logits, y, sample_weight=values
        ),
    ):
        with pytest.raises(TypeError, match="sample_weight holds values of type"):
            take()


@pytest.mark.parametrize("dtype", ["str", "object", "category"])
def test_a_column_of_texts_among_features_is_named(dtype):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [30, 40, 50], "country": ["de", "fr", "de"]})
    for fit in fits_of_features(frame.astype({"country": dtype})):
        with pytest.raises(ValueError, match="column 'country' of features holds no"):
            fit()


def test_a_missing_number_is_told_from_a_text():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [30.0, np.nan, 50.0], "rooms": [1, 2, 3]})
    _, *fits = fits_of_features(frame)
    for fit in fits:
        with pytest.raises(ValueError, match="features contains NaN"):
            fit()


def pandas_with(dtype):
    """Return pandas if it has this type."""
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas")


def in_pandas(series, kind):
    """Return a series, its values, or a frame of it."""
    forms = {"series": series, "array": series.array, "frame": series.to_frame()}
    return forms[kind]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "bool[pyarrow]", "category"])
@pytest.mark.parametrize("kind", ["series", "array", "frame"])
def test_every_bool_of_pandas_finds_the_column_of_its_name(dtype, kind):
    pandas = pandas_with(dtype)
    p = np.random.default_rng(0).uniform(size=200)
    y = np.random.default_rng(1).random(200) < p
    proba = pandas.DataFrame({True: p, False: 1 - p})
    labels = in_pandas(pandas.Series(y, name="y").astype(dtype), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataConversionWarning)
        told = expected_calibration_error(labels, proba)
        fitted = TemperatureScaling().fit(np.log(proba), labels)
    assert told == expected_calibration_error(y, proba)
    assert_array_equal(fitted.classes_, [True, False])
    assert fitted.classes_.dtype == bool


@pytest.mark.parametrize("dtype", ["int64", "Int64", "UInt8", "int64[pyarrow]"])
@pytest.mark.parametrize("kind", ["series", "array", "frame"])
def test_every_integer_of_pandas_is_a_column_number(dtype, kind):
    pandas = pandas_with(dtype)
    logits, y = make_logits(200, 3, random_state=0)
    logits, y = logits[y < 2], y[y < 2]
    proba = softmax(logits, axis=1)
    labels = in_pandas(pandas.Series(y, name="y").astype(dtype), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataConversionWarning)
        told = expected_calibration_error(labels, proba)
        fitted = TemperatureScaling().fit(logits, labels)
        watched = CalibrationMonitor().update(labels, proba)
    assert told == expected_calibration_error(y, proba)
    assert_array_equal(fitted.classes_, [0, 1, 2])
    assert fitted.classes_.dtype.kind in "iu"
    assert_array_equal(watched.classes_, [0, 1, 2])


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]"])
def test_an_integer_of_pandas_that_is_missing_is_no_label(dtype):
    pandas = pandas_with(dtype)
    y = pandas.Series([0, None, 1]).astype(dtype)
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    with pytest.raises(ValueError, match="y contains NaN"):
        TemperatureScaling().fit(logits, y)
    with pytest.raises(ValueError, match="y_true holds nan in row 1"):
        expected_calibration_error(y, np.full((3, 2), 0.5))


def missing(kind):
    """Labels of which the second is missing, and what it is called."""
    texts, bools = ["a", None, "b"], [True, None, False]
    if kind in ("list", "texts", "bools"):
        array = np.array(bools if kind == "bools" else texts, dtype=object)
        return (texts if kind == "list" else array), "None"
    library, _, dtype = kind.partition(" ")
    frames = pytest.importorskip(library)
    if library == "polars":
        return frames.Series(texts if dtype == "texts" else bools), "None"
    called = {"string": "<NA>", "NA": "<NA>"}.get(dtype, "nan")
    if dtype == "NA":
        return np.array(["a", frames.NA, "b"], dtype=object), called
    return frames.Series(["a", np.nan, "b"], dtype=dtype), called


@pytest.mark.parametrize(
    "kind",
    [
        *("list", "texts", "bools", "polars texts", "polars bools"),
        *("pandas object", "pandas string", "pandas category", "pandas NA"),
    ],
)
def test_a_label_that_is_missing_is_named(kind):
    y, called = missing(kind)
    proba = np.full((3, 2), 0.5)
    message = f"holds {called} in row 1; it needs class labels"
    with pytest.raises(ValueError, match=f"y_true {message}"):
        calibration_report(y, proba)
    with pytest.raises(ValueError, match=f"y_true {message}"):
        expected_calibration_error(y, proba, labels=["a", "b"])
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    with pytest.raises(ValueError, match=f"y {message}"):
        TemperatureScaling().fit(logits, y)


def test_a_missing_label_beside_an_index_is_refused_for_the_index():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"id": [0.0, 1.0, 2.0], "b": [0.5, 0.1, 0.2]})
    with pytest.raises(ValueError, match="The column 'id' of X numbers the rows"):
        TemperatureScaling().fit(X, ["a", None, "b"])


def test_masked_entries_are_refused(calibration_set):
    logits, y = calibration_set
    masked = np.ma.masked_greater(logits, 5)
    fitted = TemperatureScaling().fit(logits, y)
    among = DensityRatioCalibration(n_logits=3)
    for call in (
        lambda: TemperatureScaling().fit(masked, y),
        lambda: TemperatureScaling().partial_fit(masked, y),
        lambda: MultiLabelCalibration().fit(masked, logits > 0),
        lambda: among.fit(masked, y % 3),
        lambda: fitted.predict_proba(masked),
        lambda: fitted.predict(masked),
        lambda: as_rows(masked.reshape(-1, 4, 1), class_axis=1),
    ):
        with pytest.raises(ValueError, match=r"X is a masked array, \d+ of whose"):
            call()
    for kind in (BoostedCalibration, DensityRatioCalibration):
        with pytest.raises(ValueError, match="features is a masked array"):
            kind().fit(logits, y, features=masked)
    whole = np.ma.array(logits)
    assert_array_equal(fitted.predict_proba(whole), fitted.predict_proba(logits))
    assert TemperatureScaling().fit(whole, y).temperature_ == fitted.temperature_


def test_masked_probabilities_are_refused(calibration_set):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    masked = np.ma.masked_greater(proba, 0.9)
    for call in (
        lambda: expected_calibration_error(y, masked),
        lambda: static_calibration_error(y, masked),
        lambda: calibration_report(y, masked),
        lambda: calibration_report(np.eye(4)[y], masked, multilabel=True),
        lambda: CalibrationAccumulator().update(y, masked),
        lambda: logits_from_proba(masked),
    ):
        with pytest.raises(ValueError, match=r"is a masked array, \d+ of whose"):
            call()
    whole = expected_calibration_error(y, np.ma.array(proba))
    assert whole == expected_calibration_error(y, proba)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("calibrator", [TemperatureScaling(), VectorScaling()])
def test_tensors_are_taken_without_their_gradients(calibration_set, calibrator, dtype):
    torch = pytest.importorskip("torch")
    logits, y = calibration_set
    X = torch.tensor(logits, dtype=getattr(torch, dtype), requires_grad=True)
    weight = torch.ones(len(y), dtype=X.dtype, requires_grad=True)
    as_array = X.detach() if dtype == "float64" else X.detach().float()
    expected = calibrator.fit(as_array.numpy(), y).predict_proba(as_array.numpy())
    fitted = calibrator.fit(X, torch.tensor(y), sample_weight=weight)
    proba = fitted.predict_proba(X)
    assert_array_equal(proba, expected)
    assert proba.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert X.requires_grad


@pytest.mark.torch
def test_binary_tensors_are_taken_too(binary_calibration_set):
    torch = pytest.importorskip("torch")
    log_odds, y = binary_calibration_set
    X = torch.tensor(log_odds, requires_grad=True)
    labels = torch.tensor(y, dtype=torch.bfloat16)
    fitted = PlattScaling().fit(X, labels)
    assert_allclose(fitted.coef_, PlattScaling().fit(log_odds, y).coef_)


@pytest.mark.torch
def column(torch, kind):
    values = torch.tensor([0.25, 0.25, 0.5])  # Exact in every precision.
    return values.bfloat16() if kind == "bfloat16" else values.requires_grad_()


TENSORS = pytest.mark.parametrize("kind", ["bfloat16", "with gradients"])


@TENSORS
def test_metrics_read_every_tensor_of_one_number_a_sample(kind):
    values = column(pytest.importorskip("torch"), kind)
    plain = [0.25, 0.25, 0.5]
    assert ood_auroc(values, [0.25, 0.5]) == ood_auroc(plain, [0.25, 0.5])
    error = uncertainty_calibration_error(values, values)
    assert error == uncertainty_calibration_error(plain, plain)
    assert interval_sharpness(values) == interval_sharpness(plain)
    proba = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]
    far = partial(proximity_calibration_error, [0, 1, 1], proba, n_proximity_bins=2)
    assert far(proximity=values) == far(proximity=plain)


@TENSORS
def test_shares_and_images_may_be_any_tensor(kind):
    values = column(pytest.importorskip("torch"), kind)
    logits, y = make_logits(60, 3, random_state=0)
    for priors in (values, dict(enumerate(values))):
        fitted = PriorShift(TemperatureScaling(), priors=priors).fit(logits, y)
        assert_allclose(fitted.priors_, [0.25, 0.25, 0.5])
    images = values.reshape(1, 1, 3)
    corrupted = partial(corrupt_images, kind="contrast", channel_axis=None)
    plain = np.array([[[0.25, 0.25, 0.5]]], dtype=np.float32)
    assert_array_equal(corrupted(images), corrupted(plain))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_metrics_take_tensors_without_their_gradients(calibration_set, dtype):
    torch = pytest.importorskip("torch")
    logits, y = calibration_set
    X = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    # Of 4 classes, bfloat16 rounds few rows further than the sums may be off.
    proba = X.softmax(dim=1).to(getattr(torch, dtype))
    keep = (proba.float().sum(dim=1) - 1).abs() < 1e-3
    proba, labels = proba[keep], torch.tensor(y)[keep]
    array = proba.detach().float().numpy()
    weight = torch.ones(len(labels), requires_grad=True)
    for metric in (expected_calibration_error, static_calibration_error):
        told = metric(labels, proba, sample_weight=weight)
        assert told == metric(labels.numpy(), array)
    assert_array_equal(logits_from_proba(proba), logits_from_proba(array))


@pytest.mark.torch
def test_rows_of_bfloat16_are_off_by_what_it_rounds():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    proba = (2 * torch.randn(500, 10)).softmax(dim=1).bfloat16()
    labels = torch.arange(500) % 10
    rows = proba.float().numpy()
    assert np.abs(rows.sum(axis=1) - 1).max() > 2e-3
    told = expected_calibration_error(labels, proba)
    normalised = rows / rows.sum(axis=1, keepdims=True)
    known = expected_calibration_error(labels.numpy(), normalised)
    assert told == pytest.approx(known, abs=1e-3)
    proba[3] *= 1.25
    with pytest.raises(ValueError, match=r"Row 3 of the probabilities sums to 1\.2"):
        expected_calibration_error(labels, proba)


def as_batch(values, names="abc"):
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.RecordBatch.from_arrays([*values.T], names=[*names])


@pytest.mark.parametrize(
    "estimator",
    [
        TemperatureScaling(),
        DensityRatioCalibration(),
        DensityRatioCalibration(n_logits=2, classes=[0, 1]),
        CalibratedClassifier(LogisticRegression()),
    ],
    ids=["logits", "neighbours", "features in X", "classifier"],
)
def test_columns_of_a_batch_in_another_order_than_in_fit_are_refused(estimator):
    logits, y = make_logits(200, 3, random_state=0)
    batch = as_batch(logits)
    is_pair = getattr(estimator, "n_logits", None)
    fitted = estimator.fit(batch, y % 2 if is_pair else y)
    proba = fitted.predict_proba(batch)
    assert_allclose(fitted.predict_proba(batch.slice(0, 3)), proba[:3])
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.predict_proba(batch.select(["c", "a", "b"]))


def test_columns_of_a_batch_are_in_the_order_of_a_classifier_of_several_labels():
    X, y = make_logits(200, 3, random_state=0)
    batch = as_batch(X)
    several = MultiLabelCalibration()
    classifier = CalibratedClassifier(KNeighborsClassifier(), calibrator=several)
    fitted = classifier.fit(batch, np.eye(3, dtype=int)[y])
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.predict_proba(batch.select(["c", "a", "b"]))


def test_the_logits_of_a_batch_are_calibrated_and_judged():
    logits, y = make_logits(200, 3, random_state=0)
    options = {"y": y, "calibrator": TemperatureScaling(), "n_bootstrap": 0}
    told = calibrate(logits=as_batch(logits), **options).report
    expected = calibrate(logits=logits, **options).report
    assert told["after"]["nll"].value == pytest.approx(expected["after"]["nll"].value)


@pytest.mark.parametrize("kind", ["polars", "named polars", "pyarrow", "chunks"])
def test_one_number_a_sample_is_read_from_every_library(kind):
    library = "pyarrow" if kind == "chunks" else kind.split()[-1]
    arrays = pytest.importorskip(library)
    named = {"name": "logit"} if kind == "named polars" else {}

    def column(values):
        if kind == "chunks":
            return arrays.chunked_array([values[:50], values[50:]])
        if library == "pyarrow":
            return arrays.array(values)
        return arrays.Series(values=values, **named)

    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=200)
    y = log_odds + rng.normal(size=200) > 0
    fitted = TemperatureScaling().fit(column(log_odds), y)
    proba = fitted.predict_proba(column(log_odds))
    expected = TemperatureScaling().fit(log_odds, y).predict_proba(log_odds)
    assert_allclose(proba, expected)
    again = logits_from_proba(column(expected[:, 1]))
    log_odds = np.diff(again, axis=1) if again.shape[1] == 2 else np.asarray(again)
    assert_allclose(expit(log_odds[:, -1]), expected[:, 1])


def test_labels_may_be_the_texts_of_any_length_of_numpy():
    logits, y = make_logits(60, 3, random_state=0)
    names = np.array(["cat", "dog", "bird"], dtype=np.dtypes.StringDType())
    fitted = TemperatureScaling(classes=names).fit(logits, names[y])
    assert fitted.classes_.tolist() == ["cat", "dog", "bird"]
    expected = TemperatureScaling().fit(logits, y)
    assert fitted.score(logits, names[y]) == expected.score(logits, y)
    proba = expected.predict_proba(logits)
    error = expected_calibration_error(names[y], proba, labels=names)
    assert error == expected_calibration_error(y, proba)
