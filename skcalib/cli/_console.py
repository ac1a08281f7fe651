"""What the command says: results on stdout, messages and progress on stderr."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

import typer
from rich.console import Console
from rich.progress import track

from skcalib.cli._errors import (
    INTERRUPTED,
    MISSING_PACKAGE,
    UNUSABLE,
    USAGE,
    UsageError,
)

Item = TypeVar("Item")


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


@contextmanager
def mistakes_told() -> Iterator[None]:
    """End with an exit code and a line on stderr where the user made a mistake.

    The library raises ValueError and TypeError for user mistakes only, OSError comes
    from files and ImportError from missing extras. Anything else is a bug of skcalib
    and keeps its traceback. Warnings are shown in one line each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt as error:
            _tell("Interrupted", "nothing was written.", "red")
            raise typer.Exit(INTERRUPTED) from error
        except UsageError as error:
            raise _told(error, USAGE) from error
        except ImportError as error:
            raise _told(error, MISSING_PACKAGE) from error
        except (ValueError, TypeError, OSError) as error:
            raise _told(error, UNUSABLE) from error


def _told(error: Exception, code: int) -> typer.Exit:
    _tell("Error", str(error), "red")
    return typer.Exit(code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _tell("Warning", str(message), "yellow")


def _tell(kind: str, message: str, style: str) -> None:
    """Write a message, in which brackets are no markup."""
    console = Console(stderr=True)
    console.print(f"{kind}:", style=f"bold {style}", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
