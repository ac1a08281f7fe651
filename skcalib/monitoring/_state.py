"""The state of a monitor as JSON, and what may be merged."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from skcalib._files import opened, sealed
from skcalib._maps import evaluate_block
from skcalib._validation import plain_names
from skcalib.monitoring._input import group_names
from skcalib.monitoring._recent import Recent
from skcalib.monitoring._wealth import Wealth

FORMAT = "skcalib monitor"
# Counts up when a state that is written can no longer be read by what came before.
VERSION = 1
_PARAMETERS = ("alpha", "tolerance", "delay", "memory")
# What rows change in place.
_IN_PLACE = ("_streams", "_recent", "_sums", "_merged", "_history")
_P = ParamSpec("_P")
_T = TypeVar("_T")


def all_or_nothing(
    change: Callable[Concatenate[Any, _P], _T],
) -> Callable[Concatenate[Any, _P], _T]:
    """Decorate a method that leaves the monitor as it was if it does not come through.

    Rows that were counted in part could not be given again.
    """

    @wraps(change)
    def whole(monitor: Any, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        held = vars(monitor)
        copies = deepcopy({name: held[name] for name in _IN_PLACE if name in held})
        # A shallow copy of the monitor keeps what it holds, too.
        monitor.__dict__ = held | copies
        try:
            return change(monitor, *args, **kwargs)
        except BaseException:
            monitor.__dict__ = held
            raise

    return whole


def to_dict(monitor: Any) -> dict[str, Any]:
    """Return the state of a monitor that has seen rows."""
    content: dict[str, Any] = {
        "parameters": _parameters(monitor),
        "classes": plain_names(monitor.classes_),
        "calibrator": monitor._calibrator_marks,
        "id": monitor._id,
        "merged": list(monitor._merged),
        "n_rows": monitor.n_rows_,
        "own_rows": monitor._own_rows,
        "alarm_row": monitor._alarm_row,
        "sums": monitor._sums.tolist(),
        "history": [list(point) for point in monitor._history],
        "log_suprema": monitor._log_suprema.tolist(),
        "streams": [[w.to_dict() for w in stream] for stream in monitor._streams],
        "single": monitor._is_single,
        "recent": monitor._recent.to_dict(),
    }
    return sealed(content, FORMAT, VERSION)


def _parameters(monitor: Any) -> dict[str, Any]:
    # Of NumPy's numbers JSON knows none.
    used = monitor._settings
    found = {name: np.asarray(used[name]).item() for name in _PARAMETERS}
    names = None if used["groups"] is None else group_names(monitor)
    return {**found, "groups": names}


def marks(monitor: Any) -> Any:
    """Return what the served calibrator says of three rows, to know it again."""
    calibrator = monitor._settings["calibrator"]
    if calibrator is None:
        return None
    n_classes = len(calibrator.classes_)
    probe = np.random.default_rng(0).normal(0, 3, (3, n_classes))
    return evaluate_block(calibrator.calibration_map(), probe).tolist()


def _is_other(marks: Any, others: Any) -> bool:
    if marks is None or others is None:
        return marks is not others
    marks, others = np.array(marks), np.array(others)
    return marks.shape != others.shape or not np.allclose(marks, others, atol=1e-9)


def from_dict(cls: Any, state: Mapping[str, Any], calibrator: Any) -> Any:
    """Return the monitor that wrote a state."""
    content = opened(state, FORMAT, VERSION, f"state of a {cls.__name__}")
    monitor = cls(calibrator, **content["parameters"])
    monitor._begin(np.array(content["classes"]))
    _restore(monitor, content)
    known = content["calibrator"]
    if calibrator is not None and _is_other(monitor._calibrator_marks, known):
        raise ValueError(
            "The state is that of another calibrator, or of probabilities without "
            "one. Begin a new monitor for what is served now."
        )
    monitor._calibrator_marks = known
    return monitor


def _restore(monitor: Any, content: dict[str, Any]) -> None:
    n_classes = monitor.classes_.shape[0]
    monitor._id = str(content["id"])
    monitor._merged = [str(name) for name in content["merged"]]
    monitor.n_rows_ = int(content["n_rows"])
    monitor._own_rows = int(content["own_rows"])
    monitor._alarm_row = content["alarm_row"]
    monitor._sums = np.array(content["sums"], dtype=np.float64)
    monitor._history = [(int(row), float(e)) for row, e in content["history"]]
    monitor._log_suprema = np.array(content["log_suprema"], dtype=np.float64)
    monitor._streams = [
        [Wealth.from_dict(w, n_classes, monitor.tolerance) for w in stream]
        for stream in content["streams"]
    ]
    monitor._is_single = bool(content["single"])
    monitor._recent = Recent.from_dict(content["recent"], n_classes, monitor.memory)


def check_alike(monitor: Any, other: Any) -> None:
    """Refuse to merge what watches something else."""
    own, others = _parameters(monitor), _parameters(other)
    own["classes"], others["classes"] = (
        plain_names(m.classes_) for m in (monitor, other)
    )
    for name, value in own.items():
        if value != others[name]:
            raise ValueError(
                f"The monitors differ in {name}: {value!r} and {others[name]!r}. Only "
                "monitors that watch the same in the same way can be merged."
            )
    if _is_other(monitor._calibrator_marks, other._calibrator_marks):
        raise ValueError(
            "The monitors watch different calibrators. After a recalibration begin a "
            "new monitor, and merge only what was served by the same."
        )


def check_same_calibrator(monitor: Any) -> None:
    """Refuse to go on from a calibrator that no longer maps as it did."""
    now = marks(monitor)
    if now is not None and _is_other(now, monitor._calibrator_marks):
        raise ValueError(
            "The served calibrator was fitted anew since the first rows came, which "
            "the former one served. Begin a new monitor for what is served now, or "
            "read this one with the former: from_dict(monitor.to_dict(), former)."
        )


def check_unseen(monitor: Any, other: Any) -> None:
    """Refuse to count rows twice."""
    seen = {monitor._id, *monitor._merged}
    if seen & {other._id, *other._merged}:
        raise ValueError(
            f"The other monitor ({other._id}, {other.n_rows_} rows), or a part of it, "
            "was merged before, and its rows would count twice. Let each shard have a "
            "monitor of its own, and merge it once, when it is complete."
        )
