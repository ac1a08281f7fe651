"""Running a written model, and comparing what it serves with Python."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skcalib._onnx._readout import Meaning
from skcalib._onnx._session import OnnxSession


def served_proba(served: Any, meaning: Meaning, n_classes: int) -> NDArray[np.float64]:
    """Return probabilities as one column a class, however a model serves them."""
    if isinstance(served, list):  # of a ZipMap: a dict from label to probability a row
        served = [list(row.values()) for row in served]
    columns = np.array(served, dtype=np.float64).reshape(len(served), -1)
    if columns.shape[1] == 1 and n_classes == 2:
        others = 1 - columns if meaning == "proba" else np.zeros_like(columns)
        columns = np.hstack([others, columns])
    return columns if meaning == "proba" else softmax(columns, axis=1)


def largest_difference(
    session: OnnxSession,
    output: str,
    meaning: Meaning,
    batched: Iterable[tuple[dict[str, NDArray[Any]], int]],
    expected: NDArray[Any],
) -> float:
    """Return the largest difference between served probabilities and `expected`.

    `meaning` says what the output holds: of logits the softmax is compared. `batched`
    yields the inputs of a run, and how many of its rows count.
    """
    largest, start = 0.0, 0
    for feeds, n_rows in batched:
        (served,) = session.run(feeds, [output])
        proba = served_proba(served, meaning, expected.shape[1])[:n_rows]
        difference = np.abs(proba - expected[start : start + n_rows])
        # Not Python's max, which loses NaN.
        largest = float(np.maximum(largest, difference.max()))
        start += n_rows
    return largest
