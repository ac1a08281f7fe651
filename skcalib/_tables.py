"""Tables of text, as reports and comparisons print them."""

from collections.abc import Iterable


def aligned(rows: Iterable[list[str]]) -> list[str]:
    """Return a line for each row, the first column flush left, the others right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
