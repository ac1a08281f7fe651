"""Passes of a network shared out among the processes of torch.distributed.

Every process has all rows, runs the network on its part of each batch, and then has the
logits of all of them; gradients by what was added to the inputs are summed over the
processes. So each goes the same way, to the same result, as one process would.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class Processes:
    """The processes of the default group of torch.distributed."""

    def __init__(self) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "distributed=True shares work among the processes of "
                "torch.distributed, which has not been set up here. Start them, such "
                "as by torchrun, and call torch.distributed.init_process_group first."
            )
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def part(self, n_rows: int) -> slice | None:
        """Return the rows of a batch that this process runs; None for all."""
        if n_rows < self.size or self.size == 1:
            return None
        return self.parts(n_rows)[self.rank]

    def parts(self, n_rows: int) -> list[slice]:
        """Return the rows of each process, as many of each but for one."""
        cuts = [n_rows * rank // self.size for rank in range(self.size + 1)]
        return [slice(*ends) for ends in pairwise(cuts)]

    def gather(self, own: Tensor, n_rows: int) -> Tensor:
        """Return the rows of all processes; `own` are those of `part`."""
        rows: Tensor = _Gather.apply(own, self, n_rows)
        return rows

    def sum_gradient(self, values: Tensor, n_rows: int) -> Tensor:
        """Return the same values, whose gradient is the sum over the processes."""
        if self.part(n_rows) is None:
            return values
        same: Tensor = _SumGradient.apply(values)
        return same

    def refuse_differences(self, *facts: Any) -> None:
        """Raise a ValueError, on all of them, unless all processes say the same."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, facts)
        if any(other != found[0] for other in found):
            raise ValueError(
                "The processes of torch.distributed were given different data: rows, "
                f"and hashes of inputs and classes, are {found}. Each process needs "
                "all of them, in one order; only the passes through the network are "
                "shared out."
            )


class _Gather(Function):
    """The rows of all processes; backward, each process has the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Processes, n_rows: int) -> Tensor:
        ctx.processes, ctx.n_rows = processes, n_rows
        return _gathered(own, processes, n_rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return gradient[ctx.processes.part(ctx.n_rows)], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _gathered(tangents[0], ctx.processes, ctx.n_rows)


class _SumGradient(Function):
    """Nothing; backward, the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].view_as(tangents[0])


def _gathered(own: Tensor, processes: Processes, n_rows: int) -> Tensor:
    # All processes have to send as many rows, the most that one has.
    most = -(-n_rows // processes.size)
    sent = own.new_zeros(most, *own.shape[1:])
    sent[: own.shape[0]] = own
    parts = [torch.empty_like(sent) for _ in range(processes.size)]
    dist.all_gather(parts, sent)
    rows = [part.stop - part.start for part in processes.parts(n_rows)]
    return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])
