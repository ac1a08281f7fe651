"""From files to logits and labels."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._base import BaseCalibrator
from skcalib._blocks import is_stored, open_source
from skcalib._judging import units
from skcalib._networks._given import Given, perturbs_inputs
from skcalib._networks._named import NamedRows
from skcalib._numerics import hash_rows, log_softmax_
from skcalib._onnx._session import open_onnx
from skcalib._validation import (
    BOTH,
    INDEX_ROWS,
    check_calibration_set,
    check_groups,
    check_proba_rows,
    classes_of_model,
    in_another_order,
    like_known,
    logits_from_proba,
    preview,
    refuse_index,
    refuse_order_unlike_model,
)
from skcalib.cli._console import progress
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._images import ImageRows, is_image_folder, read_images
from skcalib.cli._options import Labelled, Source
from skcalib.cli._readers import read_labels, read_rows
from skcalib.cli._rows import Request, Role, Rows, split_names
from skcalib.frozen import OnnxLogits

# Rows a step of the progress bar; images are in memory so many at a time.
_ROWS_A_STEP = 2048
_IMAGES_A_STEP = 64


@dataclass(frozen=True)
class Values:
    """Logits of samples, and the network and inputs they came from.

    Logits are an array, or rows of a file that do not fit in memory; inputs are an
    array, several by name, or images in files.
    """

    logits: Any
    network: OnnxLogits | None = field(default=None, kw_only=True)
    inputs: Any = field(default=None, kw_only=True)

    @property
    def rows(self) -> NDArray[Any]:
        """What tells samples apart: the network's inputs, or logits without any."""
        if isinstance(self.inputs, NamedRows):
            return np.column_stack([hash_rows(part) for part in self.inputs.values()])
        return self.logits if self.inputs is None else self.inputs

    def seen_by(self, calibrator: Any) -> Any:
        """Return what a calibrator is fitted on: logits, or the network's inputs."""
        if self.inputs is not None and perturbs_inputs(calibrator):
            is_folder = isinstance(self.inputs, ImageRows)
            return np.asarray(self.inputs) if is_folder else self.inputs
        return self.logits


@dataclass(frozen=True)
class Scores(Values):
    """Checked logits of labelled samples.

    `columns` says which class each named column of a table was taken for, `groups`
    which rows belong together.
    """

    codes: NDArray[np.intp]
    classes: NDArray[Any]
    columns: dict[str, Any] | None = None
    groups: NDArray[Any] | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """The true class of each sample."""
        return self.classes[self.codes]

    @property
    def unit(self) -> NDArray[np.intp] | None:
        """The number of the group of each sample, where groups were given."""
        return units(self.groups)


def load_scores(
    source: Labelled,
    calibrator: BaseCalibrator | None = None,
    *,
    to_fit: bool = True,
) -> Scores:
    """Read and check logits and labels, running the model where inputs were given.

    With a `calibrator` the classes have to be those it was fitted for. Only what is
    fitted `to_fit` needs rows of two classes.
    """
    role, path, key = source.values
    known = [] if calibrator is None else calibrator.classes_.tolist()
    values, labels, names, groups = _read_labelled(source, known)
    found = _as_logits(source, values)
    if found.inputs is not None:
        names = None
    labels, named = _parse_classes(source.classes, labels)
    if named is None and names is None:
        classes = classes_of_model(labels, _named_by(source))
        named = None if classes is None else classes.tolist()
    if calibrator is not None:
        labels = like_known(labels, calibrator.classes_)
        _check_width(found.logits, calibrator, path)
        _check_labels(source.labels or path, labels, calibrator)
        # Names that are none of its classes say nothing of them.
        if named is None and not _names_some(names, calibrator):
            named = calibrator.classes_.tolist()
    if names is not None and key is None and named is None:
        _refuse_index(path, role, names, found.logits, labels)
    # --classes goes before the names: which class each column is, is printed.
    told = names if named is None or names is None else range(len(names))
    given = found.logits, labels, None, named
    data = check_calibration_set("Calibration", *given, names=told, is_part=not to_fit)
    classes = data.classes
    columns = None if names is None else _mapping(names, classes)
    if calibrator is not None and classes.tolist() != calibrator.classes_.tolist():
        others = classes.tolist() if columns is None else list(columns.values())
        raise _other_classes(source, others, calibrator)
    return Scores(
        found.logits if is_stored(found.logits) else np.asarray(found.logits),
        data.codes,
        classes,
        columns,
        None if groups is None else check_groups(groups, len(data.codes)),
        network=found.network,
        inputs=found.inputs,
    )


def _names_some(names: list[str] | None, calibrator: BaseCalibrator) -> bool:
    """Whether columns are named after classes; a beginning before all is no matter."""
    if names is None:
        return False
    known = calibrator.classes_
    is_named = not set(map(str, known.tolist())).isdisjoint(names)
    return is_named or in_another_order(names, known)


def _read_labelled(
    source: Labelled, known: Sequence[Any]
) -> tuple[NDArray[Any], NDArray[Any], list[str] | None, NDArray[Any] | None]:
    """Return values, their labels and groups, and the names of columns in a table.

    A calibrator has the `known` classes.
    """
    _, path, _ = source.values
    is_here = source.labels is None
    labels_key = source.labels_key if is_here else None
    groups_key = source.groups_key if source.groups is None else None
    classes = _names_of_classes(source)
    values, labels, names, groups = _read_values(
        source, labels_key, is_here, known, groups_key, classes
    )
    if source.labels is not None:
        spelt = [*(names or []), *map(str, known)]
        labels = read_labels(source.labels, source.labels_key, spelt, classes=classes)
    if source.groups is not None:
        groups = read_labels(source.groups, source.groups_key, role="groups")
    if labels is None:
        raise DataError(
            f"No labels found in {path}. Name the array or column with --labels-key, "
            "or their own file with --labels. Columns without a header are called 0, "
            "1, ..."
        )
    if values.shape[:1] != labels.shape[:1]:
        raise DataError(
            f"{path} has {values.shape[0]} rows but there are {len(labels)} labels. "
            "(The first line of a .csv file that holds numbers only is a row, except "
            "integers that ascend above other numbers: they are names of columns.)"
        )
    return values, labels, names, groups


def _read_values(
    source: Source,
    labels_key: str | None,
    wants_labels: bool,
    known: Sequence[Any],
    groups_key: str | None = None,
    classes: Sequence[str] = (),
) -> Rows:
    """Read what is named; several inputs of a model are found by their names.

    Columns may be named after the `known` classes of a calibrator, labels after
    `classes`, too.
    """
    role, path, key = source.values
    is_folder = role == "inputs" and is_image_folder(path)
    if source.preprocess is not None and not is_folder:
        raise UsageError(
            "--preprocess is what is made of a folder of images, and --inputs names "
            "none. Inputs in other files are passed on as they are."
        )
    if is_folder and groups_key is not None:
        raise UsageError(
            "--groups-key names an array or a column, and a folder of images holds "
            "none. Name a file of groups with --groups, a row for each image."
        )
    by_name = False
    if role == "inputs":
        specs = open_onnx(str(source.model), source.model_output).inputs
        if is_folder:
            return read_images(path, source.preprocess, specs[0])
        by_name = len(specs) > 1
        if by_name:
            key = key or ",".join(spec.name for spec in specs)
    request = Request(
        role,
        key,
        labels_key,
        groups_key,
        by_name=by_name,
        columns=[*map(str, known)],
        classes=classes,
        wants_labels=wants_labels,
    )
    rows = read_rows(path, request)
    if rows.values.shape[0] == 0:
        raise DataError(f"{path} has no rows.")
    return rows


def load_values(source: Source, calibrator: BaseCalibrator) -> Values:
    """Read what a fitted calibrator is to be applied to; labels are passed over."""
    role, path, key = source.values
    known = calibrator.classes_.tolist()
    values, _, names, _ = _read_values(source, source.labels_key, False, known)
    found = _as_logits(source, values)
    _check_width(found.logits, calibrator, path)
    refuse_order_unlike_model(_named_by(source), calibrator.classes_)
    if names is not None:
        if key is None:
            _refuse_index(path, role, names, found.logits, calibrator.classes_)
        if in_another_order(names, calibrator.classes_):
            raise _other_classes(source, names, calibrator)
    return found


def _as_logits(source: Source, values: Any) -> Values:
    """Return logits, running the model where inputs were given."""
    if source.inputs is not None:
        network = OnnxLogits(str(source.model), output=source.model_output)
        is_folder = isinstance(values, ImageRows)
        network.fit(values[:_IMAGES_A_STEP] if is_folder else values)
        return Values(_run(network, values), network=network, inputs=values)
    if source.probabilities is None:
        return Values(values)
    as_logits = partial(_log_proba, source.floor, source.normalise)
    if not is_stored(values):
        return Values(as_logits(values))
    # Row by row; a row that is wrong is told of before any is used.
    rows = values if source.normalise else check_proba_rows(values, blocks=True)
    return Values(open_source(rows).mapped(as_logits))


def _log_proba(floor: float, normalise: bool, proba: Any) -> NDArray[Any]:
    """Return logarithms of rows that sum to 1, as the map before a fit gives them."""
    logits = logits_from_proba(proba, floor=floor, normalise=normalise)
    return log_softmax_(np.asarray(logits))


def _named_by(source: Source) -> tuple[Any, ...] | None:
    """Return the classes by which the model names its columns, if there is one."""
    if source.model is None:
        return None
    return Given.of(str(source.model), source.model_output).labels


def _check_width(logits: NDArray[Any], calibrator: BaseCalibrator, path: Path) -> None:
    n_columns = 1 if logits.ndim == 1 else logits.shape[1]
    if n_columns != calibrator.n_features_in_:
        raise DataError(
            f"{path} gives {n_columns} columns of logits, but the calibrator was fitted"
            f" on {calibrator.n_features_in_}, for the classes "
            f"{preview(calibrator.classes_)}. Pass scores of the same classes."
        )


def _check_labels(path: Path, labels: NDArray[Any], calibrator: BaseCalibrator) -> None:
    known = calibrator.classes_.tolist()
    present, names = np.unique(labels).tolist(), set(known)
    unknown = [label for label in present if label not in names]
    if unknown:
        raise DataError(
            f"{path} holds labels that the calibrator does not know: "
            f"{preview(unknown)}. It was fitted for {preview(known)}; name the classes "
            "as they are named there."
        )


def _other_classes(
    source: Source, found: Sequence[Any], calibrator: BaseCalibrator
) -> DataError:
    role, path, _ = source.values
    needed = calibrator.classes_.tolist()[-calibrator.n_features_in_ :]
    order = ",".join(map(str, needed))
    advice = (
        "Put the columns in its order; in a table name them so: "
        f"--{role}-key {textwrap.shorten(order, 200, placeholder=' ...')}"
    )
    if len(needed) == 1:  # of two classes
        advice = f"Pass the log-odds, or the probability, of {needed[0]!r}."
    return DataError(
        f"The columns of {path} stand for {preview(found)}, but the calibrator was "
        f"fitted for {preview(needed)}, in this order. {advice}"
    )


def _refuse_index(
    path: Path, role: Role, names: list[str], values: NDArray[Any], labels: NDArray[Any]
) -> None:
    advice = f"Name the columns of the {role}: --{role}-key {{others}}"
    refuse_index(names, values[:INDEX_ROWS], labels, of=str(path), advice=advice)


def _mapping(names: list[str], classes: NDArray[Any]) -> dict[str, Any]:
    """Return the class of each column; a single one is that of the second class."""
    return dict(zip(names, classes.tolist()[-len(names) :], strict=True))


def _names_of_classes(source: Labelled) -> list[str]:
    """Return the classes that --classes or the model names, as they are written."""
    if source.classes is not None:
        return split_names(source.classes)
    return [*map(str, _named_by(source) or ())]


def _parse_classes(
    text: str | None, labels: NDArray[Any]
) -> tuple[NDArray[Any], list[Any] | None]:
    """Return the labels and the classes that --classes names, in its order.

    Integer labels are numbers of columns where the names are no integers, and become
    these names.
    """
    if text is None:
        return labels, None
    names: list[Any] = split_names(text)
    if labels.dtype.kind == "b":
        return labels, like_known(np.array(names), BOTH).tolist()
    if labels.dtype.kind not in "iu":
        return labels, names
    try:
        return labels, [int(name) for name in names]
    except ValueError:
        pass
    outside = np.unique(labels[(labels < 0) | (labels >= len(names))])
    if len(outside):
        raise DataError(
            f"--classes names {len(names)} columns, whose numbers are 0 to "
            f"{len(names) - 1}, but there are labels {preview(outside)}. Name every "
            "column in order, or name the integers themselves."
        )
    places = {name: place for place, name in enumerate(names)}
    present = np.unique(labels).tolist()
    moved = [label for label in present if places.get(str(label), label) != label]
    if moved:
        raise DataError(
            f"Labels {preview(moved)} may be names or numbers of the columns that "
            "--classes names. Name integers only, or no integer but in its own place."
        )
    return np.array(names)[labels], names


def _run(network: OnnxLogits, inputs: Any) -> NDArray[Any]:
    step = _IMAGES_A_STEP if isinstance(inputs, ImageRows) else _ROWS_A_STEP
    starts = range(0, inputs.shape[0], step)
    return np.concatenate(
        [
            network.transform(inputs[start : start + step])
            for start in progress(starts, "Running the model", len(starts))
        ]
    )
