r"""Loss of a clamped network over all rows, its gradients and Jacobians, by epochs.

The mean over rows of the focal loss :math:`-(1-p_y)^\gamma \ln p_y`, or of the Brier
loss, with p the softmax of ``f(x + delta) / T``: the data term of equation (9) of Tang,
Chen & Ho ("Neural Clamping", TMLR 2024), who write a sum. With a mean, a penalty says
the same whatever the number of rows: it is theirs divided by that number.

An epoch costs a forward pass, and where gradients are asked for one backward pass to
the inputs: weights ask for none. Sums stay on the device and are read once at the end,
so that a GPU is never waited for between batches.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.autograd import forward_ad

from skcalib._networks._inputs import Inputs
from skcalib._networks._network import Network, refuse_nan_gradient
from skcalib._onnx._outputs import refuse_nan
from skcalib._warnings import warn
from skcalib.clamping._draws import Draws
from skcalib.clamping._perturbation import Basis
from skcalib.exceptions import NotDifferentiableError

# Cost of a forward-mode pass in backward passes, as measured on residual networks.
FORWARD_MODE_COST = 2.5

Loss = Literal["focal", "brier"]
Rows = NDArray[np.intp] | None
Index = slice | torch.Tensor
Delta = NDArray[Any] | torch.Tensor | None


class Objective:
    """The data term of neural clamping on calibration inputs.

    Everywhere `delta` is an array or tensor of the shape of an input, or None for 0,
    and `rows` an array of row numbers, or None for all.

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
        Loss of the probabilities ``softmax(f(x + delta) / T)``.

    gamma : float, default=1.0
        Exponent of the focal loss; 0 is cross-entropy.

    feasible_range : pair of floats or arrays, default=None
        The network sees ``clip(x + delta, low, high)``.
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
        self._codes = torch.as_tensor(self.codes, device=device).long()
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

    def logits(self, delta: Delta = None, rows: Rows = None) -> NDArray[Any]:
        """Return the network's logits: one forward epoch.

        Returns
        -------
        logits : ndarray of shape (n_rows, n_classes), float32 or float64
        """
        moved = self._delta(delta)

        @torch.no_grad()
        def forward(x: torch.Tensor, index: Index) -> torch.Tensor:
            return self.network(self.shift(x, moved))

        logits = torch.cat(list(self._epoch(forward, rows))).cpu().numpy()
        refuse_nan(logits, rows)
        return logits

    def value(
        self, delta: Delta, log_temperature: ArrayLike, rows: Rows = None
    ) -> float:
        """Return the weighted mean loss: one forward epoch."""
        moved = self._delta(delta)
        log_t = self._scalar(log_temperature)

        @torch.no_grad()
        def forward(x: torch.Tensor, index: Index) -> torch.Tensor:
            logits = self.network(self.shift(x, moved))
            return self._loss(logits, index, log_t)[0]

        total = torch.stack(list(self._epoch(forward, rows))).sum()
        return self._finite((total / self.total_weight(rows)).item(), delta, rows)

    def value_and_gradient(
        self, delta: Delta, log_temperature: ArrayLike, rows: Rows = None
    ) -> tuple[float, NDArray[Any], float]:
        """Return the weighted mean loss and its gradients: one forward-backward epoch.

        Returns
        -------
        value : float

        grad_delta : ndarray of float64, of the shape of an input

        grad_log_temperature : float
        """
        return self.evaluate(delta, log_temperature, rows, keep_logits=False)[1:]

    def evaluate(
        self,
        delta: Delta,
        log_temperature: ArrayLike,
        rows: Rows = None,
        keep_logits: bool = True,
    ) -> tuple[Any, float, NDArray[Any], float]:
        """Return ``(logits, value, grad_delta, grad_log_temperature)`` in one epoch."""
        moved = self._delta(delta)
        log_t = self._scalar(log_temperature)
        sums = self.no_sums()
        kept: list[torch.Tensor] = []
        for index, x in self.inputs.batches(rows):
            kept += self.add(sums, x, index, moved, log_t, keep_logits)
        grad_delta, totals = (part / self.total_weight(rows) for part in sums)
        value, grad_log_temperature = totals.tolist()
        self._finite(value, delta, rows)
        logits = torch.cat(kept).cpu().numpy() if keep_logits else None
        return logits, value, grad_delta.cpu().numpy(), grad_log_temperature

    def no_sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return zeros to `add` to: gradient of delta; loss and slope by log T."""
        options: dict[str, Any] = {
            "device": self.network.device,
            "dtype": self.sum_dtype,
        }
        return torch.zeros(self.inputs.shape, **options), torch.zeros(2, **options)

    def add(
        self,
        sums: tuple[torch.Tensor, torch.Tensor],
        x: torch.Tensor,
        index: Index,
        delta: torch.Tensor,
        log_temperature: torch.Tensor,
        keep_logits: bool = False,
        draws: Draws | None = None,
    ) -> list[torch.Tensor]:
        """Add the weighted sums of a batch to `sums`, all on the device.

        `draws`, if given, has the weights and takes note of the gradients.

        Returns
        -------
        logits : list of tensors
            The logits, in parts; empty unless they are asked for.
        """
        self._need_gradients()

        def forward_backward(x: torch.Tensor, index: Index) -> tuple[torch.Tensor, ...]:
            leaf = delta.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.network(self.shift(x, leaf))
            value, slope, gradient = self._loss(
                logits.detach(), index, log_temperature, draws
            )
            (by_delta,) = torch.autograd.grad(logits, leaf, gradient)
            return logits.detach(), by_delta, torch.stack([value, slope])

        kept: list[torch.Tensor] = []
        for logits, by_delta, totals in self._parts(forward_backward, x, index):
            sums[0].add_(by_delta)
            sums[1].add_(totals)
            kept += [logits] if keep_logits else []
        return kept

    def shift(self, x: torch.Tensor, delta: torch.Tensor) -> Any:
        """Return what the network takes for the clipped ``x + delta``."""
        return self.network.shifted(x, delta, self._bounds)

    def jacobian(
        self, basis: Basis, delta: Delta = None, rows: Rows = None
    ) -> NDArray[np.float32]:
        """Return the derivatives of the logits by the coordinates of a basis.

        By one backward pass a class, or one forward-mode pass a coordinate where there
        are far fewer coordinates than classes.

        Returns
        -------
        jacobian : ndarray of float32, of shape (n_rows, n_classes, dim)
        """
        self._need_gradients()
        moved = self._delta(delta)
        n_classes = self.logits(moved, rows=np.zeros(1, dtype=np.intp)).shape[1]
        few = jacobian_passes(n_classes, basis.dim) < n_classes

        def derivatives(x: torch.Tensor, index: Index) -> torch.Tensor:
            if few:
                try:
                    return self._by_coordinate(x, moved, basis).float().cpu()
                except torch.cuda.OutOfMemoryError:
                    raise
                except (NotImplementedError, RuntimeError):
                    pass  # Not every operator has a forward mode.
            return self._by_class(x, moved, basis).float().cpu()

        jacobian = torch.cat(list(self._epoch(derivatives, rows))).numpy()
        refuse_nan_gradient(jacobian)
        return jacobian

    def _by_class(
        self, x: torch.Tensor, delta: torch.Tensor, basis: Basis
    ) -> torch.Tensor:
        leaf = delta.expand(x.shape[0], *delta.shape).clone().requires_grad_()
        with torch.enable_grad():
            columns = self.network(self.shift(x, leaf)).sum(dim=0)
        gradients = (
            torch.autograd.grad(column, leaf, retain_graph=True)[0]
            for column in columns
        )
        return torch.stack([basis.reduce(part) for part in gradients], dim=1)

    @torch.no_grad()
    def _by_coordinate(
        self, x: torch.Tensor, delta: torch.Tensor, basis: Basis
    ) -> torch.Tensor:
        columns = []
        for coordinates in torch.eye(basis.dim, device=x.device, dtype=delta.dtype):
            with forward_ad.dual_level():
                dual = _dual(delta, basis.expand(coordinates))
                values = self.network(self.shift(x, dual))
                logits, tangent = forward_ad.unpack_dual(values)
                columns.append(torch.zeros_like(logits) if tangent is None else tangent)
        return torch.stack(columns, dim=2)

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

    def _delta(self, delta: Delta) -> torch.Tensor:
        if delta is None:
            delta = np.zeros(self.inputs.shape, dtype=np.float32)
        return self._tensor(delta)

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

    def _finite(self, value: float, delta: Delta, rows: Rows) -> float:
        """Return `value`; raise where the network is to blame that it is no number."""
        if not np.isfinite(value):
            self.logits(delta, rows)
        return value


def jacobian_passes(n_classes: int, dim: int) -> int:
    """Return the cost of a row's Jacobian, in backward passes."""
    return min(n_classes, int(FORWARD_MODE_COST * dim))


def _within(index: Index, part: slice) -> Index:
    """Return the part of a batch's index, a slice or a tensor."""
    if not isinstance(index, slice):
        return index[part]
    return slice(index.start + part.start, min(index.start + part.stop, index.stop))


def _dual(values: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return `values` with a tangent for forward-mode differentiation."""
    with warnings.catch_warnings():
        # The first call compiles rules in a way that torch itself has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return forward_ad.make_dual(values, direction)


def focal(
    scores: torch.Tensor, codes: torch.Tensor, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Focal loss :math:`-(1-p_y)^\gamma \ln p_y` of each row, and its gradient.

    ``gamma=0`` is cross-entropy. Written out so that nothing overflows: where p is
    rounded to 1, autograd would multiply infinity by 0.
    """
    log_proba = torch.log_softmax(scores, dim=1)
    own = codes[:, None]
    log_p = log_proba.gather(1, own)
    proba = log_proba.exp_()
    if gamma == 0:
        slope = -torch.ones_like(log_p)
        losses = -log_p
    else:
        rest = -torch.expm1(log_p)
        # ln(p) / (1 - p) tends to -1 where p tends to 1.
        ratio = torch.where(rest > 0, log_p / rest, -1.0)
        factor = rest**gamma
        slope = factor * (gamma * log_p.exp() * ratio - 1)
        losses = -factor * log_p
    gradient = proba * -slope
    gradient.scatter_add_(1, own, slope)
    return losses[:, 0], gradient


def brier(
    scores: torch.Tensor, codes: torch.Tensor, gamma: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distance of the probabilities from the one-hot label, and its gradient.

    `gamma` is not used; it is there so that both losses are called alike.
    """
    proba = torch.softmax(scores, dim=1)
    error = proba.scatter_add(1, codes[:, None], -torch.ones_like(proba[:, :1]))
    mean = (proba * error).sum(dim=1, keepdim=True)
    return (error * error).sum(dim=1), 2 * proba * (error - mean)


LOSSES = {"focal": focal, "brier": brier}
