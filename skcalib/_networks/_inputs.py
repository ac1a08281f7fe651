"""Rows of a network's inputs: from any source, and in batches on its device.

They come from arrays, mapped files, tensors, Datasets and DataLoaders, or by name where
a network has several inputs. `network_rows` says what an estimator takes as X,
`rows_in_order` runs through any X once, and `Inputs` reads it in any order, resident on
the device if it fits there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from skcalib._blocks import free_memory
from skcalib._networks._named import NamedRows, each, split_labels
from skcalib._networks._network import Network
from skcalib._numerics import hash_rows

_CPU = torch.device("cpu")
_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def network_rows(estimator: Any, X: Any) -> Any:
    """Return X as it is, or as an array of real numbers; refuse what is no rows."""
    name = type(estimator).__name__
    if issparse(X):  # of which one kind is a mapping
        raise TypeError(
            f"Sparse data was passed for X, but {name} needs dense data. Use "
            "'.toarray()' to convert it."
        )
    if isinstance(X, torch.Tensor | Dataset | DataLoader | Mapping):
        return X
    rows = X if isinstance(X, np.ndarray) else np.asarray(X)
    if rows.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X has type {rows.dtype}.")
    if rows.dtype.kind not in "fiub":
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"X has type {rows.dtype}, which does not hold numbers: {error}. "
                f"{name} needs an array of numbers of shape (n_samples, ...)."
            ) from error
    if rows.ndim < 2:
        raise ValueError(
            f"Expected an array of at least two dimensions, got shape {rows.shape}. "
            "Reshape your data: the first axis counts samples, the others are the "
            "network's own."
        )
    if rows.shape[0] == 0 or rows.size == 0:
        lacking = "0 sample(s)" if rows.shape[0] == 0 else "0 feature(s)"
        raise ValueError(
            f"Found array with {lacking} (shape={rows.shape}) while a minimum of 1 is "
            f"required by {name}."
        )
    return rows


class Inputs:
    """Rows that a network takes, of any source, in batches on its device.

    Parameters
    ----------
    X : array, memmap, torch.Tensor, Dataset, DataLoader or mapping
        The inputs. Numbers of any type are cast to the floating-point type of the
        network and never rescaled: bytes of 0..255 stay 0..255. Arrays and mapped
        files are read in place, a batch at a time. A Dataset is read into memory once
        if it fits; its items are inputs, or pairs of input and label. Several inputs
        come by name, labels perhaps beside them, in a mapping or in the items of a
        Dataset; of these, and where a site inside the network is perturbed, whole
        numbers stay what they are.

    network : Network
        Says on which device and in which type.

    batch_size : int, default=256
        Rows a batch. A network with a fixed batch keeps its own.

    Attributes
    ----------
    n_samples : int
        The number of rows.

    shape : tuple of int
        Shape of what is perturbed, without the batch axis: one input, or the tensor at
        the network's site.

    names : list of str or None
        Names of the inputs, None of a single one without a name.

    types : list of (str, tuple of int)
        Type and shape of a row of each input, in the order of `names`; empty where
        those of `shape` are all there is to know.

    resident : bool
        Whether all rows lie on the device.
    """

    def __init__(self, X: Any, network: Network, batch_size: int = 256) -> None:
        self.network = network
        self.batch_size = network.fixed_batch or batch_size
        rows, self._labels = open_rows(X, self.batch_size)
        self.n_samples, self.names = rows.n_samples, rows.names
        self._rows = _on_device(rows, network.device)
        where = self._rows.device
        self.resident = where is not None and where.type == network.device.type
        self.types: list[tuple[str, tuple[int, ...]]] = []
        if rows.names or network.site is not None:
            _, first = next(self.batches([0]))
            self.shape = tuple(network.perturbed(first).shape[1:])
            parts = first.values() if rows.names else [first]
            self.types = [(f"{x.dtype}"[6:], tuple(x.shape[1:])) for x in parts]
        else:
            self.shape = rows.shape
        if not self.shape:
            raise ValueError(
                f"X has shape ({self.n_samples},); the axis of the samples has to come "
                "before those of one sample. A single sample is X[np.newaxis]."
            )

    def labels(self) -> Any:
        """Return the labels that came with a Dataset of pairs, else None."""
        if self._labels is None:
            self._labels = self._rows.labels
        return self._labels

    def hashes(self) -> NDArray[Any] | None:
        """Return a hash of each row; None where rows would have to be read anew."""
        if not isinstance(self._rows, ArrayRows):
            return None
        cuts = [
            slice(a, a + self.batch_size)
            for a in range(0, self.n_samples, self.batch_size)
        ]
        return np.concatenate([_hash_tensor(x) for x in self._rows.batches(cuts)])

    def as_order(self, order: Any) -> Any:
        """Put row numbers where `batches` wants them: with the rows, once."""
        if not self.resident:
            return np.asarray(order)
        return torch.as_tensor(order, device=self.network.device)

    def batches(
        self, order: Any = None, step: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield ``(index, x)``: rows of the batch and its inputs on the device.

        `x` is a tensor, or `NamedRows` of tensors. It may be the user's own memory:
        networks must be given a new tensor, such as ``x + delta``. `index` is a slice,
        or a tensor of row numbers on the device where `order`, an array of row
        numbers, was given. No batch reaches over a multiple of `step` rows.
        """
        n_rows = self.n_samples if order is None else len(order)
        cuts = [slice(a, b) for a, b in _cuts(n_rows, self.batch_size, step or n_rows)]
        if order is not None:
            order = self.as_order(order)
            cuts = [order[cut] for cut in cuts]
        for index, x in zip(cuts, self._rows.batches(cuts), strict=True):
            yield self._to_device(index), self._inputs_to_device(x)

    def values(self, order: Any = None) -> Iterator[Tensor]:
        """Yield what is perturbed, batch by batch: the inputs, or those at a site."""
        for _, x in self.batches(order):
            yield self.network.perturbed(x)

    def _inputs_to_device(self, x: Any) -> Any:
        keeps_integers = isinstance(x, NamedRows) or self.network.site is not None

        def move(part: Tensor) -> Any:
            cast = part.is_floating_point() or not keeps_integers
            return self._to_device(part, self.network.dtype if cast else None)

        return each(move, x)

    def _to_device(self, values: Any, dtype: torch.dtype | None = None) -> Any:
        """Move a tensor or an index, without waiting for a GPU to take it over."""
        if isinstance(values, slice):
            return values
        values = torch.as_tensor(values)
        # What is narrower than the network's type is cast where it arrives.
        if dtype is not None and values.element_size() > dtype.itemsize:
            values = values.to(dtype)
        device = self.network.device
        if device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        values = values.to(device, non_blocking=True).to(dtype or values.dtype)
        # What was made in inference mode takes no part in a gradient.
        return values.clone() if values.is_inference() else values


def _hash_tensor(rows: Any) -> NDArray[Any]:
    if isinstance(rows, NamedRows):
        return hash_rows(np.stack([_hash_tensor(x) for x in rows.values()], axis=1))
    # NumPy has no bfloat16.
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows
    return hash_rows(rows.detach().cpu().numpy())


def _on_device(rows: Any, device: torch.device) -> Any:
    """Move all rows to a GPU if they take less than half of its free memory."""
    if device.type != "cuda" or not isinstance(rows, ArrayRows):
        return rows
    if rows.n_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return rows
    return ArrayRows(each(lambda part: part.to(device), rows.take(slice(None))))


def _cuts(n_rows: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield where batches of `size` rows begin and end, anew in every `step` rows."""
    for first in range(0, n_rows, step):
        last = min(first + step, n_rows)
        for start in range(first, last, size):
            yield start, min(start + size, last)


class ArrayRows:
    """Rows of an array or a tensor, wherever it lies, or of several by name.

    Nothing is copied until a batch is taken, and then only what torch cannot read in
    place: rows out of order, mapped files, arrays that must not be written to.

    `shape` is that of one row, () of several inputs, which have `names`; `device` that
    of all tensors, None where they do not lie on one.
    """

    labels = None

    def __init__(self, values: Any) -> None:
        self.values = each(_checked, values)
        named = self.values if isinstance(values, NamedRows) else {}
        self.names = [*named] or None
        self.n_samples = self.values.shape[0]
        self.shape = tuple(self.values.shape[1:])
        parts = [*named.values()] or [self.values]
        self.n_bytes = sum(part.nbytes for part in parts)
        places = {getattr(part, "device", _CPU) for part in parts}
        # Arrays of NumPy 2 have a device as well, by a name.
        places = {_CPU if isinstance(place, str) else place for place in places}
        self.device = places.pop() if len(places) == 1 else None

    def batches(self, indices: Iterable[Any]) -> Iterator[Any]:
        """Yield a tensor for each index, a slice or an array of row numbers."""
        for index in indices:
            yield self.take(index)

    def take(self, index: Any) -> Any:
        """Return the rows of a slice, or of row numbers in an array or tensor."""
        return each(lambda part: _take(part, index), self.values)


def _checked(values: Any) -> Any:
    """Return an array of numbers, or a tensor without its gradients."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
    elif values.dtype.kind not in "biuf":
        raise ValueError(
            f"X has type {values.dtype}; the network needs numbers. Convert X first."
        )
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError(
            f"X has shape {tuple(values.shape)}; the network needs at least one "
            "sample. A single sample is X[np.newaxis]."
        )
    return values


def _take(values: Any, index: Any) -> Tensor:
    """Return rows of an array or a tensor as a tensor."""
    if isinstance(values, torch.Tensor):
        if isinstance(index, slice):
            return values[index]
        return values.index_select(0, torch.as_tensor(index, device=values.device))
    if isinstance(index, torch.Tensor):
        index = index.numpy()
    block = np.asarray(values[index])
    wide = block.dtype.kind == "u" and block.itemsize > 1
    if wide or not block.dtype.isnative:  # types that torch does not have
        block = block.astype(np.int64 if wide else block.dtype.newbyteorder("="))
    if not (block.flags.writeable and block.flags.c_contiguous):
        block = np.array(block, order="C")
    return torch.from_numpy(block)


class DatasetRows:
    """Rows of a map-style Dataset, read when they are needed by `loader`'s workers."""

    device = None

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        # A loader may leave rows out; its order is that of the samples.
        self.order = _row_numbers(loader)
        self.n_samples = self.order.shape[0]
        if self.n_samples == 0:
            raise ValueError("X is a Dataset without samples.")
        first = ArrayRows(_split(next(self._load([self.order[:1]])))[0])
        self.shape, self.names = first.shape, first.names
        self.n_bytes = first.n_bytes * self.n_samples

    def batches(self, indices: Iterable[Any]) -> Iterator[Any]:
        """Yield a tensor for each index, a slice or an array of row numbers."""
        for batch in self._load([self.order[index] for index in indices]):
            yield _split(batch)[0]

    @property
    def labels(self) -> Any:
        """The labels, read anew; None where the Dataset yields inputs only."""
        return _column([_split(batch)[1] for batch in self._in_order(256)])

    def read(self, batch_size: int) -> tuple[Any, Any]:
        """Read all rows into memory; return them and the labels."""
        return read_batches(self._in_order(batch_size))

    def _in_order(self, batch_size: int) -> Iterator[Any]:
        starts = range(batch_size, self.n_samples, batch_size)
        return self._load(np.split(self.order, list(starts)))

    def _load(self, chunks: list[Any]) -> Iterator[Any]:
        loader = self.loader
        return iter(
            DataLoader(
                loader.dataset,
                batch_sampler=[chunk.tolist() for chunk in chunks],
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
                worker_init_fn=loader.worker_init_fn,
                multiprocessing_context=loader.multiprocessing_context,
                timeout=loader.timeout,
                prefetch_factor=loader.prefetch_factor,
                generator=torch.Generator(),  # each pass draws a seed for workers
            )
        )


def open_rows(X: Any, batch_size: int) -> tuple[Any, Any]:
    """Return ``(rows, labels)`` of any X, to be read in any order.

    `labels` is None where not read yet.
    """
    X = _as_loader(X, batch_size)
    if isinstance(X, Mapping):
        values, labels = split_labels(X)
        return ArrayRows(values), labels
    if not isinstance(X, DataLoader):
        return ArrayRows(X), None
    if _is_stream(X):
        values, labels = read_batches(X)
        return ArrayRows(values), labels
    rows = DatasetRows(X)
    if rows.n_bytes > free_memory() / 2:
        return rows, None
    values, labels = rows.read(batch_size)
    return ArrayRows(values), labels


def rows_in_order(X: Any, batch_size: int) -> Iterator[Any]:
    """Yield tensors of the rows of any X once, in batches; a loader keeps its own."""
    X = _as_loader(X, batch_size)
    if isinstance(X, DataLoader):
        for batch in X:
            yield _split(batch)[0]
        return
    rows = ArrayRows(split_labels(X)[0] if isinstance(X, Mapping) else X)
    starts = range(0, rows.n_samples, batch_size)
    yield from rows.batches(slice(start, start + batch_size) for start in starts)


def _as_loader(X: Any, batch_size: int) -> Any:
    """Return a DataLoader that keeps the order of the rows, arrays or tensors."""
    if isinstance(X, Dataset):
        return DataLoader(X, batch_size=batch_size, generator=torch.Generator())
    if isinstance(X, DataLoader):
        _refuse_shuffling(X)
        return X
    return X if isinstance(X, torch.Tensor | np.ndarray | Mapping) else np.asarray(X)


def _is_stream(loader: Any) -> bool:
    """Whether a loader can only be run through: it does not number the rows."""
    return isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None


def _refuse_shuffling(loader: Any) -> None:
    """Refuse a loader that serves the rows in an order of its own, anew each time."""
    if loader.num_workers > 1 and not getattr(loader, "in_order", True):
        raise ValueError(
            "X is a DataLoader with in_order=False, which loses the order of the rows: "
            "batches come as its workers end. Build it with in_order=True."
        )
    if isinstance(loader.dataset, IterableDataset):
        return  # It draws no row numbers.
    outer = loader.batch_sampler or loader.sampler
    sampler = outer
    while sampler is not None:
        if isinstance(sampler, _SHUFFLING) or getattr(sampler, "shuffle", False):
            raise ValueError(
                "X is a DataLoader that shuffles, which loses the order of the rows: "
                f"it has a {type(sampler).__name__}. Build it with shuffle=False, "
                "without a sampler that draws at random."
            )
        inner = getattr(sampler, "sampler", None)
        if inner is None and not isinstance(sampler, SequentialSampler | range | list):
            _refuse_another_order(outer, sampler)
        sampler = inner


def _refuse_another_order(outer: Any, sampler: Any) -> None:
    """Refuse a sampler that torch does not know and that gives another order anew."""
    first, second = list(outer), list(outer)
    same = len(first) == len(second) and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )
    if not same:
        raise ValueError(
            f"The sampler of X, a {type(sampler).__name__}, gives other row numbers "
            "each time it is run, which loses the order of the rows. Use one that "
            "gives the same, such as a list of row numbers."
        )


def read_batches(batches: Iterable[Any]) -> tuple[Any, Any]:
    """Put batches together; return the inputs and the array of labels."""
    parts = [_split(batch) for batch in batches]
    if not parts:
        raise ValueError("X is a DataLoader without samples.")
    rows, labels = zip(*parts, strict=True)
    return _joined(rows), _column(labels)


def _column(labels: Iterable[Any]) -> Any:
    """Put the labels of batches together; None where they have none."""
    found = [
        np.asarray(label.cpu() if isinstance(label, torch.Tensor) else label)
        for label in labels
        if label is not None
    ]
    return np.concatenate(found) if found else None


def _joined(rows: Sequence[Any]) -> Any:
    """Put batches of tensors, or of named tensors, together."""
    if isinstance(rows[0], NamedRows):
        return NamedRows({k: _joined([row[k] for row in rows]) for k in rows[0]})
    try:
        return torch.cat(list(rows))
    except RuntimeError as error:
        shapes = sorted({tuple(row.shape[1:]) for row in rows})
        raise ValueError(
            f"The batches of X hold rows of different shapes: {shapes[:4]}. Pad all of "
            "them to one length, such as by padding='max_length' of a tokenizer."
        ) from error


def _row_numbers(loader: Any) -> NDArray[np.int64]:
    """Return the rows in the order in which a loader would serve them."""
    return np.fromiter(chain.from_iterable(loader.batch_sampler), dtype=np.int64)


def _split(batch: Any) -> tuple[Any, Any]:
    """Split what a loader yields into inputs and labels, None where it has none."""
    label = None
    if isinstance(batch, list | tuple) and batch:
        batch, *rest = batch
        label = rest[0] if len(rest) == 1 else None
        _refuse_tokens_beside(batch, rest)
    if isinstance(batch, Mapping):
        rows, own = split_labels(batch)
        return rows, own if label is None else label
    if not isinstance(batch, torch.Tensor):
        raise ValueError(
            f"The Dataset yields a {type(batch).__name__}; it must yield inputs, or "
            "inputs first and labels second. Several inputs have names, in a dict."
        )
    return batch, label


def _refuse_tokens_beside(first: Any, rest: list[Any]) -> None:
    """Refuse tokens with more than labels beside them: what would be a mask is lost."""
    is_tensor = isinstance(first, torch.Tensor)
    if len(rest) > 1 and is_tensor and not first.is_floating_point() and first.ndim > 1:
        raise ValueError(
            f"The Dataset yields {1 + len(rest)} tensors, the first of whole numbers; "
            "which of them are inputs cannot be known. Yield a dict of the network's "
            "inputs by name, with 'labels' in it."
        )
