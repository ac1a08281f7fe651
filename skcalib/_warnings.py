"""Warnings that name the user's own line, however deep in the library they arise."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import sklearn

# A trailing separator, so that no other package begins alike.
_LIBRARIES = tuple(
    str(folder) + os.sep
    for folder in (Path(__file__).parent, Path(sklearn.__file__).parent)
)

# What `warn` keeps to itself, in each thread.
_quiet: ContextVar[tuple[type[Warning], ...]] = ContextVar("_quiet", default=())


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as from the innermost line outside skcalib and scikit-learn."""
    if issubclass(category, _quiet.get()):
        return
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def quiet(*categories: type[Warning]) -> Iterator[None]:
    """Leave out the library's own warnings of these categories, in this thread alone.

    `warnings.catch_warnings` changes the filters of the whole process, and of two that
    overlap in threads the last puts back the filters of the first. It is for warnings
    of other packages.
    """
    before = _quiet.set(_quiet.get() + categories)
    try:
        yield
    finally:
        _quiet.reset(before)
