"""Writing files whole or not at all: several together, and never over others unasked.

All files are written under temporary names first; only when the last one is complete do
they take their places. What fails before that leaves nothing behind.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any


def write_together(contents: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write every file by calling its function with a temporary path beside it.

    A file that is replaced keeps its permissions; of a link, what it points to is.
    """
    made: dict[Path, Path] = {}
    try:
        for target, write in contents.items():
            if target.is_symlink():
                target = target.resolve()
            made[target] = _temporary(target)
            with _naming(target):
                write(made[target])
        for target, temporary in made.items():
            with _naming(target):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                os.replace(temporary, target)
    finally:
        for temporary in made.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process works in a folder; where nothing can lock it, go on.

    Nothing stays behind: the system lets go of the lock when a process ends.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none.
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems refuse.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def text_file(text: str) -> Callable[[Path], object]:
    """Return what writes a text, for `write_together`."""
    return partial(Path.write_text, data=text, encoding="utf-8")


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a path at which no file can be written."""
    if target.is_dir():
        raise ValueError(f"{str(target)!r} is a folder; name a file to write.")
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{str(target)!r} exists already. Choose another name, or pass "
            "overwrite=True to replace it."
        )
    folder = target.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"The folder {str(folder)!r} does not exist. Make it first.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"The folder {str(folder)!r} is read-only. Choose another.")


def sealed(content: dict[str, Any], kind: str, version: int) -> dict[str, Any]:
    """Return content with what `opened` knows it by."""
    head = {"format": kind, "version": version, "sha256": digest(content)}
    return {**head, **content}


def opened(document: Any, kind: str, version: int, noun: str) -> dict[str, Any]:
    """Return what was `sealed`, of a version that is known and undamaged."""
    if not isinstance(document, Mapping) or document.get("format") != kind:
        raise ValueError(
            f"This is no {noun}: to_dict writes those of the format {kind!r}."
        )
    if document.get("version") != version:
        raise ValueError(
            f"This {noun} is of version {document.get('version')!r} of its format; "
            f"this skcalib reads version {version}. Use the later one of both."
        )
    head = ("format", "version", "sha256")
    content = {key: value for key, value in document.items() if key not in head}
    try:
        is_same = digest(content) == document.get("sha256")
    except TypeError:  # It holds what JSON does not.
        is_same = False
    if not is_same:
        raise ValueError(f"The {noun} is damaged: its content is not what was written.")
    return content


def digest(content: dict[str, Any]) -> str:
    """Return what tells damaged content from what was written as JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _temporary(target: Path) -> Path:
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        # Unlike the private files of `tempfile`, with the permissions of any other.
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise ValueError(
            f"Cannot write to the folder {str(target.parent)!r}: {error.strerror}."
        ) from error
    return temporary


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Say in the message of an OSError which file could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"Cannot write {str(target)!r}: {reason}.") from error
