"""Files of comma-separated values: what is a header, and which labels are numbers."""

import csv
import re
import warnings
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from skcalib.cli._errors import DataError
from skcalib.cli._rows import NUMBER, Request, check_names, integers, refuse_missing

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
# What programs write where a number is missing.
_MISSING = ("", "nan", "na", "n/a", "<na>", "null")
# How NumPy tells of a cell, with the number of its column counted from 1.
_NO_NUMBER = re.compile(r"string (.*) to float64 at row (\d+), column (\d+)")


class CsvTable:
    """A file of comma-separated values; without a header the names are 0, 1, ...

    The first line is a header unless it holds numbers only. Of several columns it also
    is one if it holds the names that are asked for, in any order, the numbers 0, 1, 2,
    ... in order, which pandas writes above columns without names, or integers that
    ascend, as classes do, above a line with a number that is none.
    """

    index: Collection[str] = ()
    lists: Collection[str] = ()

    def __init__(self, path: Path, request: Request) -> None:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            first = next(reader, None)
            n_lines = reader.line_num
            second = next(reader, [])
        if not first:
            raise DataError(f"{path} is empty, or begins with an empty line.")
        _check_separator(path, first)
        _check_quotes(path, first)
        self._path, self._key_option = path, request.key_option
        numbered = [str(k) for k in range(len(first))]
        told = first == numbered or sorted(first) == sorted(request.columns)
        is_named = len(first) > 1 and (told or _above(first, second))
        self.has_header = is_named or not all(map(_is_number, first))
        self._n_header_lines = n_lines if self.has_header else 0
        self.names = [name.strip() for name in first] if self.has_header else numbered
        if "" in self.names:
            raise DataError(
                f"Column {self.names.index('') + 1} of {path} has no name. If it is an "
                "index saved by pandas, write the file with index=False."
            )
        check_names(path, self.names)
        _check_widths(path, len(first), n_lines)
        self._known = {*self.names, *request.columns, *request.classes}

    def column(self, name: str) -> NDArray[Any]:
        """Return one column: integers where all values are whole numbers, else text."""
        text = self._load([name], str)[:, 0]
        _check_quotes(self._path, set(text.tolist()))
        text = np.char.strip(text)
        unknown = set(text.tolist()) - self._known
        others = {label for label in unknown if not NUMBER.fullmatch(label)}
        if others and all(label.lower() in _MISSING for label in others):
            is_missing = np.isin(text, [*others])
            refuse_missing(self._path, repr(name), is_missing)
        return integers(text, self._known)

    def matrix(self, names: list[str]) -> NDArray[Any]:
        """Return columns of numbers side by side."""
        try:
            return self._load(names, float)
        except ValueError as error:
            found = _NO_NUMBER.search(str(error))
            if found is None:
                raise
            self._refuse_text(found[1], int(found[2]), self.names[int(found[3]) - 1])

    def _refuse_text(self, cell: str, row: int, name: str) -> NoReturn:
        """Tell of a cell that is no number, quoted as by `repr`."""
        if cell.strip("'\"").strip().lower() in _MISSING:
            column = np.char.lower(np.char.strip(self._load([name], str)[:, 0]))
            refuse_missing(self._path, repr(name), np.isin(column, _MISSING))
        advice = f"Name the columns of numbers: {self._key_option}."
        if re.fullmatch(r"'-?\d+,\d+'", cell):
            advice = "Points are needed in numbers."
        raise DataError(
            f"could not convert string {cell} to a number in column {name!r}, row "
            f"{row}, counted from 0. {advice}"
        )

    def _load(self, names: list[str], dtype: type) -> NDArray[Any]:
        position = {name: k for k, name in enumerate(self.names)}
        columns = [position[name] for name in names]
        with (
            self._path.open(newline="", encoding="utf-8-sig") as lines,
            warnings.catch_warnings(),
        ):
            # Whether that is an error depends on the command.
            warnings.filterwarnings("ignore", message=".*contained no data")
            loaded: NDArray[Any] = np.loadtxt(
                lines,
                dtype=dtype,
                delimiter=",",
                comments=None,
                quotechar='"',
                skiprows=self._n_header_lines,
                usecols=columns,
                ndmin=2,
            )
        return loaded if loaded.size else loaded.reshape(0, len(columns))


def _check_separator(path: Path, first: list[str]) -> None:
    """Tell of separators that other programs write."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        alone = len(first) == 1 and separator in first[0]
        pattern = re.compile(rf"\d{re.escape(separator)}-?\d")
        between = any(map(pattern.search, first))
        if alone or between:
            raise DataError(
                f"The columns of {path} look as if {name} stood between them. Commas "
                "are needed there, and points in numbers."
            )


def _check_quotes(path: Path, cells: Iterable[str]) -> None:
    """Refuse a quote that stands behind a space, where it is a part of the text."""
    for cell in cells:
        if cell[:1].isspace() and cell.lstrip()[:1] == '"':
            raise DataError(
                f"In {path} a space stands between a comma and a quote: {cell:.40}. "
                "Leave out such spaces, or the quotes."
            )


def _check_widths(path: Path, n_columns: int, n_first: int) -> None:
    """Refuse lines of more cells than the first, which spans `n_first` of the file."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        is_quoted = False
        for number, line in enumerate(lines, 1):
            is_quoted = is_quoted or '"' in line
            # A comma between quotes separates nothing, nor does one after a line break.
            if line.count(",") >= n_columns and number > n_first:
                if not is_quoted:
                    raise _too_wide(path, number, line.count(",") + 1, n_columns)
                break
        else:
            return
        lines.seek(0)
        reader = csv.reader(lines)
        for row in reader:
            if len(row) > n_columns:
                raise _too_wide(path, reader.line_num, len(row), n_columns)


def _too_wide(path: Path, number: int, n_cells: int, n_columns: int) -> DataError:
    return DataError(
        f"Line {number} of {path} has {n_cells} cells, and the first line {n_columns}. "
        "Every column needs a name, or none (R: row.names=FALSE); commas in numbers "
        "have to be points, and text with commas needs quotes."
    )


def _above(first: list[str], second: list[str]) -> bool:
    """Whether a line holds integers that ascend, and the next a number that is none."""
    if not all(map(_INTEGER.fullmatch, first)):
        return False
    ascends = all(int(a) < int(b) for a, b in pairwise(first))
    others = (text for text in second if not _INTEGER.fullmatch(text.strip()))
    return ascends and any(map(_is_number, others))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
