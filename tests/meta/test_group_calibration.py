import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

import skcalib
from skcalib import (
    BoostedCalibration,
    GroupCalibration,
    IsotonicCalibration,
    PriorShift,
    ProbabilityFloor,
    TemperatureScaling,
)
from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers import _group_scaling
from skcalib._solvers._group_scaling import fit_groups
from skcalib.datasets import make_logits
from skcalib.testing import check_calibrator

SIZES = [0.6, 0.37, 0.03]


def draw_groups(n_rows=6000, factors=(1.0, 2.0, 0.5), seed=0):
    """Logits of ten classes that are multiplied by a factor in each group."""
    X, y = make_logits(n_rows, 10, random_state=seed)
    rng = np.random.default_rng(seed)
    number = rng.choice(3, n_rows, p=SIZES)
    X = X.astype(np.float64) * np.array(factors)[number, np.newaxis]
    return X, y, np.array(["a", "b", "c"])[number]


def has_the_whole(grouped, name):
    """Whether a group has the calibrator of the whole, and not one of its own."""
    return type(grouped.calibrator_of(name)) is type(grouped.calibrator_)


def test_without_groups_it_keeps_the_contract():
    check_calibrator(GroupCalibration(IsotonicCalibration(), structure="vector"))


@pytest.mark.parametrize("structure", ["temperature", "vector"])
def test_groups_that_differ_are_told_apart(structure):
    X, y, groups = draw_groups()
    grouped = GroupCalibration(structure=structure).fit(X, y, groups=groups)
    assert np.isfinite(grouped.strength_)
    X, y, groups = draw_groups(seed=1)
    rows = np.arange(y.size)
    after = grouped.predict_proba(X, groups=groups)
    whole = grouped.calibrator_.predict_proba(X)
    losses = [-np.log(q[rows, y]).mean() for q in (whole, after)]
    assert losses[1] < losses[0] - 0.01
    assert_allclose(after.sum(axis=1), 1)


def test_groups_that_do_not_differ_stay_together():
    X, y, groups = draw_groups(factors=(1, 1, 1))
    grouped = GroupCalibration().fit(X, y, groups=groups)
    assert grouped.strength_ == np.inf
    assert_allclose(
        grouped.predict_proba(X, groups=groups), grouped.calibrator_.predict_proba(X)
    )


def test_a_small_group_stays_near_the_whole_and_a_large_one_is_free():
    X, y, _ = draw_groups(5020, factors=(1, 1, 1))
    X[:20] *= 3
    X[2520:] *= 3
    groups = np.repeat(["small", "whole", "large"], [20, 2500, 2500])
    fixed = GroupCalibration(TemperatureScaling(), strength=100.0)
    fixed.fit(X, y, groups=groups)
    coef = dict(zip(fixed.groups_, fixed.coef_[:, 0], strict=True))
    assert abs(coef["small"] - 1) < 0.35 * abs(coef["large"] - 1)
    assert coef["large"] < 0.8 < 1.2 < coef["whole"]


@pytest.mark.parametrize("structure", ["temperature", "vector"])
@pytest.mark.parametrize("strength", [1.0, 300.0])
def test_the_penalised_loss_is_least(structure, strength):
    X, y = make_logits(200, 3, random_state=0)
    X = X.astype(np.float64)
    data = CalibrationData(ArraySource(X), y, np.ones(200))
    result = fit_groups(data, np.zeros(200, dtype=int), 1, strength, structure)
    v, b = result.x[:, 0]

    def loss(x):
        v, b = (x, 0 * X[0]) if structure == "temperature" else np.split(x, 2)
        z = v * X + b
        fit = (logsumexp(z, axis=1) - z[np.arange(200), y]).mean()
        factor = 1 if structure == "temperature" else 3
        size = ((v - 1) ** 2).sum() + (b**2).sum()
        return fit + factor * strength / 200 * size

    start = np.ones(1) if structure == "temperature" else np.repeat([1.0, 0.0], 3)
    best = minimize(loss, start, tol=1e-12)
    found = v[:1] if structure == "temperature" else np.concatenate([v, b])
    assert_allclose(found, best.x, atol=1e-4)
    assert result.converged
    assert result.loss == pytest.approx(best.fun, abs=1e-9)
    assert result.gradient_norm < 1e-4


@pytest.mark.parametrize("structure", ["temperature", "vector"])
def test_groups_are_fitted_at_once_as_each_is_alone(structure):
    X, y, groups = draw_groups(900)
    number = np.searchsorted(["", "a", "b", "c"], groups)  # of the first are no rows
    weight = np.random.default_rng(0).random(900)
    data = CalibrationData(ArraySource(X), y, weight)
    found = fit_groups(data, number, 4, 3.0, structure).x
    assert_array_equal(found[:, 0], np.stack([np.ones(10), np.zeros(10)]))
    for group in (1, 2, 3):
        rows = np.flatnonzero(number == group)
        none = np.zeros(rows.size, dtype=int)
        alone = fit_groups(data.subset(rows), none, 1, 3.0, structure).x
        assert_allclose(found[:, group], alone[:, 0], atol=1e-9)


def test_a_step_that_is_too_long_is_shortened_in_its_group_only():
    # Sure and wrong in half of the rows: where all are sure, no curvature is left.
    X = np.repeat([[-40.0, 0.0], [-2.0, 0.0], [-1e4, 0.0]], 10, axis=0)
    y, number = np.tile([0, 1, 1, 0, 1], 6), np.repeat([0, 1, 2], 10)
    data = CalibrationData(ArraySource(X), y, np.ones(30))
    result = fit_groups(data, number, 3, 1e-3, "temperature")
    assert result.converged
    for group, v in enumerate(result.x[0, :, 0]):
        z, hit = X[number == group, 0], y[number == group] == 0

        def loss(v, z=z, hit=hit):
            return np.logaddexp(0, np.where(hit, -v, v) * z).sum() + 1e-3 * (v - 1) ** 2

        best = minimize_scalar(loss, (0, 1), tol=1e-12)
        assert loss(v) <= best.fun + 1e-12


@pytest.mark.parametrize("structure", ["temperature", "vector"])
def test_a_search_that_ends_early_is_reported(monkeypatch, structure):
    X, y, groups = draw_groups(600)
    monkeypatch.setattr(_group_scaling, "_MAX_ITER", 1)
    grouped = GroupCalibration(strength=1.0, structure=structure)
    message = r"GroupCalibration stopped early: max_iter=1 was reached in 3 groups"
    with pytest.warns(ConvergenceWarning, match=message):
        grouped.fit(X, y, groups=groups)


def test_many_groups_take_no_more_copies_of_the_rows_than_few(monkeypatch):
    X, y, _ = draw_groups(600)
    copies = []
    subset = CalibrationData.subset
    monkeypatch.setattr(
        CalibrationData, "subset", lambda *args: copies.append(1) or subset(*args)
    )
    counts = []
    for n_groups in (2, 60):
        copies.clear()
        GroupCalibration(TemperatureScaling()).fit(
            X, y, groups=np.arange(600) % n_groups
        )
        counts.append(len(copies))
    assert counts[0] == counts[1]


def test_names_of_groups_are_not_compared_with_every_row():
    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

    X, y, _ = draw_groups(1000)
    groups = np.array([Name(i % 200) for i in range(1000)], dtype=object)
    grouped = GroupCalibration(TemperatureScaling(), strength=10.0)
    grouped.fit(X, y, groups=groups)
    Name.compared = 0
    proba = grouped.predict_proba(X, groups=groups)
    assert Name.compared < 5000
    assert_allclose(
        proba[7::200], grouped.calibrator_of("7").predict_proba(X[7::200]), atol=1e-12
    )


def test_a_row_is_not_held_against_every_group():
    class Name(str):
        asked = 0

        def __hash__(self):
            Name.asked += 1
            return str.__hash__(self)

        def __lt__(self, other):
            Name.asked += 1
            return str.__lt__(self, other)

        def __str__(self):
            Name.asked += 1
            return str.__str__(self)

    X, y, _ = draw_groups(1000)
    groups = np.array([Name(i) for i in range(1000)], dtype=object)
    grouped = GroupCalibration(TemperatureScaling(), strength=10.0)
    grouped.fit(X, y, groups=groups)
    expected = grouped.predict_proba(X, groups=groups)
    for names, proba in (([groups[7]], expected[7:8]), ([Name("new")], None)):
        Name.asked = 0
        found = grouped.predict_proba(X[7:8], groups=np.array(names, dtype=object))
        assert Name.asked < 50
        whole = grouped.calibrator_.predict_proba(X[7:8])
        assert_allclose(found, whole if proba is None else proba, atol=1e-12)


def test_without_groups_every_group_has_the_whole():
    X, y, _ = draw_groups(100)
    grouped = GroupCalibration().fit(X, y)
    assert has_the_whole(grouped, "a")


def test_a_group_that_was_not_seen_gets_the_whole():
    X, y, groups = draw_groups(2000)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    new = np.full(2000, "z")
    assert_allclose(
        grouped.predict_proba(X, groups=new), grouped.calibrator_.predict_proba(X)
    )
    assert has_the_whole(grouped, "z")


@pytest.mark.parametrize("name", ["b", "z"])
def test_the_calibrator_of_a_group_is_the_users_to_fit_again(name):
    X, y, groups = draw_groups(600)
    grouped = GroupCalibration(TemperatureScaling()).fit(X, y, groups=groups)
    before = grouped.predict_proba(X, groups=[name] * 600)
    alone = grouped.calibrator_of(name)
    assert_allclose(alone.predict_proba(X), before)
    alone.fit(3 * X, y)
    assert_array_equal(grouped.predict_proba(X, groups=[name] * 600), before)


def test_the_calibrator_of_a_group_predicts_the_same(tmp_path):
    X, y, groups = draw_groups(2000)
    grouped = GroupCalibration(strength=1.0, structure="vector")
    grouped.fit(X, y, groups=groups)
    rows = groups == "b"
    alone = grouped.calibrator_of("b")
    expected = grouped.predict_proba(X[rows], groups=groups[rows])
    assert_allclose(alone.predict_proba(X[rows]), expected, atol=1e-12)
    skcalib.save(alone, tmp_path / "b.json")
    loaded = skcalib.load(tmp_path / "b.json")
    assert_allclose(loaded.predict_proba(X[rows]), expected, atol=1e-12)
    skcalib.save(grouped, tmp_path / "all.json")
    loaded = skcalib.load(tmp_path / "all.json")
    assert_allclose(
        loaded.predict_proba(X, groups=groups), grouped.predict_proba(X, groups=groups)
    )


@pytest.mark.onnx
def test_the_calibrator_of_a_group_is_exported():
    ort = pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    X, y, groups = draw_groups(1000)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    alone, X = grouped.calibrator_of("b"), X.astype(np.float32)
    session = ort.InferenceSession(to_onnx(alone).SerializeToString())
    served = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert_allclose(served, alone.predict_proba(X), atol=1e-6)


@pytest.mark.onnx
@pytest.mark.parametrize("names", [np.array(["a", "b", "c"]), np.array([7, -2, 30])])
@pytest.mark.parametrize("structure", ["temperature", "vector"])
def test_all_groups_are_exported_as_one_graph(names, structure):
    ort = pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    X, y, groups = draw_groups(1500)
    groups = names[np.searchsorted(["a", "b", "c"], groups)]
    grouped = GroupCalibration(strength=1.0, structure=structure)
    grouped.fit(X, y, groups=groups)
    session = ort.InferenceSession(to_onnx(grouped, dtype=float).SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["logits", "group"]
    groups[:9] = "new" if groups.dtype.kind == "U" else 5
    feed = {
        "logits": X,
        "group": groups.astype(object if groups.dtype.kind == "U" else int),
    }
    proba, label = session.run(None, feed)
    assert_allclose(proba, grouped.predict_proba(X, groups=groups), atol=1e-12)
    assert_array_equal(label, grouped.predict(X, groups=groups))


@pytest.mark.onnx
def test_a_model_is_calibrated_by_groups_in_one_graph():
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    calibrate = pytest.importorskip("skcalib.export").calibrate_onnx_model
    X, y, groups = draw_groups(1500)
    X = X.astype(np.float32)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    info = onnx.helper.make_tensor_value_info
    values = [info(name, onnx.TensorProto.FLOAT, ["n", 10]) for name in ("group", "p")]
    # The input's name is taken, so that the groups get another.
    nodes = [onnx.helper.make_node("Softmax", ["group"], ["p"], axis=1)]
    for opsets in ([("", 17)], [("", 17), ("ai.onnx.ml", 1)]):
        model = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, "g", values[:1], values[1:]),
            opset_imports=[onnx.helper.make_opsetid(*opset) for opset in opsets],
            ir_version=8,
        )
        written = calibrate(model, grouped)
        onnx.checker.check_model(written)
        session = ort.InferenceSession(written.SerializeToString())
        first, second = (value.name for value in session.get_inputs())
        assert (first, second) == ("group", "group_2")
        served = session.run(["p"], {first: X, second: groups.astype(object)})[0]
        assert_allclose(served, grouped.predict_proba(X, groups=groups), atol=1e-6)


@pytest.mark.onnx
def test_groups_that_a_graph_cannot_read_are_refused():
    pytest.importorskip("onnx")
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    X, y, groups = draw_groups(600)
    halves = np.searchsorted(["a", "b", "c"], groups) / 2
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=halves)
    with pytest.raises(ValueError, match=r"type float, such as 0\.0.*calibrator_of"):
        to_onnx(grouped)


@pytest.mark.torch
def test_all_groups_are_exported_as_one_module():
    torch = pytest.importorskip("torch")
    to_torch = pytest.importorskip("skcalib.export").to_torch
    X, y, groups = draw_groups(1500)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    groups[:9] = "new"
    number = torch.tensor([("abc".find(name[0])) for name in groups])
    module = to_torch(grouped)
    expected = grouped.predict_proba(X, groups=groups)
    for unseen in (-1, 3, 1000):
        number[:9] = unseen
        proba = module(torch.tensor(X), number)
        assert_allclose(proba.numpy(), expected, atol=1e-12)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        proba = module(torch.tensor(X), number.clamp(max=3).to(dtype))
        assert_allclose(proba.numpy(), expected, atol=1e-12)
    assert module(torch.tensor(X).float(), number).dtype == torch.float32
    with pytest.raises(ValueError, match="each of the 1500 rows needs one whole"):
        module(torch.tensor(X), number.double())


@pytest.mark.onnx
def test_without_groups_the_whole_is_exported():
    ort = pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    X, y, _ = draw_groups(600)
    whole = GroupCalibration().fit(X, y)
    session = ort.InferenceSession(to_onnx(whole, dtype=float).SerializeToString())
    (name,) = (value.name for value in session.get_inputs())
    proba = session.run(["probabilities"], {name: X})[0]
    assert_allclose(proba, whole.predict_proba(X), atol=1e-12)


def test_weights_are_repetitions_and_rows_of_no_weight_are_none():
    X, y, groups = draw_groups(600)
    weight = np.random.default_rng(0).integers(0, 3, 600)
    fixed = GroupCalibration(strength=10.0)
    weighted = fixed.fit(X, y, sample_weight=weight, groups=groups).coef_
    repeated = [part.repeat(weight, axis=0) for part in (X, y, groups)]
    again = fixed.fit(*repeated[:2], groups=repeated[2]).coef_
    assert_allclose(weighted, again, rtol=1e-6)


def test_groups_have_to_be_there_both_times_or_never():
    X, y, groups = draw_groups(500)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="fitted with groups and is asked"):
        grouped.predict(X)
    with pytest.raises(ValueError, match="fitted without groups and is asked"):
        GroupCalibration().fit(X, y).predict_proba(X, groups=groups)
    assert grouped.score(X, y, groups=groups) > 0.5


def test_groups_are_checked():
    X, y, groups = draw_groups(100)
    with pytest.raises(ValueError, match="one entry for each of the 100 rows"):
        GroupCalibration().fit(X, y, groups=np.column_stack([groups, groups]))
    with pytest.raises(ValueError, match=r"groups has shape \(50,\)"):
        GroupCalibration().fit(X, y, groups=groups[:50])
    for numbers in (np.zeros(100), groups.astype(object)):
        numbers[3] = np.nan
        with pytest.raises(ValueError, match="nan in row 3"):
            GroupCalibration().fit(X, y, groups=numbers)


def test_groups_of_several_types_are_refused_in_a_list_too():
    X, y, _ = draw_groups(100)
    for other in (1, b"b", None):
        with pytest.raises(TypeError, match=r"entries of the types .*, which have no"):
            GroupCalibration().fit(X, y, groups=["a", other] * 50)


@pytest.mark.parametrize("names", ["012", "xyz"])
@pytest.mark.parametrize("other", [str, bytes])
def test_groups_named_by_another_type_than_in_fit_are_told(other, names):
    X, y, groups = draw_groups(500)
    number = np.searchsorted(["a", "b", "c"], groups)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=number)
    given = np.array(list(names), dtype=np.dtype(other))[number]
    message = "was not seen in fit, which saw 0, .* by values of the type int"
    with pytest.warns(UserWarning, match=message):
        grouped.predict_proba(X, groups=given)
    with pytest.warns(UserWarning, match=message):
        assert has_the_whole(grouped, min(given.tolist()))


def test_a_single_name_of_another_type_is_told():
    X, y, groups = draw_groups(500)
    names = np.where(groups == "a", "1", groups).astype(object)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=names)
    with pytest.warns(UserWarning, match="group b'1' was not seen in fit, .* saw '1'"):
        grouped.calibrator_of(b"1")


def test_whole_numbers_are_one_group_as_int_and_float():
    X, y, groups = draw_groups(500)
    number = np.searchsorted(["a", "b", "c"], groups)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=number)
    expected = grouped.predict_proba(X, groups=number)
    assert_array_equal(grouped.predict_proba(X, groups=number.astype(float)), expected)


def as_dates(groups, kind="M8[us]"):
    """Dates, or durations, one for each group of `draw_groups`."""
    number = np.searchsorted(["a", "b", "c"], groups)
    days = np.datetime64("2026-01-01") + number
    return (days - days.min() if kind[0] == "m" else days).astype(kind)


@pytest.mark.parametrize("kind", ["M8", "m8"])
@pytest.mark.parametrize("of_fit", ["D", "us", "ns"])
def test_dates_are_one_group_in_any_unit(kind, of_fit):
    X, y, groups = draw_groups(500)
    times = as_dates(groups, f"{kind}[{of_fit}]")
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=times)
    expected = GroupCalibration(strength=1.0).fit(X, y, groups=groups)
    expected = expected.predict_proba(X, groups=groups)
    for unit in ("s", "us", "ns"):
        times = as_dates(groups, f"{kind}[{unit}]")
        assert_array_equal(grouped.predict_proba(X, groups=times), expected)
        assert not has_the_whole(grouped, times[0])
    objects = as_dates(groups, f"{kind}[D]").tolist()
    assert_array_equal(grouped.predict_proba(X, groups=objects), expected)
    assert not has_the_whole(grouped, grouped.groups_[0])


def test_dates_of_pandas_are_one_group_in_any_unit_and_time_zone():
    pandas = pytest.importorskip("pandas")
    X, y, groups = draw_groups(500)
    local = pandas.Series(as_dates(groups, "M8[ns]"))
    utc = local.dt.tz_localize("UTC")
    berlin = utc.dt.as_unit("s").dt.tz_convert("Europe/Berlin")
    expected = None
    for days, alike in ((local, local.astype("category")), (utc, berlin)):
        grouped = GroupCalibration(strength=1.0).fit(X, y, groups=days)
        proba = grouped.predict_proba(X, groups=alike)
        expected = proba if expected is None else expected
        assert_array_equal(proba, expected)
        assert not has_the_whole(grouped, days[0])
    for of_fit, other in ((local, utc), (utc, local)):
        grouped = GroupCalibration(strength=1.0).fit(X, y, groups=of_fit)
        with pytest.warns(UserWarning, match=r"group .* was not seen in fit"):
            grouped.predict_proba(X, groups=other)


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_date_that_is_missing_is_no_group(zone):
    pandas = pytest.importorskip("pandas")
    X, y, groups = draw_groups(100)
    days = pandas.Series(as_dates(groups)).dt.tz_localize(zone)
    grouped = GroupCalibration(strength=1.0).fit(X, y, groups=days)
    days[3] = pandas.NaT
    for ask in (
        lambda: GroupCalibration().fit(X, y, groups=days),
        lambda: GroupCalibration().fit(X, y, groups=list(days)),
        lambda: grouped.predict_proba(X, groups=days),
        lambda: grouped.calibrator_of(days[3]),
    ):
        with pytest.raises(ValueError, match=r"groups holds NaT in row [03]"):
            ask()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_give_the_same_as_arrays(dtype):
    torch = pytest.importorskip("torch")
    X, y, groups = draw_groups(1000)
    grouped = GroupCalibration(strength=10).fit(X, y, groups=groups)
    tensor = torch.tensor(X.astype(dtype), requires_grad=True)
    proba = grouped.predict_proba(tensor, groups=groups)
    assert proba.dtype == getattr(torch, dtype)
    assert_allclose(proba, grouped.predict_proba(X, groups=groups), atol=1e-5)
    assert (grouped.predict(tensor, groups=groups) == grouped.predict(X, groups)).all()


def test_a_dask_collection_is_refused():
    array = pytest.importorskip("dask.array")
    X, y, groups = draw_groups(1000)
    with pytest.raises(TypeError, match="GroupCalibration needs all rows in memory"):
        GroupCalibration().fit(array.from_array(X), y, groups=groups)
    grouped = GroupCalibration(strength=10).fit(X, y, groups=groups)
    for predict in (grouped.predict_proba, grouped.predict):
        with pytest.raises(TypeError, match="Or pass its chunks one by one"):
            predict(array.from_array(X), groups=groups)


def test_arrays_of_the_standard_give_the_same_as_those_of_numpy():
    xp = pytest.importorskip("array_api_strict")
    X, y, groups = draw_groups(1000)
    grouped = GroupCalibration(strength=10).fit(X, y, groups=groups)
    proba = grouped.predict_proba(xp.asarray(X), groups=groups)
    assert isinstance(proba, type(xp.asarray(X)))
    assert_allclose(np.from_dlpack(proba), grouped.predict_proba(X, groups=groups))
    assert (grouped.predict(xp.asarray(X), groups) == grouped.predict(X, groups)).all()


def test_the_calibrator_of_a_group_takes_log_odds_where_fit_did():
    X, y, groups = draw_groups(1000)
    log_odds, y = X[:, 1] - X[:, 0], y == 1
    grouped = GroupCalibration(strength=10).fit(log_odds, y, groups=groups)
    for name in ("b", "not seen"):
        expected = grouped.predict_proba(log_odds, groups=np.full(1000, name))
        found = grouped.calibrator_of(name).predict_proba(log_odds)
        assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("names", [[None], [1, "a"]])
def test_groups_without_an_order_are_refused(names):
    X, y, _ = draw_groups(200)
    groups = np.resize(np.array(names, dtype=object), 200)
    with pytest.raises(TypeError, match="Give every group a name of one type"):
        GroupCalibration().fit(X, y, groups=groups)


def test_groups_are_not_told_apart_where_no_fold_can_judge():
    X, groups = np.array([[2.0, 0], [1, 0], [0, 1]]), ["a", "b", "a"]
    fitted = GroupCalibration().fit(X, [0, 0, 1], groups=groups)
    assert fitted.strength_ == np.inf
    whole = fitted.calibrator_.predict_proba(X)
    assert_allclose(fitted.predict_proba(X, groups=groups), whole)


@pytest.mark.parametrize(
    "calibrator",
    [
        PriorShift(GroupCalibration()),
        GroupCalibration(BoostedCalibration()),
        ProbabilityFloor(GroupCalibration()),
    ],
)
def test_a_calibrator_of_more_than_logits_is_refused_inside_another(calibrator):
    X, y = make_logits(200, 3, random_state=0)
    options = {}
    if isinstance(calibrator, GroupCalibration):
        options["groups"] = np.arange(200) % 2
    with pytest.raises(TypeError, match="needs a calibrator that maps logits alone"):
        calibrator.fit(X, y, **options)
