"""Writing files whole or not at all, and never over others unasked."""

import os
import tempfile
from pathlib import Path

from skcalib.cli._errors import DataError


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that cannot be written, before any work is done for it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it.")
    if path.exists() and not overwrite:
        raise DataError(
            f"{path} exists already. Choose another name, or pass --overwrite."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist; make it first.")
    if not os.access(folder, os.W_OK):
        raise DataError(f"The folder {folder} is read-only; choose another one.")


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file: all of it, or nothing."""
    check_target(path, overwrite=overwrite)
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=".skcalib-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes the file private; give it the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
