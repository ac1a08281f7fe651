"""What a calibrator hands out, and is told, is what came: names, groups, weights."""

import warnings
from operator import attrgetter

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedGroupKFold,
    cross_val_predict,
)
from sklearn.tree import DecisionTreeClassifier

from skcalib import (
    BoostedCalibration,
    CalibratedClassifier,
    CalibratorSearch,
    DenseCalibration,
    GroupCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    MultiLabelCalibration,
    OptionCalibration,
    OrderPreservingScaling,
    PlattScaling,
    PriorShift,
    ScalingBinning,
    TemperatureScaling,
    VectorScaling,
    calibrate,
    pad_options,
)
from skcalib._validation import takes_groups
from skcalib.calibrators._floor import ProbabilityFloor
from skcalib.datasets import make_logits
from skcalib.model_selection import compare_calibrators
from skcalib.model_selection._stack import StackedCalibrator
from skcalib.monitoring import CalibrationMonitor

pytestmark = pytest.mark.filterwarnings("error")


def draw_binary(n_samples=300):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 3))
    return X, (X[:, 0] + rng.normal(size=n_samples) > 0).astype(int)


def test_a_correction_of_named_columns_refuses_another_order():
    pd = pytest.importorskip("pandas")
    X, y = make_logits(600, 3, random_state=0)
    frame, labels = pd.DataFrame(X, columns=list("abc")), np.array(list("abc"))[y]
    served = TemperatureScaling().fit(frame, labels)
    monitor = CalibrationMonitor(served).update(labels, served.predict_proba(frame))
    mended = monitor.recalibrate()
    assert mended.score(frame, labels) > 0.9
    with pytest.raises(ValueError, match="should match those"):
        mended.predict_proba(frame[["c", "b", "a"]])


def test_calibrate_of_a_frame_of_probabilities_keeps_its_names():
    pd = pytest.importorskip("pandas")
    X, y = make_logits(600, 3, random_state=0)
    proba = TemperatureScaling().fit(X, y).predict_proba(X)
    frame = pd.DataFrame(proba, columns=[0, 1, 2]).rename(columns=str)
    result = calibrate(proba=frame, y=y, calibrator=VectorScaling(), n_bootstrap=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.calibrator.predict_proba(frame)
    with pytest.raises(ValueError, match="should match those"):
        result.calibrator.predict_proba(frame[["2", "1", "0"]])


@pytest.mark.parametrize(
    ("calibrator", "within"),
    [
        (OrderPreservingScaling(ProbabilityFloor(PlattScaling())), "scaling_"),
        (OrderPreservingScaling(CalibratorSearch([PlattScaling()])), "scaling_"),
        (CalibratorSearch([ProbabilityFloor()]), "best_calibrator_.calibrator_"),
        (DenseCalibration(CalibratorSearch([TemperatureScaling()])), "calibrator_"),
        (
            DenseCalibration(CalibratorSearch([ProbabilityFloor(PlattScaling())])),
            "calibrator_.best_calibrator_.calibrator_",
        ),
        (
            GroupCalibration(
                CalibratorSearch([OrderPreservingScaling(PlattScaling())])
            ),
            "calibrator_.best_calibrator_.scaling_",
        ),
    ],
)
def test_what_is_fitted_within_takes_a_single_column_too(calibrator, within):
    X, y = make_logits(200, 2, random_state=0)
    z = X[:, 1] - X[:, 0]
    fitted = attrgetter(within)(calibrator.fit(z, y))
    assert fitted.predict_proba(z[:2]).shape == (2, 2)


@pytest.mark.parametrize("calibrator", [GroupCalibration(TemperatureScaling())])
def test_shares_with_rows_of_weight_0_have_their_groups(calibrator):
    X, y = make_logits(600, 3, random_state=0)
    shares, groups = np.eye(3)[y] * 0.7 + 0.1, np.arange(600) % 2
    weight = np.r_[np.zeros(50), np.ones(550)]
    whole = calibrator.fit(X, shares, groups=groups, sample_weight=weight)
    proba = whole.predict_proba(X, groups=groups)
    part = calibrator.fit(X[50:], shares[50:], groups=groups[50:])
    np.testing.assert_allclose(proba, part.predict_proba(X, groups=groups), rtol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_a_floor_hands_on_the_groups_of_the_rows_that_count(shared):
    X, y = make_logits(300, 3, random_state=0)
    labels = np.eye(3)[y] * 0.7 + 0.1 if shared else y
    search = CalibratorSearch([TemperatureScaling(), PlattScaling()])
    weight = (np.arange(300) % 7 > 0).astype(float)
    groups = np.arange(300) // 10
    used, scores = weight > 0, []
    for rows in (slice(None), used):
        fitted = ProbabilityFloor(search).fit(
            X[rows], labels[rows], sample_weight=weight[rows], groups=groups[rows]
        )
        scores.append(fitted.calibrator_.cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores)


def draw_copies(n_groups=60, n_samples=600):
    """Logits of which a row has several copies, nearly, which share its class."""
    rng = np.random.default_rng(0)
    base, groups = rng.normal(0, 2, (n_groups, 3)), np.arange(n_samples) % n_groups
    y = (base + rng.gumbel(size=base.shape)).argmax(axis=1)[groups]
    return 2 * base[groups] + 0.01 * rng.normal(size=(n_samples, 3)), y, groups


def search_of_copies(cv=3):
    tried = [TemperatureScaling(), IsotonicCalibration()]
    return CalibratorSearch(tried, rule="best", cv=cv)


@pytest.mark.parametrize(
    "wrapper", [ProbabilityFloor, BoostedCalibration, DenseCalibration]
)
def test_a_comparison_hands_groups_to_a_search_inside_another_calibrator(wrapper):
    X, y, groups = draw_copies()
    tried = {"alone": search_of_copies(), "inside": wrapper(search_of_copies())}
    table = compare_calibrators(tried, X, y, groups=groups, cv=3)
    told = dict(
        zip(table.names, table.mean[:, table.metrics.index("nll")], strict=True)
    )
    assert told["inside"] == pytest.approx(told["alone"], abs=0.01)


@pytest.mark.parametrize("ignored", [None, 255])
def test_dense_calibration_keeps_images_of_a_group_together(ignored):
    X, y, groups = draw_copies()
    X, y = np.stack([X, X], axis=-1), np.column_stack([y, (y + 1) % 3])
    y[::3, 1] = 2 if ignored is None else ignored
    dense = DenseCalibration(search_of_copies(), ignore_index=ignored)
    found = dense.fit(X, y, groups=groups).calibrator_
    rows, kept = X.transpose(0, 2, 1).reshape(-1, 3), y.ravel() != ignored
    alone = search_of_copies().fit(
        rows[kept], y.ravel()[kept], groups=np.repeat(groups, 2)[kept]
    )
    scores = [s.cv_results_["mean_test_score"] for s in (found, alone)]
    np.testing.assert_allclose(*scores)
    with pytest.raises(ValueError, match="groups has shape"):
        dense.fit(X, y, groups=groups[1:])


def test_the_trees_of_features_are_judged_by_other_groups():
    X, y, groups = draw_copies()
    features = np.random.default_rng(1).normal(size=(60, 2))[groups]
    boosted = BoostedCalibration(TemperatureScaling(), max_rounds=20)
    assert boosted.fit(X, y, features=features).n_rounds_ > 0
    assert boosted.fit(X, y, features=features, groups=groups).n_rounds_ == 0


@pytest.mark.parametrize("shared", [False, True])
def test_groups_reach_the_search_of_a_label(shared):
    X, y, groups = draw_copies()
    labels = np.eye(3, dtype=int)[y]
    labels[:100, 1] = -1
    multi = MultiLabelCalibration(search_of_copies(), shared=shared)
    found = multi.fit(X, labels, groups=groups).calibrators_[-1 if shared else 1]
    known = labels >= 0 if shared else np.s_[100:, 1]
    together = np.repeat(groups, 3).reshape(-1, 3)[known]
    alone = search_of_copies().fit(X[known], labels[known], groups=together)
    scores = [s.cv_results_["mean_test_score"] for s in (found, alone)]
    np.testing.assert_allclose(*scores)
    assert takes_groups(multi)
    assert not takes_groups(MultiLabelCalibration())


@pytest.mark.parametrize("wrapper", [ProbabilityFloor, GroupCalibration, PriorShift])
def test_a_search_inside_another_calibrator_keeps_a_row_of_shares_together(wrapper):
    rng = np.random.default_rng(0)
    z = rng.uniform(-3, 3, 100)
    share = rng.binomial(10, 0.5 + 0.25 * np.sin(3 * z)) / 10
    shares = np.column_stack([1 - share, share])
    alone = CalibratorSearch([TemperatureScaling(), HistogramBinning()], rule="best")
    inside = wrapper(alone).fit(z, shares).calibrator_
    alone = alone.fit(z, shares)
    scores = [s.cv_results_["mean_test_score"] for s in (alone, inside)]
    np.testing.assert_allclose(*scores)


@pytest.mark.parametrize("wrapper", [DenseCalibration, GroupCalibration, PriorShift])
def test_splits_count_rows_of_weight_0_inside_another_calibrator_too(wrapper):
    X, y = make_logits(200, 3, random_state=0)
    weight = np.ones(200)
    weight[:100:2] = weight[50:80] = 0
    halves = np.arange(60, 200), np.arange(60)
    tried = [TemperatureScaling(), VectorScaling()]
    alone = CalibratorSearch(tried, cv=[halves, halves[::-1]])
    inside = wrapper(alone).fit(X, y, sample_weight=weight).calibrator_
    alone = alone.fit(X, y, sample_weight=weight)
    scores = [s.cv_results_["mean_test_score"] for s in (alone, inside)]
    np.testing.assert_allclose(*scores)


def test_a_stack_that_is_fitted_again_counts_rows_of_weight_0():
    X, y = make_logits(200, 3, random_state=0)
    weight = (np.arange(200) % 3 > 0).astype(float)
    halves = np.arange(100, 200), np.arange(100)
    part = MatrixScaling(cv=[halves, halves[::-1]])
    stack = StackedCalibrator([part], [1.0], [], [0], [1.0])
    [inside] = stack.fit(X, y, sample_weight=weight).calibrators_
    alone = part.fit(X, y, sample_weight=weight)
    assert inside.cv_losses_ == pytest.approx(alone.cv_losses_)


@pytest.mark.parametrize(
    "wrapper",
    [
        BoostedCalibration,
        DenseCalibration,
        GroupCalibration,
        OrderPreservingScaling,
        PriorShift,
        ProbabilityFloor,
        ScalingBinning,
    ],
)
def test_classes_of_a_calibrator_inside_another_hold_where_that_has_none(wrapper):
    X, y = make_logits(300, 3, random_state=0)
    labels = np.array(["c", "a", "b"])[y]
    inner = ProbabilityFloor(VectorScaling(classes=["c", "a", "b"]))
    fitted = wrapper(inner).fit(X, labels)
    assert fitted.classes_.tolist() == ["c", "a", "b"]
    assert fitted.score(X, labels) > 0.9
    fitted = wrapper(inner, classes=["a", "c", "b"]).fit(X, labels)
    assert fitted.classes_.tolist() == ["a", "c", "b"]


def test_rows_of_shares_are_no_groups_to_calibrate_by_themselves():
    X, y = make_logits(200, 3, random_state=0)
    tried = [GroupCalibration(CalibratorSearch([TemperatureScaling()], cv=2))]
    table = compare_calibrators(tried, X, np.eye(3)[y] * 0.7 + 0.1, cv=2)
    assert len(table.names) == 2


@pytest.mark.parametrize(
    "wrapper",
    [ProbabilityFloor, GroupCalibration, DenseCalibration, MultiLabelCalibration],
)
def test_a_search_inside_another_calibrator_has_its_parameters_checked(wrapper):
    X, y = make_logits(100, 3, random_state=0)
    y = np.eye(3, dtype=int)[y] if wrapper is MultiLabelCalibration else y
    with pytest.raises(ValueError, match="'rule'"):
        wrapper(CalibratorSearch([TemperatureScaling()], rule="bset")).fit(X, y)


def test_groups_and_weights_of_0_reach_a_search_behind_a_classifier():
    X, y = draw_binary()
    weight = (np.arange(300) % 7 > 0).astype(float)
    search = CalibratorSearch([TemperatureScaling(), PlattScaling()])
    classifier = CalibratedClassifier(LogisticRegression(), search)
    groups = np.arange(300) // 10
    classifier.fit(X, y, sample_weight=weight, groups=groups)
    folds = list(StratifiedGroupKFold(5).split(X, y, groups))
    rows = np.concatenate([test for _, test in folds])
    logits = cross_val_predict(
        LogisticRegression(), X, y, cv=folds, method="decision_function",
        params={"sample_weight": weight},
    )  # fmt: skip
    expected = clone(search).fit(logits[rows], y[rows], weight[rows], groups[rows])
    assert classifier.calibrators_[0].cv_results_["mean_test_score"] == pytest.approx(
        expected.cv_results_["mean_test_score"]
    )


def test_a_search_of_scikit_learn_is_told_the_groups():
    X, y = draw_binary()
    search = GridSearchCV(
        TemperatureScaling(), {"prior": [None, 8.0]}, scoring="neg_log_loss",
        cv=GroupKFold(3),
    )  # fmt: skip
    groups = np.arange(300) // 10
    result = calibrate(
        LogisticRegression(), X, y, calibrator=search, groups=groups, n_bootstrap=0
    )
    assert np.isfinite(result.held_out.after).all()


def test_a_search_that_gives_logits_gives_a_classifier_them():
    X, y = draw_binary()
    search = CalibratorSearch([TemperatureScaling()])
    classifier = CalibratedClassifier(LogisticRegression(), search).fit(X, y)
    assert classifier.decision_function(X).shape == (300,)
    search = CalibratorSearch([IsotonicCalibration()])
    classifier = CalibratedClassifier(LogisticRegression(), search).fit(X, y)
    assert not hasattr(classifier, "decision_function")


def test_a_tree_of_one_class_in_a_fold_is_no_log_odds():
    X = np.random.default_rng(0).normal(size=(100, 3))
    y = np.r_[np.zeros(50), np.tile([0, 1], 25)]
    classifier = CalibratedClassifier(DecisionTreeClassifier(), PlattScaling(), cv=2)
    with pytest.raises(ValueError, match="hold out no samples of two classes"):
        classifier.fit(X, y, groups=np.repeat([0, 1], 50))


def test_probabilities_that_are_whole_numbers_are_calibrated():
    class Sure(LogisticRegression):
        def predict_proba(self, X):
            return np.rint(super().predict_proba(X)).astype(int)

    X, y = draw_binary()
    model = Sure().fit(X, y)
    result = calibrate(model, X, y, calibrator=TemperatureScaling(), n_bootstrap=0)
    assert 0 < result.held_out.after.min() < 0.5


def test_a_choice_takes_the_single_column_that_the_search_took():
    X, y = make_logits(400, 2, random_state=0)
    z = X[:, 1] - X[:, 0]
    for search in (CalibratorSearch(), CalibratorSearch([TemperatureScaling()])):
        proba = search.fit(z, y).predict_proba(z)
        np.testing.assert_array_equal(search.best_calibrator_.predict_proba(z), proba)


def test_short_questions_are_lists_alone_as_in_a_batch():
    options = OptionCalibration().fit([[1.0, 0], [0, 1, 2.0]] * 20, [0, 2] * 20)
    short, _ = options.predict_proba([[1.0, 0], [0, 1, 2.0]])
    (alone,) = options.predict_proba([[1.0, 0]])
    np.testing.assert_array_equal(alone, short)
    assert options.predict([[1.0, 0]]) == [0]


def test_dense_calibration_refuses_what_is_no_calibrator():
    with pytest.raises(TypeError, match="LogisticRegression does not"):
        DenseCalibration(LogisticRegression()).fit(*make_logits(50, 3))


def test_tensors_of_options_are_padded_in_half_precision_and_refused_as_arrays():
    torch = pytest.importorskip("torch")
    X = [[1.0, 0, -np.inf], [0, 2, 1]]
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        padded = pad_options(torch.tensor(X, dtype=dtype))
        np.testing.assert_array_equal(padded.float().numpy(), pad_options(np.array(X)))
    with pytest.raises(ValueError, match="Row 0 has 1 options"):
        pad_options(torch.tensor([[-np.inf, -np.inf, 1.0]]))


def chain_of(X, y, classes):
    proba = softmax(X, axis=1)
    options = {"calibrator": VectorScaling(), "classes": classes, "n_bootstrap": 0}
    return calibrate(proba=proba, y=y, **options).calibrator


def stack_of(X, y, classes):
    parts = [TemperatureScaling(), VectorScaling()]
    search = CalibratorSearch(parts, cv=2, rule="stack", classes=classes)
    return search.fit(X, y).best_calibrator_


def that_of_a_group(X, y, classes):
    whole = GroupCalibration(TemperatureScaling(), classes=classes)
    return whole.fit(X, y, groups=np.arange(len(y)) % 2).calibrator_of(0)


@pytest.mark.parametrize("handed_out", [chain_of, stack_of, that_of_a_group])
def test_what_is_handed_out_knows_its_classes_when_it_is_fitted_again(handed_out):
    X, codes = make_logits(300, 3, random_state=0)
    y = np.array(["c", "a", "b"])[codes]
    calibrator = handed_out(X, y, ["c", "a", "b"])
    again = clone(calibrator).fit(X, y)
    assert again.classes_.tolist() == ["c", "a", "b"]
    assert again.score(X, y) > 0.85
