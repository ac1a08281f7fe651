"""Tables for the terminal, Markdown and reStructuredText, and the pages they are in.

In a page a table stands between two comments (after two full stops in docs/, in HTML
comments in a README), of which the first names a benchmark and one of its `TABLES`:

    table: density_ratio.features
    end of table
"""

import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks import _records

ROOT = Path(__file__).parent.parent
MARKED = re.compile(
    r"^(?P<mark>\.\.|<!--) table: (?P<name>\w+)\.(?P<table>\w+).*\n"
    r"(?P<body>(?:.*\n)*?)(?=(?P=mark) end of table)",
    flags=re.MULTILINE,
)


class Table(NamedTuple):
    """Texts of the columns' titles and of the cells."""

    columns: list
    rows: list
    title: str = ""


def number(value):
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def aligned(values, row):
    """A line for the terminal, in columns as wide as `row` asks for."""
    cells = []
    for value, (column, example) in zip(values, row.items(), strict=True):
        if isinstance(example, str):
            cells.append(number(value).ljust(max(len(column), 30)))
        else:
            cells.append(number(value).rjust(max(len(column), 10)))
    return "  ".join(cells).rstrip()


def mean_of(rows, column):
    return sum(row[column] for row in rows) / len(rows)


def spread(values, digits, factor=1):
    """Mean and standard deviation as text."""
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return f"{factor * mean:.{digits}f} ± {factor * deviation:.{digits}f}"


def markdown(table):
    rows = [[str(cell) for cell in row] for row in [table.columns, *table.rows]]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = [f"### {table.title}", ""] if table.title else []
    for row in rows:
        padded = map(str.ljust, row, widths)
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def rst(table):
    lines = [f".. csv-table:: {table.title}".rstrip(), "   :header-rows: 1", ""]
    for row in [table.columns, *table.rows]:
        cells = (str(cell).replace('"', '""') for cell in row)
        lines.append("   " + ", ".join(f'"{cell}"' for cell in cells))
    return "\n".join(lines)


def overview():
    """Return the table of all benchmarks."""
    rows = []
    for name, text in _records.benchmarks().items():
        needs = re.search(r"^Needs (.*?)\.$", text, flags=re.MULTILINE | re.DOTALL)
        needs = " ".join(needs[1].split()) if needs else ""
        title = text.splitlines()[0].rstrip(".")
        rows.append([f"`python -m benchmarks run {name}`", title, needs])
    return Table(["command", "what it shows", "needs"], rows)


def made(name, table):
    """Return a table made from the results, None where they do not have all of it."""
    if (name, table) == ("benchmarks", "overview"):
        return overview()
    runs = [run for run in _records.load(name) if run["finished"]]
    rows = [row for run in runs for row in run["rows"]]
    if not rows:
        return None
    try:
        found = import_module(f"benchmarks.{name}").TABLES[table](rows)
    except IndexError:
        return None
    whole = all(len(line) == len(found.columns) for line in found.rows)
    return found if found.rows and whole else None


def rewritten(text, left):
    """Return a page with its tables anew; `left` gets those without results."""

    def replace(match):
        table = made(match["name"], match["table"])
        if table is None:
            left.append(f"{match['name']}.{match['table']}")
            return match[0]
        body = rst(table) if match["mark"] == ".." else markdown(table)
        return f"{match[0].splitlines()[0]}\n\n{body}\n\n"

    return MARKED.sub(replace, text)


def write_pages(*, check):
    """Write the tables; only compare with `check`. Return 1 if one differs then."""
    left, differ = [], []
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
    for page in [*pages, *sorted((ROOT / "docs").glob("*.rst"))]:
        old = page.read_text(encoding="utf-8")
        new = rewritten(old, left)
        if new != old:
            differ.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new, encoding="utf-8")
    if differ:
        print("these differ:" if check else "written:", ", ".join(differ))
    if left:
        print("left as they are, for their results were not kept:", ", ".join(left))
    if check and differ:
        print("`python -m benchmarks tables` writes them from benchmarks/results")
        return 1
    return 0
