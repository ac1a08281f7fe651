"""Where rows of inputs come from: arrays, tensors, Datasets and DataLoaders."""

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


class ArrayRows:
    """Rows of an array or a tensor, wherever it lies.

    Nothing is copied until a batch is taken, and then only what torch cannot read in
    place: rows out of order, mapped files, arrays that must not be written to.
    """

    labels = None

    def __init__(self, values):
        if isinstance(values, torch.Tensor):
            values = values.detach()
        elif values.dtype.kind not in "biuf":
            raise ValueError(
                f"X has type {values.dtype}; the network needs numbers. "
                "Convert X first."
            )
        if values.ndim < 2 or values.shape[0] == 0:
            raise ValueError(
                f"X has shape {tuple(values.shape)}; the network needs at least one "
                "sample, and the axis of the samples before those of one sample. "
                "A single sample is X[np.newaxis]."
            )
        self.values = values
        self.n_samples = values.shape[0]
        self.shape = tuple(values.shape[1:])
        self.n_bytes = values.nbytes

    def batches(self, indices):
        """Yield a tensor for each index, a slice or an array of row numbers."""
        for index in indices:
            yield self.take(index)

    def take(self, index):
        """Return the rows of a slice, or of row numbers in an array or tensor."""
        if isinstance(self.values, torch.Tensor):
            if isinstance(index, slice):
                return self.values[index]
            return self.values.index_select(
                0, torch.as_tensor(index, device=self.values.device)
            )
        if isinstance(index, torch.Tensor):
            index = index.numpy()
        block = np.asarray(self.values[index])
        wide = block.dtype.kind == "u" and block.itemsize > 1
        if wide or not block.dtype.isnative:  # types that torch does not have
            block = block.astype(np.int64 if wide else block.dtype.newbyteorder("="))
        if not (block.flags.writeable and block.flags.c_contiguous):
            block = np.array(block, order="C")
        return torch.from_numpy(block)


class DatasetRows:
    """Rows of a map-style Dataset, read when they are needed by `loader`'s workers."""

    def __init__(self, loader):
        self.loader = loader
        # A loader may leave rows out; its order is that of the samples.
        self.order = np.fromiter(_row_numbers(loader), dtype=np.int64)
        self.n_samples = self.order.shape[0]
        if self.n_samples == 0:
            raise ValueError("X is a Dataset without samples.")
        first, _ = _split(next(self._load([self.order[:1]])))
        self.shape = tuple(first.shape[1:])
        self.n_bytes = first.nbytes * self.n_samples

    def batches(self, indices):
        """Yield a tensor for each index, a slice or an array of row numbers."""
        for batch in self._load([self.order[index] for index in indices]):
            yield _split(batch)[0]

    @property
    def labels(self):
        """The labels, read anew; None where the Dataset yields inputs only."""
        return self._read(256, lambda rows: rows[:0])[1]

    def read(self, batch_size):
        """Read all rows into memory; return the tensor and the labels."""
        return self._read(batch_size)

    def _read(self, batch_size, keep=None):
        starts = range(batch_size, self.n_samples, batch_size)
        return read_batches(self._load(np.split(self.order, list(starts))), keep)

    def _load(self, chunks):
        loader = self.loader
        return iter(
            DataLoader(
                loader.dataset,
                batch_sampler=[chunk.tolist() for chunk in chunks],
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
            )
        )


def open_rows(X, batch_size):
    """Return ``(rows, labels)`` of any X; `labels` is None where not read yet."""
    if isinstance(X, Dataset):
        X = DataLoader(X, batch_size=batch_size)
    if not isinstance(X, DataLoader):
        values = X if isinstance(X, torch.Tensor | np.ndarray) else np.asarray(X)
        return ArrayRows(values), None
    if isinstance(X.dataset, IterableDataset) or X.batch_sampler is None:
        values, labels = read_batches(X)
        return ArrayRows(values), labels
    rows = DatasetRows(X)
    if rows.n_bytes > free_memory() / 2:
        return rows, None
    values, labels = rows.read(batch_size)
    return ArrayRows(values), labels


def read_batches(batches, keep=None):
    """Put batches together; return the tensor of inputs and the array of labels."""
    rows, labels = [], []
    for batch in batches:
        row, label = _split(batch)
        rows.append(row if keep is None else keep(row))
        if label is not None:
            labels.append(label)
    if not rows:
        raise ValueError("X is a DataLoader without samples.")
    return torch.cat(rows), np.concatenate(labels) if labels else None


def free_memory():
    """Bytes of memory that can be had, infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    sizes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(next(sizes, "0")) or float("inf")


def _row_numbers(loader):
    """Return the rows in the order in which a loader would serve them."""
    sampler = loader.batch_sampler
    if isinstance(getattr(sampler, "sampler", None), _SHUFFLING):
        raise ValueError(
            "X is a DataLoader that shuffles, which loses the order of the rows. "
            "Build it with shuffle=False."
        )
    return chain.from_iterable(sampler)


def _split(batch):
    """Split what a loader yields into inputs and labels; None if there are none."""
    label = None
    if isinstance(batch, list | tuple) and 1 <= len(batch) <= 2:
        label = None if len(batch) == 1 else np.asarray(batch[1])
        batch = batch[0]
    if not isinstance(batch, torch.Tensor):
        raise ValueError(
            f"The Dataset yields a {type(batch).__name__}; it must yield inputs, or "
            "pairs of an input and a label."
        )
    return batch, label
