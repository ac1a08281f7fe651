"""User mistakes, told in one line with an exit code instead of a traceback."""

UNUSABLE = 1
USAGE = 2
MISSING_PACKAGE = 3
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 done; 1 a file, its data or a model cannot be used; 2 a wrong "
    "command line; 3 a package is missing; 130 interrupted."
)


class DataError(ValueError):
    """A file or its content that cannot be used."""


class UsageError(ValueError):
    """Options that do not go together, or an unknown name."""
