"""The inputs of a network in batches on its device, resident there if they fit."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Inputs:
    """Rows that a network takes, of any source, in batches on its device.

    Parameters
    ----------
    X : array, memmap, torch.Tensor, Dataset or DataLoader
        The inputs. Numbers of any type are cast to the floating-point type of the
        network and never rescaled: bytes of 0..255 stay 0..255.

    network : Network
        Says on which device and in which type.

    batch_size : int
        Rows a batch.

    Attributes
    ----------
    n_samples : int

    shape : tuple of int
        Shape of one input, without the batch axis.
    """

    def __init__(self, X, network, batch_size=256):
        self.network = network
        self.batch_size = network.fixed_batch or batch_size
        self._labels = None
        if isinstance(X, Dataset | DataLoader):
            X, self._labels = _read_all(X, self.batch_size)
        self._rows = X if isinstance(X, torch.Tensor | np.ndarray) else np.asarray(X)
        if self._rows.ndim < 2 or self._rows.shape[0] == 0:
            raise ValueError(
                f"X has shape {tuple(self._rows.shape)}; the network needs at least "
                "one sample, and a batch axis before those of a sample."
            )
        self.n_samples = self._rows.shape[0]
        self.shape = tuple(self._rows.shape[1:])

    def labels(self):
        """Return the labels that came with a Dataset of pairs, else None."""
        return self._labels

    def batches(self, order=None):
        """Yield ``(index, x)``: rows of the batch and its inputs on the device.

        `index` is a slice, or a tensor of row numbers on the device where `order`, an
        array of row numbers, was given. `x` may be the user's own memory: networks
        must be given a new tensor, such as ``x + delta``.
        """
        n_rows = self.n_samples if order is None else len(order)
        start = 0
        while start < n_rows:
            stop = min(start + self.batch_size, n_rows)
            index = slice(start, stop) if order is None else order[start:stop]
            x = self._take(index)
            if order is not None:
                index = torch.as_tensor(np.asarray(index), device=self.network.device)
            yield index, x
            start = stop

    def _take(self, index):
        if isinstance(self._rows, torch.Tensor) and not isinstance(index, slice):
            index = torch.as_tensor(np.asarray(index), device=self._rows.device)
        block = self._rows[index]
        if isinstance(block, np.ndarray):
            if not (block.flags.writeable and block.flags.c_contiguous):
                block = np.array(block, order="C")
            block = torch.from_numpy(block)
        return block.to(self.network.device, self.network.dtype)


def _read_all(X, batch_size):
    loader = X if isinstance(X, DataLoader) else DataLoader(X, batch_size=batch_size)
    if isinstance(loader.sampler, torch.utils.data.RandomSampler):
        raise ValueError(
            "X is a DataLoader that shuffles, which loses the order of the rows. "
            "Build it with shuffle=False."
        )
    rows, labels = [], []
    for batch in loader:
        if isinstance(batch, list | tuple):
            rows.append(batch[0])
            if len(batch) > 1:
                labels.append(np.asarray(batch[1]))
        else:
            rows.append(batch)
    return torch.cat(rows), np.concatenate(labels) if labels else None
