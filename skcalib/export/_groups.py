"""Calibration by groups in one graph: a second input chooses each row's numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib.export._builder import NodeBuilder, refuse_beyond_int64
from skcalib.meta import GroupCalibration


def is_grouped(calibrator: Any) -> bool:
    """Whether a fitted calibrator needs the group of each row."""
    return isinstance(calibrator, GroupCalibration) and bool(calibrator.groups_)


def of_whole(calibrator: Any) -> Any:
    """Return the calibrator of all rows, of one that was fitted to groups or not."""
    is_one = isinstance(calibrator, GroupCalibration)
    return calibrator.calibrator_ if is_one else calibrator


def numbers_by_group(calibrator: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return factors and offsets of each group, and last those of any other."""
    n_classes = len(calibrator.classes_)
    factors = np.vstack([calibrator.coef_, np.ones(n_classes)])
    offsets = np.vstack([calibrator.intercept_, np.zeros(n_classes)])
    return factors, offsets


def scale_by_group(calibrator: Any, build: NodeBuilder, x: str) -> str:
    """Write the scaling of log-probabilities `x` by the group of each row."""
    number = _number_of_group(calibrator.groups_, build)
    factor, offset = (
        build.op("Gather", build.constant(table), number, axis=0)
        for table in numbers_by_group(calibrator)
    )
    return build.op("Add", build.op("Mul", x, factor), offset)


def _number_of_group(groups: list[Any], build: NodeBuilder) -> str:
    """Write the look-up of a name, from an input of the graph."""
    kinds = {str: ("strings", "STRING"), int: ("int64s", "INT64")}
    kind = type(groups[0])
    if kind not in kinds:
        raise ValueError(
            f"The groups are named by values of the type {kind.__name__}, such as "
            f"{groups[0]!r}. A graph reads text and integers: fit with those, or "
            "export calibrator_of(group) for each."
        )
    if kind is int:
        refuse_beyond_int64("groups_", groups)
    ending, element = kinds[kind]
    return build.ml_op(
        "LabelEncoder",
        build.input("group", element),
        **{f"keys_{ending}": groups},
        values_int64s=list(range(len(groups))),
        default_int64=len(groups),
    )
