"""Boosted trees over features on top of a calibrator."""

import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skcalib
from skcalib import BoostedCalibration, IsotonicCalibration, TemperatureScaling
from skcalib.testing import check_calibrator


def draw(n_rows=1500, n_classes=2, shift=2.0, seed=0):
    """Logits, the first of which is too large where two of three features are."""
    rng = np.random.default_rng(seed)
    X, features = rng.normal(size=(n_rows, n_classes)), rng.random((n_rows, 3))
    y = (softmax(X, axis=1).cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1)
    X[(features[:, 0] > 0.4) & (features[:, 1] > 0.4), 0] += shift
    return X, y, features


def log_loss(proba, y):
    return -np.log(proba[np.arange(y.size), y]).mean()


def quick(**options):
    return BoostedCalibration(TemperatureScaling(), max_rounds=10, **options)


def test_without_features_it_keeps_the_contract():
    check_calibrator(BoostedCalibration(IsotonicCalibration()))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_features_tell_is_gained(n_classes):
    X, y, features = draw(n_classes=n_classes)
    boosted = BoostedCalibration(max_rounds=30).fit(X, y, features=features)
    assert boosted.n_rounds_ > 0
    X, y, features = draw(4000, n_classes, seed=1)
    after = boosted.predict_proba(X, features=features)
    assert_allclose(after.sum(axis=1), 1)
    assert log_loss(after, y) < log_loss(boosted.calibrator_.predict_proba(X), y) - 0.01


@pytest.mark.parametrize("n_rows", [30, 500])
def test_where_features_tell_nothing_the_calibrator_stays_as_it_is(n_rows):
    for seed in range(3):
        X, y, features = draw(n_rows, shift=0.0, seed=seed)
        boosted = quick().fit(X, y, features=features)
        assert boosted.n_rounds_ == 0
        assert boosted.rounds_ == []
        alone = TemperatureScaling().fit(X, y).predict_proba(X)
        assert_array_equal(boosted.predict_proba(X, features=features), alone)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_trees_are_added_to_the_log_probabilities(n_classes):
    X, y, features = draw(n_classes=n_classes)
    boosted = quick().fit(X, y, features=features)
    assert len(boosted.rounds_) == boosted.n_rounds_ > 0
    told = np.log(boosted.calibrator_.predict_proba(X))
    columns = np.column_stack([features, told])
    for trees in boosted.rounds_:
        assert list(trees) == ([1] if n_classes == 2 else [0, 1, 2])
        for column, tree in trees.items():
            told[:, column] += tree.predict(columns)
    proba = boosted.predict_proba(X, features=features)
    assert_allclose(proba, softmax(told, axis=1), rtol=1e-4, atol=1e-9)


def test_one_error_of_a_leaf_that_is_sure_moves_it_little(monkeypatch):
    # Newton's step of a leaf whose rows are all but sure would be as good as infinite.
    X = np.full((400, 2), [20.0, 0.0])
    X[200:] = [0.0, 20.0]
    y = np.repeat([0, 1], 200)
    y[:3] = 1
    features = np.arange(400.0)[:, np.newaxis]
    monkeypatch.setattr(BoostedCalibration, "_cross_fitted", lambda *_: 10)
    boosted = quick().fit(X, y, features=features)
    before = boosted.calibrator_.predict_proba(X)
    after = boosted.predict_proba(X, features=features)
    odds = [np.log(p[:, 1] / p[:, 0]) for p in (before, after)]
    assert 0 < np.abs(odds[1] - odds[0]).max() < 2


def test_rows_are_mapped_alike_alone_and_in_a_batch():
    X, y, features = draw(n_classes=3)
    boosted = quick().fit(X, y, features=features)
    alone = [boosted.predict_proba(X[[i]], features=features[[i]]) for i in range(5)]
    batch = boosted.predict_proba(X[:5], features=features[:5])
    assert_allclose(np.vstack(alone), batch, rtol=1e-12)
    assert boosted.predict_proba(np.float32(X), features=features).dtype == np.float32


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    X, y, features = draw()
    kept = np.random.default_rng(0).random(y.size) < 0.7
    spoilt = np.where(kept[:, np.newaxis], features, -1)
    found = quick().fit(X, y, kept.astype(float), features=spoilt)
    known = quick().fit(X[kept], y[kept], features=features[kept])
    assert found.n_rounds_ == known.n_rounds_ > 0
    assert_allclose(
        found.predict_proba(X, features=features),
        known.predict_proba(X, features=features),
        rtol=1e-6,
    )


def test_weights_say_which_rows_count():
    X, y, features = draw()
    large = (features[:, 0] > 0.4) & (features[:, 1] > 0.4)
    weight = np.where(large, 1e-6, 1.0)
    # What the features tell is told by rows that hardly count.
    assert quick().fit(X, y, weight, features=features).n_rounds_ == 0


def test_labels_that_are_shares_are_those_of_repeated_rows():
    X, y, features = draw()
    boosted = quick().fit(X, np.eye(2)[y], features=features)
    known = quick().fit(X, y, features=features)
    assert_allclose(
        boosted.predict_proba(X, features=features),
        known.predict_proba(X, features=features),
        rtol=1e-6,
    )
    assert boosted.score(X, np.eye(2)[y], features=features) == pytest.approx(
        known.score(X, y, features=features)
    )
    assert quick().fit(X, 0.8 * np.eye(2)[y] + 0.1, features=features).n_rounds_ > 0


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_a_class_without_samples_has_no_trees():
    X, y, features = draw(n_classes=3)
    rows = y != 1
    boosted = quick(classes=["a", "b", "c"])
    boosted.fit(X[rows], np.array(["a", "b", "c"])[y[rows]], features=features[rows])
    assert set(boosted.rounds_[0]) == {2}
    proba = boosted.predict_proba(X, features=features)
    assert np.isfinite(proba).all()
    assert_allclose(proba.sum(axis=1), 1)


def test_a_class_of_one_row_does_not_stop_it():
    X, y, features = draw(60)
    y = np.where(np.arange(60) == np.argmax(y), 1, 0)
    proba = quick().fit(X, y, features=features).predict_proba(X, features=features)
    assert np.isfinite(proba).all()


def test_it_is_cloned_pickled_and_searched():
    X, y, features = draw()
    boosted = quick().fit(X, y, features=features)
    proba = boosted.predict_proba(X, features=features)
    again = pickle.loads(pickle.dumps(boosted))  # noqa: S301
    assert_array_equal(again.predict_proba(X, features=features), proba)
    assert_array_equal(
        clone(boosted).fit(X, y, features=features).predict_proba(X, features=features),
        proba,
    )
    with config_context(enable_metadata_routing=True):
        routed = quick().set_fit_request(features=True)
        routed.set_predict_proba_request(features=True).set_score_request(features=True)
        search = GridSearchCV(routed, {"max_depth": [1, 2]}, cv=2)
        search.fit(X, y, features=features)
        chain = make_pipeline(FunctionTransformer(), routed)
        chain.fit(X, y, features=features)
        piped = chain.predict_proba(X, features=features)
    assert_array_equal(piped, proba)
    best = search.best_estimator_
    assert best.n_rounds_ > 0
    assert best.score(X, y, features=features) == pytest.approx(
        (best.predict(X, features=features) == y).mean()
    )


def test_tensors_and_single_columns_are_taken():
    X, y, features = draw()
    single = quick().fit(X[:, 1] - X[:, 0], y, features=features)
    proba = single.predict_proba(X[:, 1] - X[:, 0], features=features)
    both = quick().fit(X, y, features=features)
    assert_allclose(both.predict_proba(X, features=features), proba, rtol=1e-6)
    torch = pytest.importorskip("torch")
    found = both.predict_proba(torch.tensor(X), features=torch.tensor(features))
    assert_allclose(found, proba, rtol=1e-6)


def test_features_come_both_times_or_never():
    X, y, features = draw(100)
    boosted = quick().fit(X, y, features=features)
    with pytest.raises(ValueError, match="fitted with features and is asked"):
        boosted.predict_proba(X)
    with pytest.raises(ValueError, match="features has 2 columns, but 3 were seen"):
        boosted.predict_proba(X, features=features[:, :2])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        boosted.predict_proba(X, features=features[:9])
    with pytest.raises(ValueError, match="fitted without features and is asked"):
        quick().fit(X, y).predict_proba(X, features=features)


def test_features_that_are_no_numbers_are_refused():
    X, y, features = draw(100)
    features[3, 1] = np.inf
    with pytest.raises(ValueError, match="Input features contains infinity"):
        quick().fit(X, y, features=features)
    with pytest.raises(ValueError, match="could not convert string to float"):
        quick().fit(X, y, features=np.full((100, 1), "red"))
    with pytest.raises(ValueError, match="Expected 2D array"):
        quick().fit(X, y, features=features[:, 0])


def test_a_missing_number_is_something_that_a_tree_can_ask_for():
    X, y, features = draw(3000, shift=0.0)
    gap = np.random.default_rng(1).random(3000) < 0.3
    X[gap, 0] += 2
    features[gap, 1] = np.nan
    boosted = quick(learning_rate=0.5).fit(X[:2000], y[:2000], features=features[:2000])
    rows = 2000 + np.flatnonzero(gap[2000:])
    share = (y[rows] == 0).mean()
    before = boosted.calibrator_.predict_proba(X[rows])[:, 0].mean()
    after = boosted.predict_proba(X[rows], features=features[rows])[:, 0].mean()
    assert before > share + 0.1
    assert after == pytest.approx(share, abs=0.05)


def test_a_number_that_was_never_missing_before_may_be():
    X, y, features = draw()
    boosted = quick().fit(X, y, features=features)
    assert boosted.n_rounds_ > 0
    features[0] = np.nan
    proba = boosted.predict_proba(X, features=features)
    alone = boosted.predict_proba(X[:1], features=features[:1])
    assert_array_equal(proba[:1], alone)
    assert np.isfinite(proba).all()


def test_columns_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    X, y, features = draw(100)
    frame = pandas.DataFrame(features, columns=["age", "income", "rooms"])
    boosted = quick().fit(X, y, features=frame)
    boosted.predict_proba(X, features=frame)
    with pytest.raises(ValueError, match="Pass the same columns in the same order"):
        boosted.predict_proba(X, features=frame[["income", "age", "rooms"]])


def test_it_is_no_file_and_no_graph(tmp_path):
    pytest.importorskip("onnx")
    X, y, features = draw(100)
    boosted = quick().fit(X, y, features=features)
    for fitted in (boosted, quick().fit(X, y)):
        with pytest.raises(TypeError, match=r"BoostedCalibration .* JSON: its trees"):
            skcalib.save(fitted, tmp_path / "c.json")
    joblib.dump(boosted, tmp_path / "c.joblib")
    assert_array_equal(
        joblib.load(tmp_path / "c.joblib").predict_proba(X, features=features),
        boosted.predict_proba(X, features=features),
    )
    to_onnx = pytest.importorskip("skcalib.export").to_onnx
    with pytest.raises(TypeError, match="BoostedCalibration cannot be exported"):
        to_onnx(boosted)


def test_a_dask_collection_is_refused_in_predictions():
    array = pytest.importorskip("dask.array")
    X, y, features = draw()
    boosted = quick().fit(X, y, features=features)
    for predict in (boosted.predict_proba, boosted.predict):
        with pytest.raises(TypeError, match="Or pass its chunks one by one"):
            predict(array.from_array(X), features=features)
    with pytest.raises(TypeError, match="features is a Dask collection"):
        quick().fit(X, y, features=array.from_array(features))
