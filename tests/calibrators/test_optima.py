"""Parametric fits of badly scaled logits against SciPy's optimisers, by formula.

The references share nothing with the solvers: they start from the calibrator's own
parameters, in coordinates where the Hessian there is the identity, and say how much
lower the loss can get.
"""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skcalib._blocks import ArraySource, CalibrationData
from skcalib._solvers._temperature import fit_temperature
from skcalib._solvers._vector import slight_penalty
from skcalib.calibrators import (
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)


def draw(n_samples=300, n_classes=4):
    """Logits, and classes that an affine map of them draws."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(n_samples, n_classes))
    coef = np.diag(rng.uniform(0.5, 1, n_classes))
    coef += rng.normal(scale=0.1, size=coef.shape)
    scores = logits @ coef + rng.normal(scale=0.5, size=n_classes)
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return logits, y


def mapped(function, **options):
    logits, y = draw(**options)
    return function(logits, np.random.default_rng(1)), y, np.ones(len(y))


def with_difference(z, rng, noise):
    z[:, 3] = z[:, 0] - z[:, 1] + noise * rng.normal(size=len(z))
    return z


def rare_class():
    logits, y = draw()
    kept = (y < 3) | (np.arange(len(y)) < 4)
    return logits[kept], y[kept], np.ones(kept.sum())


def uneven_weights():
    logits, y = draw()
    # Whole numbers, whose sum is the number of samples.
    return logits, y, np.rint(10.0 ** np.random.default_rng(1).uniform(0, 12, len(y)))


PROBLEMS = {
    "plain": partial(mapped, lambda z, rng: z),
    "scale 1e3": partial(mapped, lambda z, rng: 1e3 * z),
    "scale 1e-3": partial(mapped, lambda z, rng: 1e-3 * z),
    "scale 1e6": partial(mapped, lambda z, rng: 1e6 * z),
    "offset 1e3": partial(mapped, lambda z, rng: z + 1e3),
    "offsets by column": partial(
        mapped, lambda z, rng: z + np.array([1e3, -1e3, 500, 0])
    ),
    "offsets by row": partial(
        mapped, lambda z, rng: z + 1e3 * rng.normal(size=(len(z), 1))
    ),
    "scale and offset": partial(mapped, lambda z, rng: 1e3 * z - 1e5),
    "columns 1e-4 to 1e4": partial(
        mapped, lambda z, rng: z * 10.0 ** np.array([-4, -1, 2, 4])
    ),
    "columns 1e4 to 1e-4": partial(
        mapped, lambda z, rng: z * [1e4, 1, 1e-4, 1e2] + 100
    ),
    "collinear": partial(mapped, partial(with_difference, noise=0)),
    "nearly collinear": partial(mapped, partial(with_difference, noise=1e-5)),
    "constant column": partial(mapped, lambda z, rng: z * [1, 1, 1, 0] + 3),
    "integers": partial(mapped, lambda z, rng: np.rint(z)),
    "large integers": partial(mapped, lambda z, rng: np.rint(1e4 * z)),
    "heavy tails": partial(
        mapped, lambda z, rng: z * np.abs(rng.standard_t(1, (len(z), 1)))
    ),
    "8 rows": partial(mapped, lambda z, rng: 100 * z, n_samples=8),
    "two classes": partial(mapped, lambda z, rng: z * [1e3, 1e-2], n_classes=2),
    "twelve classes": partial(
        mapped, lambda z, rng: z * 10.0 ** rng.uniform(-3, 3, 12) + 100, n_classes=12
    ),
    "one row of a class": rare_class,
    "weights 1 to 1e12": uneven_weights,
}


class LinearScores:
    """Mean log-loss of softmax(design @ x) + (x - target)' ridge (x - target).

    `design` is (n_samples, n_classes, n_parameters); `goal` holds the probabilities of
    the classes that are true.
    """

    def __init__(self, design, goal, weight, ridge=None, target=None):
        n_parameters = design.shape[2]
        self.design, self.goal = design, goal
        self.weight = weight / weight.sum()
        self.ridge = np.zeros((n_parameters,) * 2) if ridge is None else ridge
        self.target = np.zeros(n_parameters) if target is None else target

    def loss(self, x):
        of_rows = -np.sum(self.goal * log_softmax(self.design @ x, axis=1), axis=1)
        away = x - self.target
        return of_rows @ self.weight + away @ self.ridge @ away

    def gradient(self, x):
        residual = softmax(self.design @ x, axis=1) - self.goal
        residual *= self.weight[:, np.newaxis]
        slope = np.einsum("ik,ikp->p", residual, self.design)
        return slope + 2 * self.ridge @ (x - self.target)

    def hessian(self, x):
        proba = softmax(self.design @ x, axis=1)
        mean = np.einsum("ik,ikp->ip", proba, self.design)
        centred = self.design - mean[:, np.newaxis]
        centred *= np.sqrt(proba * self.weight[:, np.newaxis])[:, :, np.newaxis]
        flat = centred.reshape(-1, len(x))
        return flat.T @ flat + 2 * self.ridge

    def excess(self, start):
        return self.loss(start) - self.lowest(start)

    def lowest(self, start):
        """Return the lowest loss that L-BFGS and a trust region find from `start`."""
        hessian = self.hessian(start)
        unit = 1 / np.sqrt(np.maximum(np.diagonal(hessian), 1e-200))
        values, vectors = np.linalg.eigh(hessian * np.outer(unit, unit))
        back = unit[:, np.newaxis] * vectors / np.sqrt(np.maximum(values, 1e-12))
        search = partial(
            minimize,
            lambda u: self.loss(start + back @ u),
            np.zeros_like(start),
            jac=lambda u: back.T @ self.gradient(start + back @ u),
        )
        options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 500}
        lowest = search(method="L-BFGS-B", options=options).fun
        if len(start) > 50:
            return lowest
        trust = search(
            method="trust-exact",
            hess=lambda u: back.T @ self.hessian(start + back @ u) @ back,
            options={"gtol": 1e-9, "maxiter": 30},
        )
        return min(lowest, trust.fun)

    def excess_above(self, lower, start):
        """By how much L-BFGS gets below the loss at `start` where x >= lower."""
        curvature = np.diagonal(self.hessian(start))
        unit = 1 / np.sqrt(np.maximum(curvature, 1e-12 * curvature.max()))
        found = minimize(
            lambda u: self.loss(u * unit),
            start / unit,
            jac=lambda u: self.gradient(u * unit) * unit,
            method="L-BFGS-B",
            bounds=[(bound, None) for bound in lower / unit],
            options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 1000},
        )
        return self.loss(start) - found.fun


def affine_design(features):
    """Scores W z + b as linear in the entries of W, row by row, and then b."""
    n_samples, n_classes = features.shape
    by_coef = np.einsum("kl,ij->iklj", np.eye(n_classes), features)
    by_intercept = np.tile(np.eye(n_classes), (n_samples, 1, 1))
    flat = by_coef.reshape(n_samples, n_classes, n_classes**2)
    return np.concatenate([flat, by_intercept], axis=2)


def diagonal_design(features):
    """Scores v * z + b as linear in v and b."""
    n_samples, n_classes = features.shape
    by_factor = features[:, :, np.newaxis] * np.eye(n_classes)
    by_intercept = np.tile(np.eye(n_classes), (n_samples, 1, 1))
    return np.concatenate([by_factor, by_intercept], axis=2)


def matrix_excess(calibrator, logits, y, weight):
    kind, penalty = calibrator
    strengths = {"off_diagonal_penalty": 0.1, "intercept_penalty": 0.01}
    scaling = kind(penalty=penalty, prior=None, **strengths)
    scaling.fit(logits, y, sample_weight=weight)
    features = np.clip(logits, *scaling.logit_range_)
    if kind is DirichletCalibration:
        features = log_softmax(features, axis=1)
    k = logits.shape[1]
    identity = np.eye(k)
    off, intercept = {
        "l2": (0.1 / k**2, 0.01 / k),
        "odir": (0.1 / (k * (k - 1)), 0.01 / k),
        None: (0.0, 0.0),
    }[penalty]
    diagonal = off if penalty == "l2" else 0.0
    ridge = np.append(np.where(identity == 1, diagonal, off), np.full(k, intercept))
    reference = LinearScores(
        affine_design(features),
        identity[y],
        weight,
        np.diag(ridge),
        np.append(identity, np.zeros(k)),
    )
    return reference.excess(np.append(scaling.coef_, scaling.intercept_))


def structured_excess(structure, logits, y, weight):
    scaling = StructuredMatrixScaling(prior=None, structure=structure)
    scaling.fit(logits, y, sample_weight=weight)
    n, k = weight.sum(), logits.shape[1]
    uniform = 1 / (n + 1)
    if scaling.floor_ is not None:
        logits = np.maximum(log_softmax(logits, axis=1), np.log(scaling.floor_))
    proba = softmax(logits / scaling.temperature_, axis=1)
    features = np.log((1 - uniform) * proba + uniform / k)
    identity, no_offset = np.eye(k), np.full(k, k / n)
    if structure == "matrix":
        design, start = affine_design(features), identity.ravel()
        ridge = np.where(identity == 1, k / n, k * (k - 1) / n).ravel()
    else:
        design, start, ridge = diagonal_design(features), np.ones(k), no_offset
    reference = LinearScores(
        design,
        identity[y],
        weight,
        np.diag(np.append(ridge, no_offset)),
        np.append(start, np.zeros(k)),
    )
    return reference.excess(np.append(scaling.coef_, scaling.intercept_))


def vector_excess(logits, y, weight):
    scaling = VectorScaling(prior=None).fit(logits, y, sample_weight=weight)
    features = np.clip(logits, *scaling.logit_range_)
    data = CalibrationData(ArraySource(features), y, weight)
    temperature = fit_temperature(data).x[0]
    k = logits.shape[1]
    start = np.stack([np.full(k, 1 / temperature), np.zeros(k)])
    # The slight penalty belongs to what is minimised.
    ridge = slight_penalty(data, start)
    reference = LinearScores(
        diagonal_design(features),
        np.eye(k)[y],
        weight,
        np.diag(ridge.ravel()),
        start.ravel(),
    )
    # The intercepts were shifted to mean 0 after the fit, which the penalty sees.
    found = np.append(scaling.coef_, scaling.intercept_)
    return scaling.loss_ - reference.lowest(found)


def temperature_excess(logits, y, weight):
    scaling = TemperatureScaling(prior=None).fit(logits, y, sample_weight=weight)
    goal = np.eye(logits.shape[1])[y]
    reference = LinearScores(logits[:, :, np.newaxis], goal, weight)
    return reference.excess(np.array([1 / scaling.temperature_]))


AFFINE = {
    "matrix l2": (partial(matrix_excess, (MatrixScaling, "l2")), 1e-9),
    "matrix odir": (partial(matrix_excess, (MatrixScaling, "odir")), 1e-9),
    "matrix plain": (partial(matrix_excess, (MatrixScaling, None)), 1e-9),
    "Dirichlet l2": (partial(matrix_excess, (DirichletCalibration, "l2")), 1e-9),
    "Dirichlet odir": (partial(matrix_excess, (DirichletCalibration, "odir")), 1e-9),
    "Dirichlet plain": (partial(matrix_excess, (DirichletCalibration, None)), 1e-9),
    "structured matrix": (partial(structured_excess, "matrix"), 1e-7),
    "structured vector": (partial(structured_excess, "vector"), 1e-7),
    # The rounding of its loss is all that its tolerance leaves.
    "vector": (vector_excess, 1e-10),
}
# Offsets that hide which class a row points at leave no temperature the best.
POINTING = [problem for problem in PROBLEMS if problem != "offsets by column"]
UNPOINTED = pytest.mark.filterwarnings("ignore:.*do not point at the true classes")


@UNPOINTED
@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_affine_fit_ends_above_its_tolerance(problem, name):
    excess, tol = AFFINE[name]
    assert excess(*PROBLEMS[problem]()) <= tol


@pytest.mark.parametrize("problem", POINTING)
def test_no_temperature_is_better(problem):
    assert temperature_excess(*PROBLEMS[problem]()) <= 1e-12


def temperature_losses(logits, y, weight, objective):
    weight = weight / weight.sum()

    def loss(log_beta):
        proba = softmax(
            np.exp(log_beta) * (logits - logits.max(axis=1)[:, None]), axis=1
        )
        own = proba[np.arange(len(y)), y]
        if objective == "brier":
            return ((proba**2).sum(axis=1) - 2 * own + 1) @ weight
        log_own = np.log(np.maximum(own, 1e-300))
        return -((1 - own) * log_own) @ weight

    return loss


@pytest.mark.parametrize("objective", ["brier", "focal"])
@pytest.mark.parametrize("problem", POINTING)
def test_no_temperature_of_another_loss_is_better(problem, objective):
    logits, y, weight = PROBLEMS[problem]()
    scaling = TemperatureScaling(prior=None, objective=objective).fit(logits, y, weight)
    loss = temperature_losses(logits, y, weight, objective)
    own = -np.log(scaling.temperature_)
    found = minimize_scalar(
        loss, bounds=(own - 0.5, own + 0.5), method="bounded", options={"xatol": 1e-9}
    )
    assert loss(own) - found.fun <= 1e-12
    assert loss(own) <= min(map(loss, np.linspace(own - 4, own + 4, 50))) + 1e-12


@UNPOINTED
@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_mixture_of_temperatures_is_better(problem):
    logits, y, weight = PROBLEMS[problem]()
    scaling = EnsembleTemperatureScaling(prior=None).fit(logits, y, weight)
    rows = np.arange(len(y))
    own = np.column_stack(
        [
            softmax(logits / scaling.temperature_, axis=1)[rows, y],
            softmax(logits, axis=1)[rows, y],
            np.full(len(y), 1 / logits.shape[1]),
        ]
    )
    weight = weight / weight.sum()

    def loss(u):
        return -np.log(own @ softmax(u)) @ weight

    start = np.log(np.maximum(scaling.weights_, 1e-6))
    found = minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-16})
    assert -np.log(own @ scaling.weights_) @ weight - found.fun <= 1e-6


def class_problems(features_of, logits, y, weight, goals):
    """Logistic regression of each class: scores (0, features @ x)."""
    for k in range(logits.shape[1]):
        features = features_of(k)
        design = np.stack([np.zeros_like(features), features], axis=1)
        goal = np.column_stack([1 - goals[:, k], goals[:, k]])
        yield LinearScores(design, goal, weight)


def log_odds_of(logits, k):
    others = np.delete(logits, k, axis=1)
    largest = others.max(axis=1, keepdims=True)
    total = np.exp(others - largest).sum(axis=1)
    return logits[:, k] - largest[:, 0] - np.log(total)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_sigmoid_of_platt_scaling_is_better(problem):
    logits, y, weight = PROBLEMS[problem]()
    scaling = PlattScaling(smooth_targets=True, prior=None).fit(logits, y, weight)

    def features_of(k):
        score = log_odds_of(logits, k)
        return np.column_stack([score, np.ones_like(score)])

    hit = np.eye(logits.shape[1])[y]
    own = weight @ hit
    goals = np.where(hit == 1, (own + 1) / (own + 2), 1 / (weight.sum() - own + 2))
    references = class_problems(features_of, logits, y, weight, goals)
    for k, reference in enumerate(references):
        found = np.array([scaling.coef_[k], scaling.intercept_[k]])
        assert reference.excess(found) <= 1e-8 * reference.loss(found)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_curve_of_beta_calibration_is_better(problem):
    logits, y, weight = PROBLEMS[problem]()
    scaling = BetaCalibration(prior=None).fit(logits, y, weight)

    def features_of(k):
        score = log_odds_of(logits, k)
        return np.column_stack([log_expit(score), -log_expit(-score), score**0])

    hit = np.eye(logits.shape[1])[y]
    references = class_problems(features_of, logits, y, weight, hit)
    for k, reference in enumerate(references):
        found = np.array([scaling.a_[k], scaling.b_[k], scaling.c_[k]])
        lower = np.array([0, 0, -np.inf])
        excess = reference.excess_above(lower, found)
        assert excess <= 1e-8 * reference.loss(found)


@UNPOINTED
@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_order_preserving_map_is_better(problem):
    logits, y, weight = PROBLEMS[problem]()
    scaling = OrderPreservingScaling(prior=None).fit(logits, y, weight)
    u = log_softmax(logits / scaling.temperature_, axis=1)
    entropy = -(np.exp(u) * u).sum(axis=1)
    knots, ends = scaling.entropy_knots_, np.append(scaling.log_proba_knots_, 0.0)
    hats = np.stack([np.interp(entropy, knots, row) for row in np.eye(len(knots))], 1)
    # A piece of slope 1 from one end to the next; the lowest one has no lower end.
    starts = np.append(-np.inf, ends[:-1])
    pieces = np.clip(u[:, :, np.newaxis], starts, ends) - ends
    design = np.concatenate([u[:, :, np.newaxis] * hats[:, np.newaxis], pieces], axis=2)
    sizes = len(scaling.scales_), len(scaling.slopes_)
    jumps = [np.diff(np.eye(size), axis=0) for size in sizes]
    ridge = 0.01 * np.eye(sum(sizes))
    ridge[: sizes[0], : sizes[0]] += jumps[0].T @ jumps[0]
    ridge[sizes[0] :, sizes[0] :] += jumps[1].T @ jumps[1]
    reference = LinearScores(
        design,
        np.eye(logits.shape[1])[y],
        weight,
        ridge * 3 / weight.sum(),
        np.repeat([1.0, 0.0], sizes),
    )
    found = np.append(scaling.scales_, scaling.slopes_)
    assert reference.loss(found) == pytest.approx(scaling.loss_, abs=1e-10)
    lower = np.repeat([1e-3, 0.0], sizes)
    assert reference.excess_above(lower, found) <= 1e-9


@pytest.mark.parametrize("calibrator", [BetaCalibration, PlattScaling])
def test_the_solution_is_reported(calibration_set, calibrator):
    logits, y = calibration_set
    logits, y = logits[:, 0] - logits[:, 1], (y == 0).astype(int)
    fitted = calibrator(prior=None).fit(logits, y)
    assert fitted.loss_ == pytest.approx(log_loss(y, fitted.predict_proba(logits)))
    assert 0 <= fitted.gradient_norm_ < 1e-4
    message = f"{calibrator.__name__} stopped early: max_iter=1 "
    with pytest.warns(ConvergenceWarning, match=message):
        fitted.set_params(max_iter=1).fit(logits, y)
