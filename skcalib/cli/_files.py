"""What can be written, asked before any work is done for it."""

import os
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
