"""Tables of text, as reports and comparisons print them."""

from collections.abc import Iterable
from html import escape


def aligned(rows: Iterable[list[str]]) -> list[str]:
    """Return a line for each row, the first column flush left, the others right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]


def html_table(rows: Iterable[Iterable[str]], caption: str = "") -> str:
    """Return rows of text as HTML, the first row as the head."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    titles = "".join(f"<th>{cell}</th>" for cell in head)
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in body)
    lines = "".join(f"<tr>{row}</tr>" for row in cells)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f"<table>{title}<thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    )
