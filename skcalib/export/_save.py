"""Writing a model and the files of its weights, all of them or none."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from skcalib._files import check_target, write_together
from skcalib._onnx._files import (
    ModelSource,
    check_outside_data,
    outside_files,
)


def save_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    data_folder: str | os.PathLike[str] | None = None,
) -> None:
    """Write an ONNX model to a file, whole or not at all.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.

    path : str or path-like
        The file to write.

    overwrite : bool, default=False
        Whether a file that exists may be replaced.

    data_folder : str or path-like, default=None
        Where the weights lie that `model` keeps in files of their own, if it does:
        the folder of the original. They are copied beside `path`, into folders of the
        same names if they lie in some.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is false.
    ValueError
        If the folder is missing or cannot be written to, if `data_folder` is needed,
        or if the weights lie outside it.

    Examples
    --------
    >>> import os, tempfile
    >>> from skcalib import TemperatureScaling
    >>> from skcalib.export import save_onnx, to_onnx
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> model = to_onnx(TemperatureScaling().fit(logits, [0, 0, 1, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_onnx(model, os.path.join(folder, "calibration.onnx"))
    ...     os.listdir(folder)
    ['calibration.onnx']
    """
    target = Path(path).expanduser().absolute()
    write_together(model_files(model, target, overwrite, data_folder))


def model_files(
    model: Any,
    target: Path,
    overwrite: bool,
    data_folder: str | os.PathLike[str] | None = None,
) -> dict[Path, Callable[[Path], object]]:
    """Return what writes a model, and what copies the weights beside it."""
    check_target(target, overwrite)
    files: dict[Path, Callable[[Path], object]] = {}
    for source, copy in _outside(model, data_folder, target.parent):
        if copy.exists() and os.path.samefile(source, copy):
            continue
        if copy.parent.exists():
            check_target(copy, overwrite)
        files[copy] = partial(shutil.copyfile, source)
    for copy in files:
        copy.parent.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    files[target] = lambda temporary: temporary.write_bytes(content)
    return files


def _outside(
    model: Any, data_folder: str | os.PathLike[str] | None, folder: Path
) -> list[tuple[Path, Path]]:
    """Return where each file of weights lies and where it goes, or refuse it."""
    files = outside_files(model)
    if not files:
        return []
    if data_folder is None:
        raise ValueError(
            f"The model keeps its weights in the files {files}. Pass data_folder=, the "
            "folder in which they lie."
        )
    home = os.path.abspath(os.path.expanduser(os.fspath(data_folder)))
    check_outside_data(model, ModelSource(path=os.path.join(home, "the model")))
    return [(Path(home, file), folder / file) for file in files]
