"""The `skcalib` command: calibrate, apply, evaluate and compare."""

import sys

from skcalib._optional import import_optional
from skcalib.cli._errors import INTERRUPTED, MISSING_PACKAGE


def main() -> None:
    """Run the `skcalib` command; the entry point of the console script."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)


def _run() -> None:
    try:
        for package in ("typer", "rich"):
            import_optional(package, "The skcalib command")
    except ImportError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(MISSING_PACKAGE)
    from skcalib.cli._app import app

    app(prog_name="skcalib")


__all__ = ["main"]
