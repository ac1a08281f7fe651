"""Columns of scores that the model itself names after classes."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator

from skcalib._numerics import distinct
from skcalib._validation._column_classes import as_text, classes_of_columns, preview
from skcalib._validation._logits import one_column
from skcalib._validation._shares import is_shares


def classes_of_model(y: Any, labels: Sequence[Any] | None) -> NDArray[Any] | None:
    """Return the labels by which a model names its columns, as `y` writes them.

    None where it names none, or `y` holds others, such as numbers of columns.
    """
    if labels is None or y is None or is_shares(y):
        return None
    present, _ = distinct(one_column(y))
    texts = [as_text(label) for label in labels]
    if not set(map(as_text, present.tolist())) <= set(texts):
        return None
    return classes_of_columns(present, texts)


def refuse_order_unlike_model(
    labels: Sequence[Any] | None, classes: NDArray[Any]
) -> None:
    """Refuse a calibrator whose classes are those of a model in another order."""
    texts = [as_text(label) for label in labels or ()]
    others = [as_text(label) for label in classes.tolist()]
    if texts != others and sorted(texts) == sorted(others):
        raise ValueError(
            f"The model names the classes of its columns {preview(labels or [])}, "
            f"and the calibrator was fitted for {preview(classes)}, in this order. Fit "
            "it with classes=[...] in the order of the model."
        )


def name_classes(calibrator: Any, classes: Any) -> Any:
    """Set the classes of a calibrator, or of what a search of scikit-learn fits."""
    params = calibrator.get_params()
    names = ["classes"] if "classes" in params else []
    names = names or [name for name in params if name.endswith("__classes")]
    # The outermost: of calibrators in calibrators, it tells the inner ones.
    depth = min((name.count("__") for name in names), default=0)
    outermost = [name for name in names if name.count("__") == depth]
    calibrator.set_params(**dict.fromkeys(outermost, classes))
    if classes is not None and isinstance(calibrator, FrozenEstimator):
        _refuse_other_classes(calibrator, classes)
    return calibrator


def _refuse_other_classes(frozen: Any, classes: NDArray[Any]) -> None:
    """Refuse a calibrator that is not fitted again, of other classes than these."""
    known = getattr(frozen, "classes_", None)
    if known is not None and known.tolist() != classes.tolist():
        raise ValueError(
            f"The frozen calibrator was fitted for the classes {preview(known)}, and "
            f"these are {preview(classes)}. Fit it to labels of these, with "
            "classes=[...] in this order."
        )
