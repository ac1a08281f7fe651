"""Rows of torch tensors, which stay on their device.

Those of the CPU are read as NumPy's, block by block and without a copy but of half
precision; only what comes out is a tensor again. Those of another device are handed to
the same statistics as a `DeviceArray`, in large blocks; sums of them, of the size of
the parameters, come to the host.

Half precisions are read as float32, in which they are exact, and so is float32;
everything else is read as float64. What is predicted has the type that is read.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skcalib._blocks._data import CalibrationData, several
from skcalib._blocks._device_array import as_array, torch_type
from skcalib._blocks._memory import lies_on_host
from skcalib._blocks._rows import BLOCK_ELEMENTS, add_up, on_host, row_slices
from skcalib._blocks._sources import NUMBERS, BlockFunction, LentSource, Source

# A device is given so many times as much as a core, to be busy, up to a limit: a dozen
# temporaries of a block, in float64, must fit into its memory.
LARGER, LARGEST = 1 << 8, 1 << 23
SINGLE = (torch.float32, torch.float16, torch.bfloat16)


def _dtype_read(tensor: Tensor) -> np.dtype:
    return np.dtype(np.float32 if tensor.dtype in SINGLE else np.float64)


def _two_columns(tensor: Tensor) -> Tensor:
    """Return logits; log-odds of the second class become the columns (0, z)."""
    if tensor.ndim == 2 and tensor.shape[1] > 1:
        return tensor
    log_odds = tensor.reshape(-1)
    return torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)


def open_tensor(tensor: Tensor) -> "HostTensorSource | TensorSource":
    """Choose the source for (n, K) logits, or (n,) and (n, 1) log-odds."""
    tensor = _two_columns(tensor.detach())
    return HostTensorSource(tensor) if lies_on_host(tensor) else TensorSource(tensor)


class HostTensorSource(LentSource):
    """Rows of a tensor in the host's memory, which NumPy reads; a map gives tensors."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.shape = tuple(tensor.shape)
        self.dtype = _dtype_read(tensor)

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the block, float32 or float64; it may share memory with the tensor."""
        return self._as_array(self._tensor[rows])

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows of these indices, copied."""
        return self._as_array(self._tensor[torch.from_numpy(rows)])

    def _as_array(self, tensor: Tensor) -> NDArray[Any]:
        if tensor.dtype in SINGLE:
            tensor = tensor.float()
        array: NDArray[Any] = tensor.numpy().astype(self.dtype, copy=False)
        return array

    def alike(self, result: NDArray[Any]) -> Tensor:
        """Return an array of numbers as a tensor."""
        return torch.from_numpy(result)


class TensorSource(Source):
    """Rows of a tensor on a device, where statistics of them are computed.

    Parameters
    ----------
    tensor : torch.Tensor
        The (n, K) logits.

    steps : sequence of callable, default=()
        Each changes the rows of a float64 block that is read.

    n_columns : int, default=None
        How many columns the last step leaves.
    """

    is_here = False

    def __init__(
        self,
        tensor: Tensor,
        steps: Sequence[BlockFunction] = (),
        n_columns: int | None = None,
    ) -> None:
        self.tensor, self._steps = tensor, tuple(steps)
        self.shape = (tensor.shape[0], n_columns or tensor.shape[1])
        self.dtype = np.dtype(float) if steps else _dtype_read(tensor)

    def block(self, rows: Any) -> Any:
        """Return some rows on the device; they may share memory with the tensor."""
        block = as_array(self.tensor[rows].to(torch_type(self.dtype)))
        for step in self._steps:
            # A step may overwrite what it is given.
            block = step(block.copy())
        return block

    def read(self, rows: slice) -> NoReturn:
        """Refuse to bring rows to the host."""
        self._refuse()

    def take(self, rows: NDArray[np.intp]) -> NoReturn:
        """Refuse to bring rows to the host."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"This reads all rows into the host's memory, and X lies on "
            f"{self.tensor.device}; it is not moved unasked. Pass X.cpu()."
        )

    def __getitem__(self, rows: slice) -> Any:
        return self.block(rows)

    def slices(self, block_elements: int = BLOCK_ELEMENTS) -> list[slice]:
        """Cut the rows into blocks of a size that suits the device."""
        size = max(block_elements, min(LARGER * block_elements, LARGEST))
        return row_slices(self.shape[0], self.shape[1], size)

    @torch.no_grad()
    def sum(
        self,
        statistic: Callable[..., Any],
        *beside: Any,
        block_elements: int = BLOCK_ELEMENTS,
        heavy: bool = False,
    ) -> Any:
        """Sum ``statistic(block, *parts)`` on the device; the sum comes to the host."""

        def of_block(rows: slice) -> Any:
            return statistic(self.block(rows), *(part[rows] for part in beside))

        # One thread feeds the device.
        parts = map(of_block, self.slices(block_elements))
        return on_host(add_up(parts))

    @torch.no_grad()
    def map(
        self,
        function: Callable[..., Any],
        *beside: Any,
        dtype: np.dtype,
        n_columns: int | None = None,
        out: NDArray[Any] | None = None,
        min_rows: int = 1,
    ) -> Any:
        """Compute one result for each row, on the device if they are numbers."""
        if out is not None:
            raise TypeError(
                f"out is a place in the host's memory or in a file, and X lies on "
                f"{self.tensor.device}. Leave out away, or pass X.cpu()."
            )
        shape = self.shape[:1] if n_columns is None else (self.shape[0], n_columns)
        result: Any = np.empty(shape, dtype)
        if result.dtype.kind in NUMBERS:
            place = self.tensor.device
            result = torch.empty(shape, dtype=torch_type(dtype), device=place)
        for rows in self.slices(max(BLOCK_ELEMENTS, min_rows * self.shape[1])):
            parts = (part[rows] for part in beside)
            found = function(self.block(rows), *parts)
            result[rows] = getattr(found, "tensor", found)
        return result

    def mapped(
        self, function: BlockFunction, n_columns: int | None = None, dtype: Any = float
    ) -> "TensorSource":
        """Put the rows through a row-wise `function` of float64 blocks, when read."""
        width = n_columns or self.shape[1]
        return TensorSource(self.tensor, (*self._steps, function), width)

    @torch.no_grad()
    def row_hashes(self) -> NDArray[np.uint64]:
        """Hash each row to 64 bits, as `hash_rows` does, if not to the same ones."""
        random = np.random.default_rng(0)
        factors = random.integers(1 << 62, size=self.shape[1]) * 2 + 1
        factor = torch.from_numpy(factors).to(self.tensor.device)
        hashes = []
        for rows in self.slices():
            block = self.block(rows).tensor + 0
            words = block.double().view(torch.int64)
            words = (words ^ (words >> 32)) * 0x1E3779B97F4A7C15
            words ^= words >> 29
            hashes.append((words * factor).sum(dim=1).cpu().numpy())
        return np.concatenate(hashes).view(np.uint64)

    def subset(self, rows: Any) -> "TensorSource":
        """Copy some rows, on the device."""
        rows = torch.as_tensor(rows, device=self.tensor.device)
        return TensorSource(self.tensor[rows], self._steps, self.shape[1])


class TensorData(CalibrationData):
    """A calibration set on a device: codes and weights lie beside the logits."""

    source: TensorSource

    def subset(self, rows: Any) -> "TensorData":
        """Copy the rows of these indices, with the weights rescaled to sum to 1."""
        codes: Any = self.codes
        index = codes.of(rows)
        weight = self.sample_weight[as_array(index)]
        groups = self.groups
        if groups is not None:
            groups = several(groups, on_host(rows))
        beside = codes[as_array(index)], weight, self.classes, None, groups
        return TensorData(self.source.subset(index), *beside)

    def head(self, n_rows: int) -> NDArray[Any]:
        """Return the logits of the first rows, on the host."""
        first: NDArray[Any] = on_host(self.source.block(slice(0, n_rows)))
        return first

    def rows(self, statistic: Any) -> NDArray[np.float64]:
        """Compute ``statistic(logits, codes, weight)``, one row for each sample."""
        parts = [
            on_host(statistic(self.source.block(r), self.codes[r], self.weight[r]))
            for r in self.source.slices()
        ]
        return np.concatenate(parts).astype(np.float64, copy=False)
