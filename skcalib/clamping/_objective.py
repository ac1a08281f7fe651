"""Loss of a clamped network over all rows, its gradients and Jacobians, by epochs.

An epoch costs a forward pass, and where gradients are asked for one backward pass to
the inputs: weights ask for none. Sums stay on the device and are read once at the end,
so that a GPU is never waited for between batches.
"""

import warnings

import numpy as np
import torch
from torch.autograd import forward_ad

from skcalib._networks._network import refuse_nan_gradient
from skcalib._onnx._outputs import refuse_nan
from skcalib._warnings import warn
from skcalib.clamping._tensor_losses import LOSSES
from skcalib.exceptions import NotDifferentiableError

# Cost of a forward-mode pass in backward passes, as measured on residual networks.
FORWARD_MODE_COST = 2.5


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
        network,
        inputs,
        codes,
        weight=None,
        loss="focal",
        gamma=1.0,
        feasible_range=None,
    ):
        self.network = network
        self.inputs = inputs
        self.loss = loss
        self.gamma = gamma
        device = network.device
        # Sums run in float64 where the device has it.
        self.sum_dtype = torch.float32 if device.type == "mps" else torch.float64
        self._codes = torch.as_tensor(np.asarray(codes), device=device).long()
        weight = np.ones(inputs.n_samples) if weight is None else np.asarray(weight)
        # Of mean 1, so that gradients neither overflow nor vanish in half precision.
        weight = weight / weight.mean()
        self.weight = torch.as_tensor(weight, device=device, dtype=self.sum_dtype)
        self._bounds = None
        if feasible_range is not None:
            self._bounds = [self._tensor(bound) for bound in feasible_range]

    def logits(self, delta=None, rows=None):
        """Return the network's logits: one forward epoch.

        Returns
        -------
        logits : ndarray of shape (n_rows, n_classes), float32 or float64
        """
        delta = self._delta(delta)

        @torch.no_grad()
        def forward(x, index):
            return self.network(self.shift(x, delta))

        logits = torch.cat(list(self._epoch(forward, rows))).cpu().numpy()
        refuse_nan(logits, rows)
        return logits

    def value(self, delta, log_temperature, rows=None):
        """Return the weighted mean loss, as a float: one forward epoch."""
        delta = self._delta(delta)
        log_temperature = self._scalar(log_temperature)

        @torch.no_grad()
        def forward(x, index):
            logits = self.network(self.shift(x, delta))
            return self._loss(logits, index, log_temperature)[0]

        total = torch.stack(list(self._epoch(forward, rows))).sum()
        return self._finite((total / self.total_weight(rows)).item(), delta, rows)

    def value_and_gradient(self, delta, log_temperature, rows=None):
        """Return the weighted mean loss and its gradients: one forward-backward epoch.

        Returns
        -------
        value : float

        grad_delta : ndarray of float64, of the shape of an input

        grad_log_temperature : float
        """
        return self.evaluate(delta, log_temperature, rows, keep_logits=False)[1:]

    def evaluate(self, delta, log_temperature, rows=None, keep_logits=True):
        """Return ``(logits, value, grad_delta, grad_log_temperature)`` in one epoch."""
        delta = self._delta(delta)
        log_temperature = self._scalar(log_temperature)
        sums = self.no_sums()
        kept = []
        for index, x in self.inputs.batches(rows):
            kept += self.add(sums, x, index, delta, log_temperature, keep_logits)
        grad_delta, totals = (part / self.total_weight(rows) for part in sums)
        value, grad_log_temperature = totals.tolist()
        self._finite(value, delta, rows)
        logits = torch.cat(kept).cpu().numpy() if keep_logits else None
        return logits, value, grad_delta.cpu().numpy(), grad_log_temperature

    def no_sums(self):
        """Return zeros to `add` to: gradient of delta; loss and slope by log T."""
        options = {"device": self.network.device, "dtype": self.sum_dtype}
        return torch.zeros(self.inputs.shape, **options), torch.zeros(2, **options)

    def add(
        self, sums, x, index, delta, log_temperature, keep_logits=False, draws=None
    ):
        """Add the weighted sums of a batch to `sums`, all on the device.

        `draws`, if given, has the weights and takes note of the gradients.

        Returns
        -------
        logits : list of tensors
            The logits, in parts; empty unless they are asked for.
        """
        self._need_gradients()

        def forward_backward(x, index):
            leaf = delta.detach().requires_grad_()
            with torch.enable_grad():
                logits = self.network(self.shift(x, leaf))
            value, slope, gradient = self._loss(
                logits.detach(), index, log_temperature, draws
            )
            (by_delta,) = torch.autograd.grad(logits, leaf, gradient)
            return logits.detach(), by_delta, torch.stack([value, slope])

        kept = []
        for logits, by_delta, totals in self._parts(forward_backward, x, index):
            sums[0].add_(by_delta)
            sums[1].add_(totals)
            kept += [logits] if keep_logits else []
        return kept

    def shift(self, x, delta):
        """Return what the network takes for the clipped ``x + delta``."""
        return self.network.shifted(x, delta, self._bounds)

    def jacobian(self, basis, delta=None, rows=None):
        """Return the derivatives of the logits by the coordinates of a basis.

        By one backward pass a class, or one forward-mode pass a coordinate where there
        are far fewer coordinates than classes.

        Returns
        -------
        jacobian : ndarray of float32, of shape (n_rows, n_classes, dim)
        """
        self._need_gradients()
        delta = self._delta(delta)
        n_classes = self.logits(delta, rows=[0]).shape[1]
        few = jacobian_passes(n_classes, basis.dim) < n_classes

        def derivatives(x, index):
            if few:
                try:
                    return self._by_coordinate(x, delta, basis).float().cpu()
                except torch.cuda.OutOfMemoryError:
                    raise
                except (NotImplementedError, RuntimeError):
                    pass  # Not every operator has a forward mode.
            return self._by_class(x, delta, basis).float().cpu()

        jacobian = torch.cat(list(self._epoch(derivatives, rows))).numpy()
        refuse_nan_gradient(jacobian)
        return jacobian

    def _by_class(self, x, delta, basis):
        leaf = delta.expand(x.shape[0], *delta.shape).clone().requires_grad_()
        with torch.enable_grad():
            columns = self.network(self.shift(x, leaf)).sum(dim=0)
        gradients = (
            torch.autograd.grad(column, leaf, retain_graph=True)[0]
            for column in columns
        )
        return torch.stack([basis.reduce(part) for part in gradients], dim=1)

    @torch.no_grad()
    def _by_coordinate(self, x, delta, basis):
        columns = []
        for coordinates in torch.eye(basis.dim, device=x.device, dtype=delta.dtype):
            with forward_ad.dual_level():
                dual = _dual(delta, basis.expand(coordinates))
                values = self.network(self.shift(x, dual))
                logits, tangent = forward_ad.unpack_dual(values)
                columns.append(torch.zeros_like(logits) if tangent is None else tangent)
        return torch.stack(columns, dim=2)

    def _loss(self, logits, index, log_temperature, draws=None):
        """Return the summed loss, its slope by log T and its gradient by logits."""
        temperature = log_temperature.exp()
        scores = logits.to(self.sum_dtype) / temperature
        losses, gradient = LOSSES[self.loss](scores, self._codes[index], self.gamma)
        weight = (draws or self).weight[index]
        if draws is not None:
            draws.note(index, gradient)
        gradient *= weight[:, None]
        slope = -(gradient * scores).sum()
        return losses @ weight, slope, (gradient / temperature).to(logits.dtype)

    def total_weight(self, rows=None):
        """Return the sum of the weights of all rows, or of `rows`, on the device."""
        if rows is not None:
            rows = torch.as_tensor(rows, device=self.weight.device)
        return (self.weight if rows is None else self.weight[rows]).sum()

    def _epoch(self, function, rows):
        for index, x in self.inputs.batches(rows):
            yield from self._parts(function, x, index)

    def _parts(self, function, x, index):
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

    def _shrink(self, batch_size):
        self.inputs.batch_size = batch_size
        torch.cuda.empty_cache()
        warn(
            "The GPU's memory was too small for a batch. Going on with "
            f"batch_size={batch_size}."
        )

    def _delta(self, delta):
        if delta is None:
            delta = np.zeros(self.inputs.shape, dtype=np.float32)
        return self._tensor(delta)

    def _scalar(self, value):
        return torch.as_tensor(value, device=self.network.device, dtype=self.sum_dtype)

    def _tensor(self, values):
        if not isinstance(values, torch.Tensor):
            values = np.asarray(values)
        return torch.as_tensor(
            values, device=self.network.device, dtype=self.network.dtype
        )

    def _need_gradients(self):
        if not self.network.differentiable:
            raise NotDifferentiableError(self.network.reason)

    def _finite(self, value, delta, rows):
        """Return `value`; raise where the network is to blame that it is no number."""
        if not np.isfinite(value):
            self.logits(delta, rows)
        return value


class SomeRows:
    """Some rows of an objective, numbered from 0 on.

    Parameters
    ----------
    objective : Objective
        That of all rows.

    rows : ndarray of shape (n_rows,)
        Their numbers there.
    """

    def __init__(self, objective, rows):
        self._objective = objective
        self._rows = rows

    def logits(self, delta, rows):
        """Return `Objective.logits` of these rows."""
        return self._objective.logits(delta, self._rows[rows])

    def jacobian(self, basis):
        """Return `Objective.jacobian` of all the rows."""
        return self._objective.jacobian(basis, rows=self._rows)


def jacobian_passes(n_classes, dim):
    """Return the cost of a row's Jacobian, in backward passes."""
    return min(n_classes, int(FORWARD_MODE_COST * dim))


def _within(index, part):
    """Return the part of a batch's index, a slice or a tensor."""
    if not isinstance(index, slice):
        return index[part]
    return slice(index.start + part.start, min(index.start + part.stop, index.stop))


def _dual(values, direction):
    """Return `values` with a tangent for forward-mode differentiation."""
    with warnings.catch_warnings():
        # The first call compiles rules in a way that torch itself has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return forward_ad.make_dual(values, direction)
