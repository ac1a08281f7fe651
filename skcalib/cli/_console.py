"""What the command says on stderr: messages and progress."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console

from skcalib.cli._errors import MISSING_PACKAGE, UNUSABLE, USAGE, UsageError


@contextmanager
def told_to_the_user(console: Console) -> Iterator[None]:
    """End with an exit code and a message on `console` where a mistake is found.

    The library raises ValueError and TypeError for user mistakes only, OSError comes
    from files and ImportError from missing extras. Anything else is a bug of skcalib
    and keeps its traceback. Warnings are shown in one line each.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        tell(console, "Warning", str(message), "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        try:
            yield
        except UsageError as error:
            tell(console, "Error", str(error), "red")
            raise typer.Exit(USAGE) from error
        except ImportError as error:
            tell(console, "Error", str(error), "red")
            raise typer.Exit(MISSING_PACKAGE) from error
        except (ValueError, TypeError, OSError) as error:
            tell(console, "Error", str(error), "red")
            raise typer.Exit(UNUSABLE) from error


def tell(console: Console, kind: str, message: str, style: str) -> None:
    """Write a message that may hold brackets, without reading it as markup."""
    console.print(f"{kind}:", style=f"bold {style}", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
