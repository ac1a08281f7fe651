"""Writing model files whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from skcalib._backends._onnx_files import outside_files


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
        the folder of the original. They are copied beside `path`.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is false.
    ValueError
        If the folder is missing or cannot be written to, or `data_folder` is needed.

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
    files = outside_files(model)
    _check_target(target, overwrite)
    _copy_data(files, data_folder, target.parent, overwrite)
    with _replacing(target) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise ValueError(f"{str(target)!r} is a folder; name a file to write.")
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{str(target)!r} exists. Pass overwrite=True to replace it."
        )
    if not target.parent.is_dir():
        raise ValueError(
            f"The folder {str(target.parent)!r} does not exist. Make it first."
        )


def _copy_data(
    files: list[str],
    data_folder: str | os.PathLike[str] | None,
    folder: Path,
    overwrite: bool,
) -> None:
    """Copy files of outside data; links in their place are refused by runtimes."""
    if not files:
        return
    if data_folder is None:
        raise ValueError(
            f"The model keeps its weights in the files {files}. Pass data_folder=, the "
            "folder in which they lie."
        )
    for file in files:
        source, target = Path(data_folder, file), folder / file
        if target.exists() and os.path.samefile(source, target):
            continue
        _check_target(target, overwrite)
        with _replacing(target) as temporary:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def _replacing(target: Path) -> Any:
    """Give a temporary file that takes the place of `target` when all went well."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise ValueError(
            f"Cannot write to the folder {str(target.parent)!r}: {error.strerror}."
        ) from error
    try:
        yield Path(name)
        # mkstemp makes private files; give this one the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
