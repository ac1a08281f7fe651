"""Many classes in few numbers: entries of a row in order, and far down by groups.

The probabilities of a row fall off so steeply that what few of its thousand classes
have matters one by one. The others lie close together once they are in order, so that
a group of neighbours is as good as so many classes of their mean probability. The
groups grow in proportion to the rank, by GROWTH.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import TINY

Array = NDArray[np.float64]

# So many largest entries of a row stand alone.
ALONE = 32
GROWTH = 1 / 8
# Fewer classes than this are left as they are, in their own order.
MANY = 64


class Ranks:
    """Groups of neighbours in the order of a row, from the largest entry down.

    With few classes, or if not `grouped`, each is a group of its own, in the order of
    the columns.
    """

    def __init__(self, n_classes: int, *, grouped: bool = True) -> None:
        self.n_classes = n_classes
        self.grouped = grouped and n_classes >= MANY
        starts = list(range(min(ALONE, n_classes) if self.grouped else n_classes))
        while self.grouped and starts[-1] + 1 < n_classes:
            last = starts[-1]
            starts.append(last + max(1, int(last * GROWTH)))
            if starts[-1] >= n_classes:
                starts.pop()
                break
        self.starts = np.array(starts)
        self.sizes = np.diff(self.starts, append=n_classes).astype(np.float64)
        self.log_sizes = np.log(self.sizes) if self.grouped else None
        self.n_ranks = self.starts.shape[0]

    def of_rows(
        self, u: Array, codes: NDArray[np.intp]
    ) -> tuple[Array, NDArray[np.intp]]:
        """Return the logarithm of the mean probability of each rank, and the true one.

        `u` are log-probabilities, which are overwritten.
        """
        if not self.grouped:
            return u, codes
        own_u = np.take_along_axis(u, codes[:, np.newaxis], axis=1)
        own = self.rank_of((u > own_u).sum(axis=1))
        np.negative(u, out=u)
        u.sort(axis=1)
        alone = u[:, :ALONE]
        tail = np.exp(-u[:, ALONE:])
        tail = np.add.reduceat(tail, self.starts[ALONE:] - ALONE, axis=1)
        tail /= self.sizes[ALONE:]
        return np.hstack([-alone, np.log(np.maximum(tail, TINY))]), own

    def rank_of(self, place: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the group of each place in the order, 0 being the largest."""
        return np.searchsorted(self.starts, place, side="right") - 1

    def order_of(self, logits: NDArray[Any]) -> NDArray[np.integer] | None:
        """Return the columns of each row from the largest entry down, if it matters."""
        if not self.grouped:
            return None
        # Kept beside the logits, of which it would else be twice the size.
        return np.argsort(-logits, axis=1).astype(np.min_scalar_type(self.n_classes))

    def sums(
        self, proba: NDArray[Any], order: NDArray[np.integer] | None
    ) -> NDArray[np.float32]:
        """Add up probabilities by ranks of the given order, in single precision."""
        if order is not None:
            ordered = np.take_along_axis(proba, order, axis=1)
            proba = np.add.reduceat(ordered, self.starts, axis=1)
        return proba.astype(np.float32)

    def own_of(
        self, order: NDArray[np.integer] | None, codes: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Return the group of the true class of each row."""
        if order is None:
            return codes
        place = (order == codes[:, np.newaxis]).argmax(axis=1)
        return self.rank_of(place)
