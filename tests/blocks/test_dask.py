import numpy as np
import pytest
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import KFold
from uncomputed import uncomputed

from skcalib import CalibratorSearch, logits_from_proba
from skcalib._blocks import CalibrationData, open_source
from skcalib._blocks import _scores as scores
from skcalib._validation import check_calibration_set
from skcalib.calibrators import (
    DirichletCalibration,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.metrics import expected_calibration_error

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
dask = pytest.importorskip("dask")

pytestmark = pytest.mark.usefixtures("dask_in_this_process")


@pytest.fixture
def calibration_set(draw_calibration_set):
    """Logits, labels and weights, some of which are 0."""
    logits, y = draw_calibration_set(n_samples=3000)
    weight = np.random.default_rng(0).integers(0, 4, 3000).astype(float)
    return logits, y, weight


def is_by_sums(calibrator):
    return calibrator.by_sums


def sorts(calibrator):
    """Whether scores are sorted, for which those of a cluster are put into cells."""
    params = calibrator.get_params(deep=False)
    return (
        isinstance(calibrator, IsotonicCalibration)
        or params.get("strategy") == "quantile"
        or params.get("cv") == 2
    )


SUMMED = list(filter(is_by_sums, [*CALIBRATORS, *VARIANTS]))


@pytest.mark.parametrize(
    "calibrator", [c for c in SUMMED if not sorts(c)], ids=identify
)
def test_a_fit_to_chunks_equals_that_to_arrays(calibration_set, calibrator):
    logits, y, weight = calibration_set
    # Several chunks of columns, others of the labels and weights, empty ones and rows
    # alone.
    rows = (700, 0, 1, 1299, 1000)
    X = da.from_array(logits, chunks=(rows, 3))
    chunked = clone(calibrator).fit(
        X, da.from_array(y, chunks=1111), da.from_array(weight, chunks=997)
    )
    expected = clone(calibrator).fit(logits, y, weight)
    proba = chunked.predict_proba(X)
    assert isinstance(proba, da.Array)
    assert proba.chunks == (rows, (logits.shape[1],))
    assert_allclose(proba, expected.predict_proba(logits), atol=1e-10)
    assert_array_equal(chunked.predict(X), expected.predict(logits))
    assert chunked.score(X, y) == pytest.approx(expected.score(logits, y))
    assert chunked.score(X, y, da.from_array(weight)) == pytest.approx(
        expected.score(logits, y, weight)
    )
    assert_array_equal(chunked.classes_, expected.classes_)
    assert chunked.n_features_in_ == logits.shape[1]
    if chunked.has_logits:
        assert_allclose(
            chunked.decision_function(X),
            expected.decision_function(logits),
            rtol=1e-7,
            atol=1e-8,
        )


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", list(filter(sorts, SUMMED)), ids=identify)
def test_what_is_sorted_or_folded_is_alike_for_any_chunks(calibration_set, calibrator):
    logits, y, weight = calibration_set
    fits = [
        clone(calibrator).fit(
            da.from_array(logits, chunks=(rows, -1)),
            da.from_array(y, chunks=rows),
            da.from_array(weight, chunks=rows),
        )
        for rows in (3000, 311)
    ]
    first, second = (fit.predict_proba(logits) for fit in fits)
    assert_allclose(first, second, atol=1e-10)
    # And near the fit that sorts, or folds by number.
    expected = clone(calibrator).fit(logits, y, weight).predict_proba(logits)
    assert np.abs(first - expected).mean() < 0.01


def test_scores_in_cells_are_those_of_rows_pooled_by_hand():
    rng = np.random.default_rng(0)
    # Log-odds on a grid, far enough apart for a cell of each.
    z = np.round(rng.normal(scale=2, size=5000), 2)
    y = (rng.random(5000) < 1 / (1 + np.exp(-z))).astype(int)
    X, labels = da.from_array(z, chunks=999), da.from_array(y, chunks=999)
    found = IsotonicCalibration().fit(X, labels)
    expected = IsotonicCalibration().fit(z, y)
    assert_allclose(found.predict_proba(z), expected.predict_proba(z), atol=1e-12)


def test_a_cell_is_no_wider_than_2_to_the_minus_16():
    # As dense as scores get: neighbours differ by a millionth in log-odds.
    z = np.linspace(-20, 20, 400_001)
    data = CalibrationData(open_source(z), np.arange(400_001) % 2, np.ones(400_001))
    (cells,) = scores.pool_cells(data, scores.second_class)
    assert cells.total.sum() == pytest.approx(1)
    assert (cells.low[1:] > cells.high[:-1]).all()
    width = 1 / (1 + np.exp(-cells.high)) - 1 / (1 + np.exp(-cells.low))
    assert width.max() <= 2.0**-16
    tail = cells.high < np.log(1 / 63)
    assert (cells.high - cells.low)[tail].max() <= 2.0**-10


@pytest.mark.parametrize("names", [None, list("abcd")])
def test_data_frames_of_unknown_length_are_read(draw_calibration_set, names):
    logits, y = draw_calibration_set(n_samples=900)
    frame = pd.DataFrame(logits, columns=names and list("abcd"))
    labels = pd.Series(y if names is None else np.array(names)[y], name="y")
    if names is None:
        frame.columns = [f"logit {k}" for k in range(4)]
    X, Y = dd.from_pandas(frame, npartitions=4), dd.from_pandas(labels, npartitions=4)
    # What a filter leaves has no length until it is counted.
    X, Y = X[X.iloc[:, 0] > -1e9], Y[Y == Y]
    scaling = TemperatureScaling().fit(X, Y)
    expected = TemperatureScaling().fit(frame, labels)
    assert scaling.temperature_ == pytest.approx(expected.temperature_, rel=1e-10)
    assert_array_equal(scaling.feature_names_in_, frame.columns)
    assert_array_equal(scaling.classes_, expected.classes_)
    assert_allclose(scaling.predict_proba(X), expected.predict_proba(frame), atol=1e-10)
    assert scaling.predict(X).dtype == scaling.classes_.dtype
    assert_array_equal(scaling.predict(X), expected.predict(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        scaling.predict_proba(X.rename(columns={frame.columns[0]: "other"}))


@pytest.mark.parametrize("shape", [(900,), (900, 1)])
def test_one_column_is_the_log_odds_of_the_second_class(shape):
    rng = np.random.default_rng(0)
    z = rng.normal(size=shape).astype(np.float32)
    y = np.where(rng.random(900) < 0.3, 0, z.ravel() > 0)
    X = da.from_array(z, chunks=(200, 1)[: z.ndim])
    vector = VectorScaling().fit(X, da.from_array(y, chunks=200))
    expected = VectorScaling().fit(z, y)
    assert vector.predict_proba(X).dtype == np.float32
    assert_allclose(vector.predict_proba(X), expected.predict_proba(z), atol=1e-6)
    decision = vector.decision_function(X)
    assert decision.shape == (900,)
    assert_allclose(decision, expected.decision_function(z), atol=1e-5)


def test_labels_in_memory_go_with_rows_elsewhere(calibration_set):
    logits, y, weight = calibration_set
    X = da.from_array(logits, chunks=(800, -1))
    found = TemperatureScaling().fit(X, y.tolist(), sample_weight=weight)
    expected = TemperatureScaling().fit(logits, y, weight)
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-10)


@pytest.fixture
def never():
    """Rows that must not be computed, and labels."""
    rows = uncomputed(da.zeros((100, 3), chunks=(25, 3)))
    return rows, da.zeros(100, chunks=25, dtype=int)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], [3, 1, 0, 2], [-7, 0, 5, 9], list("dcab")]
)
def test_the_bits_do_not_depend_on_what_classes_are_called(calibration_set, labels):
    logits, y, _ = calibration_set
    X = da.from_array(logits, chunks=(700, 4))
    expected = TemperatureScaling().fit(X, da.from_array(y, chunks=700))
    labels = np.array(labels)
    # Some of small types, of which differences overflow.
    labels = labels.astype(np.int8) if labels.dtype.kind == "i" else labels
    named = da.from_array(labels[y], chunks=700)
    found = TemperatureScaling(classes=labels).fit(X, named)
    assert found.temperature_ == expected.temperature_
    assert_array_equal(found.predict(X), labels[expected.predict(X)])


def test_predictions_are_lazy(never, draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300, n_classes=3)
    scaling = TemperatureScaling().fit(logits, y)
    for lazy in (
        scaling.predict_proba(never[0]),
        scaling.predict(never[0]),
        scaling.decision_function(never[0]),
    ):
        assert lazy.chunks[0] == (25,) * 4
        with pytest.raises(RuntimeError, match="computed"):
            lazy.compute()


@pytest.mark.parametrize(
    "estimator",
    [
        *[c for c in [*CALIBRATORS, *VARIANTS] if not c.by_sums],
        CalibratorSearch(),
    ],
    ids=identify,
)
def test_what_needs_all_rows_says_so_before_any_is_computed(never, estimator):
    with pytest.raises(TypeError, match="needs all rows in memory"):
        clone(estimator).fit(*never)


def test_no_rows_are_brought_here():
    X = da.zeros((100, 3), chunks=(25, 3))
    y = da.arange(100, chunks=25) % 3
    data = check_calibration_set(TemperatureScaling(), X, y, None, None)
    for read in (
        lambda: data.logits,
        lambda: data.subset(np.arange(3)),
        lambda: data.source.take(np.arange(3)),
    ):
        with pytest.raises(TypeError, match="those of a Dask collection"):
            read()
    scaling = TemperatureScaling().fit(4 * np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 1])
    with pytest.raises(TypeError, match=r"Store it with dask.array.store"):
        scaling.predict_proba(X, out=np.empty((100, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_value_in_the_last_chunk_is_named_before_the_first_step(value):
    logits = np.random.default_rng(0).normal(size=(1000, 3))
    logits[987, 1] = value
    X, y = da.from_array(logits, chunks=(100, 3)), da.arange(1000, chunks=70) % 3
    kind = "NaN" if np.isnan(value) else "infinity"
    place = rf"row 987 \(row 87 of chunk 9\) holds {value}"
    with pytest.raises(ValueError, match=f"X contains {kind}: {place}"):
        TemperatureScaling(max_iter=1).fit(X, y)
    scaling = TemperatureScaling().fit(4 * np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 1])
    proba = scaling.predict_proba(X)
    with pytest.raises(ValueError, match=rf"{kind}: row 87 of chunk 9 holds {value}"):
        proba.compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_weight": [1.0] * 99 + [-2.0]}, r"-2.0 in row 99 \(row 24 of chunk 3"),
        (
            {"sample_weight": [1.0] * 99 + [np.nan]},
            r"holds nan in row 99",
        ),
        ({"sample_weight": [0.0] * 100}, "sample_weight is zero everywhere"),
        ({"y": [0] * 100}, "y holds one class only: 0"),
        ({"y": [0, 1] * 49}, r"have \[100, 98, 100\] rows"),
        ({"y": [5, 6] * 50}, r"X has 3 columns but y has 2 classes"),
        ({"y": [[0, 1]] * 100}, r"y should be a 1d array, got .* shape \(100, 2\)"),
    ],
)
def test_bad_labels_and_weights_are_refused(change, message):
    X = da.random.default_rng(0).normal(size=(100, 3), chunks=(25, 3))
    given = {"y": [0, 1, 2, 0] * 25, "sample_weight": [1.0] * 100, **change}
    chunked = {k: da.from_array(np.array(v), chunks=33) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(X, **chunked)


@pytest.mark.parametrize("is_lazy", [False, True])
def test_labels_of_another_length_than_uncounted_rows_are_refused(is_lazy):
    X = da.random.default_rng(0).normal(size=(100, 3), chunks=(25, 3))
    X = X[X[:, 0] < 99]
    y = np.arange(90) % 3
    with pytest.raises(ValueError, match=r"have \[100, 90\] rows"):
        TemperatureScaling().fit(X, da.from_array(y, chunks=25) if is_lazy else y)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((4, 3)), TypeError, "and X is a numpy.ndarray. Pass all"),
        (da.zeros((4, 3), dtype="M8[s]"), TypeError, "X holds values of type datetime"),
        (da.zeros((4, 3), dtype=complex), ValueError, "dtype complex128; Temperature"),
        (da.zeros((0, 3)), ValueError, "X has no rows"),
        (dask.delayed(np.zeros)((4, 3)), TypeError, "X is a dask.delayed.Delayed"),
    ],
    ids=["array", "dates", "complex", "no rows", "delayed"],
)
def test_other_collections_are_refused(X, error, message):
    n_rows = 0 if message == "X has no rows" else 4
    y = da.arange(n_rows, chunks=2) % 3
    with pytest.raises(error, match=message):
        TemperatureScaling().fit(X, y)


def count_passes(monkeypatch):
    """Return a list that grows by one with each pass over the chunks."""
    from skcalib._blocks import _dask, _dask_data

    passes, reduce = [], _dask.reduce_chunks

    def counting(*arguments):
        passes.append(None)
        return reduce(*arguments)

    for module in (_dask, _dask_data):
        monkeypatch.setattr(module, "reduce_chunks", counting)
    return passes


@pytest.mark.parametrize(
    ("calibrator", "most"),
    [(TemperatureScaling(), 6), (VectorScaling(), 14), (IsotonicCalibration(), 2)],
    ids=identify,
)
def test_a_fit_takes_few_passes(monkeypatch, draw_calibration_set, calibrator, most):
    logits, y = draw_calibration_set(n_samples=200_000)
    passes = count_passes(monkeypatch)
    calibrator.fit(da.from_array(logits, chunks=(50_000, -1)), da.from_array(y))
    # One of them looks at all rows, another one takes a sample.
    assert len(passes) <= most


def test_a_temperature_is_that_of_other_chunks_to_ten_digits(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=200_000)
    first, *others = (
        TemperatureScaling()
        .fit(da.from_array(logits, chunks=(rows, -1)), da.from_array(y, chunks=rows))
        .temperature_
        for rows in (200_000, 30_000, 8_191)
    )
    assert others == pytest.approx([first] * 2, rel=1e-10)


def test_twins_are_in_one_fold_whatever_the_chunks(calibration_set):
    logits, y, weight = (np.tile(part.T, 2).T for part in calibration_set)

    def folds(rows):
        X, *beside = (da.from_array(part, chunks=rows) for part in (logits, y, weight))
        data = check_calibration_set(MatrixScaling(), X, *beside, None)
        return data, data.hashed_splits(None, 0)

    for rows in (6000, 701):
        data, splits = folds(rows)
        tests = [data.subset(test).every(1).logits for _, test in splits]
        used = np.unique(logits[weight > 0], axis=0)
        parts = [np.unique(test, axis=0) for test in tests]
        assert sum(map(len, tests)) == np.count_nonzero(weight)
        assert sum(map(len, parts)) == len(used)
        assert min(map(len, parts)) > len(used) / 5 * 0.8
    train, test = (data.subset(part) for part in splits[0])
    assert train.total_weight + test.total_weight == pytest.approx(weight.sum())
    assert test.n_samples == len(tests[0])
    assert train.class_weights().sum() == pytest.approx(1)


def test_penalties_are_searched_by_folds_of_hashes(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=1500, n_classes=3)
    X, labels = da.from_array(logits, chunks=(400, -1)), da.from_array(y, chunks=400)
    matrix = DirichletCalibration(cv=2).fit(X, labels)
    assert len(matrix.cv_losses_) > 2
    expected = DirichletCalibration(cv=2).fit(logits, y).predict_proba(logits)
    assert np.abs(matrix.predict_proba(logits) - expected).max() < 0.05
    with pytest.raises(ValueError, match="the folds of a Dask collection are told by"):
        MatrixScaling(cv=KFold(2)).fit(X, labels)


def test_few_rows_of_positive_weight_are_sampled_all_the_same(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300_000)
    weight = np.zeros(300_000)
    weight[1:60:2] = 1
    chunked = (da.from_array(part, chunks=50_000) for part in (y, weight))
    X = da.from_array(logits, chunks=(50_000, -1))
    found = TemperatureScaling().fit(X, *chunked)
    expected = TemperatureScaling().fit(logits, y, weight)
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-9)


def test_huge_and_tiny_weights_are_shared_out(calibration_set):
    logits, y, weight = calibration_set
    X, labels = da.from_array(logits, chunks=(800, -1)), da.from_array(y, chunks=800)
    for factor in (1e-200, 1e200):
        found = VectorScaling().fit(X, labels, da.from_array(factor * weight))
        expected = VectorScaling().fit(logits, y, factor * weight)
        assert_allclose(found.coef_, expected.coef_, rtol=1e-8)


@pytest.mark.parametrize("scale", [1 / 700, 1.0, 1000.0, 2.0**200])
def test_weights_of_chunks_count_as_those_in_memory(calibration_set, scale):
    logits, y, _ = calibration_set
    X, labels = da.from_array(logits, chunks=(800, -1)), da.from_array(y, chunks=800)
    weight = scale * np.random.default_rng(0).uniform(0.5, 1.5, len(y))
    for those in (weight, scale * np.arange(1, len(y) + 1)):
        found = TemperatureScaling(prior=200).fit(X, labels, da.from_array(those))
        expected = TemperatureScaling(prior=200).fit(logits, y, those)
        assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-8)
        if scale < 2.0**50:
            stream = TemperatureScaling(prior=200)
            stream.partial_fit(X, labels, sample_weight=da.from_array(those))
            assert stream.temperature_ == pytest.approx(found.temperature_, rel=1e-6)


def test_an_interval_of_rows_elsewhere_is_lazy(draw_calibration_set):
    logits, y = draw_calibration_set(n_samples=300, n_classes=3)
    venn_abers = VennAbersCalibration().fit(logits, y)
    X = da.from_array(logits, chunks=(100, -1))
    assert_allclose(venn_abers.predict_proba(X), venn_abers.predict_proba(logits))


@pytest.mark.parametrize("levels", [1, 5])
def test_rows_that_only_share_a_score_are_in_all_folds(levels):
    rng = np.random.default_rng(0)
    score = rng.integers(0, levels, 3000).astype(float)
    y = rng.integers(0, 2, 3000)
    logits = np.column_stack([-score, score])
    parts = (da.from_array(part, chunks=700) for part in (logits, y, np.ones(3000)))
    data = check_calibration_set(MatrixScaling(), *parts, None)
    sizes = [data.subset(test).n_samples for _, test in data.hashed_splits(5, 0)]
    assert sum(sizes) == 3000
    assert min(sizes) > 450


def test_a_future_is_refused_with_what_can_be_used():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(
        processes=False, n_workers=1, dashboard_address=None
    ) as client:
        future = client.submit(np.zeros, (4, 3))
        with pytest.raises(TypeError, match=r"a distributed\S*Future; of Dask's coll"):
            TemperatureScaling().fit(future, [0, 1, 2, 0])
        with pytest.raises(TypeError, match=r"a distributed\S*Future; of Dask's coll"):
            expected_calibration_error([0, 1, 2, 0], future)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize(
    "options", [{}, {"floor": 1e-3}, {"normalise": True}, {"multilabel": True}]
)
def test_probabilities_in_chunks_become_logits_in_chunks(
    calibration_set, kind, options
):
    proba = softmax(calibration_set[0], axis=1).astype(kind)
    chunks = da.from_array(proba, chunks=((1400, 0, 1600), (2, 2)))
    found = logits_from_proba(chunks, **options)
    assert found.chunks == ((1400, 0, 1600), (4,))
    expected = logits_from_proba(proba, **options)
    assert found.dtype == found.compute().dtype == expected.dtype
    assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_column_of_probabilities_in_chunks_becomes_two_of_logits(shape):
    proba = np.linspace(0, 1, 50)
    found = logits_from_proba(da.from_array(proba.reshape(shape), chunks=20))
    assert found.shape == (50, 2)
    assert_array_equal(found.compute(), logits_from_proba(proba))


def test_logits_of_a_dask_frame_of_probabilities_keep_its_names(calibration_set):
    logits, y, _ = calibration_set
    names = np.array(list("dacb"))
    proba = pd.DataFrame(softmax(logits, axis=1), columns=names)
    X = logits_from_proba(dd.from_pandas(proba, npartitions=3))
    assert X.columns.tolist() == names.tolist()
    pd.testing.assert_frame_equal(X.compute(), logits_from_proba(proba))
    labels = dd.from_pandas(pd.Series(names[y]), npartitions=3)
    fitted = TemperatureScaling().fit(X, labels)
    assert fitted.classes_.tolist() == names.tolist()
    expected = TemperatureScaling().fit(logits, y).temperature_
    assert fitted.temperature_ == pytest.approx(expected)
    assert fitted.predict_proba(X).compute().shape == proba.shape


def test_bad_probabilities_of_a_dask_collection_are_refused():
    wrong = da.from_array(np.full((50, 2), [0.5, 0.6]), chunks=20)
    with pytest.raises(ValueError, match=r"Chunk \d: Row 0 of the probabilities sums"):
        logits_from_proba(wrong).compute()
    with pytest.raises(ValueError, match='floor="auto" looks at all probabilities'):
        logits_from_proba(wrong, floor="auto")
    with pytest.raises(TypeError, match=r"proba is a dask\.delayed\.Delayed"):
        logits_from_proba(dask.delayed(np.zeros)((4, 3)))
