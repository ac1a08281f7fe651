r"""Whether a bounded loss has become worse than it was at release.

Of a model that was never calibrated, or whose users feel another loss, one asks less:
that it be no worse than on the day it was accepted. Losses X_i in [0, 1] of served rows
have the means mu_i given all that came before, and the running mean of these is held
against the loss at release [Podkopaev & Ramdas, "Tracking the risk of a deployed model
and detecting harmful distribution shifts", ICLR 2022].

With a guess g_i of X_i that knows the past only, here the mean so far, and
psi(l) = -ln(1 - l) - l, Fan, Grama & Liu's inequality exp(l x - psi(l) x^2) <= 1 + l x
for x >= -1 and 0 <= l < 1, at x = X_i - g_i, gives

    E exp(l (X_i - mu_i) - psi(l) (X_i - g_i)^2) <= 1 ,

so that W(s, V) = mean over a grid of l of exp(l s - psi(l) V), with the sum s of
X_i - mu_i and V of (X_i - g_i)^2, is a non-negative supermartingale from at most 1
[Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform, nonparametric, nonasymptotic
confidence sequences", 2021; their mixture over l is continuous]. By Ville's inequality
it never reaches 1 / a but with probability a. It rises with s: the running mean of the
mu_i lies above the m at which W(sum X_i - n m, V) = 1 / a, at all times together.

The release has an upper bound of the same kind, of 1 - X_i, at the level alpha / 2; an
alarm is a lower bound, at alpha / 2 too, above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from skcalib._files import opened, sealed
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._validation import plain_names
from skcalib.monitoring._alarm import HasAlarm
from skcalib.monitoring._input import check_rows, is_empty

Array = NDArray[np.float64]

FORMAT = "skcalib loss monitor"
# Counts up when a state that is written can no longer be read by what came before.
VERSION = 1
# The best l is near the root of 2 ln(1 / a) / V: from a few rows to some ten million.
_SLOPES = 0.95 * 2.0 ** -np.arange(0, 10, 0.5)
_PSI = -np.log1p(-_SLOPES) - _SLOPES
# Rows whose bounds are computed at once.
_CHUNK = 4096


@dataclass
class LossSums:
    """How many losses, their sum, and that of squared distances to their guesses."""

    n_rows: int = 0
    total: float = 0.0
    square: float = 0.0

    def add(self, losses: Array, mean: float = 1.0) -> Array:
        """Add losses; return the log wealth against means up to `mean`, row by row."""
        number = self.n_rows + 1 + np.arange(losses.size)
        total = self.total + np.cumsum(losses)
        guess = (0.5 + total - losses) / number
        square = self.square + np.cumsum((losses - guess) ** 2)
        self.n_rows += losses.size
        self.total, self.square = float(total[-1]), float(square[-1])
        return log_wealth(total - number * mean, square)

    def lower_bound(self, alpha: float) -> float:
        """Return what the mean exceeds at all times, but with probability alpha."""

        def surplus(mean: float) -> float:
            excess = np.array([self.total - self.n_rows * mean])
            return float(log_wealth(excess, np.array([self.square]))[0] + np.log(alpha))

        if surplus(0.0) <= 0:
            return 0.0
        return float(brentq(surplus, 0.0, 1.0))

    def upper_bound(self, alpha: float) -> float:
        """Return what the mean stays below."""
        opposite = LossSums(self.n_rows, self.n_rows - self.total, self.square)
        return 1 - opposite.lower_bound(alpha)


def log_wealth(excess: Array, square: Array) -> Array:
    """Return ln W of sums of losses above a mean, and of squared distances."""
    terms = np.multiply.outer(excess, _SLOPES) - np.multiply.outer(square, _PSI)
    found: Array = logsumexp(terms, axis=1) - np.log(_SLOPES.size)
    return found


class LossMonitor(HasAlarm, BaseEstimator):
    """Watch whether a bounded loss is worse than it was at release.

    Where `CalibrationMonitor` asks whether probabilities are right, this asks whether
    the model has become worse, whatever it was: it alarms once the mean loss of the
    served rows is larger than at release by more than `tolerance`, beyond doubt [1]_.
    One may look after every row, for ever.

    Parameters
    ----------
    loss : {"brier", "error"}, default="brier"
        Brier score, the squared distance to the true class, halved so that it lies
        between 0 and 1; or whether the predicted class is wrong.

    alpha : float, default=0.05
        Largest probability of an alarm, ever, while the mean loss is at no time larger
        than at release by more than `tolerance`.

    tolerance : float, default=0.0
        How much worse it may become.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of the probabilities. By default integer labels are column
        numbers, and other labels of the release, if they are as many as the columns,
        stand for them in sorted order.

    Attributes
    ----------
    alarm_ : bool
        Whether the loss was ever worse, beyond doubt.

    alarm_row_ : int or None
        How many rows had been seen by then.

    release_loss_, loss_ : float
        Mean loss of the rows at release, and of those since.

    increase_low_ : float
        What the increase of the loss exceeds, with the probability ``1 - alpha`` at all
        times together; above `tolerance` there is an alarm.

    n_rows_ : int
        Rows seen since the release.

    classes_ : ndarray of shape (n_classes,)
        The class of each column.

    See Also
    --------
    CalibrationMonitor : Whether the probabilities are right; it says what is wrong.

    Notes
    -----
    The rows at release are taken to be independent draws. Of the served ones nothing is
    assumed: what is judged is the mean, over all of them, of the expected loss of each
    row given the past. A change that comes late is diluted by the rows before it; fit
    anew to begin a new count. A loss may rise because rows have become harder, with
    every probability right. Parameters that are set after `fit` count from the next
    `fit` on.

    References
    ----------
    .. [1] Podkopaev & Ramdas. "Tracking the risk of a deployed model and detecting
       harmful distribution shifts", ICLR 2022. https://arxiv.org/abs/2110.06177

    Examples
    --------
    >>> from scipy.special import softmax
    >>> from skcalib.datasets import make_logits
    >>> from skcalib.monitoring import LossMonitor
    >>> logits, y = make_logits(6000, 3, random_state=0)
    >>> proba = softmax(logits / 2, axis=1)
    >>> monitor = LossMonitor().fit(y[:2000], proba[:2000])
    >>> monitor.update(y[2000:4000], proba[2000:4000]).alarm_
    False
    >>> proba[4000:] = proba[4000:, [1, 2, 0]]  # columns mixed up
    >>> monitor.update(y[4000:], proba[4000:]).alarm_
    True
    """

    _parameter_constraints: dict = {
        "loss": [StrOptions({"brier", "error"})],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        *,
        loss: str = "brier",
        alpha: float = 0.05,
        tolerance: float = 0.0,
        classes: ArrayLike | None = None,
    ) -> None:
        self.loss = loss
        self.alpha = alpha
        self.tolerance = tolerance
        self.classes = classes

    def fit(self, y: ArrayLike, proba: ArrayLike) -> LossMonitor:
        """Keep the loss at release, and forget what was seen since another.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True classes of held-out rows.

        proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Probabilities of the model at release.

        Returns
        -------
        self : object
            The monitor.
        """
        self._validate_params()
        if is_empty(y, proba):
            raise ValueError("There are no rows of the release; fit needs some.")
        # What is refused leaves this one as it was.
        losses, self.classes_ = clone(self)._losses(y, proba)
        self._used = self.get_params(deep=False)
        self._release, self._seen = LossSums(), LossSums()
        self._release.add(losses)
        self._limit = self._release.upper_bound(self._settings["alpha"] / 2)
        self._alarm_row: int | None = None
        return self

    def update(self, y: ArrayLike, proba: ArrayLike) -> LossMonitor:
        """Add rows whose true class is known, in the order in which they were served.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True classes.

        proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Probabilities as they were served.

        Returns
        -------
        self : object
            The monitor.
        """
        check_is_fitted(self, "classes_")
        if is_empty(y, proba):
            return self
        losses, _ = self._losses(y, proba)
        # Kept at the end: the rows of an interrupted call may come again.
        seen, alarm_row = replace(self._seen), self._alarm_row
        for start in range(0, losses.size, _CHUNK):
            first = seen.n_rows + 1
            part = losses[start : start + _CHUNK]
            wealth = seen.add(part, self._limit + self._settings["tolerance"])
            above = wealth >= -np.log(self._settings["alpha"] / 2)
            if alarm_row is None and above.any():
                alarm_row = first + int(above.argmax())
        self._seen, self._alarm_row = seen, alarm_row
        return self

    def _losses(self, y: ArrayLike, proba: ArrayLike) -> tuple[Array, NDArray[Any]]:
        codes, rows, classes = check_rows(self, y, proba)
        every = np.arange(codes.size)
        if self._settings["loss"] == "error":
            return (rows.argmax(axis=1) != codes).astype(np.float64), classes
        distance = rows.astype(np.float64)
        distance[every, codes] -= 1
        # Rounding may have carried a row a little beyond 1.
        return np.minimum(np.vecdot(distance, distance) / 2, 1), classes

    @property
    def n_rows_(self) -> int:
        """Rows seen since the release."""
        check_is_fitted(self, "classes_")
        return self._seen.n_rows

    @property
    def release_loss_(self) -> float:
        """Mean loss of the rows at release."""
        check_is_fitted(self, "classes_")
        return self._release.total / self._release.n_rows

    @property
    def loss_(self) -> float:
        """Mean loss of the rows since the release, nan before the first."""
        return self._seen.total / self.n_rows_ if self.n_rows_ else float("nan")

    @property
    def increase_low_(self) -> float:
        """What the increase of the loss exceeds."""
        check_is_fitted(self, "classes_")
        return self._seen.lower_bound(self._settings["alpha"] / 2) - self._limit

    def to_dict(self) -> dict[str, Any]:
        """Return the state as what JSON knows.

        Returns
        -------
        state : dict
            For `from_dict`.
        """
        check_is_fitted(self, "classes_")
        content = {
            "loss": self._settings["loss"],
            "alpha": float(self._settings["alpha"]),
            "tolerance": float(self._settings["tolerance"]),
            "classes": plain_names(self.classes_),
            "release": asdict(self._release),
            "seen": asdict(self._seen),
            "alarm_row": self._alarm_row,
        }
        return sealed(content, FORMAT, VERSION)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> LossMonitor:
        """Return the monitor of a state.

        Parameters
        ----------
        state : dict
            What `to_dict` returned.

        Returns
        -------
        monitor : LossMonitor
            Which goes on as that one would.

        Raises
        ------
        ValueError
            If the state is damaged, or of another version of skcalib.
        """
        content = opened(state, FORMAT, VERSION, f"state of a {cls.__name__}")
        names = ("loss", "alpha", "tolerance", "classes")
        monitor = cls(**{name: content[name] for name in names})
        monitor.classes_ = np.array(content["classes"])
        monitor._used = monitor._settings
        monitor._release = LossSums(**content["release"])
        monitor._seen = LossSums(**content["seen"])
        monitor._limit = monitor._release.upper_bound(monitor.alpha / 2)
        monitor._alarm_row = content["alarm_row"]
        return monitor
