from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers import _matrix, _matrix_blocks
from skcalib._solvers._matrix import Ridge, _Problem, fit_matrix, identity_map
from skcalib._solvers._vector import _expand, inverse
from skcalib.calibrators._penalty_search import PenaltySearch, log_loss, penalties
from skcalib.calibrators._seen_range import clip_masked, sensible_range


@pytest.fixture
def data(calibration_set):
    logits, y = calibration_set
    weight = np.random.default_rng(0).uniform(0.5, 2, y.size)
    return CalibrationData(ArraySource(logits), y, weight)


def differences(gradient_at, x, direction, h=1e-5):
    """Derivative of the gradient along a direction, by central differences."""
    ahead, behind = gradient_at(x + h * direction), gradient_at(x - h * direction)
    return (ahead - behind) / (2 * h)


@pytest.mark.parametrize("max_dense", [300, 2])
def test_vector_derivatives_are_those_of_the_loss(data, monkeypatch, max_dense):
    monkeypatch.setattr("skcalib._solvers._vector.MAX_DENSE_CLASSES", max_dense)
    rng = np.random.default_rng(0)
    x, direction = rng.normal(size=(2, 2, 4))
    penalty, target = rng.uniform(0.1, 0.3, size=(2, 2, 4))

    def at(x):
        return _expand(data, x, penalty, target, None)

    slope = differences(lambda x: np.array(at(x).loss), x, direction)
    assert np.vdot(at(x).gradient, direction) == pytest.approx(float(slope), rel=1e-6)
    expected = differences(lambda x: at(x).gradient, x, direction)
    if max_dense == 300:
        assert_allclose(at(x).precondition(expected), direction, atol=1e-6)
    else:
        assert_allclose(at(x).hessian_product(direction), expected, atol=1e-6)


@pytest.mark.parametrize(("least_columns", "atol"), [(1, 1e-4), (32, 1e-6)])
def test_matrix_derivatives_are_those_of_the_loss(
    data, monkeypatch, least_columns, atol
):
    monkeypatch.setattr("skcalib._solvers._softmax.LEAST_COLUMNS", least_columns)
    rng = np.random.default_rng(0)
    x = identity_map(4) + rng.normal(scale=0.1, size=(4, 5))
    direction = rng.normal(size=(4, 5))
    ridge = Ridge(0.1, 0.2, 0.3)
    problem = _Problem(data, ridge)
    point = problem.expand(x, None)
    assert point.loss == pytest.approx(problem.loss(x), rel=1e-12)
    slope = differences(lambda x: np.array(problem.loss(x)), x, direction)
    assert np.vdot(point.gradient, direction) == pytest.approx(float(slope), rel=1e-6)
    expected = differences(lambda x: problem.expand(x, None).gradient, x, direction)
    # The Hessian only steers and may be formed in float32.
    assert_allclose(point.hessian_product(direction), expected, atol=atol)


@pytest.mark.parametrize("large", [1 << 24, 0])
@pytest.mark.parametrize("ridge", [Ridge(0.1, 0.2, 0.3), Ridge(100.0)])
def test_matrix_preconditioner_is_symmetric_and_positive(
    data, monkeypatch, large, ridge
):
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", large)
    rng = np.random.default_rng(0)
    problem = _Problem(data, ridge)
    precondition = problem.expand(identity_map(4), None).precondition
    a, b = rng.normal(size=(2, 4, 5))
    assert np.vdot(a, precondition(b)) == pytest.approx(np.vdot(precondition(a), b))
    assert np.vdot(a, precondition(a)) > 0


def test_the_hessian_by_diagonal_and_intercept_is_that_of_the_loss(data):
    problem = _Problem(data, Ridge(0.1, 0.2, 0.3))
    x = identity_map(4)
    *_, moments = problem._sum(problem._statistic(x, with_curvature=True))
    vector = np.random.default_rng(0).normal(size=(2, 4))
    direction = np.zeros((4, 5))
    direction[np.arange(4), np.arange(4)], direction[:, -1] = vector
    change = differences(lambda x: problem.expand(x, None).gradient, x, direction)
    expected = np.concatenate([np.diagonal(change), change[:, -1]])
    found = problem._vector_hessian(moments) @ vector.ravel()
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("least_columns", [1, 32])
def test_shifts_are_all_there_is_where_features_do_not_vary(monkeypatch, least_columns):
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", 0)
    monkeypatch.setattr("skcalib._solvers._softmax.LEAST_COLUMNS", least_columns)
    logits = np.tile([0.3, -1.2, 0.8, -0.1], (8, 1))
    data = CalibrationData(ArraySource(logits), np.arange(8) % 4, np.arange(1.0, 9.0))
    problem = _Problem(data, Ridge(0.3, 0.2, 0.1))
    x = identity_map(4)
    point = problem.expand(x, None)
    assert point.hessian_product is None
    direction = np.random.default_rng(0).normal(size=(4, 5))
    change = differences(lambda x: problem.expand(x, None).gradient, x, direction, 0.01)
    assert_allclose(point.precondition(change), direction, atol=1e-3)


def test_inverse_solves_in_any_units():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    units = np.repeat([1e-12, 1.0], 3) * 10.0 ** np.arange(6)
    hessian = (root.T @ root + np.eye(6)) * np.outer(units, units)
    expected = rng.normal(size=6) / units
    assert_allclose(inverse(hessian)(hessian @ expected), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1e-20])
def test_inverse_is_finite_where_rounding_leaves_no_curvature(value):
    assert np.isfinite(inverse(np.full((4, 4), value))(np.ones(4))).all()


def test_sensible_logits_are_not_cut(data):
    cut, (lower, upper) = clip_masked(data, 2.0)
    assert cut is data
    assert lower < data.logits.min() < data.logits.max() < upper


def test_masks_are_cut_far_below_the_others(data):
    logits = data.logits.copy()
    plain = sensible_range(data, 2.0)
    logits[::3, 0] = -1e30
    masked = CalibrationData(ArraySource(logits), data.codes, data.weight)
    cut, (lower, upper) = clip_masked(masked, 2.0)
    assert cut.logits.min() == lower > -1e6
    # No row loses or gains probability: the cut lies 1,000 temperatures down.
    assert lower < logits[1::3].min() - 1e3
    assert upper == pytest.approx(plain[1], rel=0.5)


def test_the_search_starts_strong_and_stops_once_the_loss_rises(data):
    tried = []

    def fit(train, off_diagonal, intercept, start):
        tried.append((off_diagonal, intercept))
        # A model the farther from the start the farther the penalty is from 100.
        return identity_map(4, 0.5 + np.log10(off_diagonal / 100) ** 2)

    search = PenaltySearch(fit, [(data, data)])
    chosen, models = search.run(None, 1.0, identity_map(4))
    assert tried == [(10.0**k, 1.0) for k in (4, 3, 2, 1)]
    assert chosen == (100.0, 1.0)
    assert search.losses[chosen] == min(search.losses.values())
    assert_allclose(models, [identity_map(4, 0.5)])


@pytest.mark.parametrize(
    ("n_classes", "strongest"), [(2, 4), (10, 4), (11, 5), (100, 6), (1000, 8)]
)
def test_the_grid_goes_on_with_the_classes(n_classes, strongest):
    expected = 10.0 ** np.arange(strongest, -3, -1)
    assert_allclose(penalties(n_classes), expected)


def test_each_fit_starts_from_the_one_before(data):
    starts = []

    def fit(train, off_diagonal, intercept, start):
        starts.append(start[0, 0])
        return start * 0.9

    PenaltySearch(fit, [(data, data)]).run(1.0, None, identity_map(4))
    assert_allclose(starts, 0.9 ** np.arange(len(starts)))
    assert len(starts) > 2


def test_a_second_walk_that_ends_early_does_not_lose_the_first_best(data):
    worse = {1e4: 0.5, 1e3: 0.6}

    def fit(train, off_diagonal, intercept, start):
        factor = 0.5 + 0.1 * abs(np.log10(off_diagonal))
        if off_diagonal != intercept:
            factor += worse.get(intercept, 0.7)
        return identity_map(4, factor)

    search = PenaltySearch(fit, [(data, data)])
    chosen, models = search.run(None, None, identity_map(4))
    assert chosen == (1.0, 1.0)
    assert search.losses[chosen] == min(search.losses.values())
    assert_allclose(models, [identity_map(4, 0.5)])


def test_log_loss_is_the_weighted_mean(data):
    x = identity_map(4, 0.5)
    scores = 0.5 * data.logits
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(data.n_samples), data.codes] @ data.weight
    assert log_loss(data, x) == pytest.approx(expected, rel=1e-12)


def test_products_that_are_computed_anew_are_those_of_kept_blocks(data, monkeypatch):
    rng = np.random.default_rng(0)
    x, direction = rng.normal(size=(2, 4, 5))
    kept = _Problem(data, Ridge()).expand(x, None).hessian_product(direction)
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", 0)
    anew = _Problem(data, Ridge()).expand(x, None).hessian_product(direction)
    assert_allclose(anew, kept, rtol=1e-10)


@pytest.mark.parametrize("large", [0, 1 << 24])
def test_no_product_meets_a_subnormal_number(monkeypatch, large):
    # On such numbers processors are a hundred times slower.
    logits = np.random.default_rng(0).uniform(-100, 0, size=(500, 4))
    data = CalibrationData(ArraySource(logits), logits.argmax(axis=1), np.ones(500))
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", large)
    monkeypatch.setattr("skcalib._solvers._softmax.LEAST_COLUMNS", 1)
    kinds, smallest = set(), []

    def watch(name):
        real = getattr(_matrix_blocks, name)

        def watched(*arrays):
            for values in arrays:
                if values.dtype == np.float32 and values.any():
                    kinds.add(name)
                    smallest.append(np.abs(values[values != 0]).min())
            return real(*arrays)

        for module in (_matrix_blocks, _matrix):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, watched)

    watch("curvature_product")
    watch("outer_sums")
    x = identity_map(4)
    expansion = _Problem(data, Ridge(0.01, 0.01, 0.01)).expand(x, None)
    expansion.hessian_product(np.ones_like(x))
    assert "curvature_product" in kinds
    assert min(smallest) > np.finfo(np.float32).tiny


@pytest.mark.parametrize("least_columns", [1, 32])
@pytest.mark.parametrize("others", [0.0, 0.01])
@pytest.mark.parametrize("off_diagonal", [0.01, 100.0])
def test_many_logits_are_fitted_to_the_same_minimum(
    data, monkeypatch, off_diagonal, others, least_columns
):
    # A strong ridge outweighs the curvature, a weak one does not.
    ridge = Ridge(off_diagonal, others, others)
    fit = partial(fit_matrix, data, identity_map(4), ridge=ridge, tol=1e-7, max_iter=50)
    expected = fit()
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", 0)
    monkeypatch.setattr("skcalib._solvers._softmax.LEAST_COLUMNS", least_columns)
    result = fit()
    assert result.converged
    assert result.loss == pytest.approx(expected.loss, abs=2e-7)
    assert result.n_iter <= expected.n_iter + 4


def test_many_logits_with_a_class_beyond_all_belief_are_fitted_too(data, monkeypatch):
    # Probabilities that round to 0 leave that class without any curvature.
    logits = data.logits.copy()
    logits[:, 3] = -100
    codes = np.where(data.codes == 3, 0, data.codes)
    hopeless = CalibrationData(ArraySource(logits), codes, data.weight)
    ridge = Ridge(100.0, 0.0, 0.1)
    fit = partial(
        fit_matrix, hopeless, identity_map(4), ridge=ridge, tol=1e-7, max_iter=50
    )
    expected = fit()
    monkeypatch.setattr("skcalib._solvers._matrix.LARGE", 0)
    monkeypatch.setattr("skcalib._solvers._softmax.LEAST_COLUMNS", 1)
    assert fit().loss == pytest.approx(expected.loss, abs=1e-6)
