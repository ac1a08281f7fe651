import numpy as np
import pytest
from scipy.special import expit, softmax
from uncomputed import uncomputed

from skcalib.metrics import (
    CalibrationAccumulator,
    adaptive_expected_calibration_error,
    calibration_report,
    expected_calibration_error,
    maximum_calibration_error,
    overconfidence_error,
    predictive_entropy,
    root_mean_squared_calibration_error,
    smooth_calibration_error,
    static_calibration_error,
    underconfidence_error,
)
from skcalib.plotting import ReliabilityDisplay

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
dask = pytest.importorskip("dask")

pytestmark = pytest.mark.usefixtures("dask_in_this_process")

EXACT = ["accuracy", "nll", "brier", "entropy", "ece", "sce", "mce", "rmsce"]


@pytest.fixture
def predictions(draw_calibration_set):
    """Labels, probabilities and weights, some of which are 0; and their chunks."""
    logits, y = draw_calibration_set(n_samples=3000)
    weight = np.random.default_rng(0).integers(0, 4, 3000).astype(float)
    rows = y, softmax(logits, axis=1), weight
    proba = da.from_array(rows[1], chunks=((1400, 0, 1, 1599), (2, 2)))
    return rows, (da.from_array(y, chunks=900), proba, da.from_array(weight))


@pytest.mark.parametrize(
    "metric",
    [
        expected_calibration_error,
        maximum_calibration_error,
        root_mean_squared_calibration_error,
        static_calibration_error,
        overconfidence_error,
        underconfidence_error,
        predictive_entropy,
    ],
    ids=lambda metric: metric.__name__,
)
def test_a_metric_of_chunks_is_that_of_all_rows(predictions, metric):
    here, there = (
        metric(y, proba, sample_weight=weight) for y, proba, weight in predictions
    )
    assert there == pytest.approx(here, rel=1e-12)


def test_an_accumulator_takes_chunks_and_batches(predictions):
    (y, proba, weight), chunks = predictions
    names = np.array(list("abcd"))
    found = CalibrationAccumulator(metrics=EXACT, labels=names)
    found.update(chunks[0].map_blocks(lambda block: names[block]), *chunks[1:])
    found.update(names[y[:100]], proba[:100], weight[:100])
    expected = CalibrationAccumulator(metrics=EXACT, labels=names)
    expected.update(names[y], proba, weight)
    expected.update(names[y[:100]], proba[:100], weight[:100])
    assert found.n_samples_ == expected.n_samples_
    assert found.compute() == pytest.approx(expected.compute(), rel=1e-12)


def test_a_report_of_chunks_has_no_intervals(predictions):
    (y, proba, weight), chunks = predictions
    found = calibration_report(
        *chunks[:2], sample_weight=chunks[2], metrics=EXACT, n_bootstrap=0
    )
    expected = calibration_report(
        y, proba, sample_weight=weight, metrics=EXACT, n_bootstrap=0
    )
    assert found.to_dict()["n_samples"] == expected.to_dict()["n_samples"]
    for name in EXACT:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-12)
        assert found[name].low is None
    with pytest.raises(TypeError, match="y_proba is a Dask collection, which would"):
        calibration_report(*chunks[:2])


@pytest.mark.parametrize(
    "metric",
    [
        adaptive_expected_calibration_error,
        smooth_calibration_error,
        lambda *rows: static_calibration_error(*rows, strategy="quantile"),
        lambda *rows: root_mean_squared_calibration_error(*rows, debiased=True),
        lambda *rows: predictive_entropy(*rows, per_sample=True),
    ],
)
def test_what_sorts_rows_does_not_bring_them_here(metric):
    proba = uncomputed(da.ones((50, 2), chunks=10))
    with pytest.raises(TypeError, match=r"CalibrationAccumulator\(\).update"):
        metric(da.zeros(50, chunks=10, dtype=int), proba)


def test_a_row_that_is_no_distribution_is_named_by_its_chunk(predictions):
    _, (y, proba, _) = predictions
    wrong = da.concatenate([proba[:2000], 2 * proba[2000:]])
    with pytest.raises(ValueError, match="Chunk 3: Row 0 of the probabilities"):
        expected_calibration_error(y, wrong)


def ece_of_accumulator(y, proba, **options):
    sums = CalibrationAccumulator(metrics=["ece"], **options).update(y, proba)
    return sums.compute()["ece"]


def ece_of_report(y, proba, **options):
    return calibration_report(y, proba, n_bootstrap=0, **options)["ece"].value


def ece_of_diagram(y, proba, **options):
    matplotlib = pytest.importorskip("matplotlib.figure")
    return ReliabilityDisplay.from_predictions(
        y,
        proba,
        n_bootstrap=0,
        ax=matplotlib.Figure().subplots(),
        **options,
    ).error


WAYS = [
    expected_calibration_error,
    ece_of_accumulator,
    ece_of_report,
    ece_of_diagram,
]


def in_chunks(*columns):
    return [dd.from_pandas(column, npartitions=3) for column in columns]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([0, 1, 2, 3], ["1", "0", "3", "2"]),
        ([0, 1, 2, 3], [1, 0, 3, 2]),
        (list("abcd"), list("dacb")),
    ],
)
def test_columns_of_a_dask_frame_are_found_by_name(
    calibration_set, way, classes, names
):
    logits, y = calibration_set
    proba = softmax(logits, axis=1)
    frame = pd.DataFrame(proba, columns=[type(names[0])(k) for k in classes])[names]
    found = way(*in_chunks(pd.Series(np.array(classes)[y]), frame))
    assert found == pytest.approx(expected_calibration_error(y, proba))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("classes", "name", "options"),
    [
        ([-1, 1], None, {}),
        ([False, True], None, {}),
        (["bad", "ok"], "ok", {}),
        (["bad", "event"], None, {"pos_label": "event"}),
    ],
)
def test_a_single_dask_column_is_that_of_the_class_that_arrays_take(
    binary_calibration_set, way, classes, name, options
):
    log_odds, y = binary_calibration_set
    proba = pd.Series(expit(log_odds), name=name)
    labels = pd.Series(np.array(classes)[y])
    expected = expected_calibration_error(labels, proba, **options)
    assert way(*in_chunks(labels, proba), **options) == pytest.approx(expected)
