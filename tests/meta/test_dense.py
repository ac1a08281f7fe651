"""Pixels and tokens: classes along any axis."""

import tracemalloc

import numpy as np
import pytest
from every_calibrator import MAPS, identify
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from skcalib import (
    CalibratorSearch,
    DenseCalibration,
    IsotonicCalibration,
    MatrixScaling,
    MultiLabelCalibration,
    PlattScaling,
    ProbabilityFloor,
    StructuredMatrixScaling,
    TemperatureScaling,
    VennAbersCalibration,
    as_rows,
    load,
    save,
)
from skcalib._validation import check_calibration_set, check_logits, make_splits
from skcalib.metrics import (
    CalibrationAccumulator,
    calibration_report,
    ece_scorer,
    expected_calibration_error,
)
from skcalib.testing import check_calibrator


def make_images(n=24, n_classes=4, size=(6, 5), seed=0):
    """Return logits (n, K, H, W) that are twice what they should be, and labels."""
    rng = np.random.default_rng(seed)
    truth = 1.5 * rng.normal(size=(n, n_classes, *size))
    truth += rng.normal(size=(n, n_classes, 1, 1))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    y[rng.random(y.shape) < 0.2] = 255
    return 2 * truth, y


def flatten(logits, y):
    """Return the rows by hand."""
    rows = np.stack([logits[:, k].ravel() for k in range(logits.shape[1])], axis=1)
    kept = y.ravel() != 255
    return np.ascontiguousarray(rows[kept]), y.ravel()[kept]


@pytest.mark.parametrize("calibrator", MAPS, ids=identify)
def test_the_probabilities_are_those_of_flattened_rows(calibrator):
    logits, y = make_images()
    if "cv" in calibrator.get_params():
        calibrator = clone(calibrator).set_params(cv=[(np.arange(0, 500), [501, 502])])
    dense = DenseCalibration(calibrator, ignore_index=255).fit(logits, y)
    rows, labels = flatten(logits, y)
    alone = clone(calibrator).fit(rows, labels)
    every, _ = flatten(logits, np.zeros_like(y))
    proba = dense.predict_proba(logits)
    assert proba.shape == logits.shape
    expected = alone.predict_proba(every).reshape(24, 6, 5, 4)
    assert_allclose(np.moveaxis(proba, 1, -1), expected, rtol=0, atol=1e-9)
    assert_array_equal(dense.predict(logits), alone.predict(every).reshape(y.shape))
    assert dense.score(logits, y) == alone.score(rows, labels)


@pytest.mark.torch
@pytest.mark.parametrize("class_axis", [1, 3, -1, -2])
def test_the_exported_module_maps_places_and_rows(class_axis):
    torch = pytest.importorskip("torch")
    to_torch = pytest.importorskip("skcalib.export").to_torch
    logits, y = make_images()
    for columns in (logits, logits[:, :1]):
        z = np.moveaxis(columns, 1, class_axis)
        labels = y if columns is logits else (columns[:, 0] > 0).astype(int)
        labels[:, 0] = 1 - labels[:, 0].clip(max=1)
        dense = DenseCalibration(class_axis=class_axis, ignore_index=255).fit(z, labels)
        module = to_torch(dense)
        proba = module(torch.as_tensor(z)).numpy()
        assert_allclose(proba, dense.predict_proba(z), atol=1e-12)
        rows = columns[:, :, 0, 0]
        assert_allclose(module(torch.as_tensor(rows)), dense.predict_proba(rows))


@pytest.mark.parametrize("class_axis", [1, 2, 3, -1, -2])
def test_any_axis_but_the_first_may_hold_the_classes(class_axis):
    logits, y = make_images()
    moved = np.moveaxis(logits, 1, class_axis)
    first = DenseCalibration(ignore_index=255).fit(logits, y)
    other = DenseCalibration(class_axis=class_axis, ignore_index=255).fit(moved, y)
    assert other.calibrator_.temperature_ == first.calibrator_.temperature_
    proba = other.predict_proba(moved)
    assert_array_equal(np.moveaxis(proba, class_axis, 1), first.predict_proba(logits))
    assert_allclose(softmax(other.decision_function(moved), class_axis), proba)


def test_every_metric_reads_the_rows():
    logits, y = make_images()
    rows, labels = as_rows(softmax(logits, axis=1), y, ignore_index=255)
    by_hand = flatten(softmax(logits, axis=1), y)
    assert_array_equal(rows[:], by_hand[0])
    assert_array_equal(labels, by_hand[1])
    assert expected_calibration_error(labels, rows) == pytest.approx(
        expected_calibration_error(*by_hand[::-1])
    )
    options = {"n_bootstrap": 10, "random_state": 0}
    dense, flat = (
        calibration_report(y_true, proba, **options)
        for y_true, proba in ((labels, rows), by_hand[::-1])
    )
    for name in dense:
        assert_allclose(dense[name], flat[name], rtol=1e-9)
    accumulator = CalibrationAccumulator(metrics=["ece"]).update(labels, rows)
    assert accumulator.compute()["ece"] == pytest.approx(dense["ece"].value)


@pytest.mark.parametrize("kept", ["all", "some", "whole images"])
def test_blocks_and_scattered_rows_are_those_of_the_whole(kept):
    logits, y = make_images()
    if kept == "all":
        y[y == 255] = 0
    if kept == "whole images":
        y[[0, 5, 6, 23]] = 255
    rows, labels = as_rows(logits, y, ignore_index=255)
    whole, codes = flatten(logits, y)
    assert rows.shape == whole.shape
    assert_array_equal(labels, codes)
    for step in (1, 7, 30, 31, 10_000):
        parts = [rows[i : i + step] for i in range(0, len(whole), step)]
        assert_array_equal(np.concatenate(parts), whole)
    some = np.random.default_rng(0).permutation(len(whole))[:100]
    assert_array_equal(rows.take(some), whole[some])
    assert rows.take(some[:0]).shape == (0, 4)


def test_nothing_is_copied_but_the_block_that_is_read():
    logits = np.zeros((50, 4, 16, 16), dtype=np.float32)
    rows = as_rows(logits)
    assert np.shares_memory(rows._array, logits)
    assert rows[0:3].nbytes == 3 * 4 * 4


def test_files_are_read_where_they_lie(tmp_path):
    logits, y = make_images()
    logits = logits.astype(np.float32)
    expected = DenseCalibration(ignore_index=255).fit(logits, y)
    mapped = np.memmap(tmp_path / "z", np.float32, "w+", shape=logits.shape)
    mapped[:] = logits
    dense = DenseCalibration(ignore_index=255).fit(mapped, y)
    assert dense.calibrator_.temperature_ == expected.calibrator_.temperature_
    out = np.memmap(tmp_path / "p", np.float32, "w+", shape=logits.shape)
    assert dense.predict_proba(mapped, out=out) is out
    assert_array_equal(out, expected.predict_proba(logits))


def test_lists_are_put_into_a_place_that_is_given():
    logits, y = make_images()
    dense = DenseCalibration(ignore_index=255).fit(logits, y)
    out = np.empty_like(logits)
    assert dense.predict_proba(logits.tolist(), out=out) is out
    assert_array_equal(out, dense.predict_proba(logits))


def test_an_hdf5_dataset_is_unpacked_image_by_image(tmp_path):
    h5py = pytest.importorskip("h5py")
    logits, y = make_images()
    with h5py.File(tmp_path / "z.h5", "w") as file:
        stored = file.create_dataset("z", data=logits, chunks=(5, 4, 6, 5))
        dense = DenseCalibration(ignore_index=255).fit(stored, y)
    expected = DenseCalibration(ignore_index=255).fit(logits, y)
    assert dense.calibrator_.temperature_ == expected.calibrator_.temperature_


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    logits, y = make_images()
    tensor = torch.from_numpy(logits)
    dense = DenseCalibration(ignore_index=255).fit(tensor, torch.from_numpy(y))
    expected = DenseCalibration(ignore_index=255).fit(logits, y).predict_proba(logits)
    proba = dense.predict_proba(tensor)
    assert isinstance(proba, torch.Tensor)
    assert_allclose(proba.numpy(), expected, rtol=0, atol=1e-6)


def test_folds_keep_an_image_together():
    logits, y = make_images()
    rows, labels = as_rows(logits, y, ignore_index=255)
    image = rows.row_groups()
    assert_array_equal(image, np.repeat(np.arange(24), (y != 255).sum(axis=(1, 2))))
    splits = make_splits(4, rows, labels, np.ones(len(labels)), 0)
    for train, test in splits:
        assert not set(image[train]) & set(image[test])
    by_hand = make_splits(4, flatten(logits, y)[0], labels, np.ones(len(labels)), 0)
    train, test = by_hand[0]
    assert set(image[train]) & set(image[test])


@pytest.mark.parametrize(
    "calibrator",
    [
        VennAbersCalibration(cv=3, random_state=0),
        MatrixScaling(cv=2, random_state=0),
        CalibratorSearch([TemperatureScaling(), PlattScaling()], cv=3),
    ],
    ids=identify,
)
def test_folds_of_the_calibrator_itself_keep_an_image_together(calibrator):
    logits, y = make_images()
    dense = DenseCalibration(calibrator, ignore_index=255).fit(logits, y)
    rows, labels = flatten(logits, y)
    image = as_rows(logits, y, ignore_index=255)[0].row_groups()
    if isinstance(calibrator, CalibratorSearch):
        alone = clone(calibrator).fit(rows, labels, groups=image)
    else:
        weight = np.ones(len(labels))
        splits = make_splits(calibrator.cv, rows, labels, weight, 0, groups=image)
        alone = clone(calibrator).set_params(cv=splits).fit(rows, labels)
    proba = dense.predict_proba(logits).transpose(0, 2, 3, 1)[y != 255]
    assert_allclose(proba, alone.predict_proba(rows), atol=1e-6)


def test_folds_behind_a_floor_keep_an_image_together():
    logits, y = make_images()
    floored = ProbabilityFloor(MatrixScaling(cv=2))
    dense = DenseCalibration(floored, ignore_index=255).fit(logits, y)
    rows, labels = as_rows(logits, y, ignore_index=255)
    alone = clone(floored).fit(np.array(rows[:]), labels, groups=rows.row_groups())
    found = dense.calibrator_.calibrator_
    assert found.cv_losses_ == pytest.approx(alone.calibrator_.cv_losses_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_single_channel_is_read_as_two_are(tmp_path, dtype):
    logits, _ = make_images(n_classes=1)
    y = (logits[:, 0] > 1).astype(int)
    np.save(tmp_path / "logits.npy", logits.astype(dtype))
    file = np.load(tmp_path / "logits.npy", mmap_mode="r")
    both = np.concatenate([np.zeros_like(file), file], axis=1)
    data, whole = (
        check_calibration_set(TemperatureScaling(), as_rows(X), y.ravel(), None, None)
        for X in (file, both)
    )
    assert_array_equal(data.groups, whole.groups)
    assert data.source.dtype == dtype
    assert data.source.shape == whole.source.shape
    some = np.array([700, 3, 3])
    assert_array_equal(data.source.take(some), whole.source.take(some))
    some = slice(31, 64)
    assert_array_equal(data.source.read(some), whole.source.read(some))


def test_a_single_channel_stays_in_its_file(tmp_path):
    file = np.memmap(tmp_path / "z", np.float32, "w+", shape=(100, 1, 200, 200))
    tracemalloc.start()
    try:
        check_logits(TemperatureScaling(), as_rows(file))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < file.nbytes / 2


def test_cross_validation_goes_by_image():
    logits, y = make_images()
    dense = DenseCalibration(ignore_index=255)
    scores = cross_val_score(dense, logits, y, cv=3, scoring=ece_scorer)
    first = np.arange(24) < 8
    fitted = clone(dense).fit(logits[~first], y[~first])
    rows, labels = as_rows(
        fitted.predict_proba(logits[first]), y[first], ignore_index=255
    )
    assert scores[0] == pytest.approx(-expected_calibration_error(labels, rows))
    search = GridSearchCV(
        dense, {"calibrator": [TemperatureScaling(), PlattScaling()]}, cv=3
    ).fit(logits, y)
    assert search.best_score_ > 0.5


@pytest.mark.parametrize("of", ["images", "pixels"])
def test_weights_are_those_of_images_or_pixels(of):
    logits, y = make_images()
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 4, 24 if of == "images" else y.shape).astype(float)
    dense = DenseCalibration(ignore_index=255).fit(logits, y, weight)
    spread = np.broadcast_to(weight.T, y.T.shape).T
    rows, labels = flatten(logits, y)
    alone = TemperatureScaling().fit(rows, labels, spread[y != 255])
    assert dense.calibrator_.temperature_ == pytest.approx(alone.temperature_)
    assert dense.score(logits, y, weight) == pytest.approx(
        alone.score(rows, labels, spread[y != 255])
    )


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.parametrize(
    "dense",
    [
        DenseCalibration(StructuredMatrixScaling(), class_axis=-1),
        DenseCalibration(IsotonicCalibration()),
    ],
    ids=identify,
)
def test_rows_of_samples_are_what_every_calibrator_takes(dense):
    check_calibrator(dense)


def test_a_fitted_one_is_saved(tmp_path):
    logits, y = make_images()
    dense = DenseCalibration(PlattScaling(), ignore_index=255).fit(logits, y)
    save(dense, tmp_path / "dense.json")
    again = load(tmp_path / "dense.json")
    assert_array_equal(again.predict_proba(logits), dense.predict_proba(logits))
    assert again.ignore_index == 255


def test_arrays_that_do_not_fit_are_refused():
    logits, y = make_images()
    dense = DenseCalibration(ignore_index=255)
    with pytest.raises(ValueError, match=r"label at each place .* \(24, 4, 6\)"):
        clone(dense).set_params(class_axis=-1).fit(logits, y)
    with pytest.raises(ValueError, match="class_axis=4 is not an axis of classes"):
        as_rows(logits, class_axis=4)
    with pytest.raises(ValueError, match="class_axis=0 is not an axis"):
        as_rows(logits, class_axis=0)
    with pytest.raises(ValueError, match=r"y has shape \(24, 5, 5\)"):
        dense.fit(logits, y[:, 1:])
    with pytest.raises(ValueError, match="All 720 labels are ignore_index=255"):
        dense.fit(logits, np.full_like(y, 255))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(6, 5\)"):
        dense.fit(logits, y, np.ones((6, 5)))
    with pytest.raises(ValueError, match="y has 5 classes"):
        DenseCalibration().fit(logits, y)  # 255 is not ignored
    with pytest.raises(ValueError, match=r"X has shape \(0, 4, 6, 5\)"):
        as_rows(logits[:0])
    with pytest.raises(TypeError, match="X holds values of type"):
        as_rows(np.full((2, 3, 4), "a"))
    with pytest.raises(TypeError, match="MultiLabelCalibration does not"):
        DenseCalibration(MultiLabelCalibration()).fit(logits, y)
    fitted = dense.fit(logits, y)
    with pytest.raises(ValueError, match="X has 3 features"):
        fitted.predict_proba(logits[:, :3])
    logits[3, 1, 2, 4] = np.nan
    with pytest.raises(ValueError, match="contains NaN: row 104"):
        fitted.predict_proba(logits)


def test_an_out_that_cannot_hold_the_probabilities_is_refused():
    logits, y = np.random.default_rng(0).normal(size=(16, 3, 4)), np.zeros((16, 4), int)
    y[:, :2] = [1, 2]
    dense = DenseCalibration().fit(logits, y)
    with pytest.raises(TypeError, match="array of floats"):
        dense.predict_proba(logits, out=np.zeros((16, 3, 4), int))
    with pytest.raises(ValueError, match="as many units as X"):
        dense.predict_proba(logits, out=np.zeros((20, 3, 4)))


@pytest.mark.parametrize(
    ("y", "ignore_index"),
    [
        (np.zeros(12, dtype=int), np.nan),
        (np.zeros(12), "void"),
        (np.full(12, "a"), 255),
    ],
    ids=["nan of integers", "text of numbers", "a number of text"],
)
def test_a_label_that_cannot_occur_is_not_ignored_in_silence(y, ignore_index):
    logits = np.random.default_rng(0).normal(size=(3, 2, 2, 2))
    with pytest.raises(ValueError, match="is never a label: y holds values of type"):
        as_rows(logits, y.reshape(3, 2, 2), ignore_index=ignore_index)


@pytest.mark.parametrize("void", [255, -100])
@pytest.mark.parametrize(
    ("lacking", "classes"),
    [([], None), ([], [0, 1, 2]), ([2], None), ([1, 2], None)],
    ids=["beside all", "beside those named", "in the place of one", "beside a few"],
)
def test_a_label_of_no_column_is_told_to_be_ignored(void, lacking, classes):
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(6, 3, 4, 4)), rng.integers(0, 3, (6, 4, 4))
    y[np.isin(y, lacking)] = 0
    y[:, 0] = void
    dense = DenseCalibration(classes=classes)
    with pytest.raises(ValueError, match=rf"ignore_index={void} \(as_rows takes it"):
        dense.fit(logits, y)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([1, 2, 3], None), ([10, 20, 30], None), ([0, 255], None), ([0, 1, 9], [0, 1, 9])],
    ids=["counted from 1", "numbers of others", "a mask", "named"],
)
def test_whole_numbers_that_are_not_those_of_columns_may_be_classes(labels, classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, len(labels), 4, 4))
    y = np.array(labels)[rng.integers(0, len(labels), (6, 4, 4))]
    dense = DenseCalibration(classes=classes).fit(logits, y)
    assert dense.classes_.tolist() == labels


def test_numbers_of_numpy_are_options_and_truth_values_are_not():
    logits = np.random.default_rng(0).normal(size=(12, 3, 4))
    y = np.arange(48).reshape(12, 4) % 3
    y[0] = 255
    plain = DenseCalibration(class_axis=1, ignore_index=255).fit(logits, y)
    numbers = {"class_axis": np.int64(1), "ignore_index": np.uint8(255)}
    found = DenseCalibration(**numbers).fit(logits, y)
    assert found.calibrator_.temperature_ == plain.calibrator_.temperature_
    for name in numbers:
        with pytest.raises(TypeError, match=f"{name}=True is not a"):
            DenseCalibration(**{name: True}).fit(logits, y)


def test_places_of_nan_are_left_out():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(30, 2, 4)), rng.integers(0, 2, (30, 4)).astype(float)
    y[:, 0] = np.nan
    rows, labels = as_rows(logits, y, ignore_index=np.nan)
    assert labels.tolist() == y[:, 1:].ravel().tolist()
    weight = rng.random((30, 4))
    dense = DenseCalibration(ignore_index=np.nan).fit(logits, y, weight)
    known = TemperatureScaling().fit(rows, labels, weight[:, 1:].ravel())
    assert dense.calibrator_.temperature_ == pytest.approx(known.temperature_)
