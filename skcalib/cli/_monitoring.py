"""Watching what is served, from files to a state in a file, and recalibrating by it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from skcalib._files import check_target, one_at_a_time, text_file, write_together
from skcalib._optional import import_optional
from skcalib._saving import calibrator_file
from skcalib._sklearn_compat import InvalidParameterError
from skcalib._validation import (
    BOTH,
    check_proba_rows,
    encode_labels,
    in_another_order,
    like_known,
    normalised_rows,
    refuse_index,
)
from skcalib.cli._commands import Targets
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._export import Served, served_by
from skcalib.cli._options import Key, Normalise, _data
from skcalib.cli._readers import read_labels, read_rows
from skcalib.cli._report import as_address, new_figure, template
from skcalib.cli._rows import Request, split_names
from skcalib.export import calibrate_onnx_model
from skcalib.export._save import model_files
from skcalib.monitoring import CalibrationMonitor, MonitorReport


@dataclass(frozen=True)
class Batch:
    """Rows to add to a state, and where to look for them."""

    probabilities: Annotated[
        Path | None,
        _data("Served probabilities: .npy, .npz, .csv or .parquet, with the labels."),
    ] = None
    probabilities_key: Key = None
    normalise: Normalise = False
    labels: Annotated[
        Path | None, _data("Labels, where they are not in the same file.")
    ] = None
    labels_key: Annotated[
        str | None, _data("Name of the array or column of labels.")
    ] = None
    classes: Annotated[
        str | None,
        _data("Labels in the order of the columns, separated by commas."),
    ] = None
    groups_key: Annotated[
        str | None,
        _data("Name of the array or column that holds the group of each row."),
    ] = None
    position: Annotated[
        int | None,
        _data(
            "Number of the first row in the stream; it has to be the number of rows "
            "that were added to the state itself, merged ones left out, so that no "
            "batch is added twice."
        ),
    ] = None


class Read:
    """What was read of a batch."""

    def __init__(self, batch: Batch, path: Path, known: NDArray[Any] | None) -> None:
        # With labels in a file of their own, the key names those.
        labels_key = batch.labels_key if batch.labels is None else None
        keys = batch.probabilities_key, labels_key, batch.groups_key
        # The classes of the state, or those that a first batch is told.
        classes = [] if known is None else [*map(str, known.tolist())]
        classes += [] if batch.classes is None else split_names(batch.classes)
        request = Request("probabilities", *keys, classes=classes)
        values, labels, self.names, self.groups = read_rows(path, request)
        if batch.labels is not None:
            labels = read_labels(
                batch.labels, batch.labels_key, self.names, classes=classes
            )
        if labels is None:
            raise DataError(
                f"No labels found in {path}. Name the array or column with "
                "--labels-key, or their own file with --labels."
            )
        if len(labels) != len(values):
            raise DataError(
                f"{path} has {len(values)} rows but there are {len(labels)} labels."
            )
        check = normalised_rows if batch.normalise else check_proba_rows
        self.proba = check(values) if len(values) else values
        self.labels: NDArray[Any] = labels
        if self.names is not None and batch.probabilities_key is None:
            advice = (
                "Name the columns of the probabilities: --probabilities-key {others}"
            )
            refuse_index(self.names, values, labels, of=str(path), advice=advice)

    def classes(self, named: str | None) -> NDArray[Any]:
        """Return the class of each column of a first batch."""
        given: Any = None
        if named is not None:
            given = np.array(split_names(named))
            if self.labels.dtype.kind in "iu":
                given = _as_whole(given, self.labels.dtype)
            if self.labels.dtype.kind == "b":
                given = like_known(given, BOTH)
        return encode_labels(
            "monitor", self.labels, self.proba.shape[1], given, self.names
        )[0]

    def follow(self, monitor: CalibrationMonitor) -> None:
        """Write labels and groups as the state does, where their text is the same."""
        self.labels = like_known(self.labels, monitor.classes_)
        if self.groups is not None and monitor.groups is not None:
            self.groups = like_known(self.groups, np.array(monitor.groups))

    def check_columns(self, classes: NDArray[Any]) -> None:
        """Refuse columns that are named after the classes in another order."""
        known = [str(label) for label in classes.tolist()]
        if self.names is not None and in_another_order(self.names, classes):
            raise DataError(
                f"The columns are {', '.join(self.names)}, but the state watches "
                f"{', '.join(known)}, in this order. Name them so: --probabilities-key "
                f"{','.join(known)}"
            )


def _as_whole(names: NDArray[Any], dtype: Any) -> NDArray[Any]:
    try:
        return names.astype(dtype)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"The labels are whole numbers, but --classes names {', '.join(names)}. "
            "Name the number of each column, such as --classes 0,1,2."
        ) from error


def run_monitor(
    state: Path,
    batch: Batch,
    merge: list[Path],
    settings: dict[str, Any],
    report: Path | None,
    prometheus: Path | None,
) -> MonitorReport:
    """Add a batch, or other states, to the state in a file, which may be new."""
    _check_apart(state, batch, merge, report, prometheus)
    with one_at_a_time(state.resolve().parent):
        before = _content(state)
        monitor = _advanced(state, batch, merge, settings)
        if _content(state) != before:
            raise DataError(
                f"{state} was written by another run in the meantime, and is left as "
                "it is. Run this one again."
            )
        _write(monitor, state, report, prometheus)
    return monitor.report()


def _content(state: Path) -> bytes | None:
    return state.read_bytes() if state.is_file() else None


def _advanced(
    state: Path, batch: Batch, merge: list[Path], settings: dict[str, Any]
) -> CalibrationMonitor:
    """Return the monitor of a state, which may be new, with a batch or other states."""
    monitor = _read_state(state) if state.exists() else None
    if monitor is not None:
        _check_settings(monitor, settings)
    if batch.probabilities is not None:
        known = None if monitor is None else monitor.classes_
        read = Read(batch, batch.probabilities, known)
        if monitor is None:
            if not len(read.labels):
                raise DataError(
                    f"{batch.probabilities} has no rows to begin a state with."
                )
            groups = None if read.groups is None else np.unique(read.groups)
            classes = read.classes(batch.classes)
            monitor = _begun(settings, classes=classes, groups=groups)
        else:
            read.follow(monitor)
            read.check_columns(monitor.classes_)
            _check_classes(monitor, batch.classes)
            _check_groups(monitor, batch.groups_key)
        monitor.update(
            read.labels, read.proba, groups=read.groups, position=batch.position
        )
    for path in merge:
        other = _read_state(path)
        if monitor is None:
            monitor = _begun(other.get_params() | settings)
        monitor.merge(other)
    if monitor is None:
        raise UsageError(
            f"There is no state {state} yet. Begin one with --probabilities, or "
            "--merge states."
        )
    return monitor


def _begun(settings: dict[str, Any], **more: Any) -> CalibrationMonitor:
    """Return a monitor without rows; refuse settings out of their range."""
    monitor = CalibrationMonitor(**settings, **more)
    try:
        monitor._validate_params()
    except InvalidParameterError as error:
        raise UsageError(str(error)) from error
    return monitor


def _check_apart(
    state: Path,
    batch: Batch,
    merge: list[Path],
    report: Path | None,
    prometheus: Path | None,
) -> None:
    """Refuse to write over what is read, or two results to one file."""
    read = [
        path for path in (batch.probabilities, batch.labels, *merge) if path is not None
    ]
    written = [path for path in (state, report, prometheus) if path is not None]
    every = [path.resolve() for path in (*written, *read)]
    for path in written:
        if every.count(path.resolve()) > 1:
            raise UsageError(f"{path} is named twice. Choose another name for one.")
        check_target(path, overwrite=True)
    if report is not None:
        for name in ("jinja2", "matplotlib"):
            import_optional(name, "The HTML report")


def _read_state(path: Path) -> CalibrationMonitor:
    if not path.is_file():
        raise DataError(f"There is no state {path}.")
    try:
        return CalibrationMonitor.from_dict(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _check_settings(monitor: CalibrationMonitor, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if getattr(monitor, name) != value:
            raise UsageError(
                f"--{name} {value} is not that of the state, {getattr(monitor, name)}. "
                "A monitor keeps what it began with; begin another state for others."
            )


def _check_classes(monitor: CalibrationMonitor, named: str | None) -> None:
    known = [str(label) for label in monitor.classes_.tolist()]
    if named is not None and split_names(named) != known:
        raise UsageError(
            f"--classes {named} are not those of the state, {','.join(known)}. A "
            "monitor keeps what it began with; begin another state for others."
        )


def _check_groups(monitor: CalibrationMonitor, key: str | None) -> None:
    if (key is None) != (monitor.groups is None):
        told = f"--groups-key {key} names groups, and the state was begun without."
        if key is None:
            told = "The state watches groups: name their column with --groups-key."
        raise UsageError(
            f"{told} A monitor keeps what it began with; begin another state for "
            "others."
        )


def _write(
    monitor: CalibrationMonitor,
    state: Path,
    report: Path | None,
    prometheus: Path | None,
) -> None:
    texts = {}
    if report is not None:
        texts[report] = render_monitor(monitor)
    if prometheus is not None:
        texts[prometheus] = as_prometheus(monitor.report(), state.stem)
    # Last: where another file cannot be replaced, the batch is to be given again.
    texts[state] = json.dumps(monitor.to_dict(), allow_nan=False)
    write_together({path.absolute(): text_file(text) for path, text in texts.items()})


def as_prometheus(report: MonitorReport, name: str) -> str:
    """Return the text of metrics for Prometheus, as its textfile collector reads it.

    `name` is the label that tells the states of a host apart.
    """
    metrics = {
        "rows_total": ("counter", "Rows seen.", report.n_rows),
        "evidence": ("gauge", "Logarithm of the wealth.", report.evidence),
        "threshold": ("gauge", "Evidence at which it alarms.", report.threshold),
        "alarm": ("gauge", "Whether it ever alarmed.", int(report.alarm)),
        "accuracy": ("gauge", "Share of right predictions.", report.accuracy),
        "confidence": ("gauge", "Mean largest probability.", report.confidence),
        "log_loss": ("gauge", "Mean log-loss, in nats.", report.log_loss),
    }
    lines = []
    of_state = f"state={_quoted(name)}"
    for metric, (kind, text, value) in metrics.items():
        full = f"skcalib_monitor_{metric}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        lines.append(f"{full}{{{of_state}}} {value}")
    if report.group_evidence:
        full = "skcalib_monitor_group_evidence"
        lines += [f"# HELP {full} Evidence in a group.", f"# TYPE {full} gauge"]
        for group, value in report.group_evidence.items():
            labels = f"{of_state},group={_quoted(str(group))}"
            lines.append(f"{full}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Write the value of a label, in which three characters are escaped, no others."""
    for character, written in (("\\", r"\\"), ('"', r"\""), ("\n", r"\n")):
        text = text.replace(character, written)
    return f'"{text}"'


def render_monitor(monitor: CalibrationMonitor) -> str:
    """Return the report of a monitor as HTML; the same state gives the same text."""
    figure = new_figure(12.6, 4.6)
    monitor.plot(figure.subplots(1, 3))
    text: str = template("monitor.html").render(
        report=monitor.report(), picture=as_address(figure)
    )
    return text


def run_recalibrate(
    model: Path,
    state: Path,
    output: Path | None,
    save: Path | None,
    *,
    model_output: str | None,
    overwrite: bool,
) -> tuple[Any, Served | None]:
    """Fit the next calibrator by a state; write it into the model, or by itself."""
    if output is None and save is None:
        raise UsageError("Name a file to write: --output, --save, or both.")
    targets = Targets(output, save, overwrite=overwrite)
    targets.check_endings()
    targets.check_apart([model, state])
    targets.check_ready()
    calibrator = _read_state(state).recalibrate()
    targets.check_free()
    files: dict[Path, Callable[[Path], object]] = {}
    served = None
    if output is not None:
        written = calibrate_onnx_model(str(model), calibrator, output=model_output)
        folder = model.absolute().parent
        files |= model_files(written, output.absolute(), overwrite, folder)
        served = served_by(written, output, calibrator)
    if save is not None:
        files[save.absolute()] = calibrator_file(calibrator)
    write_together(files)
    return calibrator, served
