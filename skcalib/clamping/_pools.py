r"""Slots of the classes: those of a row that move by themselves, and the rest as one.

A derivative of the logits by the inputs costs a backward pass a class, yet most rows
have few probable classes. Let p be the softmax of a row, and let the logits of its
improbable classes, the pool P, all move as their mean under p does. The gradient of a
loss by (theta, log T) stays what it was where the loss pulls at the classes of P in
proportion to p, as the focal loss does at all but the true class, which is never in P.
Its curvature, the variance of the change D of the logits under p, loses

.. math:: \sum_{k \in P} p_k (D_k - D_P)^2 .

With changes that are independent from class to class the variance is in proportion to
:math:`1 - \sum_k p_k^2`, and its loss to :math:`m - \sum_{k \in P} p_k^2 / m`, with m
the probability of P. Pooled are the classes below the highest level at which the rows
together lose no more than `LOST` of it. A softmax is the same for logits that are all
shifted alike: the most probable class is what the others are taken relative to, and has
no slot.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Share of the variance under the softmax that is given up, over all rows. The choice is
# nearly that of a slot for each class (python -m benchmarks run pooled_classes); with a
# tenth another one was made on impulse noise, which cost 0.03 nats.
LOST = 0.05
# Classes of which none are pooled, as few passes would be saved.
FEW = 4
# Probabilities below which classes may be pooled, the highest first; the last is taken
# if none of the others will do.
LEVELS = [0.5 * 0.75**i for i in range(40)]


class Pools:
    """Slots of the rows' classes, one after the other.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes.

    codes : ndarray of shape (n_samples,)
        Column of each row's class.

    weight : ndarray of shape (n_samples,)
        Weight of each row, of any scale.

    lost : float, default=LOST
        Share of the variance that may be given up. With 0, and where there are few
        classes, each has its slot.

    Attributes
    ----------
    starts : ndarray of shape (n_samples + 1,)
        First slot of each row; the last entry is the number of slots.

    place : ndarray of shape (n_samples, n_classes)
        Slot of each class; for a row's reference the number of all slots.

    share : ndarray of shape (n_samples, n_classes)
        Weight of each class in the mean of its slot.
    """

    def __init__(
        self,
        proba: NDArray[np.float64],
        codes: NDArray[np.intp],
        weight: NDArray[np.float64],
        lost: float = LOST,
    ) -> None:
        rows = np.arange(proba.shape[0])
        self.reference = proba.argmax(axis=1)
        always = np.zeros(proba.shape, dtype=bool)
        always[rows, codes] = always[rows, self.reference] = True
        pooled = _which_pooled(proba, always, weight, lost)
        share = np.where(pooled, proba, 0.0)
        # Where nothing is left of their probabilities, the mean is a plain one.
        share[pooled & (share.sum(axis=1) == 0)[:, np.newaxis]] = 1.0
        np.divide(share, share.sum(axis=1, keepdims=True), out=share, where=pooled)
        share[~pooled] = 1.0
        self.share = share
        alone = ~pooled
        alone[rows, self.reference] = False
        n_alone = alone.sum(axis=1)
        local = np.where(alone, alone.cumsum(axis=1) - 1, n_alone[:, np.newaxis])
        self.starts = np.append(0, (n_alone + pooled.any(axis=1)).cumsum())
        self.place = self.starts[:-1, np.newaxis] + local
        self.place[rows, self.reference] = self.n_slots

    @property
    def n_slots(self) -> int:
        """Slots of all rows together: backward passes of single rows."""
        return int(self.starts[-1])

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Slots of each row."""
        return np.diff(self.starts)

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a value of each class over the classes of each slot."""
        sums = np.bincount(self.place.ravel(), values.ravel(), self.n_slots + 1)
        return sums[:-1].astype(np.float64, copy=False)

    def of_rows(
        self, rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return the slots of rows, numbered anew, with one more for each reference.

        Returns
        -------
        slots : ndarray of shape (n_slots_of_rows,)
            Their numbers among all slots.

        owner : ndarray of shape (n_slots_of_rows + n_rows,)
            Place in `rows` of each slot's row; those of the references come last.

        place : ndarray of shape (n_rows, n_classes)
            New number of each class's slot.
        """
        counts, every = self.counts[rows], np.arange(rows.shape[0])
        first = counts.cumsum() - counts
        shift = self.starts[rows] - first
        slots = np.arange(counts.sum()) + np.repeat(shift, counts)
        place = self.place[rows] - shift[:, np.newaxis]
        place[every, self.reference[rows]] = slots.shape[0] + every
        return slots, np.append(np.repeat(every, counts), every), place

    def mean_change(self, change: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean change of each slot, less that of its row's reference."""
        rows = np.arange(change.shape[0])
        own = change[rows, self.reference]
        return self.sum(self.share * change) - np.repeat(own, self.counts)

    def directions(self, rows: NDArray[np.intp]) -> Iterator[NDArray[np.float32]]:
        """Yield what the first slots of rows weigh logits with, then the second ones.

        Each is an array of shape (n_rows, n_classes), with zeros where a row has no
        more slots.
        """
        counts, share = self.counts[rows], self.share[rows].astype(np.float32)
        reference = np.arange(rows.shape[0]), self.reference[rows]
        local = self.place[rows] - self.starts[rows, np.newaxis]
        for j in range(counts.max()):
            weights = np.where(local == j, share, np.float32(0))
            weights[reference] = np.where(j < counts, -1, 0)
            yield weights

    def has_slot(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which of the rows have a first slot, a second one and so on."""
        counts = self.counts[rows]
        return np.arange(counts.max()) < counts[:, np.newaxis]


class Jacobian(NamedTuple):
    """Derivatives of each slot's logits, relative to the reference of its row.

    Attributes
    ----------
    values : ndarray of shape (n_slots, dim)
        By each coordinate.

    pools : Pools
        Which slots these are.
    """

    values: NDArray[Any]
    pools: Pools

    def of(self, columns: Any) -> "Jacobian":
        """Return the derivatives by some of the coordinates."""
        return Jacobian(self.values[:, columns], self.pools)


def _which_pooled(
    proba: NDArray[np.float64],
    always: NDArray[np.bool_],
    weight: NDArray[np.float64],
    lost: float,
) -> NDArray[np.bool_]:
    """Return which classes are below the level; none are that `always` have a slot."""
    if lost == 0 or proba.shape[1] <= FEW:
        return np.zeros_like(always)
    most = lost * (weight @ (1 - (proba**2).sum(axis=1)))

    def below(level: float) -> NDArray[np.bool_]:
        return (proba < level) & ~always

    def is_little(level: float) -> bool:
        share = np.where(below(level), proba, 0.0)
        mass, squares = share.sum(axis=1), (share**2).sum(axis=1)
        left = np.divide(squares, mass, out=np.zeros_like(mass), where=mass > 0)
        return bool(weight @ (mass - left) <= most)

    return below(LEVELS[bisect_left(LEVELS[:-1], True, key=is_little)])
