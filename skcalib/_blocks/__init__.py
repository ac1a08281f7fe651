"""Blocks of rows, the form in which every fit and every prediction reads its data."""

from skcalib._blocks._data import CalibrationData, Statistic, several
from skcalib._blocks._dense import DenseRows
from skcalib._blocks._memory import free_memory, lies_on_host
from skcalib._blocks._open import open_source
from skcalib._blocks._rows import (
    BLOCK_ELEMENTS,
    map_blocks,
    on_host,
    row_slices,
    slices_of,
    sum_blocks,
)
from skcalib._blocks._sources import (
    NUMBERS,
    ArraySource,
    MappedSource,
    MemmapSource,
    RepeatedSource,
    Source,
    alike,
    is_mapped_file,
)
from skcalib._blocks._stored import ParquetRows, RowsView, is_stored

__all__ = [
    "BLOCK_ELEMENTS",
    "NUMBERS",
    "ArraySource",
    "CalibrationData",
    "DenseRows",
    "MappedSource",
    "MemmapSource",
    "ParquetRows",
    "RepeatedSource",
    "RowsView",
    "Source",
    "Statistic",
    "alike",
    "free_memory",
    "is_mapped_file",
    "is_stored",
    "lies_on_host",
    "map_blocks",
    "on_host",
    "open_source",
    "row_slices",
    "several",
    "slices_of",
    "sum_blocks",
]
