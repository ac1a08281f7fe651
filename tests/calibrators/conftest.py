"""A slow reference for the calibrators that fit an affine map."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from skcalib._numerics import log_odds


class AffineReference:
    """Log-loss of softmax(W x + b) plus ridge penalties towards (I, 0), by formula.

    `diagonal_only` holds the off-diagonal entries of W at 0.
    """

    def __init__(
        self,
        features,
        y,
        *,
        off_diagonal=0.0,
        diagonal=0.0,
        intercept=0.0,
        weight=None,
        diagonal_only=False,
    ):
        self.features = np.asarray(features, dtype=np.float64)
        self.y = y
        weight = np.ones(len(y)) if weight is None else np.asarray(weight, float)
        self.weight = weight / weight.sum()
        n_classes = self.features.shape[1]
        identity = np.eye(n_classes)
        self.factor = np.where(identity == 1, diagonal, off_diagonal)
        self.intercept_factor = intercept
        self.is_free = identity if diagonal_only else np.ones_like(identity)
        self.identity = identity

    def loss(self, coef, intercept):
        coef = np.diag(coef) if np.ndim(coef) == 1 else coef
        log_q = log_softmax(self.features @ coef.T + intercept, axis=1)
        own = log_q[np.arange(len(self.y)), self.y]
        penalty = np.sum(self.factor * (coef - self.identity) ** 2)
        penalty += self.intercept_factor * np.sum(intercept**2)
        return -own @ self.weight + penalty

    def gradient(self, coef, intercept):
        """Derivatives by W, where it may move, and by b, in one vector."""
        coef = np.diag(coef) if np.ndim(coef) == 1 else coef
        residual = softmax(self.features @ coef.T + intercept, axis=1)
        residual -= self.identity[self.y]
        residual *= self.weight[:, np.newaxis]
        by_coef = residual.T @ self.features
        by_coef += 2 * self.factor * (coef - self.identity)
        by_intercept = residual.sum(axis=0) + 2 * self.intercept_factor * intercept
        return np.append((self.is_free * by_coef).ravel(), by_intercept)

    def minimum(self):
        """Lowest loss that L-BFGS finds from the identity map."""
        n_classes = self.identity.shape[0]

        def split(x):
            return x[:-n_classes].reshape(n_classes, n_classes), x[-n_classes:]

        found = minimize(
            lambda x: self.loss(*split(x)),
            np.append(self.identity.ravel(), np.zeros(n_classes)),
            jac=lambda x: self.gradient(*split(x)),
            method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 20_000, "gtol": 1e-9, "ftol": 1e-15},
        )
        return found.fun


@pytest.fixture(scope="session")
def affine_reference():
    return AffineReference


@pytest.fixture(scope="session")
def draw_affine_set():
    """Draw ``(logits, y)`` whose true probabilities are softmax(W z + b)."""

    def draw(coef, intercept, n_samples=500):
        rng = np.random.default_rng(0)
        logits = rng.normal(scale=2, size=(n_samples, len(intercept)))
        coef = np.diag(coef) if np.ndim(coef) == 1 else np.asarray(coef)
        scores = logits @ coef.T + intercept
        return logits, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)

    return draw


@pytest.fixture(scope="session")
def skewed_set(draw_affine_set):
    """500 rows, 4 classes, drawn from a vector scaling that is not the identity."""
    return draw_affine_set([0.4, 0.8, 0.6, 1.0], [0.5, -0.5, 0.0, 0.3])


@pytest.fixture(scope="session")
def mask_others():
    """Put `value` in about a third of the logits, never in that of the label."""

    def mask(logits, y, value):
        masked = np.random.default_rng(0).random(logits.shape) < 0.3
        masked[np.arange(len(y)), y] = False
        return np.where(masked, logits.dtype.type(value), logits), masked

    return mask


@pytest.fixture
def rounded_set():
    """Log-odds of class 0 that differ by rounding alone, and it in a quarter of rows.

    The order of the other columns changes their last digit.
    """
    rng = np.random.default_rng(0)
    rest = rng.normal(size=7)
    logits = np.array([[0.3, *rng.permutation(rest)] for _ in range(200)])
    assert np.unique(log_odds(logits.copy())[:, 0]).size > 1
    return logits, np.where(np.arange(200) % 4 == 0, 0, 1)
