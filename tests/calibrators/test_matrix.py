import numpy as np
import pytest
from numpy.testing import assert_allclose
from rows import mean_log_loss
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, StratifiedKFold

from skcalib._validation import make_splits
from skcalib.calibrators import MatrixScaling, TemperatureScaling
from skcalib.datasets import load_demo
from skcalib.frozen import OnnxLogits

COEF = np.array([[0.6, 0.2, 0.0], [-0.2, 0.5, 0.1], [0.1, 0.0, 0.8]])
INTERCEPT = np.array([0.4, 0.0, -0.4])
PENALTIES = {
    "plain": {"penalty": None},
    "odir": {"off_diagonal_penalty": 0.3, "intercept_penalty": 0.2},
    "odir strong": {"off_diagonal_penalty": 1e4, "intercept_penalty": 1e-2},
    "l2": {"penalty": "l2", "off_diagonal_penalty": 0.3, "intercept_penalty": 0.2},
}


def factors(options, n_classes):
    """Turn the strengths of the means of squares into those of single squares."""
    if options.get("penalty", "odir") is None:
        return {}
    n_entries, strength = n_classes**2, options["off_diagonal_penalty"]
    intercept = options["intercept_penalty"] / n_classes
    if options.get("penalty") == "l2":
        each = strength / n_entries
        return {"off_diagonal": each, "diagonal": each, "intercept": intercept}
    return {"off_diagonal": strength / (n_entries - n_classes), "intercept": intercept}


def test_fit_recovers_the_map_that_drew_the_labels(draw_affine_set):
    logits, y = draw_affine_set(COEF, INTERCEPT, n_samples=20_000)
    scaling = MatrixScaling(prior=None, penalty=None).fit(logits, y)
    # Adding one row to all rows of W changes nothing.
    assert_allclose(
        scaling.coef_ - scaling.coef_.mean(axis=0), COEF - COEF.mean(axis=0), atol=0.04
    )
    assert_allclose(
        scaling.intercept_ - scaling.intercept_.mean(), INTERCEPT, atol=0.05
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_loss_is_stationary_and_at_the_minimum(skewed_set, affine_reference, name):
    options = PENALTIES[name]
    reference = affine_reference(*skewed_set, **factors(options, 4))
    scaling = MatrixScaling(prior=None, **options).fit(*skewed_set)
    loss = reference.loss(scaling.coef_, scaling.intercept_)
    assert loss == pytest.approx(scaling.loss_, abs=1e-12)
    assert loss <= reference.minimum() + 1e-7
    gradient = reference.gradient(scaling.coef_, scaling.intercept_)
    assert_allclose(gradient, 0, atol=1e-4)
    assert scaling.gradient_norm_ == pytest.approx(np.linalg.norm(gradient), abs=1e-9)


def test_l2_of_great_strength_gives_the_identity(skewed_set):
    scaling = MatrixScaling(
        prior=None, penalty="l2", off_diagonal_penalty=1e8, intercept_penalty=1e8
    )
    scaling.fit(*skewed_set)
    assert_allclose(scaling.coef_, np.eye(4), atol=1e-5)
    assert_allclose(scaling.intercept_, 0, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_units_do_not_matter_without_a_penalty(skewed_set, factor):
    logits, y = skewed_set
    unit = MatrixScaling(prior=None, penalty=None).fit(logits, y)
    scaled = MatrixScaling(prior=None, penalty=None).fit(factor * logits, y)
    assert scaled.loss_ == pytest.approx(unit.loss_, abs=1e-8)
    assert_allclose(
        scaled.predict_proba(factor * logits), unit.predict_proba(logits), atol=1e-3
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_integer_weights_equal_repetition(skewed_set, name):
    logits, y = skewed_set
    weight = np.random.default_rng(0).integers(0, 4, y.size)
    options = {**PENALTIES[name], "tol": 1e-12}
    weighted = MatrixScaling(prior=None, **options).fit(logits, y, sample_weight=weight)
    repeated = MatrixScaling(prior=None, **options)
    repeated.fit(np.repeat(logits, weight, axis=0), np.repeat(y, weight))
    assert weighted.loss_ == pytest.approx(repeated.loss_, abs=1e-10)
    assert_allclose(
        weighted.predict_proba(logits), repeated.predict_proba(logits), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_an_absent_class_has_the_mean_factors_and_offset_of_the_others(
    draw_calibration_set,
):
    logits, y = draw_calibration_set(n_classes=5)
    logits, y = logits[y < 4], y[y < 4]
    scaling = MatrixScaling(prior=None, penalty=None).fit(logits, y)
    plain = TemperatureScaling(prior=None).fit(logits, y)
    own, seen = np.eye(5, dtype=bool)[4], scaling.coef_[:4, :4]
    mean = seen.diagonal().mean()
    of_others = seen[~np.eye(4, dtype=bool)].mean()
    assert_allclose(scaling.coef_[4], np.where(own, mean, of_others), rtol=1e-12)
    assert scaling.intercept_[4] == pytest.approx(scaling.intercept_[:4].mean())
    share = scaling.predict_proba(logits)[:, 4].mean()
    assert share == pytest.approx(plain.predict_proba(logits)[:, 4].mean(), rel=0.5)


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
def test_an_absent_class_is_no_rarer_under_a_penalty(draw_calibration_set):
    logits, y = draw_calibration_set(n_classes=5)
    logits, y = logits[y < 4], y[y < 4]
    scaling = MatrixScaling(prior=None, off_diagonal_penalty=1.0, intercept_penalty=0.1)
    scaling.fit(logits, y)
    assert scaling.intercept_[4] == pytest.approx(scaling.intercept_[:4].mean())


@pytest.mark.parametrize("name", ["plain", "odir"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_logits_spoil_nothing(skewed_set, mask_others, name, dtype):
    logits, y = skewed_set
    losses = []
    for value in (-1e30, np.finfo(dtype).min):
        X, _ = mask_others(logits.astype(dtype), y, value)
        scaling = MatrixScaling(prior=None, **PENALTIES[name]).fit(X, y)
        assert np.isfinite(scaling.coef_).all()
        losses.append(mean_log_loss(y, scaling.predict_proba(X)))
        assert losses[-1] <= TemperatureScaling(prior=None).fit(X, y).loss_ + 1e-3
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("fixed", [{}, {"intercept_penalty": 1.0}])
def test_the_penalties_chosen_have_the_smallest_held_out_loss(skewed_set, fixed):
    scaling = MatrixScaling(prior=None, **fixed).fit(*skewed_set)
    chosen = scaling.off_diagonal_penalty_, scaling.intercept_penalty_
    assert scaling.cv_losses_[chosen] == min(scaling.cv_losses_.values())
    assert len(scaling.cv_losses_) >= 2
    refit = MatrixScaling(
        prior=None, off_diagonal_penalty=chosen[0], intercept_penalty=chosen[1]
    )
    assert refit.fit(*skewed_set).loss_ == pytest.approx(scaling.loss_, abs=1e-8)
    if fixed:
        assert scaling.intercept_penalty_ == 1.0


def test_an_intercept_penalty_that_is_searched_lies_on_its_grid(skewed_set):
    logits, y = skewed_set
    logits = logits + np.linspace(6, -6, logits.shape[1])
    scaling = MatrixScaling(off_diagonal_penalty=0.0).fit(logits, y)
    assert {off_diagonal for off_diagonal, _ in scaling.cv_losses_} == {0}
    tried = {intercept for _, intercept in scaling.cv_losses_}
    assert tried <= {10.0**k for k in range(-2, 5)}
    assert scaling.intercept_penalty_ in tried


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_the_search_goes_on_where_strong_penalties_differ_by_noise(seed):
    X, y = make_classification(
        3000, 10, weights=[0.97], flip_y=0.002, class_sep=0.8, random_state=seed
    )
    classifier = LogisticRegression(class_weight="balanced").fit(X[:1000], y[:1000])
    log_odds, y = classifier.decision_function(X[1000:]), y[1000:]
    proba = MatrixScaling().fit(log_odds, y).predict_proba(log_odds)
    assert proba[:, 1].mean() == pytest.approx(y.mean(), rel=0.6)


def test_held_out_losses_are_those_of_fits_to_the_other_folds(skewed_set):
    logits, y = skewed_set
    weight = np.random.default_rng(0).integers(1, 4, y.size).astype(float)
    scaling = MatrixScaling(prior=None, intercept_penalty=1.0, cv=3, random_state=5)
    scaling.fit(logits, y, sample_weight=weight)
    splits = make_splits(3, logits, y, weight, 5)
    for (off_diagonal, intercept), found in scaling.cv_losses_.items():
        expected = 0.0
        for rest, out in splits:
            model = MatrixScaling(
                prior=None,
                off_diagonal_penalty=off_diagonal,
                intercept_penalty=intercept,
            ).fit(logits[rest], y[rest], sample_weight=weight[rest])
            own = model.predict_proba(logits[out])[np.arange(out.size), y[out]]
            expected -= weight[out] @ np.log(own)
        # The fits within the search are rougher.
        assert found == pytest.approx(expected / weight.sum(), abs=1e-3)


def test_averaged_folds_predict_the_mean_of_their_models(skewed_set):
    logits, y = skewed_set
    scaling = MatrixScaling(
        prior=None,
        off_diagonal_penalty=1.0,
        intercept_penalty=1.0,
        cv=3,
        average_folds=True,
    ).fit(logits, y)
    assert scaling.fold_coefs_.shape == (3, 4, 4)
    models = zip(scaling.fold_coefs_, scaling.fold_intercepts_, strict=True)
    each = [softmax(logits @ coef.T + b, axis=1) for coef, b in models]
    assert np.ptp(each, axis=0).max() > 1e-4
    assert_allclose(scaling.predict_proba(logits), np.mean(each, axis=0), atol=1e-12)
    assert not hasattr(scaling, "decision_function")
    assert hasattr(MatrixScaling(prior=None), "decision_function")


@pytest.mark.parametrize("average_folds", [False, True])
def test_with_given_splits_a_weight_is_a_repetition(skewed_set, average_folds):
    logits, y = (part[:400] for part in skewed_set)
    times = np.random.default_rng(0).integers(0, 4, y.size)
    fold = np.arange(y.size) % 3
    weighted = MatrixScaling(
        prior=None, cv=PredefinedSplit(fold), average_folds=average_folds
    )
    weighted.fit(logits, y, sample_weight=times.astype(float))
    repeated = MatrixScaling(
        prior=None, cv=PredefinedSplit(fold.repeat(times)), average_folds=average_folds
    ).fit(logits.repeat(times, axis=0), y.repeat(times))
    assert weighted.cv_losses_ == pytest.approx(repeated.cv_losses_, rel=1e-6)
    expected = repeated.predict_proba(logits)
    assert_allclose(weighted.predict_proba(logits), expected, atol=1e-6)


def test_every_kind_of_cv_is_taken(skewed_set):
    logits, y = skewed_set
    options = {"intercept_penalty": 1.0, "average_folds": True}
    shuffled = StratifiedKFold(4, shuffle=True, random_state=0)
    for cv, n_folds in [
        (None, 5),
        (3, 3),
        (shuffled, 4),
        (list(shuffled.split(logits, y)), 4),
        ([(y >= 0, np.arange(100))], 1),
    ]:
        scaling = MatrixScaling(prior=None, cv=cv, **options).fit(logits, y)
        assert scaling.fold_coefs_.shape == (n_folds, 4, 4)


def test_splits_of_an_iterable_are_those_of_its_splitter(skewed_set):
    logits, y = skewed_set
    splitter = StratifiedKFold(4, shuffle=True, random_state=0)
    listed = list(splitter.split(logits, y))
    losses = [
        MatrixScaling(prior=None, cv=cv).fit(logits, y).cv_losses_
        for cv in (splitter, listed)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("cv", "weight", "message"),
    [
        ([], None, "gives no split"),
        ([(range(100), [])], None, "Split 0 of cv has 100 rows to fit on and 0"),
        ([(range(100), [100, 101])], np.arange(500) < 100, "Split 0 of cv has 100"),
    ],
)
def test_an_empty_side_of_a_split_is_refused(skewed_set, cv, weight, message):
    X, y = skewed_set
    with pytest.raises(ValueError, match=message):
        MatrixScaling(prior=None, cv=cv).fit(X, y, sample_weight=weight)


def test_the_seed_decides_the_folds(skewed_set):
    def losses(seed):
        scaling = MatrixScaling(prior=None, intercept_penalty=1.0, random_state=seed)
        return scaling.fit(*skewed_set).cv_losses_

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_decision_function_is_the_affine_map(skewed_set):
    logits, y = skewed_set
    scaling = MatrixScaling(prior=None, **PENALTIES["odir"]).fit(logits, y)
    expected = logits @ scaling.coef_.T + scaling.intercept_
    assert_allclose(scaling.decision_function(logits), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["plain", "odir", "l2"])
def test_the_iteration_limit_warns_and_keeps_the_best_point(skewed_set, name):
    scaling = MatrixScaling(prior=None, **PENALTIES[name], max_iter=1)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        scaling.fit(*skewed_set)
    assert np.isfinite(scaling.coef_).all()


@pytest.mark.filterwarnings("ignore::skcalib.exceptions.AbsentClassWarning")
@pytest.mark.filterwarnings("ignore:MatrixScaling stopped early")
@pytest.mark.parametrize("penalty", [None, "odir", "l2"])
def test_fewer_samples_than_classes_stay_finite(penalty):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 20))
    scaling = MatrixScaling(
        prior=None, penalty=penalty, off_diagonal_penalty=1.0, intercept_penalty=1.0
    ).fit(logits, rng.integers(0, 20, 12))
    extreme = np.array([[1e4] + 19 * [0.0], 10 * [-1e30, 1e30], 20 * [1e308]])
    for X in (logits, extreme):
        proba = scaling.predict_proba(X)
        assert (proba >= 0).all()
        assert_allclose(proba.sum(axis=1), 1, atol=1e-12)


def test_cross_validation_with_more_folds_than_samples_of_a_class():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3))
    scaling = MatrixScaling(prior=None, cv=20).fit(logits, [0, 1, 2, 0, 1, 0, 0, 0])
    assert np.isfinite(scaling.predict_proba(logits)).all()


def test_a_penalised_map_of_a_real_network_is_stationary(cifar10, affine_reference):
    options = {"off_diagonal_penalty": 1.0, "intercept_penalty": 1.0}
    scaling = MatrixScaling(prior=None, **options).fit(cifar10.X_cal, cifar10.y_cal)
    reference = affine_reference(*cifar10[:2], **factors(options, 10))
    gradient = reference.gradient(scaling.coef_, scaling.intercept_)
    assert_allclose(gradient, 0, atol=1e-4)
    held_out = mean_log_loss(cifar10.y_test, scaling.predict_proba(cifar10.X_test))
    raw = mean_log_loss(cifar10.y_test, softmax(cifar10.X_test, axis=1))
    assert held_out < raw


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("penalty", "l1"), ("off_diagonal_penalty", -1.0), ("cv", 1), ("tol", 0.0)],
)
def test_parameters_outside_their_range_are_refused(skewed_set, parameter, value):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter"):
        MatrixScaling(prior=None, **{parameter: value}).fit(*skewed_set)


@pytest.mark.parametrize("average_folds", [False, True])
def test_repeated_rows_are_fitted_as_weights_also_in_the_folds(
    skewed_set, average_folds
):
    logits, y = skewed_set
    weight = np.random.default_rng(0).integers(1, 5, y.size)
    rows = np.repeat(np.arange(y.size), weight)
    scaling = MatrixScaling(prior=None, average_folds=average_folds)
    weighted = clone(scaling).fit(logits, y, sample_weight=weight)
    repeated = clone(scaling).fit(logits[rows], y[rows])
    assert repeated.off_diagonal_penalty_ == weighted.off_diagonal_penalty_
    assert repeated.intercept_penalty_ == weighted.intercept_penalty_
    expected = weighted.predict_proba(logits)
    assert_allclose(repeated.predict_proba(logits), expected, atol=1e-6)


@pytest.mark.onnx
def test_where_the_network_was_sure_and_wrong_the_prior_does_not_hold_the_diagonal():
    # Under another light T is 6, and a matrix undoes what made it so.
    pytest.importorskip("onnxruntime")
    demo, light = load_demo(), np.linspace(0, 0.4, 8, dtype=np.float32)
    network = OnnxLogits(demo.model)
    logits, test = (
        network.transform(np.clip(0.8 * images + light, 0, 1))
        for images in (demo.X_calibration, demo.X_test)
    )
    fitted = [
        MatrixScaling(
            off_diagonal_penalty=1.0, intercept_penalty=0.01, prior=prior
        ).fit(logits, demo.y_calibration)
        for prior in (8.0, None)
    ]
    with_prior, without = (
        mean_log_loss(demo.y_test, each.predict_proba(test)) for each in fitted
    )
    assert with_prior < without + 0.01
