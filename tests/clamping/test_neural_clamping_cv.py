"""NeuralClampingCV chooses as a grid search would, for the cost of one fit."""

import numpy as np
import pytest
from lacking_offset import OFFSET, draw
from numpy.testing import assert_allclose
from sklearn.metrics import get_scorer, log_loss, make_scorer
from sklearn.model_selection import GroupKFold, ShuffleSplit

from skcalib.exceptions import InterruptedWarning

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV, TemperatureScaling  # noqa: E402

pytestmark = pytest.mark.torch


def mean_log_proba(proba, y):
    return np.log(proba[np.arange(len(y)), y]).mean()


class Counting:
    """Hands inputs through and counts their rows."""

    def __init__(self):
        self.rows = 0

    def __call__(self, x):
        self.rows += x.shape[0]
        return 1 * x


def test_one_exponent_chooses_as_neural_clamping_does():
    X, y = draw(400)
    search = NeuralClampingCV(Counting(), gammas=[0.5]).fit(X, y)
    plain = NeuralClamping(Counting(), gamma=0.5, temperature_objective="log_loss").fit(
        X, y
    )
    assert search.gamma_ == 0.5
    assert search.penalty_ == plain.penalty_
    assert_allclose(search.delta_, plain.delta_, atol=1e-5)
    assert search.temperature_ == pytest.approx(plain.temperature_, rel=1e-5)


def test_without_anything_to_find_it_is_temperature_scaling():
    X, y = draw(400, offset=0, seed=1)
    search = NeuralClampingCV(Counting()).fit(X, y)
    assert search.perturbation_ == "none"
    assert search.temperature_ == TemperatureScaling().fit(X, y).temperature_
    assert search.cv_results_["chosen"].tolist()[0]


@pytest.mark.slow
def test_more_exponents_cost_hardly_more_passes():
    X, y = draw(400)
    rows = []
    for gammas in ([0], np.linspace(0, 1, 11)):
        network = Counting()
        NeuralClampingCV(network, gammas=gammas, cv=2).fit(X, y)
        rows.append(network.rows)
    few, many = rows
    assert few >= 2 * len(X)
    # At most eight candidates are judged by the network.
    assert many <= few + 8 * len(X)
    assert many < 20 * len(X)


def test_the_scores_are_of_held_out_rows():
    X, y = draw(400)
    splits = [(np.arange(0, 300), np.arange(300, 400))]
    search = NeuralClampingCV(
        Counting(), gammas=[0], penalties=[0.01], cv=splits, rule="best"
    ).fit(X, y)
    # The joint objective is the log-loss, without the prior of what is served.
    train = NeuralClamping(
        Counting(),
        gamma=0,
        perturbation="full",
        penalty=0.01,
        temperature_objective="joint",
        tol=1e-9,
    ).fit(X[:300], y[:300])
    expected = mean_log_proba(train.predict_proba(X[300:]), y[300:])
    found = search.cv_results_["mean_test_score"]
    assert found[1] == pytest.approx(expected, abs=1e-3)
    plain = TemperatureScaling(prior=None).fit(X[:300], y[:300])
    plain = plain.predict_proba(X[300:])
    assert found[0] == pytest.approx(mean_log_proba(plain, y[300:]), abs=1e-6)
    assert search.best_score_ == found.max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "scoring",
    [
        "neg_expected_calibration_error",
        "neg_brier_score",
        "accuracy",
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
    ],
    ids=str,
)
def test_any_scorer_of_probabilities(scoring):
    X, y = draw(400)
    labels = np.array(list("abcd"))[y]
    search = NeuralClampingCV(Counting(), scoring=scoring, cv=3).fit(X, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # The calibration error does not see what an offset does for the accuracy.
    blind = scoring == "neg_expected_calibration_error"
    assert search.perturbation_ in ("full", "gain", *["none"] * blind)


def test_the_log_loss_as_a_scorer_serves_the_temperature_of_the_log_loss():
    X, y = draw(400, offset=0)
    search = NeuralClampingCV(
        Counting(), gammas=[1.0], scoring=get_scorer("neg_log_loss")
    ).fit(X, y)
    assert search.temperature_ == TemperatureScaling().fit(X, y).temperature_


@pytest.mark.parametrize("rule", ["one_standard_error", "best"])
def test_the_score_of_one_split_chooses_by_the_rule_of_the_best_alone(rule):
    X, y = draw(400, offset=0)
    search = NeuralClampingCV(
        Counting(),
        gammas=[0],
        scoring="neg_expected_calibration_error",
        temperature_objective="log_loss",
        rule=rule,
        cv=ShuffleSplit(1, test_size=0.3, random_state=0),
    ).fit(X, y)
    # By chance another is better than none.
    assert search.cv_results_["mean_test_score"].argmax() > 0
    assert np.isinf(search.cv_results_["standard_error"]).all()
    assert (search.perturbation_ == "none") == (rule == "one_standard_error")


def test_descents_judge_all_splits_where_each_has_one_score(monkeypatch):
    monkeypatch.setattr("skcalib.clamping._solve.PASSES_PER_ROW", 1)
    X, y = draw(400)
    options = {"gammas": [0], "penalties": [0.01]}
    search = NeuralClampingCV(Counting(), scoring="neg_brier_score", **options)
    search.fit(X, y)
    assert 0 < search.cv_results_["standard_error"][1] < np.inf
    assert search.perturbation_ == "full"


def test_scores_know_the_weights():
    X, y = draw(400)
    weight = np.where(np.arange(400) < 200, 1.0, 0.0)
    weight[:100] = 3
    options = {"scoring": "neg_brier_score", "gammas": [0], "rule": "best"}
    splits = [(np.arange(0, 400, 2), np.arange(1, 400, 2))]
    weighted = NeuralClampingCV(Counting(), cv=splits, **options)
    weighted.fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(400), weight.astype(int))
    position = np.arange(rows.shape[0])
    splits = [(position[rows % 2 == 0], position[rows % 2 == 1])]
    repeated = NeuralClampingCV(Counting(), cv=splits, **options).fit(X[rows], y[rows])
    assert_allclose(
        weighted.cv_results_["mean_test_score"][:2],
        repeated.cv_results_["mean_test_score"][:2],
        rtol=0.01,
    )


def test_the_simplest_within_one_standard_error_wins():
    X, y = draw(400)
    simple = NeuralClampingCV(Counting()).fit(X, y)
    best = NeuralClampingCV(Counting(), rule="best").fit(X, y)
    table = best.cv_results_
    judged = table["by_network"]
    assert best.best_score_ == table["mean_test_score"][judged].max()
    assert simple.penalty_ >= best.penalty_
    chosen = simple.cv_results_["chosen"].argmax()
    assert table["mean_test_score"][judged].max() >= simple.best_score_
    gap = table["mean_test_score"][judged].max() - simple.best_score_
    assert gap <= table["standard_error"][judged].max()
    assert not simple.cv_results_["chosen"][:chosen].any()


def test_brier_has_no_exponent():
    X, y = draw(400)
    search = NeuralClampingCV(Counting(), objective="brier").fit(X, y)
    assert set(search.cv_results_["gamma"]) == {0.0}


def test_exponents_count_without_a_perturbation_where_the_temperature_is_joint():
    X, y = draw(400, offset=0)
    search = NeuralClampingCV(Counting(), temperature_objective="joint").fit(X, y)
    kinds = search.cv_results_["perturbation"]
    assert kinds[:3] == ["none"] * 3
    assert len(set(search.cv_results_["mean_test_score"][:3])) == 3


def test_many_classes_are_searched_by_descents(monkeypatch):
    monkeypatch.setattr("skcalib.clamping._solve.PASSES_PER_ROW", 1)
    X, y = draw(800)
    network = Counting()
    search = NeuralClampingCV(network, gammas=[0, 1]).fit(X, y)
    assert search.perturbation_ == "full"
    assert search.cv_results_["by_network"].all()
    assert_allclose(search.delta_ - search.delta_.mean(), OFFSET, atol=0.6)


def test_a_dear_jacobian_is_taken_of_some_rows_and_the_fit_is_of_all(monkeypatch):
    X, y = draw(1200)
    full = NeuralClampingCV(Counting(), gammas=[0]).fit(X, y)
    monkeypatch.setattr("skcalib.clamping._solve.JACOBIAN_ROWS", 300)
    monkeypatch.setattr("skcalib.clamping._solve.JACOBIAN_PASSES", 1)
    some = NeuralClampingCV(Counting(), gammas=[0], penalties=[full.penalty_])
    some.fit(X, y)
    assert some.perturbation_ == full.perturbation_ == "full"
    assert_allclose(some.delta_, full.delta_, atol=0.05)
    # What 300 rows alone would give is further off than that.
    few = NeuralClampingCV(Counting(), gammas=[0], penalties=[full.penalty_])
    few.fit(X[::4], y[::4])
    assert np.abs(few.delta_ - full.delta_).max() > 0.1


def test_splits_that_some_rows_would_empty_keep_all_rows(monkeypatch):
    X, y = draw(400)
    monkeypatch.setattr("skcalib.clamping._solve.JACOBIAN_ROWS", 100)
    monkeypatch.setattr("skcalib.clamping._solve.JACOBIAN_PASSES", 1)
    judged = np.array([1, 2])  # neither is among 100 evenly spaced rows
    splits = [(np.setdiff1d(np.arange(400), judged), judged)]
    search = NeuralClampingCV(Counting(), gammas=[0], cv=splits).fit(X, y)
    assert np.isfinite(search.temperature_)


def test_folds_are_those_of_groups():
    X, y = draw(200)
    groups = np.arange(200) // 5
    search = NeuralClampingCV(Counting(), cv=GroupKFold(4)).fit(X, y, groups=groups)
    splits = list(GroupKFold(4).split(X, y, groups))
    expected = NeuralClampingCV(Counting(), cv=splits).fit(X, y)
    assert search.best_score_ == expected.best_score_
    blind = NeuralClampingCV(Counting(), cv=4).fit(X, y).best_score_
    aware = NeuralClampingCV(Counting(), cv=4).fit(X, y, groups=groups).best_score_
    assert aware != blind


def test_an_interrupted_search_keeps_no_score_of_an_earlier_fit(monkeypatch):
    X, y = draw(400)
    search = NeuralClampingCV(Counting(), gammas=[0]).fit(X, y)
    assert search.best_score_ < 0

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("skcalib.clamping._solve.search_linearised", interrupt)
    with pytest.warns(InterruptedWarning, match="interrupted"):
        search.fit(X, y)
    assert search.cv_results_ is None
    assert not hasattr(search, "best_score_")
