"""The two streams: results on stdout, progress on stderr."""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

import skcalib

Item = TypeVar("Item")


def print_text(text: str) -> None:
    """Print text as it is, brackets and all."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object, and the version; what JSON does not know becomes null."""
    content = {**content, "skcalib_version": skcalib.__version__}
    print_text(json.dumps(_known_to_json(content), indent=2))


def _known_to_json(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _known_to_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_known_to_json(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def progress(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    """Pass on the items, with a bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    return track(
        items,
        description=what,
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that work goes on whose steps cannot be counted, if stderr is a terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
