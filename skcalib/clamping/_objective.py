"""Loss of a clamped network over all rows, its gradients and Jacobians, by epochs."""

import warnings

import numpy as np
import torch

from skcalib.clamping._network import refuse_nan
from skcalib.clamping._tensor_losses import LOSSES


class Objective:
    """The data term of neural clamping on calibration inputs.

    Parameters
    ----------
    network : Network

    inputs : Inputs

    codes : array of shape (n_samples,)
        Column number of each row's class.

    weight : array of shape (n_samples,), default=None
        Sample weights of any scale; None means 1.

    loss : {"focal", "brier"}, default="focal"

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
        self._wide = torch.float32 if device.type == "mps" else torch.float64
        self._codes = torch.as_tensor(np.asarray(codes), device=device).long()
        weight = np.ones(inputs.n_samples) if weight is None else np.asarray(weight)
        self._weight = torch.as_tensor(weight, device=device, dtype=self._wide)
        self._bounds = None
        if feasible_range is not None:
            self._bounds = [self._tensor(bound) for bound in feasible_range]

    def logits(self, delta=None, rows=None):
        """Return the logits of all rows, or of `rows`: one forward epoch."""
        delta = self._delta(delta)

        def epoch():
            with torch.no_grad():
                parts = [
                    self.network(self.shift(x, delta))
                    for _, x in self.inputs.batches(rows)
                ]
                return torch.cat(parts)

        logits = self._halving(epoch).cpu().numpy()
        refuse_nan(logits, rows)
        return logits

    def value_and_gradient(self, delta, log_temperature, rows=None):
        """Return the weighted mean loss and its gradients.

        Returns
        -------
        value : float
        grad_delta : ndarray of float64, of the shape of an input
        grad_log_temperature : float
        """
        return self.evaluate(delta, log_temperature, rows)[1:]

    def evaluate(self, delta, log_temperature, rows=None):
        """Return ``(logits, value, grad_delta, grad_log_temperature)`` in one epoch."""
        self._need_gradients()
        delta = self._delta(delta)
        log_temperature = torch.as_tensor(
            log_temperature, device=self.network.device, dtype=self._wide
        )
        weight = self._weight if rows is None else self._weight[torch.as_tensor(rows)]

        def epoch():
            parts, grad_delta, sums = [], 0, 0
            for index, x in self.inputs.batches(rows):
                logits, part, slope = self.batch(x, index, delta, log_temperature)
                parts.append(logits)
                grad_delta = grad_delta + part
                sums = sums + slope
            return torch.cat(parts), grad_delta / weight.sum(), sums / weight.sum()

        logits, grad_delta, sums = self._halving(epoch)
        logits = logits.cpu().numpy()
        value, grad_log_temperature = sums.tolist()
        refuse_nan(logits, rows)
        return logits, value, grad_delta.cpu().numpy(), grad_log_temperature

    def batch(self, x, index, delta, log_temperature):
        """Return logits, gradient of delta and ``[loss, d loss / d log T]``, as sums.

        All stay on the device; weights are used as they are.
        """
        leaf = delta.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.network(self.shift(x, leaf))
        scores = logits.detach().to(self._wide) / log_temperature.exp()
        losses, gradient = LOSSES[self.loss](scores, self._codes[index], self.gamma)
        gradient *= self._weight[index][:, None]
        slope = -(gradient * scores).sum()
        sums = torch.stack([losses @ self._weight[index], slope])
        by_logits = (gradient / log_temperature.exp()).to(logits.dtype)
        (grad_delta,) = torch.autograd.grad(logits, leaf, by_logits)
        return logits.detach(), grad_delta.to(self._wide), sums

    def shift(self, x, delta):
        """Return the clipped ``x + delta``, always as a new tensor."""
        shifted = x + delta
        return shifted if self._bounds is None else shifted.clamp(*self._bounds)

    def jacobian(self, basis, delta=None, rows=None):
        """Return the derivatives of the logits by coordinates: (n, K, dim) float32."""
        self._need_gradients()
        delta = self._delta(delta)
        parts = []
        for _, x in self.inputs.batches(rows):
            leaf = (x + delta).requires_grad_()
            with torch.enable_grad():
                logits = self.network(self.shift(leaf, 0))
            columns = []
            for k in range(logits.shape[1]):
                (g,) = torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True)
                columns.append(basis.reduce(g))
            parts.append(torch.stack(columns, dim=1).float().cpu())
        return torch.cat(parts).numpy()

    def _tensor(self, values):
        return torch.as_tensor(
            np.asarray(values), device=self.network.device, dtype=self.network.dtype
        )

    def _delta(self, delta):
        if delta is None:
            return self._tensor(np.zeros(self.inputs.shape))
        if isinstance(delta, torch.Tensor):
            return delta.to(self.network.device, self.network.dtype)
        return self._tensor(delta)

    def _need_gradients(self):
        if not self.network.differentiable:
            raise ValueError(
                f"The network has no gradient by its inputs: {self.network.reason}. "
                "Use solver='gradient_free'."
            )

    def _halving(self, epoch):
        """Run an epoch; halve the batch as long as the GPU's memory is too small."""
        while True:
            try:
                return epoch()
            except torch.cuda.OutOfMemoryError:
                if self.inputs.batch_size == 1 or self.network.fixed_batch:
                    raise
            self.inputs.batch_size //= 2
            torch.cuda.empty_cache()
            warnings.warn(
                "The GPU's memory was too small for a batch; going on with "
                f"batch_size={self.inputs.batch_size}.",
                UserWarning,
                stacklevel=4,
            )
