r"""Loss of a clamped network over all rows, its gradients and Jacobians, by epochs.

The mean over rows of the focal loss :math:`-(1-p_y)^\gamma \ln p_y`, or of the Brier
loss, with p the softmax of ``f(x') / T`` and x' the changed input: the data term of
equation (9) of Tang, Chen & Ho ("Neural Clamping", TMLR 2024), who write a sum. With a
mean, a penalty says the same whatever the number of rows: it is theirs divided by that
number.

An epoch costs a forward pass, and where gradients are asked for one backward pass to
the inputs: weights ask for none. Sums stay on the device and are read once at the end,
so that a GPU is never waited for between batches.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.autograd import forward_ad

from skcalib._networks._inputs import Inputs
from skcalib._networks._network import Network, refuse_nan_gradient
from skcalib._onnx._outputs import refuse_nan
from skcalib._warnings import warn
from skcalib.clamping._change import Change
from skcalib.clamping._draws import Draws
from skcalib.clamping._losses import LOSSES
from skcalib.clamping._perturbation import Basis, Perturbation
from skcalib.clamping._pools import Pools
from skcalib.exceptions import NotDifferentiableError

# Cost of a forward-mode pass in backward passes, as measured on residual networks.
FORWARD_MODE_COST = 2.5

Loss = Literal["focal", "brier"]
Rows = NDArray[np.intp] | None
Index = slice | torch.Tensor
# Of logits, what their slots weigh them with, one after the other.
Directions = Callable[[torch.Tensor], Iterator[torch.Tensor]]
AnyChange = Change | NDArray[Any] | torch.Tensor | None


class Objective:
    """The data term of neural clamping on calibration inputs.

    Everywhere `change` is what happens to the inputs: a `Change`, an array or tensor of
    the shape of an input that is added, or None for nothing; and `rows` an array of row
    numbers, or None for all.

    Parameters
    ----------
    network : Network
        The frozen network.

    inputs : Inputs
        Its inputs.

    codes : array of shape (n_samples,)
        Column number of each row's class.

    weight : array of shape (n_samples,), default=None
        Sample weights of any scale; None means 1.

    loss : {"focal", "brier"}, default="focal"
        Loss of the probabilities ``softmax(f(x + change(x)) / T)``.

    gamma : float, default=1.0
        Exponent of the focal loss; 0 is cross-entropy.

    feasible_range : pair of floats or arrays, default=None
        The network sees ``clip(x + change(x), low, high)``.
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs,
        codes: ArrayLike,
        weight: ArrayLike | None = None,
        loss: Loss = "focal",
        gamma: float = 1.0,
        feasible_range: Any = None,
    ) -> None:
        self.network = network
        self.inputs = inputs
        self.loss = loss
        self.gamma = gamma
        self.codes = np.asarray(codes)
        self.weight = (
            np.ones(inputs.n_samples) if weight is None else np.asarray(weight)
        )
        device = network.device
        # Sums run in float64 where the device has it.
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        # Copied: torch warns of labels that must not be written to, as of a series.
        self._codes = torch.from_numpy(np.array(self.codes)).to(device).long()
        # So that gradients neither overflow nor vanish in half precision.
        self.weight_of_mean_one = self._scalar(self.weight / self.weight.mean())
        self._bounds = None
        if feasible_range is not None:
            self._bounds = [self._tensor(bound) for bound in feasible_range]

    def with_gamma(self, gamma: float) -> "Objective":
        """Return the objective of another exponent on the same network and rows."""
        twin = copy.copy(self)
        twin.gamma = gamma
        return twin

    def logits(self, change: AnyChange = None, rows: Rows = None) -> NDArray[Any]:
        """Return the network's logits: one forward epoch.

        Returns
        -------
        logits : ndarray of shape (n_rows, n_classes), float32 or float64
        """
        moved = self._moved(change)

        @torch.no_grad()
        def forward(x: torch.Tensor, index: Index) -> torch.Tensor:
            return self.network(self.changed(x, moved))

        logits = torch.cat(list(self._epoch(forward, rows))).cpu().numpy()
        refuse_nan(logits, rows)
        return logits

    def value(
        self, change: AnyChange, log_temperature: ArrayLike, rows: Rows = None
    ) -> float:
        """Return the weighted mean loss: one forward epoch."""
        moved = self._moved(change)
        log_t = self._scalar(log_temperature)

        @torch.no_grad()
        def forward(x: torch.Tensor, index: Index) -> torch.Tensor:
            logits = self.network(self.changed(x, moved))
            return self._loss(logits, index, log_t)[0]

        total = torch.stack(list(self._epoch(forward, rows))).sum()
        return self._finite((total / self.total_weight(rows)).item(), change, rows)

    def evaluate(
        self,
        perturbation: Perturbation,
        log_temperature: ArrayLike,
        rows: Rows = None,
    ) -> tuple[NDArray[Any], float, NDArray[Any], float]:
        """Return logits, mean loss and its gradients: one forward-backward epoch.

        Returns
        -------
        logits : ndarray of shape (n_rows, n_classes), float32 or float64

        value : float

        grad_theta : ndarray of float64, of shape (dim,)
            By the coordinates of the perturbation.

        grad_log_temperature : float
        """
        moved = self._moved(perturbation.change)
        log_t = self._scalar(log_temperature)
        sums = self.no_sums(moved)
        kept: list[torch.Tensor] = []
        for index, x in self.inputs.batches(rows):
            kept += self.add(sums, x, index, moved, log_t)
        *by_parts, totals = (part / self.total_weight(rows) for part in sums)
        value, grad_log_temperature = totals.tolist()
        self._finite(value, perturbation.change, rows)
        logits = torch.cat(kept).cpu().numpy()
        gradient = perturbation.basis.gather([part.cpu().numpy() for part in by_parts])
        return logits, value, gradient, grad_log_temperature

    def no_sums(self, change: Change) -> list[torch.Tensor]:
        """Return zeros to `add` to: gradients by parts; loss and slope by log T."""
        options: dict[str, Any] = {
            "device": self.network.device,
            "dtype": self.sum_dtype,
        }
        shapes = [*(part.shape for part in change.parts), (2,)]
        return [torch.zeros(shape, **options) for shape in shapes]

    def add(
        self,
        sums: list[torch.Tensor],
        x: torch.Tensor,
        index: Index,
        change: Change,
        log_temperature: torch.Tensor,
        draws: Draws | None = None,
    ) -> list[torch.Tensor]:
        """Add the weighted sums of a batch to `sums`, all on the device.

        `change` is of tensors. `draws`, if given, has the weights and takes note of the
        gradients.

        Returns
        -------
        logits : list of tensors
            The logits, in parts.
        """
        self._need_gradients()

        def forward_backward(x: torch.Tensor, index: Index) -> tuple[torch.Tensor, ...]:
            leaf = change.map(lambda part: part.detach().requires_grad_())
            with torch.enable_grad():
                logits = self.network(self.changed(x, leaf))
            value, slope, gradient = self._loss(
                logits.detach(), index, log_temperature, draws
            )
            by_parts = torch.autograd.grad(logits, leaf.parts, gradient)
            return logits.detach(), *by_parts, torch.stack([value, slope])

        kept: list[torch.Tensor] = []
        for logits, *found in self._parts(forward_backward, x, index):
            for total, part in zip(sums, found, strict=True):
                total.add_(part)
            kept.append(logits)
        return kept

    def changed(self, x: torch.Tensor, change: Change) -> Any:
        """Return what the network takes for the clipped ``x + change(x)``."""
        seen = x if change.kernel is None else self.network.perturbed(x)
        return self.shift(x, change(seen))

    def shift(self, x: torch.Tensor, delta: torch.Tensor) -> Any:
        """Return what the network takes for the clipped ``x + delta``."""
        return self.network.shifted(x, delta, self._bounds)

    def jacobian(
        self,
        basis: Basis,
        change: AnyChange = None,
        rows: Rows = None,
        pools: Pools | None = None,
    ) -> NDArray[np.float32]:
        """Return the derivatives of the logits by the coordinates of a basis.

        By one backward pass a class, or one forward-mode pass a coordinate where there
        are far fewer coordinates than classes. With `pools`, of the same rows, those of
        their slots instead, and one backward pass a slot.

        Returns
        -------
        jacobian : ndarray of float32, of shape (n_rows, n_classes, dim)
            With `pools`, of shape (n_slots, dim).
        """
        self._need_gradients()
        moved = self._moved(change)
        numbers = np.arange(self.inputs.n_samples) if rows is None else rows
        if pools is None:
            n_slots: float = self.logits(moved, numbers[:1]).shape[1]
            order = np.arange(numbers.shape[0])
        else:
            n_slots = pools.n_slots / numbers.shape[0]
            # A batch takes as many passes as its row with the most slots.
            order = np.argsort(-pools.counts, kind="stable")
        few = passes_per_row(n_slots, basis.dim) < n_slots
        place = np.empty(self.inputs.n_samples, dtype=np.intp)
        place[numbers[order]] = order

        def derivatives(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            among = place[index.cpu().numpy()]
            directions = partial(_directions, pools, among)
            if few:
                try:
                    found = self._by_coordinate(x, moved, basis, directions)
                    return _used(found, pools, among)
                except torch.cuda.OutOfMemoryError:
                    raise
                except (NotImplementedError, RuntimeError):
                    pass  # Not every operator has a forward mode.
            found = self._by_class(x, moved, basis, directions)
            return _used(found, pools, among)

        found = torch.cat(list(self._epoch(derivatives, numbers[order]))).numpy()
        refuse_nan_gradient(found)
        if pools is None:
            return found
        jacobian = np.empty_like(found)
        jacobian[pools.of_rows(order)[0]] = found
        return jacobian

    def _by_class(
        self, x: torch.Tensor, change: Change, basis: Basis, directions: Directions
    ) -> torch.Tensor:
        seen = self.network.perturbed(x)
        leaf = change(seen).expand(seen.shape).clone().requires_grad_()
        with torch.enable_grad():
            logits = self.network(self.shift(x, leaf))
        pull = basis.puller(seen)
        parts = [
            pull(torch.autograd.grad(logits, leaf, weights, retain_graph=True)[0])
            for weights in directions(logits)
        ]
        return torch.stack(parts, dim=1)

    @torch.no_grad()
    def _by_coordinate(
        self, x: torch.Tensor, change: Change, basis: Basis, directions: Directions
    ) -> torch.Tensor:
        columns = []
        seen = self.network.perturbed(x)
        moved = change(seen)
        for unit in basis.units(1.0, like=moved):
            with forward_ad.dual_level():
                parts = torch.broadcast_tensors(moved, unit.change(seen))
                # Whose entries must not share their memory.
                dual = _dual(*(part.contiguous() for part in parts))
                values = self.network(self.shift(x, dual))
                logits, tangent = forward_ad.unpack_dual(values)
                columns.append(torch.zeros_like(logits) if tangent is None else tangent)
        found = torch.stack(columns, dim=2)
        parts = [(weights[:, None] @ found)[:, 0] for weights in directions(found)]
        return torch.stack(parts, dim=1)

    def _loss(
        self,
        logits: torch.Tensor,
        index: Index,
        log_temperature: torch.Tensor,
        draws: Draws | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the summed loss, its slope by log T and its gradient by logits."""
        temperature = log_temperature.exp()
        scores = logits.to(self.sum_dtype) / temperature
        losses, gradient = LOSSES[self.loss](scores, self._codes[index], self.gamma)
        weight = (draws.weight if draws else self.weight_of_mean_one)[index]
        if draws is not None:
            draws.note(index, gradient)
        gradient *= weight[:, None]
        slope = -(gradient * scores).sum()
        return losses @ weight, slope, (gradient / temperature).to(logits.dtype)

    def total_weight(self, rows: Rows = None) -> torch.Tensor:
        """Return the sum of the weights of mean 1, of some rows if given."""
        weight = self.weight_of_mean_one
        if rows is not None:
            weight = weight[torch.as_tensor(rows, device=weight.device)]
        return weight.sum()

    def _epoch(self, function: Callable[..., Any], rows: Rows) -> Iterator[Any]:
        for index, x in self.inputs.batches(rows):
            yield from self._parts(function, x, index)

    def _parts(
        self, function: Callable[..., Any], x: torch.Tensor, index: Index
    ) -> Iterator[Any]:
        """Yield ``function(x, index)`` of parts of a batch that fit into memory."""
        start = 0
        while start < x.shape[0]:
            size = min(self.inputs.batch_size, x.shape[0])
            part = slice(start, start + size)
            try:
                result = function(x[part], _within(index, part))
            except torch.cuda.OutOfMemoryError:
                if size == 1 or self.network.fixed_batch:
                    raise
                self._shrink(size // 2)
                continue
            yield result
            start += size

    def _shrink(self, batch_size: int) -> None:
        self.inputs.batch_size = batch_size
        torch.cuda.empty_cache()
        warn(
            "The GPU's memory was too small for a batch. Going on with "
            f"batch_size={batch_size}."
        )

    def _moved(self, change: AnyChange) -> Change:
        """Return a change in tensors."""
        if change is None:
            change = np.zeros(self.inputs.shape, dtype=np.float32)
        if not isinstance(change, Change):
            change = Change(change)
        return change.map(self._tensor)

    def _scalar(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(value, device=self.network.device, dtype=self.sum_dtype)

    def _tensor(self, values: Any) -> torch.Tensor:
        if not isinstance(values, torch.Tensor):
            values = np.asarray(values)
        return torch.as_tensor(
            values, device=self.network.device, dtype=self.network.dtype
        )

    def _need_gradients(self) -> None:
        if not self.network.differentiable:
            raise NotDifferentiableError(self.network.reason)

    def _finite(self, value: float, change: AnyChange, rows: Rows) -> float:
        """Return `value`; raise where the network is to blame that it is no number."""
        if not np.isfinite(value):
            self.logits(change, rows)
        return value


def passes_per_row(slots: float, dim: int) -> float:
    """Return the cost of a row's derivatives, in backward passes."""
    return min(slots, int(FORWARD_MODE_COST * dim))


def _directions(
    pools: Pools | None, rows: NDArray[np.intp], like: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield what slots weigh the logits with; without pools, each class by itself."""
    if pools is None:
        eye = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        yield from eye[:, None].expand(-1, like.shape[0], -1)
    else:
        for weights in pools.directions(rows):
            yield torch.from_numpy(weights).to(like)


def _used(
    derivatives: torch.Tensor, pools: Pools | None, rows: NDArray[np.intp]
) -> torch.Tensor:
    """Return what is a slot's, row by row, on the processor."""
    derivatives = derivatives.float().cpu()
    if pools is None:
        return derivatives
    return derivatives[torch.from_numpy(pools.has_slot(rows))]


def _within(index: Index, part: slice) -> Index:
    """Return the part of a batch's index, a slice or a tensor."""
    if not isinstance(index, slice):
        return index[part]
    return slice(index.start + part.start, min(index.start + part.stop, index.stop))


def _dual(values: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return `values` with a tangent for forward-mode differentiation."""
    _compile_rules()
    return forward_ad.make_dual(values, direction)


@cache
def _compile_rules() -> None:
    """Make a first dual: torch compiles rules, in a way that it has deprecated itself.

    Only then, as `warnings.catch_warnings` is not for what threads do all the time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
