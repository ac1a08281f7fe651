"""The rows that a monitor remembers, and the bins of those that it has let go."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib.metrics._bins import BinStats, bin_stats, uniform_edges

N_BINS = 15
# Stored logarithms: a thousandth of their size is precise enough to fit anew by.
_DTYPE = np.dtype("<f2")


class Recent:
    """The last rows as logarithms of probabilities, and bins of the older ones."""

    def __init__(self, n_classes: int, memory: int) -> None:
        self.memory = memory
        self.log_proba = np.empty((0, n_classes), _DTYPE)
        self.codes = np.empty(0, np.intp)
        # Of each row in the stream, ascending; where streams are merged there are gaps.
        self.number = np.empty(0, np.intp)
        self.older = _binned(self.log_proba, self.codes)

    def add(
        self,
        log_proba: NDArray[Any],
        codes: NDArray[np.intp],
        number: NDArray[np.intp],
    ) -> None:
        """Remember rows, and put into the bins those for which there is no room."""
        log_proba = np.concatenate([self.log_proba, log_proba.astype(_DTYPE)])
        codes = np.concatenate([self.codes, codes])
        number = np.concatenate([self.number, number])
        out = max(codes.size - self.memory, 0)
        self.older = self.older + _binned(log_proba[:out], codes[:out])
        self.log_proba, self.codes = log_proba[out:], codes[out:]
        self.number = number[out:]

    def merge(self, other: "Recent", first_row: int) -> None:
        """Add another memory, whose rows count on from one; both keep some."""
        n_other = min(
            other.codes.size, max(self.memory // 2, self.memory - self.codes.size)
        )
        newest = other.codes.size - n_other
        number = other.number[newest:] + first_row
        self.add(other.log_proba[newest:], other.codes[newest:], number)
        gone = _binned(other.log_proba[:newest], other.codes[:newest])
        self.older = self.older + other.older + gone

    def since(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return log-probabilities and classes from a row on, as far as remembered."""
        start = int(np.searchsorted(self.number, row))
        return self.log_proba[start:].astype(np.float64), self.codes[start:]

    def bins(self, row: int) -> tuple[BinStats, BinStats]:
        """Return the bins of the rows before one, or forgotten, and of those since."""
        start = int(np.searchsorted(self.number, row))
        then = _binned(self.log_proba[:start], self.codes[:start])
        now = _binned(self.log_proba[start:], self.codes[start:])
        return self.older + then, now

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON knows it."""
        sums = (self.older.weight, self.older.confidence, self.older.hit)
        return {
            "log_proba": base64.b64encode(self.log_proba.tobytes()).decode("ascii"),
            "codes": self.codes.tolist(),
            "number": self.number.tolist(),
            "older": [part.tolist() for part in sums],
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any], n_classes: int, memory: int) -> "Recent":
        """Return what `to_dict` has written."""
        made = cls(n_classes, memory)
        made.codes = np.array(state["codes"], dtype=np.intp)
        made.number = np.array(state["number"], dtype=np.intp)
        data = base64.b64decode(state["log_proba"], validate=True)
        flat = np.frombuffer(bytearray(data), _DTYPE)
        made.log_proba = flat.reshape(made.codes.size, n_classes)
        made.older = BinStats(*np.array(state["older"], dtype=np.float64))
        return made


def _binned(log_proba: NDArray[Any], codes: NDArray[np.intp]) -> BinStats:
    # Rounded as the rows are, so that one on an edge falls where it belongs.
    edges = np.exp(np.log(uniform_edges(N_BINS)).astype(_DTYPE).astype(np.float64))
    rows = np.arange(codes.size)
    top = log_proba.argmax(axis=1) if codes.size else codes
    confidence = np.exp(log_proba[rows, top].astype(np.float64))
    return bin_stats(confidence, top == codes, np.ones(codes.size), edges)
