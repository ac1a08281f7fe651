"""Fitted calibrators as JSON: parameters, learned values and the map, but no code.

A value of JSON stands for itself, an object with one key for anything else: the key
says what it is (`_READERS`). docs/saving.rst describes the format for those who read
it elsewhere.
"""

import base64
import json
import os
from collections.abc import Callable
from dataclasses import fields
from functools import singledispatch
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from skcalib import __version__
from skcalib._base import BaseCalibrator
from skcalib._files import check_target, digest, sealed, text_file, write_together
from skcalib._maps import CalibrationMap, Operation
from skcalib._numerics import some_logits
from skcalib._sklearn_compat import points_of
from skcalib._trusted_types import CLASSES, RECORDS
from skcalib._validation import column_on_host
from skcalib.extending import ENTRY_POINTS, installed
from skcalib.meta import BoostedCalibration, PriorShift
from skcalib.meta._chain import without_names
from skcalib.meta._prior_shift import by_label

FORMAT = "skcalib calibrator"
# Counts up when a file that is written can no longer be read by what came before.
VERSION = 1
# By the base of what packages may add to them.
_KNOWN: dict[type, dict[str, Any]] = {BaseCalibrator: CLASSES, Operation: RECORDS}
# So many rows tell whether a calibrator without a map predicts the same.
_N_ROWS = 8
# Kinds of numbers and text that are bytes and nothing else.
_PLAIN_KINDS = "biufUS"


def save(
    calibrator: Any, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a fitted calibrator to a JSON file.

    Unlike a pickle the file holds no code: `load` sets numbers and runs nothing.

    Parameters
    ----------
    calibrator : object
        A fitted calibrator of skcalib, but for `BoostedCalibration`; a
        `CalibratorSearch`, or a calibrator of a package that names it in the entry
        points ``skcalib.calibrators``.

    path : str or path-like
        The file to write, which should end in ".json".

    overwrite : bool, default=False
        Whether a file that exists may be replaced.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is false.
    NotFittedError
        If the calibrator is not fitted.
    TypeError
        If it is no calibrator that `load` would know, or a parameter is an object, such
        as a splitter, that is no data.
    ValueError
        If the folder is missing or cannot be written to.

    See Also
    --------
    load : The way back.
    skcalib.export.to_onnx : For programs without Python.

    Examples
    --------
    >>> import os, tempfile
    >>> import skcalib
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> fitted = skcalib.TemperatureScaling().fit(logits, [0, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "temperature.json")
    ...     skcalib.save(fitted, path)
    ...     loaded = skcalib.load(path)
    >>> loaded.temperature_ == fitted.temperature_
    True
    """
    target = Path(path).expanduser().absolute()
    check_target(target, overwrite)
    write_together({target: calibrator_file(calibrator)})


def calibrator_file(calibrator: Any) -> Callable[[Path], object]:
    """Return what writes a fitted calibrator to a path."""
    content = _content(calibrator)
    document = {"skcalib": __version__, **sealed(content, FORMAT, VERSION)}
    return text_file(json.dumps(document, allow_nan=False, indent=1))


def load(path: str | os.PathLike[str]) -> Any:
    """Read a calibrator that `save` has written.

    Nothing in the file is executed. What is read has to be what was written, and the
    map that the calibrator makes of it the one in the file, so that it predicts the
    same.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    calibrator : object
        The calibrator, fitted as it was.

    Raises
    ------
    ValueError
        If the file is no such file, is damaged, was written by a later version of
        skcalib in a format that this one does not know, or holds a calibrator of a
        package that is not installed.

    OSError
        If the file is not there, or cannot be read.

    See Also
    --------
    save : The way there.

    Examples
    --------
    >>> import os, tempfile
    >>> import skcalib
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> fitted = skcalib.TemperatureScaling().fit(logits, [0, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "temperature.json")
    ...     skcalib.save(fitted, path)
    ...     skcalib.load(path)
    TemperatureScaling()
    """
    path = Path(path).expanduser()
    document = _read(path)
    try:
        return _calibrator_of(document)
    except (_DamageError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


class _DamageError(Exception):
    """What is wrong with the content of a file."""


def _content(calibrator: Any) -> dict[str, Any]:
    if not isinstance(calibrator, BaseCalibrator):
        raise TypeError(
            f"save takes a fitted calibrator, not a {type(calibrator).__name__}: of a "
            "CalibratedClassifier one of its calibrators_, of a pipeline its last "
            "step. The whole is kept by joblib.dump or skops.io.dump. A network with "
            "its calibration becomes a model file: see "
            "skcalib.export.calibrate_onnx_model."
        )
    check_is_fitted(calibrator)
    content = {"calibrator": _estimator(calibrator), "map": _map_of(calibrator)}
    if hasattr(calibrator, "_some_beside"):
        content["calibrator"]["told"] = _written(_told(calibrator))
    return content


def _map_of(calibrator: Any) -> Any:
    """Return the operations of the map; None for a calibrator that has none."""
    if not hasattr(calibrator, "calibration_map"):
        return None
    return _written(calibrator.calibration_map())


def _told(calibrator: Any) -> NDArray[Any]:
    """Return what a calibrator without a map says of a few rows."""
    rows = some_logits(_N_ROWS, calibrator.n_features_in_)
    beside = calibrator._some_beside(_N_ROWS)
    return np.asarray(without_names(calibrator).predict_proba(rows, **beside))


def _estimator(calibrator: Any) -> dict[str, Any]:
    name = _name_of(calibrator, BaseCalibrator)
    given = calibrator.get_params(deep=False)
    parameters = {k: _as_data(k, v, calibrator) for k, v in given.items()}
    # What it asks metadata routing for is no part of what it predicts.
    left = {*parameters, "_metadata_request"}
    learned = {k: v for k, v in vars(calibrator).items() if k not in left}
    entry: dict[str, Any] = {"class": name, "parameters": {}, "learned": {}}
    for part, values in (("parameters", parameters), ("learned", learned)):
        for key, value in values.items():
            try:
                entry[part][key] = _written(value)
            except _DamageError as error:
                how = f"set_params({key}=...)" if values is parameters else "fit again"
                advice = f"Set it to numbers or names first: {how}."
                if key in ("classes", "classes_"):
                    advice = "Fit with labels that are numbers or text: y.astype(str)."
                raise TypeError(
                    f"{name} cannot be saved: {key} holds {error}, which is no data. "
                    f"{advice}"
                ) from error
    return entry


def _as_data(key: str, value: Any, calibrator: Any) -> Any:
    """Return a range, a series or a tensor as an array, shares by label as a dict."""
    if isinstance(calibrator, PriorShift) and key in ("priors", "sampling_priors"):
        # One that is to be fitted knows no classes yet.
        value = by_label(value, getattr(calibrator, "classes_", np.empty(0)))
    is_listed = isinstance(value, range) or hasattr(value, "__array__")
    return np.asarray(column_on_host(value)) if is_listed else value


def _class_of(name: str, base: type) -> Any:
    """Return the class of this name: one of ours, or of an installed package."""
    return _KNOWN[base].get(name) or installed(base, name).get(name)


def _name_of(value: Any, base: type) -> str:
    """Return the name of the class of `value`, by which `load` will find it."""
    name, module = type(value).__name__, type(value).__module__
    found = _class_of(name, base)
    if type(value) is BoostedCalibration:
        raise TypeError(
            f"{name} cannot be saved as JSON: its trees are objects of scikit-learn. "
            "It can be pickled: joblib.dump(calibrator, path)."
        )
    if found is None:
        raise TypeError(
            f"{name} is not known to skcalib.load. Its package has to name it in the "
            f'entry points: [project.entry-points."{ENTRY_POINTS[base]}"] '
            f'{name} = "{module}:{name}".'
        )
    if found is not type(value):
        raise TypeError(
            f"skcalib.load would take {name} of {module} for that of "
            f"{found.__module__}. Give it another name."
        )
    return name


@singledispatch
def _written(value: Any) -> Any:
    """Turn a value into what JSON holds."""
    raise _DamageError(f"a {type(value).__module__}.{type(value).__name__}")


@_written.register(bool | int | str | None)
def _(value: Any) -> Any:
    return value


@_written.register
def _(value: float) -> Any:
    # JSON has no infinity.
    return float(value) if np.isfinite(value) else {"float": repr(float(value))}


@_written.register
def _(value: list) -> Any:
    return [_written(entry) for entry in value]


@_written.register
def _(value: tuple) -> Any:
    return {"tuple": [_written(entry) for entry in value]}


@_written.register
def _(value: dict) -> Any:
    return {"dict": [[_written(k), _written(v)] for k, v in value.items()]}


@_written.register(np.generic)
@_written.register(np.ndarray)
def _(value: Any) -> Any:
    array = np.asarray(value)
    shape = list(array.shape)
    if array.dtype.kind == "O":
        return {"objects": {"shape": shape, "items": _written(array.ravel().tolist())}}
    if array.dtype.kind not in _PLAIN_KINDS:
        raise _DamageError(f"an array of {array.dtype}")
    array = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"array": {"dtype": array.dtype.str, "shape": shape, "base64": data}}


@_written.register
def _(value: CalibrationMap) -> Any:
    return {"map": [_written(operation) for operation in value.operations]}


@_written.register
def _(value: NearestNeighbors) -> Any:
    points = _written(points_of(value))
    return {"neighbors": {"n_neighbors": value.n_neighbors, "points": points}}


@_written.register
def _(value: BaseCalibrator) -> Any:
    return {"calibrator": _estimator(value)}


def _write_record(value: Any) -> Any:
    names = [field.name for field in fields(value) if field.init]
    written = {name: _written(getattr(value, name)) for name in names}
    return {"record": {"class": _name_of(value, Operation), **written}}


for _record in (Operation, *RECORDS.values()):
    _written.register(_record, _write_record)


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file of this format in a version that is known."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not a JSON file: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(
            f"{str(path)!r} holds no calibrator; skcalib.save writes files of the "
            f"format {FORMAT!r}."
        )
    if document.get("version") != VERSION:
        raise ValueError(
            f"{str(path)!r} is of version {document.get('version')!r} of its format, "
            f"written by skcalib {document.get('skcalib')}. This is skcalib "
            f"{__version__}, which reads version {VERSION}. Install the later one of "
            "both, or save the calibrator again."
        )
    return document


def _calibrator_of(document: dict[str, Any]) -> Any:
    content = {key: document.get(key) for key in ("calibrator", "map")}
    if document.get("sha256") != digest(content):
        raise _DamageError("its content is not what was written.")
    calibrator = _value(content["calibrator"], _read_estimator)
    try:
        is_same = _predicts(calibrator, content)
    except Exception as error:
        # Learned values may be missing or of any shape; each has its own error.
        raise _DamageError(f"its values make no map ({error}).") from error
    if not is_same:
        raise _DamageError(
            f"skcalib {__version__} makes another map of its values than skcalib "
            f"{document.get('skcalib')} did, and would predict something else. Fit "
            "and save the calibrator again."
        )
    return calibrator


def _predicts(calibrator: Any, content: dict[str, Any]) -> bool:
    """Whether a calibrator has the map in the file, or says the same of a few rows."""
    if not _is_alike(_map_of(calibrator), content["map"]):
        return False
    if not hasattr(calibrator, "_some_beside"):
        return True
    known = _read_value(content["calibrator"]["told"])
    return bool(np.allclose(_told(calibrator), known, rtol=1e-6, atol=1e-9))


def _is_alike(found: Any, known: Any) -> bool:
    """Whether two maps are the same, but for how processors round a logarithm."""
    if found == known or type(found) is not type(known):
        return bool(found == known)
    if isinstance(found, list):
        return len(found) == len(known) and all(map(_is_alike, found, known))
    if isinstance(found, dict) and found.get("dtype", "") == known.get("dtype", "<f8"):
        found, known = _read_array(found), _read_array(known)
    elif isinstance(found, dict):
        alike = (_is_alike(found[key], known.get(key)) for key in found)
        return found.keys() == known.keys() and all(alike)
    is_real = np.asarray(found).dtype.kind == "f" and np.shape(found) == np.shape(known)
    return is_real and bool(np.allclose(found, known, rtol=1e-12, atol=1e-300))


def _value(content: Any, read: Callable[[Any], Any]) -> Any:
    """Call a reader, and say what is wrong with what it finds no sense in."""
    try:
        return read(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _DamageError(f"{type(error).__name__}: {error}.") from error


def _read_value(content: Any) -> Any:
    """Turn what JSON holds into the value it was."""
    if isinstance(content, list):
        return [_read_value(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    (kind, inside) = next(iter(content.items()), (None, None))
    if len(content) != 1 or kind not in _READERS:
        raise _DamageError(f"{list(content)} is no kind of value.")
    return _value(inside, _READERS[kind])


def _read_array(content: Any) -> NDArray[Any]:
    dtype, shape = np.dtype(content["dtype"]), tuple(content["shape"])
    if dtype.kind not in _PLAIN_KINDS:
        raise _DamageError(f"an array of {dtype} holds more than numbers and text.")
    data = base64.b64decode(content["base64"], validate=True)
    if any(length < 0 for length in shape) or prod(shape) * dtype.itemsize != len(data):
        raise _DamageError(f"{len(data)} bytes are no array of shape {shape}.")
    array = np.frombuffer(bytearray(data), dtype).reshape(shape)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array if shape else array[()]


def _read_objects(content: Any) -> NDArray[Any]:
    out = np.empty(len(content["items"]), dtype=object)
    out[:] = _read_value(content["items"])
    return out.reshape(content["shape"])


def _read_dict(content: Any) -> dict[Any, Any]:
    return {_read_value(key): _read_value(value) for key, value in content}


def _read_map(content: Any) -> CalibrationMap:
    return CalibrationMap(*map(_read_value, content))


def _read_record(content: Any) -> Any:
    values = {k: _read_value(v) for k, v in content.items() if k != "class"}
    return _read_class(content["class"], Operation)(**values)


def _read_neighbors(content: Any) -> NearestNeighbors:
    points = _read_value(content["points"])
    return NearestNeighbors(n_neighbors=int(content["n_neighbors"])).fit(points)


def _read_class(name: Any, base: type) -> Any:
    kind = _class_of(name, base)
    if kind is None:
        what = "calibrator" if base is BaseCalibrator else "operation"
        raise _DamageError(
            f"{name!r} is no {what} of skcalib {__version__} nor of an installed "
            "package. Install what it comes from."
        )
    return kind


def _read_estimator(content: Any) -> Any:
    kind = _read_class(content["class"], BaseCalibrator)
    parameters, learned = (
        {key: _read_value(value) for key, value in content[part].items()}
        for part in ("parameters", "learned")
    )
    taken = [key for key in learned if hasattr(kind, key)]
    if taken:
        raise _DamageError(f"{taken} are no learned values of {kind.__name__}.")
    calibrator = kind(**parameters)
    vars(calibrator).update(learned)
    return calibrator


_READERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "tuple": lambda content: tuple(map(_read_value, content)),
    "dict": _read_dict,
    "array": _read_array,
    "objects": _read_objects,
    "map": _read_map,
    "record": _read_record,
    "neighbors": _read_neighbors,
    "calibrator": _read_estimator,
}
