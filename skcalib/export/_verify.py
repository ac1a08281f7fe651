"""Running a written model, and comparing what it serves with Python."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skcalib._onnx._files import ModelSource
from skcalib._onnx._graph import GraphIndex, class_labels, operator
from skcalib._onnx._inputs import batches
from skcalib._onnx._readout import Meaning
from skcalib._onnx._session import OnnxSession, open_session
from skcalib._warnings import warn
from skcalib.exceptions import ModelFormatError
from skcalib.export._record import recorded


def served_proba(
    served: Any, meaning: Meaning, n_classes: int, labels: Sequence[Any] = ()
) -> NDArray[np.float64]:
    """Return probabilities as one column a class, however a model serves them.

    A ZipMap serves a dict a row, sorted by label; `labels` are in the order of columns.
    """
    if isinstance(served, list):
        served = [[row[label] for label in labels] for row in served]
    columns = np.array(served, dtype=np.float64).reshape(len(served), -1)
    if columns.shape[1] == 1 and n_classes == 2:
        others = 1 - columns if meaning == "proba" else np.zeros_like(columns)
        columns = np.hstack([others, columns])
    return columns if meaning == "proba" else softmax(columns, axis=1)


def labels_of_map(model: Any, output: str) -> Sequence[Any]:
    """Return the labels of the ZipMap that makes an output, none where none does."""
    _, node = GraphIndex(model.graph).origin(output)
    is_map = node is not None and operator(node) == "ZipMap"
    return class_labels(node) if is_map else ()


def largest_difference(
    session: OnnxSession,
    output: str,
    meaning: Meaning,
    batched: Iterable[tuple[dict[str, NDArray[Any]], int]],
    expected: NDArray[Any],
    labels: Sequence[Any] = (),
) -> float:
    """Return the largest difference between served probabilities and `expected`."""
    rows = row_differences(session, output, meaning, batched, expected, labels)
    return float(rows.max())  # NaN where there is one


def row_differences(
    session: OnnxSession,
    output: str,
    meaning: Meaning,
    batched: Iterable[tuple[dict[str, NDArray[Any]], int]],
    expected: NDArray[Any],
    labels: Sequence[Any] = (),
) -> NDArray[np.float64]:
    """Return each row's largest difference of a served probability from `expected`.

    `meaning` says what the output holds: of logits the softmax is compared. `batched`
    yields the inputs of a run, and how many of its rows count; `labels` are those of an
    output that is a map.
    """
    differences: list[NDArray[np.float64]] = []
    start = 0
    for feeds, n_rows in batched:
        (served,) = session.run(feeds, [output])
        n_given = next(iter(feeds.values())).shape[0]
        if len(served) != n_given:
            raise ModelFormatError(
                f"The calibrated model serves {len(served)} rows of scores for "
                f"{n_given} rows of inputs, so that its scores are not those that the "
                "calibrator was fitted on."
            )
        proba = served_proba(served, meaning, expected.shape[1], labels)[:n_rows]
        difference = np.abs(proba - expected[start : start + n_rows])
        differences.append(difference.max(axis=1))
        start += n_rows
    return np.concatenate(differences)


def check_alike(
    written: Any, source: ModelSource, X: Any, expected: NDArray[Any], advice: str
) -> None:
    """Run a written model on inputs; refuse what gives other probabilities.

    A file that takes its inputs in another form is only warned of.
    """
    session = open_session(written, source)
    try:
        batched = list(batches(session.inputs, X, 256))
    except (TypeError, ValueError) as error:
        warn(f"The file could not be run on X to compare it with Python: {error}")
        return
    outputs = recorded(written)["outputs"]
    name, meaning = outputs["scores"], outputs["meaning"]
    labels = labels_of_map(written, name)
    rows = row_differences(session, name, meaning, batched, expected, labels)
    # Scores on the edge of a step may fall to either side in any number of rows short
    # of half, seen for Venn-Abers; those of half precision are off by less.
    middle, upper = np.quantile(rows, [0.5, 0.9])
    if not middle <= _LARGEST_ROUNDING:
        raise ValueError(
            "The file would serve other probabilities than predict_proba gives: on "
            f"half the rows of X they differ by {middle:.2g} or more. {advice}"
        )
    if not upper <= _LARGEST_ROUNDING:
        warn(
            "The file serves other probabilities than predict_proba on one row of X in "
            f"ten: they differ by {upper:.2g} or more. The steps of a Venn-Abers or a "
            "histogram calibration explain it, where scores lie on their edges, or "
            "the file holds another model. Compare the two on your own data."
        )


# A difference in a probability that half precision may make.
_LARGEST_ROUNDING = 1e-2
