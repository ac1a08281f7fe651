"""Matching what the user passes with what an ONNX model takes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from skcalib.exceptions import ModelFormatError

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
# Bytes of one input that are made up or padded because a file fixes a length: no
# number in a file decides how much memory is asked for.
_LARGEST_MADE = 2**30


@dataclass(frozen=True)
class InputSpec:
    """One input of a model; an entry of `shape` is None where any length will do."""

    name: str
    type: str
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, argument: Any) -> "InputSpec":
        """Describe an input of an onnxruntime session."""
        shape = argument.shape
        if shape is not None:
            shape = tuple(d if isinstance(d, int) and d > 0 else None for d in shape)
        return cls(argument.name, argument.type, shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type the input takes."""
        if self.type not in _DTYPES:
            raise ModelFormatError(
                f"The model's input {self.name!r} has type {self.type}, which cannot "
                "be fed from a NumPy array."
            )
        return np.dtype(_DTYPES[self.type])

    @property
    def fixed_batch(self) -> int | None:
        """The number of rows the model insists on, if it does."""
        return self.shape[0] if self.shape else None

    def check_batch(self, row: tuple[int, ...] | None = None) -> None:
        """Refuse a fixed batch too large to be filled up with rows of a shape."""
        if self.fixed_batch is None or self.type not in _DTYPES:
            return
        known = (self.shape or ())[1:] if row is None else row
        size = self.dtype.itemsize * self.fixed_batch * math.prod(d or 1 for d in known)
        if size > _LARGEST_MADE:
            raise ModelFormatError(
                f"The model's input {self.name!r} takes batches of exactly "
                f"{self.fixed_batch:,} rows, {size / 2**30:,.1f} GiB each; at most "
                f"{_LARGEST_MADE // 2**30} GiB is filled up. Export the model with a "
                "batch of any size (dynamic_axes), or with a smaller one."
            )

    def check_shape(self, shape: tuple[int, ...], what: str) -> None:
        """Refuse rows of a shape the model does not take."""
        if not self.shape or _fits(shape[1:], self.shape[1:]):
            return
        wanted = self.shape[1:]
        if _fits(shape, wanted):
            hint = " This looks like a single sample: X[np.newaxis]."
        else:
            hint = _layout_hint(shape[1:], wanted)
        needed = ("n_samples", *("any" if w is None else w for w in wanted))
        raise ValueError(
            f"{what} has shape {shape} but the model's input {self.name!r} takes "
            f"({', '.join(map(str, needed))}).{hint}"
        )

    def convert(self, values: np.ndarray, what: str) -> np.ndarray:
        """Cast a block to the type the model takes, where no meaning is lost."""
        dtype = self.dtype
        if values.dtype == dtype:
            return np.ascontiguousarray(values)
        kinds = values.dtype.kind + dtype.kind
        if values.dtype == np.uint8 and dtype.kind == "f" and values.ndim > 2:
            raise ValueError(
                f"{what} holds bytes (uint8) but the model's input {self.name!r} takes "
                f"{dtype}. Scale them as in training, such as X.astype({dtype}) / 255."
            )
        if kinds in ("ff", "if", "uf", "bf", "OO", "UO", "bi", "bu"):
            return np.ascontiguousarray(values.astype(dtype))
        if set(kinds) <= {"i", "u"}:
            cast = values.astype(dtype)
            if np.array_equal(cast, values):
                return np.ascontiguousarray(cast)
        raise ValueError(
            f"{what} has type {values.dtype} but the model's input {self.name!r} takes "
            f"{dtype}, and not every value can be turned into one. Convert X first."
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(w in (None, g) for g, w in pairs)


def _layout_hint(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    """Name the usual mistakes: channels last, channels first, flattened images."""
    if len(got) == len(wanted) == 3:
        if _fits((got[2], got[0], got[1]), wanted):
            return (
                " These look like images with channels last: X.transpose(0, 3, 1, 2)."
            )
        if _fits((got[1], got[2], got[0]), wanted):
            return (
                " These look like images with channels first: X.transpose(0, 2, 3, 1)."
            )
    if None not in wanted and int(np.prod(got)) == int(np.prod(wanted)):  # type: ignore[arg-type]
        return f" The number of entries is right: X.reshape{(-1, *wanted)}."
    if len(got) == len(wanted) - 1 and wanted[0] == 1:
        return " A dimension of length 1 is missing: X[:, np.newaxis]."
    return ""


def fixed_batch(inputs: list[InputSpec]) -> int | None:
    """Return the number of rows that some input insists on, if one does."""
    return next((spec.fixed_batch for spec in inputs if spec.fixed_batch), None)


def split_columns(inputs: list[InputSpec], X: Any) -> list[tuple[InputSpec, Any, str]]:
    """Pair each input of the model with its part of `X`."""
    by_name = isinstance(X, Mapping) or hasattr(X, "columns")
    names = [spec.name for spec in inputs]
    if len(inputs) == 1 and not (isinstance(X, Mapping) and names[0] in X):
        if isinstance(X, Mapping):
            raise ValueError(
                f"X names the inputs {list(X)} but the model takes {names[0]!r}."
            )
        array = X if isinstance(X, np.ndarray) else np.asarray(X)
        return [(inputs[0], array, "X")]
    if not by_name:
        raise ValueError(
            f"The model has the inputs {names}: pass a dict or a DataFrame that names "
            f"them, not {type(X).__name__}."
        )
    present = list(X) if isinstance(X, Mapping) else [str(c) for c in X.columns]
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(f"X lacks the model's inputs {missing}; it has {present}.")
    parts = []
    for spec in inputs:
        values = np.asarray(X[spec.name])
        if values.ndim == 1 and spec.shape is not None and len(spec.shape) == 2:
            values = values[:, np.newaxis]
        parts.append((spec, values, f"X[{spec.name!r}]"))
    return parts


def batches(
    inputs: list[InputSpec], X: Any, batch_size: int
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield ``(feeds, n_rows)``; the last batch is padded if the model fixes it."""
    parts = split_columns(inputs, X)
    for _, part, what in parts:
        if part.ndim == 0:
            raise TypeError(
                f"{what} is a {type(X).__name__}, of which no array can be made. An "
                "ONNX model takes arrays; of a DataLoader stack its batches."
            )
    lengths = {part.shape[0] for _, part, _ in parts}
    if len(lengths) != 1 or 0 in lengths:
        shapes = [part.shape for _, part, _ in parts]
        raise ValueError(
            f"X has no samples, or not equally many for each input: shapes {shapes}. "
            "Pass at least one row, and equally many for each input."
        )
    for spec, part, what in parts:
        spec.check_shape(part.shape, what)
        spec.check_batch(part.shape[1:])
    fixed = fixed_batch(inputs)
    (n_samples,) = lengths
    step = fixed or batch_size
    for start in range(0, n_samples, step):
        rows = slice(start, min(start + step, n_samples))
        n_rows = rows.stop - rows.start
        feeds = {
            spec.name: _pad(spec.convert(np.asarray(part[rows]), what), fixed)
            for spec, part, what in parts
        }
        yield feeds, n_rows


def _pad(block: np.ndarray, n_rows: int | None) -> np.ndarray:
    """Repeat the last row until there are `n_rows`."""
    if n_rows is None or block.shape[0] == n_rows:
        return block
    lacking = n_rows - block.shape[0]
    return np.concatenate([block, np.repeat(block[-1:], lacking, axis=0)])


def probe_inputs(
    inputs: list[InputSpec], length: int | None = None, seed: int = 0
) -> dict[str, np.ndarray] | None:
    """Make up a few rows, with `length` entries along each axis that takes any number.

    None where that is not known, or what a row holds.
    """
    rng = np.random.default_rng(seed)
    feeds, n_rows = {}, fixed_batch(inputs) or 16
    for spec in inputs:
        if not spec.shape or spec.type == "tensor(string)" or spec.type not in _DTYPES:
            return None
        shape = [spec.shape[0] or n_rows, *(d or length or 0 for d in spec.shape[1:])]
        if 0 in shape or spec.dtype.itemsize * math.prod(shape) > _LARGEST_MADE:
            return None
        if spec.dtype.kind == "f":
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            feeds[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
    return feeds


def probe_lengths(inputs: list[InputSpec]) -> list[int]:
    """Return the lengths to try along axes that take any, short ones first.

    A table may need one number of columns, which the model does not state.
    """
    shapes = [spec.shape for spec in inputs if spec.shape and None in spec.shape[1:]]
    some = {2**i for i in range(9)} if shapes else {1}
    is_table = bool(shapes) and all(len(shape) == 2 for shape in shapes)
    return sorted(some | set(range(1, 257) if is_table else ()))


def probes(
    inputs: list[InputSpec], length: int | None
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yield ``(feeds, n_rows)`` of one batch made up after the other, if any can be."""
    for seed in count():
        feeds = probe_inputs(inputs, length, seed)
        if feeds is None:
            return
        yield feeds, next(iter(feeds.values())).shape[0]
