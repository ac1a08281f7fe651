"""Fitted calibrators come back from their files as they were, and from no others."""

import copy
import importlib.metadata
import json
import random

import numpy as np
import pytest
from drawn_maps import GapPower, K, drawn_maps
from every_calibrator import CALIBRATORS, VARIANTS, identify
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB

import skcalib
from skcalib import (
    CalibratedClassifier,
    DenseCalibration,
    GroupCalibration,
    PriorShift,
    ProbabilityFloor,
    extending,
)
from skcalib._blocks import open_source
from skcalib._files import digest
from skcalib._maps import CalibrationMap, evaluate
from skcalib.calibrators import (
    DensityRatioCalibration,
    DirichletCalibration,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    ScalingBinning,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.datasets import make_logits
from skcalib.model_selection import CalibratorSearch

SAVED = [
    *CALIBRATORS,
    *VARIANTS,
    MatrixScaling(),
    DirichletCalibration(),
    ScalingBinning(VectorScaling()),
    CalibratorSearch(),
    CalibratorSearch([TemperatureScaling(), VectorScaling()], rule="best"),
]
# One alone, one in another, and one that a search has chosen.
NESTED = [TemperatureScaling(), ScalingBinning(VectorScaling()), SAVED[-1]]
LABELS = {
    "numbers": np.arange(4),
    "text": np.array(["cat", "dog", "emu", "yak"]),
    "objects": np.array(["cat", "dog", "emu", "yak"], dtype=object),
}


@pytest.mark.parametrize(
    ("calibrator", "labels"),
    [
        *((c, "text") for c in SAVED),
        *((c, kind) for c in NESTED for kind in ("numbers", "objects")),
    ],
    ids=identify,
)
def test_what_is_loaded_predicts_the_same_bit_for_bit(
    calibrator, labels, calibration_set, tmp_path
):
    logits, y = calibration_set
    fitted = calibrator.fit(logits, LABELS[labels][y])
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert type(loaded) is type(fitted)
    assert repr(loaded) == repr(fitted)
    assert vars(loaded).keys() == vars(fitted).keys()
    assert_array_equal(loaded.classes_, fitted.classes_)
    assert loaded.classes_.dtype == fitted.classes_.dtype
    fresh = np.random.default_rng(1).normal(scale=4, size=(50, 4))
    for X in (fresh, fresh.astype(np.float32)):
        assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
        assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_curves_of_logits_in_small_units_are_kept(calibration_set, tmp_path):
    logits, y = calibration_set
    fitted = PlattScaling().fit(logits / 100, y)
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert loaded.unit_ == fitted.unit_ < 1
    probas = [c.predict_proba(logits / 100) for c in (loaded, fitted)]
    assert_array_equal(*probas)


def test_what_is_loaded_can_be_fitted_saved_and_read_again(calibration_set, tmp_path):
    fitted = MatrixScaling(cv=3).fit(*calibration_set)
    skcalib.save(fitted, tmp_path / "first.json")
    loaded = skcalib.load(tmp_path / "first.json")
    skcalib.save(loaded, tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (
        tmp_path / "second.json"
    ).read_bytes()
    assert_array_equal(loaded.fit(*calibration_set).coef_, fitted.coef_)


def test_features_beside_the_logits_are_kept(calibration_set, tmp_path):
    logits, y = calibration_set
    features = np.random.default_rng(0).normal(size=(len(y), 3))
    fitted = DensityRatioCalibration().fit(logits, y, features=features)
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert_array_equal(
        loaded.predict_proba(logits, features=features),
        fitted.predict_proba(logits, features=features),
    )


def without_a_map(logits, y):
    """Yield fitted calibrators that have no map, and a value that matters to each."""
    groups = np.array(["a", "b"])[np.arange(len(y)) % 2]
    features = np.random.default_rng(0).normal(loc=50, size=(len(y), 3))
    grouped = GroupCalibration().fit(logits, y, groups=groups)
    yield grouped, grouped.calibrator_, "temperature_"
    yield (
        (alone := GroupCalibration().fit(logits, y)),
        alone.calibrator_,
        "temperature_",
    )
    for more in ({}, {"features": features}):
        ratio = DensityRatioCalibration().fit(logits, y, **more)
        yield ratio, ratio, "_typical"


def test_a_calibrator_without_a_map_predicts_the_same_or_is_refused(
    calibration_set, tmp_path
):
    path = tmp_path / "c.json"
    for fitted, part, key in without_a_map(*calibration_set):
        skcalib.save(fitted, path, overwrite=True)
        assert vars(skcalib.load(path)).keys() == vars(fitted).keys()
        document = json.loads(path.read_text())
        assert document["map"] is None
        was = getattr(part, key)
        setattr(part, key, 2 * was)
        skcalib.save(fitted, path, overwrite=True)
        told = document["calibrator"]["told"]
        other = json.loads(path.read_text())
        other["calibrator"]["told"] = told
        with pytest.raises(ValueError, match="would predict something else"):
            load_document(other, tmp_path)
        del other["calibrator"]["told"]
        with pytest.raises(ValueError, match=r"make no map \('told'\)"):
            load_document(other, tmp_path)


def test_names_of_columns_are_kept_without_a_map(calibration_set, tmp_path):
    pandas = pytest.importorskip("pandas")
    logits, y = calibration_set
    frame = pandas.DataFrame(logits, columns=list("wxyz"))
    features = pandas.DataFrame(logits[:, :2], columns=["u", "v"])
    labels = np.array(list("wxyz"))[y]
    for kind, more in (
        (GroupCalibration, {}),
        (DensityRatioCalibration, {"features": features}),
    ):
        fitted = kind().fit(frame, labels, **more)
        skcalib.save(fitted, tmp_path / f"{kind.__name__}.json")
        loaded = skcalib.load(tmp_path / f"{kind.__name__}.json")
        assert loaded.feature_names_in_.tolist() == list("wxyz")


def test_values_of_another_version_make_no_calibrator_without_a_map(
    calibration_set, tmp_path
):
    path = tmp_path / "c.json"
    skcalib.save(DensityRatioCalibration().fit(*calibration_set), path)
    document = json.loads(path.read_text())
    learned = document["calibrator"]["learned"]
    learned["_formerly"] = learned.pop("_model")
    with pytest.raises(ValueError, match=r"make no map \(.* no attribute '_model'"):
        load_document(document, tmp_path)


def test_parameters_without_a_number_in_json_are_kept(calibration_set, tmp_path):
    fitted = TemperatureScaling().fit(*calibration_set)
    fitted.loss_ = np.inf
    skcalib.save(fitted, tmp_path / "c.json")
    assert skcalib.load(tmp_path / "c.json").loss_ == np.inf


def test_the_file_says_what_is_computed(tmp_path):
    logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    fitted = TemperatureScaling().fit(logits, [0, 0, 1, 1])
    skcalib.save(fitted, tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["format"] == "skcalib calibrator"
    assert document["version"] == 1
    assert document["calibrator"]["learned"]["temperature_"] == fitted.temperature_
    scale = {"record": {"class": "Scale", "factor": 1 / fitted.temperature_}}
    assert document["map"] == {"map": [scale, {"record": {"class": "Softmax"}}]}


def test_a_file_that_exists_is_replaced_only_on_demand(calibration_set, tmp_path):
    fitted = TemperatureScaling().fit(*calibration_set)
    path = tmp_path / "c.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        skcalib.save(fitted, path)
    assert path.read_text() == "mine"
    skcalib.save(fitted, path, overwrite=True)
    assert skcalib.load(path).temperature_ == fitted.temperature_


class Stranger(TemperatureScaling):
    """A calibrator that no package names."""


def test_what_cannot_be_saved_is_refused_before_a_file_is_made(
    calibration_set, tmp_path
):
    path = tmp_path / "c.json"
    with pytest.raises(NotFittedError):
        skcalib.save(TemperatureScaling(), path)
    with pytest.raises(TypeError, match="not a KFold"):
        skcalib.save(KFold(), path)
    with pytest.raises(TypeError, match=r"entry-points\.\"skcalib\.calibrators\""):
        skcalib.save(Stranger().fit(*calibration_set), path)
    search = CalibratorSearch([TemperatureScaling()], cv=KFold(3), rule="best")
    with pytest.raises(TypeError, match=r"cv holds a sklearn.*KFold.*set_params\(cv="):
        skcalib.save(search.fit(*calibration_set), path)
    assert not path.exists()


def test_a_calibrated_classifier_is_told_how_it_is_kept(tmp_path):
    logits, y = make_logits(100, 3, random_state=0)
    whole = CalibratedClassifier(GaussianNB(), TemperatureScaling()).fit(logits, y)
    with pytest.raises(TypeError, match=r"calibrators_.*whole is kept by joblib\.dump"):
        skcalib.save(whole, tmp_path / "whole.json")
    skcalib.save(whole.calibrators_[0], tmp_path / "calibrator.json")
    assert [path.name for path in tmp_path.iterdir()] == ["calibrator.json"]


def name_gap_power(monkeypatch):
    """Let a package name the operation GapPower of the drawn maps, beside another."""
    group = "skcalib.operations"
    points = [
        importlib.metadata.EntryPoint("Unwanted", "no_such_module:Unwanted", group),
        importlib.metadata.EntryPoint("GapPower", "drawn_maps:GapPower", group),
    ]
    found = {group: points}
    monkeypatch.setattr(extending, "entry_points", lambda group: found.get(group, []))


@pytest.mark.parametrize("name", drawn_maps(np.random.default_rng(0)))
def test_every_operation_comes_back_from_a_file(
    name, calibration_set, tmp_path, monkeypatch
):
    name_gap_power(monkeypatch)
    fitted = TemperatureScaling().fit(*calibration_set)
    fitted.map_ = CalibrationMap(*drawn_maps(np.random.default_rng(0))[name])
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert repr(loaded.map_) == repr(fitted.map_)
    source = open_source(np.random.default_rng(1).normal(size=(20, K)))
    assert_array_equal(evaluate(loaded.map_, source), evaluate(fitted.map_, source))


@pytest.mark.parametrize("named", [False, True])
def test_classes_that_are_dates_are_to_be_text(named, calibration_set, tmp_path):
    logits, y = calibration_set
    dates = np.arange("2026-01-01", "2026-01-05", dtype="M8[D]")
    fitted = TemperatureScaling(classes=dates if named else None).fit(logits, dates[y])
    message = r"classes_? holds an array of datetime.* numbers or text: y.astype\(str\)"
    with pytest.raises(TypeError, match=message):
        skcalib.save(fitted, tmp_path / "c.json")
    fitted.set_params(classes=None).fit(logits, dates[y].astype(str))
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert_array_equal(loaded.classes_.astype("M8[D]"), dates)


def test_what_is_learned_and_no_data_is_no_parameter_to_set(calibration_set, tmp_path):
    fitted = TemperatureScaling().fit(*calibration_set)
    fitted.table_ = object()
    with pytest.raises(TypeError, match=r"table_ holds .* first: fit again\."):
        skcalib.save(fitted, tmp_path / "c.json")


@pytest.mark.parametrize("kind", ["range", "Index", "Series", "Int64", "tensor"])
def test_classes_that_are_no_array_come_back_as_one(kind, calibration_set, tmp_path):
    logits, y = calibration_set
    classes = np.arange(1, 5)
    if kind == "range":
        given = range(1, 5)
    elif kind == "tensor":
        given = pytest.importorskip("torch").tensor(classes)
    else:
        pandas = pytest.importorskip("pandas")
        name, dtype = ("Series", "Int64") if kind == "Int64" else (kind, None)
        given = getattr(pandas, name)(classes, dtype=dtype)
    fitted = TemperatureScaling(classes=given).fit(logits, classes[y])
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert isinstance(loaded.classes, np.ndarray)
    assert_array_equal(loaded.classes, classes)
    assert_array_equal(loaded.predict(logits), fitted.predict(logits))


@pytest.mark.parametrize("index", ["labels", "numbers", "none"])
@pytest.mark.parametrize(
    "wrap", [ProbabilityFloor, DenseCalibration, lambda part: CalibratorSearch([part])]
)
def test_shares_of_a_calibrator_that_is_to_be_fitted_are_kept(
    index, wrap, calibration_set, tmp_path
):
    pd = pytest.importorskip("pandas")
    logits, y = calibration_set
    labels = {"labels": list("dbca"), "numbers": [3, 1, 2, 0], "none": None}[index]
    shares = pd.Series([0.4, 0.3, 0.2, 0.1], index=labels)
    y = np.array(list("abcd"))[y] if index == "labels" else y
    shift = PriorShift(TemperatureScaling(), priors=shares)
    fitted = wrap(shift).fit(logits, y)
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    for calibrator in (loaded, clone(loaded).fit(logits, y)):
        proba = calibrator.predict_proba(logits)
        assert_array_equal(proba, fitted.predict_proba(logits))


@pytest.mark.parametrize("name", ["priors", "sampling_priors"])
@pytest.mark.parametrize("index", ["labels", "numbers", "none"])
def test_a_series_of_shares_comes_back_as_it_is_read(
    name, index, calibration_set, tmp_path
):
    pandas = pytest.importorskip("pandas")
    logits, y = calibration_set
    labels = np.array([3, 1, 2, 0] if index == "numbers" else list("dbca"))
    places = None if index == "none" else labels[::-1]
    shares = pandas.Series([0.1, 0.2, 0.3, 0.4], index=places)
    # An index of other numbers than the classes, as of rows that were left.
    classes = pandas.Series(labels, index=[7, 5, 8, 6])
    shift = PriorShift(TemperatureScaling(), classes=classes, **{name: shares})
    fitted = shift.fit(logits, labels[y])
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    again = clone(loaded).fit(logits, labels[y])
    for of in (loaded, again):
        assert_array_equal(of.classes_, labels)
        assert_array_equal(of.fit_priors_, fitted.fit_priors_)
        assert_array_equal(of.priors_, fitted.priors_)


def test_an_operation_whose_package_is_missing_is_refused(
    calibration_set, tmp_path, monkeypatch
):
    path = tmp_path / "c.json"
    fitted = TemperatureScaling().fit(*calibration_set)
    fitted.map_ = CalibrationMap(GapPower(np.ones(4), 1.5))
    with pytest.raises(TypeError, match=r"operations\"\] GapPower = \"drawn_maps:Gap"):
        skcalib.save(fitted, path)
    assert not path.exists()
    with monkeypatch.context() as installed:
        name_gap_power(installed)
        skcalib.save(fitted, path)
    with pytest.raises(ValueError, match=r"'GapPower' is no operation .* Install what"):
        skcalib.load(path)


def test_a_class_whose_name_is_taken_is_not_saved(calibration_set, tmp_path):
    namesake = type("TemperatureScaling", (Stranger,), {"__module__": "mine"})
    with pytest.raises(TypeError, match=r"take TemperatureScaling of mine .*another"):
        skcalib.save(namesake().fit(*calibration_set), tmp_path / "c.json")


@pytest.fixture
def document(calibration_set, tmp_path):
    fitted = IsotonicCalibration().fit(*calibration_set)
    skcalib.save(fitted, tmp_path / "c.json")
    return json.loads((tmp_path / "c.json").read_text())


def load_document(document, tmp_path):
    """Read a document whose checksum is right, as a hostile one would have it."""
    path = tmp_path / "changed.json"
    content = {key: document.get(key) for key in ("calibrator", "map")}
    document["sha256"] = digest(content)
    path.write_text(json.dumps(document))
    return skcalib.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pickle"}, "holds no calibrator"),
        (
            {"version": 2, "skcalib": "9.0"},
            "version 2 .* skcalib 9.0. .* reads version 1",
        ),
        ({"calibrator": None}, "cannot be read: TypeError"),
        ({"calibrator": {"class": "os.system"}}, "'os.system' is no calibrator"),
        ({"map": None}, "makes another map"),
    ],
)
def test_what_is_no_such_file_is_refused(document, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_document(document | change, tmp_path)


def test_learned_values_that_make_another_map_are_refused(calibration_set, tmp_path):
    skcalib.save(TemperatureScaling().fit(*calibration_set), tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    document["calibrator"]["learned"]["temperature_"] = 1.0
    with pytest.raises(ValueError, match="would predict something else"):
        load_document(document, tmp_path)


@pytest.mark.parametrize("key", ["predict_proba", "fit", "__class__"])
def test_learned_values_take_the_place_of_no_method(document, tmp_path, key):
    document["calibrator"]["learned"][key] = 1
    with pytest.raises(ValueError, match="are no learned values of IsotonicCalib"):
        load_document(document, tmp_path)


@pytest.mark.parametrize("dtype", ["|O", "<M8[s]", "|V8"])
def test_arrays_hold_numbers_and_text_only(document, tmp_path, dtype):
    array = {"dtype": dtype, "shape": [1], "base64": "AAAAAAAAAAA="}
    document["calibrator"]["learned"]["classes_"] = {"array": array}
    with pytest.raises(ValueError, match="more than numbers and text"):
        load_document(document, tmp_path)


def test_an_array_asks_for_no_more_memory_than_the_file_has(document, tmp_path):
    array = {"dtype": "<f8", "shape": [1 << 40], "base64": "AAAAAAAAAAA="}
    document["calibrator"]["learned"]["classes_"] = {"array": array}
    with pytest.raises(ValueError, match="8 bytes are no array of shape"):
        load_document(document, tmp_path)


def test_deeply_nested_values_are_refused(document, tmp_path):
    text = json.dumps(document)
    deep = text.replace('"parameters": {', '"parameters": {"classes": ' + "[" * 900, 1)
    (tmp_path / "deep.json").write_text(deep.replace('"classes": null', "]" * 900, 1))
    with pytest.raises(ValueError, match=r"deep\.json' (cannot be read|is not a JSON)"):
        skcalib.load(tmp_path / "deep.json")


def nodes(content):
    """Yield every container of a document and a key into it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield content, key
        if isinstance(value, dict | list):
            yield from nodes(value)


def changed_documents(document, count):
    """Yield documents with one value missing or another one in its place."""
    generator = random.Random(0)
    other = [None, -1, 0.5, "x", [], {}, {"tuple": [1]}, {"array": {}}, {"map": [3]}]
    for _ in range(count):
        changed = copy.deepcopy(document)
        container, key = generator.choice(list(nodes(changed)))
        if generator.random() < 0.3:
            del container[key]
        else:
            container[key] = generator.choice(other)
        if changed != document:
            yield changed


def test_a_changed_file_is_refused(document, tmp_path):
    del document["skcalib"]
    for changed in changed_documents(document, 200):
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"changed\.json"):
            skcalib.load(tmp_path / "changed.json")


def test_a_file_made_up_gives_a_calibrator_or_an_error_that_names_it(
    document, tmp_path
):
    refused = 0
    for changed in changed_documents(document, 300):
        try:
            assert type(load_document(changed, tmp_path)) is IsotonicCalibration
        except ValueError as error:
            assert "changed.json" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


def test_damaged_bytes_give_an_error_that_names_the_file(document, tmp_path):
    generator = np.random.default_rng(0)
    data = np.frombuffer(json.dumps(document).encode(), np.uint8)
    path = tmp_path / "damaged.json"
    for _ in range(100):
        changed = data.copy()
        place = generator.integers(data.size - 40)
        changed[place : place + 40] = generator.integers(256, size=40)
        path.write_bytes(changed.tobytes())
        with pytest.raises(ValueError, match=r"damaged\.json"):
            skcalib.load(path)


def test_a_calibrator_that_asks_for_metadata_is_saved(tmp_path):
    X, y = make_logits(300, 3, random_state=0)
    with config_context(enable_metadata_routing=True):
        asks = TemperatureScaling().set_fit_request(sample_weight=True).fit(X, y)
    path = tmp_path / "asks.json"
    skcalib.save(asks, path)
    assert_array_equal(skcalib.load(path).predict_proba(X), asks.predict_proba(X))


@pytest.mark.parametrize(("change", "is_same"), [(1 + 2e-16, True), (1 + 1e-9, False)])
@pytest.mark.parametrize("calibrator", [TemperatureScaling(), VectorScaling()])
def test_a_map_may_differ_by_rounding_alone(tmp_path, calibrator, change, is_same):
    fitted = calibrator.fit(*make_logits(300, 3, random_state=0))
    path = tmp_path / "c.json"
    skcalib.save(fitted, path)
    content = skcalib._saving._map_of(fitted)
    moved = copy.deepcopy(fitted)
    name = "temperature_" if hasattr(moved, "temperature_") else "intercept_"
    setattr(moved, name, getattr(moved, name) * change)
    assert skcalib._saving._is_alike(skcalib._saving._map_of(moved), content) is is_same
