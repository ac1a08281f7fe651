"""The benchmark in CalArena's layout: what is written, read and said of results."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib import CalibratorSearch, logits_from_proba
from skcalib.model_selection._candidates import default_candidates

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def arena():
    from benchmarks import _arena

    return _arena


@pytest.fixture
def calarena():
    from benchmarks import calarena

    return calarena


def experiment(arena, dataset="a", model="m", n_classes=2):
    rng = np.random.default_rng(0)
    parts = []
    for n in (60, 40):
        proba = rng.dirichlet(np.ones(n_classes), n).astype(np.float32)
        y = np.array(
            [rng.choice(n_classes, p=p / p.sum()) for p in proba.astype(float)]
        )
        parts += [proba[:, 1] if n_classes == 2 else proba, y]
    return arena.Experiment(dataset, model, *parts)


def test_a_win_is_a_strictly_smaller_loss_than_another(arena):
    scores = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [np.inf, 0.5, np.inf]])
    assert_allclose(
        arena.win_rates(scores), [[1, 0.5, 0], [0, 0, 0], [0, 1, 0]], atol=1e-15
    )
    assert_allclose(arena.mean_ranks(scores[:2]), [1.5, 2, 2.5])


def test_the_interval_draws_whole_sets(arena):
    # A set with many experiments that all agree is no more than one observation.
    datasets = ["a"] * 99 + ["b"]
    values = np.array([[1.0]] * 99 + [[0.0]])
    low, high = arena.interval(values, datasets)
    assert (low.item(), high.item()) == (0, 1)
    assert_allclose(arena.interval(np.ones((4, 2)), [*"aabc"]), 1)


def test_the_measures_are_those_of_the_classes_that_occurred(arena):
    measures = arena.judged(np.array([0.25, 0.0]), np.array([1, 1]))
    assert measures["logloss"] == pytest.approx(np.log(4) / 2 - np.log(arena.TINY) / 2)
    assert measures["brier"] == pytest.approx((2 * 0.75**2 + 2) / 2)
    assert measures["ece-15"] == pytest.approx((0.75 + 1) / 2)
    broken = arena.judged(np.array([0.25, np.nan]), np.array([1, 1]))
    assert set(broken.values()) == {np.inf}


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_adapter_serves_what_the_search_says(arena, calarena, n_classes):
    e = experiment(arena, n_classes=n_classes)
    calibrator = calarena.Calibrator()
    calibrator.fit(e.p_cal, e.y_cal)
    X = [calarena.logits(p) for p in (e.p_cal, e.p_test)]
    search = CalibratorSearch(classes=np.arange(n_classes)).fit(X[0], e.y_cal)
    assert_allclose(calibrator.predict_proba(e.p_test), search.predict_proba(X[1]))


def test_a_single_column_is_the_second_class(calarena):
    proba = np.array([0.2, 1.0], dtype=np.float32)
    both = np.column_stack([1 - proba.astype(float), proba.astype(float)])
    assert_allclose(calarena.logits(proba), logits_from_proba(both))
    assert_allclose(calarena.logits(proba[:, np.newaxis]), logits_from_proba(both))


def test_results_are_told_best_first_with_the_share_of_harm(arena, calarena):
    experiments = [experiment(arena, dataset) for dataset in "abc"]
    rows = {
        "skcalib": [0.1, 0.2, 0.304],
        "Base-model": [0.3, 0.3, 0.3],
        "TS": [0.2, 0.3, 0.306],
    }
    results = {
        name: [{"logloss": v, "brier": v, "ece-15": v, "time": 1.0} for v in values]
        for name, values in rows.items()
    }
    found = list(calarena.table_rows("tabular-binary", experiments, results))
    assert [row["method"] for row in found] == ["skcalib", "Base-model", "TS"]
    best = found[0]
    assert best["win rate log-loss"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert best["rank log-loss"] == pytest.approx((1 + 1 + 2) / 3)
    assert best["worse 0.001"] == pytest.approx(100 / 3)
    assert best["worse 0.005"] == 0
    table = calarena.leaderboard(found, "tabular-binary")
    assert [line[0] for line in table.rows] == ["**skcalib**", "none", "TS"]
    assert all(len(line) == len(table.columns) for line in table.rows)
    short = calarena.leaderboard(found, "tabular-binary", most=1)
    assert [line[0] for line in short.rows] == ["**skcalib**", "none"]


def test_kept_results_stand_only_where_they_have_all_experiments(arena, tmp_path):
    experiments = [experiment(arena, dataset) for dataset in "ab"]
    results = [dict(zip([*arena.MEASURES, "time"], [1.0, 2, 3, 4], strict=True))] * 2
    arena.keep(tmp_path, "cv-binary", "TS", experiments, results)
    assert arena.kept(tmp_path, "cv-binary", "TS", experiments) == results
    more = [*experiments, experiment(arena, "c")]
    assert arena.kept(tmp_path, "cv-binary", "TS", more) is None
    assert arena.kept(tmp_path, "cv-binary", "ETS", experiments) is None
    path = tmp_path / "results" / "cv-binary" / "TS.csv"
    with path.open(newline="", encoding="utf-8") as file:
        head = next(csv.reader(file))
    assert head[:5] == ["dataset", "model", "cal_size", "test_size", "TS_logloss"]
    # As a published file says it where a method gave no number.
    path.write_text(path.read_text("utf-8").replace("1.0,", ","), "utf-8")
    losses = arena.kept(tmp_path, "cv-binary", "TS", experiments)
    assert [row["logloss"] for row in losses] == [np.inf, np.inf]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_experiments_are_read_as_they_were_written(arena, tmp_path, n_classes):
    h5py = pytest.importorskip("h5py")
    written = [experiment(arena, name, n_classes=n_classes) for name in ("a", "b:0")]
    arena.write(tmp_path, "own", written)
    for one, other in zip(arena.read(tmp_path, "own"), written, strict=True):
        assert one[:2] == other[:2]
        for array, expected in zip(one[2:], other[2:], strict=True):
            assert_allclose(array, expected)
    with h5py.File(arena.files(tmp_path, "own")[0]) as file:
        assert file["a/m/probas_cal"].dtype == np.float32
    assert len(arena.read(tmp_path, "own", limit=1)) == 1


def test_public_files_are_downloaded_only_when_asked(arena, tmp_path):
    with pytest.raises(FileNotFoundError, match="--download brings it from"):
        arena.prepare(tmp_path / "here", "cv-binary", download=False)
    there = tmp_path / "there"
    there.mkdir()
    for name in ("cv-binary.h5", "cv-binary-experiments.csv"):
        (there / name).write_text(name, encoding="utf-8")
    arena.prepare(
        tmp_path / "here", "cv-binary", download=True, source=f"{there.as_uri()}/"
    )
    paths = arena.files(tmp_path / "here", "cv-binary")
    assert [path.read_text(encoding="utf-8") for path in paths] == [
        "cv-binary.h5",
        "cv-binary-experiments.csv",
    ]


def test_the_tuning_and_the_judging_sets_share_no_source():
    from benchmarks import _tabular

    sources = {"tuning": set(), "judging": set()}
    for (group, _), names in _tabular.SETS.items():
        sources[group] |= {name.split(":")[0].split("-")[0] for name in names}
    assert not sources["tuning"] & sources["judging"]


def test_each_classifier_comes_up_equally_often():
    from benchmarks import _tabular

    for kind in _tabular.SETS:
        models = [model for _, model in _tabular.pairs(*kind)]
        counts = [models.count(model) for model in _tabular.CLASSIFIERS]
        assert max(counts) - min(counts) <= 2


def test_a_column_of_texts_becomes_a_column_for_each_level():
    from benchmarks import _tabular

    assert_allclose(_tabular.numbers(np.array(["1.5", "-2"])), [[1.5], [-2]])
    assert_allclose(
        _tabular.numbers(np.array(["b", "a", "b"])), [[0, 1], [1, 0], [0, 1]]
    )


@pytest.mark.parametrize("n_classes", [2, 4])
def test_nothing_that_the_default_chooses_from_beats_hindsight(
    arena, calarena, n_classes
):
    e = experiment(arena, n_classes=n_classes)
    best = calarena.in_hindsight(e)["logloss"]
    X, X_test = calarena.logits(e.p_cal), calarena.logits(e.p_test)
    labels = np.arange(n_classes)
    tried = [e.p_test]
    for calibrator in (CalibratorSearch(), *default_candidates(n_classes).values()):
        fitted = calibrator.set_params(classes=labels).fit(X, e.y_cal)
        tried.append(fitted.predict_proba(X_test))
    losses = [arena.judged(proba, e.y_test)["logloss"] for proba in tried]
    assert best <= min(losses) + 1e-12
