"""User mistakes, told in one line with an exit code instead of a traceback."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

UNUSABLE = 1
USAGE = 2
ALARM = 3
MISSING_PACKAGE = 4
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 done; 1 a file, its data or a model cannot be used; 2 a wrong "
    "command line; 3 a monitor alarms; 4 a package is missing; 130 interrupted."
)

# The library speaks of its own parameters, where the command has options.
_OPTIONS = {
    "classes=[...]": "--classes a,b,c",
    "output=...": "--model-output NAME",
    "output= with": "--model-output with",
    "output='": "--model-output '",
    "overwrite=True": "--overwrite",
}
_CLASSES = re.compile(r"classes=(?:range\((\d+), (\d+)\)|\[([^]]*)\])")
_WITHOUT_GRADIENT = re.compile(r"NeuralClamping\(solver='gradient_free'\)[^.]*")


class DataError(ValueError):
    """A file or its content that cannot be used."""


class UsageError(ValueError):
    """Options that do not go together, or an unknown name."""


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
            raise SystemExit(INTERRUPTED) from error
        except UsageError as error:
            raise _told(error, USAGE) from error
        except ImportError as error:
            raise _told(error, MISSING_PACKAGE) from error
        except (ValueError, TypeError, OSError) as error:
            raise _told(error, UNUSABLE) from error


def _told(error: Exception, code: int) -> SystemExit:
    _tell("Error", _by_options(str(error)), "red")
    return SystemExit(code)


def _by_options(message: str) -> str:
    """Name the options of the command in place of parameters."""
    for parameter, option in _OPTIONS.items():
        message = message.replace(parameter, option)
    message = _WITHOUT_GRADIENT.sub("--method temperature", message)
    return _CLASSES.sub(_named_classes, message)


def _named_classes(found: re.Match[str]) -> str:
    first, end, listed = found.groups()
    if listed is None:
        numbers = [str(number) for number in range(int(first), int(end))]
        names = numbers if len(numbers) <= 10 else [*numbers[:3], "...", numbers[-1]]
    else:
        names = [name.strip("'\"") for name in listed.split(", ")]
    return f"--classes {','.join(names)}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # The import would take its time at the top, where Ctrl-C is not told of yet.
    from skcalib.exceptions import InterruptedWarning

    # A fit keeps what it has, for Python; a command ends.
    if issubclass(category, InterruptedWarning):
        raise KeyboardInterrupt
    _tell("Warning", _by_options(str(message)), "yellow")


def _tell(kind: str, message: str, style: str) -> None:
    """Write a message, in which brackets are no markup."""
    # Not at the top: that rich is missing is a mistake to tell of, too.
    from rich.console import Console

    console = Console(stderr=True)
    console.print(f"{kind}:", style=f"bold {style}", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
