"""The inputs of a network in batches on its device, resident there if they fit."""

import numpy as np
import torch

from skcalib._networks._rows import ArrayRows, open_rows
from skcalib._numerics import hash_rows


class Inputs:
    """Rows that a network takes, of any source, in batches on its device.

    Parameters
    ----------
    X : array, memmap, torch.Tensor, Dataset or DataLoader
        The inputs. Numbers of any type are cast to the floating-point type of the
        network and never rescaled: bytes of 0..255 stay 0..255. Arrays and mapped
        files are read in place, a batch at a time. A Dataset is read into memory once
        if it fits; its items are inputs, or pairs of input and label.

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

    resident : bool
        Whether all rows lie on the device.
    """

    def __init__(self, X, network, batch_size=256):
        self.network = network
        self.batch_size = network.fixed_batch or batch_size
        rows, self._labels = open_rows(X, self.batch_size)
        self.n_samples = rows.n_samples
        self._rows = _on_device(rows, network.device)
        values = getattr(self._rows, "values", None)
        where = values.device if isinstance(values, torch.Tensor) else _CPU
        self.resident = values is not None and where.type == network.device.type
        self.shape = rows.shape
        if not self.shape:
            raise ValueError(
                f"X has shape ({self.n_samples},); the axis of the samples has to come "
                "before those of one sample. A single sample is X[np.newaxis]."
            )
        if network.site is not None:
            _, first = next(self.batches([0]))
            self.shape = tuple(network.perturbed(first).shape[1:])

    def labels(self):
        """Return the labels that came with a Dataset of pairs, else None."""
        if self._labels is None:
            self._labels = self._rows.labels
        return self._labels

    def hashes(self):
        """Return a hash of each row; None where rows would have to be read anew."""
        if not isinstance(self._rows, ArrayRows):
            return None
        cuts = [
            slice(a, a + self.batch_size)
            for a in range(0, self.n_samples, self.batch_size)
        ]
        return np.concatenate([_hash_tensor(x) for x in self._rows.batches(cuts)])

    def as_order(self, order):
        """Put row numbers where `batches` wants them: with the rows, once."""
        if not self.resident:
            return np.asarray(order)
        return torch.as_tensor(order, device=self.network.device)

    def batches(self, order=None, step=None):
        """Yield ``(index, x)``: rows of the batch and its inputs on the device.

        `index` is a slice, or a tensor of row numbers on the device where `order`, an
        array of row numbers, was given. `x` may be the user's own memory: networks
        must be given a new tensor, such as ``x + delta``. No batch reaches over a
        multiple of `step` rows.
        """
        n_rows = self.n_samples if order is None else len(order)
        cuts = [slice(a, b) for a, b in _cuts(n_rows, self.batch_size, step or n_rows)]
        if order is not None:
            order = self.as_order(order)
            cuts = [order[cut] for cut in cuts]
        for index, x in zip(cuts, self._rows.batches(cuts), strict=True):
            yield self._to_device(index), self._to_device(x, self.network.input_dtype)

    def values(self, order=None):
        """Yield what is perturbed, batch by batch: the inputs, or those at a site."""
        for _, x in self.batches(order):
            yield self.network.perturbed(x)

    def _to_device(self, values, dtype=None):
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
        return values.to(device, non_blocking=True).to(dtype or values.dtype)


_CPU = torch.device("cpu")


def _hash_tensor(rows):
    # NumPy has no bfloat16.
    rows = rows.float() if rows.dtype == torch.bfloat16 else rows
    return hash_rows(rows.detach().cpu().numpy())


def _on_device(rows, device):
    """Move all rows to a GPU if they take less than half of its free memory."""
    if device.type != "cuda" or not isinstance(rows, ArrayRows):
        return rows
    if rows.n_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return rows
    return ArrayRows(rows.take(slice(None)).to(device))


def _cuts(n_rows, size, step):
    """Yield where batches of `size` rows begin and end, anew in every `step` rows."""
    for first in range(0, n_rows, step):
        last = min(first + step, n_rows)
        for start in range(first, last, size):
            yield start, min(start + size, last)
