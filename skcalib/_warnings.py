"""Warnings that name the user's own line, however deep in the library they arise."""

import os
import sys
import warnings
from pathlib import Path
from types import FrameType

import sklearn

# A trailing separator, so that no other package begins alike.
_LIBRARIES = tuple(
    str(folder) + os.sep
    for folder in (Path(__file__).parent, Path(sklearn.__file__).parent)
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as from the innermost line outside skcalib and scikit-learn."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
