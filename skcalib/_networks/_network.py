"""Frozen networks of all kinds behind one call: inputs on the device to logits."""

import contextlib

import numpy as np
import torch

from skcalib._networks._folding import fold_batch_norm
from skcalib._networks._torch import pick_logits
from skcalib._networks._train_mode import refuse_train_mode
from skcalib._onnx._outputs import are_proba, refuse_nan
from skcalib._warnings import warn

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FAULTS = (RuntimeError, TypeError, IndexError)
# Of weights that have digits to spare for a change.
_FOLDED_DTYPES = (torch.float32, torch.float64)
# Rows on which a network is tried out.
PROBE_ROWS = 16


class Network:
    """A frozen network on a device.

    Parameters
    ----------
    forward : callable
        Takes a tensor of inputs and gives logits. With `site`, a module that takes
        the perturbation as a second argument and adds it inside.

    device : str or torch.device
        Where it runs.

    weight_dtype : torch.dtype, default=torch.float32
        Floating-point type that `forward` takes.

    output : str or int, default=None
        Where the logits are in its result.

    precision : {"bf16", "fp16"}, default=None
        Type of the heavy operators, by autocast.

    channels_last : bool, default=False
        Whether images are handed on with their channels innermost in memory.

    compiled : bool, default=False
        Whether `forward` goes through `torch.compile`.

    fixed_batch : int, default=None
        Number of rows that the network insists on.

    site : str, default=None
        Name of the inner tensor that is perturbed, None for the input.

    input_dtype : torch.dtype, default=None
        Type of inputs that are not those of the perturbation, such as tokens.

    reason : str, default=None
        Why no input gradients can be had; None if they can.

    watched : bool, default=False
        Whether `forward` may act as in training, which the first run is to show.

    Attributes
    ----------
    device : torch.device
        Where inputs are expected.

    dtype : torch.dtype
        Floating-point type of the perturbation: float32, or float64 where the weights
        are.

    input_dtype : torch.dtype
        Type that inputs are cast to, the same unless the network takes integers.

    differentiable : bool
        Whether input gradients can be had.
    """

    def __init__(
        self,
        forward,
        device,
        weight_dtype=torch.float32,
        *,
        output=None,
        precision=None,
        channels_last=False,
        compiled=False,
        fixed_batch=None,
        site=None,
        input_dtype=None,
        reason=None,
        watched=False,
    ):
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f"precision must be None, 'bf16' or 'fp16'; got {precision!r}."
            )
        self.device = torch.device(device)
        self.dtype = torch.float64 if weight_dtype == torch.float64 else torch.float32
        self.input_dtype = input_dtype or self.dtype
        self.differentiable = reason is None
        self.reason = reason
        self.fixed_batch = fixed_batch
        self.site = site
        self._module = forward
        self._watched = watched
        self._compiled = compiled
        # cuDNN differentiates recurrent layers in train mode only.
        self._avoids_cudnn = self.device.type == "cuda" and _is_recurrent(forward)
        self._forward = torch.compile(forward) if compiled else forward
        self._weight_dtype = weight_dtype
        self._output = output
        self._precision = PRECISIONS.get(precision)
        self._channels_last = channels_last

    def __call__(self, values):
        """Return the logits of a batch, of shape (n, K) with K at least 2.

        `values` are inputs, or a pair of inputs and a shift at the site. One column of
        log-odds z becomes the two columns (0, z).
        """
        return self._run(self._forward, values)

    def _run(self, forward, values, *, rounded=True):
        arguments = values if isinstance(values, tuple) else (values,)
        n_rows = arguments[0].shape[0]
        arguments = [self._prepare(argument) for argument in arguments]
        if self._watched:
            refuse_train_mode(self._module, *arguments)
            self._watched = False
        with contextlib.ExitStack() as stack:
            for context in self._contexts(rounded):
                stack.enter_context(context)
            result = pick_logits(forward(*arguments), self._output)
        return _as_logits(result, arguments[0].shape[0])[:n_rows]

    def _prepare(self, x):
        lacking = (self.fixed_batch or 0) - x.shape[0]
        if lacking > 0:
            x = torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])])
        if x.is_floating_point():
            x = x.to(self._weight_dtype)
        if self._channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _contexts(self, rounded):
        if rounded and self._precision is not None:
            yield torch.autocast(self.device.type, dtype=self._precision)
        if self._avoids_cudnn:
            yield torch.backends.cudnn.flags(enabled=False)

    def shifted(self, x, delta, bounds=None):
        """Return what the network takes for ``clip(x + delta)``, in new tensors."""
        if self.site is None:
            values = x + delta
            return values if bounds is None else values.clamp(*bounds)
        base = self.perturbed(x)
        if bounds is None:
            return x, delta.expand(base.shape)
        return x, (base + delta).clamp(*bounds) - base

    def perturbed(self, x):
        """Return the tensor of a batch that is perturbed: the inputs, or the site."""
        if self.site is None:
            return x
        with torch.no_grad():
            return self._module.site_values(self._prepare(x))[: x.shape[0]]

    def probe(self, inputs, n_classes=None, *, gradient=True):
        """Check the network on the first few of `inputs`; return its columns.

        With `gradient`, also that there is one by the inputs, where there should be.

        Raises
        ------
        ValueError
            If it refuses the inputs, gives no logits, NaN or another number of columns
            than `n_classes`, or hides its gradient.

        Warns
        -----
        UserWarning
            If it gives probabilities.
        """
        _, x = next(inputs.batches())
        x = x[:PROBE_ROWS]
        confirm = getattr(self._module, "confirm", None)
        if confirm is not None and not getattr(self._module, "is_confirmed", True):
            confirm(x)
        values = self.shifted(x, torch.zeros_like(self.perturbed(x[:1])[0]))
        try:
            with torch.no_grad():
                logits = self(values)
        except torch.cuda.OutOfMemoryError:
            raise
        except _FAULTS as error:
            raise self._refused(x, error) from error
        self._check_logits(logits.cpu().numpy(), n_classes)
        if gradient and self.differentiable:
            self._check_gradient(x)
            self._fold(values)
        return logits.shape[1]

    def _fold(self, values):
        """From here on run a leaner form of the network, if it has one."""
        if self._compiled or self._weight_dtype not in _FOLDED_DTYPES:
            return  # the compiler does so itself; few digits leave nothing to check by
        self._forward = fold_batch_norm(
            self._forward, lambda forward: self._run(forward, values, rounded=False)
        )

    def _refused(self, x, error):
        if self._takes_integers(x):
            return ValueError(
                "The network takes whole numbers, such as tokens, to which no "
                "perturbation can be added. Pass the part of the network behind its "
                "embedding as the model and the embedded inputs as X; for an ONNX "
                "model, name the embedding's output: site=..."
            )
        return ValueError(
            f"The network could not be run on a batch of shape {tuple(x.shape)} and "
            f"type {x.dtype}: {error}. Pass X in the shape and scale the network was "
            "trained on; bytes are cast, not rescaled."
        )

    def _takes_integers(self, x):
        try:
            with torch.no_grad():
                self._forward(x.long())
        except Exception:  # it refuses these too, in words of its own
            return False
        return True

    def _check_logits(self, logits, n_classes):
        refuse_nan(logits)
        if n_classes is not None and logits.shape[1] != n_classes:
            raise ValueError(
                f"The network has {logits.shape[1]} columns of logits for {n_classes} "
                "classes. It needs one column a class."
            )
        single = logits.shape[1] == 2 and not logits[:, 0].any()
        if are_proba(logits[:, 1:] if single else logits):
            warn(
                "The network's results look like probabilities, not logits: between 0 "
                "and 1, with rows that sum to 1. Remove the softmax or sigmoid at its "
                "end."
            )

    def _check_gradient(self, x):
        x = x[:2]
        delta = torch.zeros_like(self.perturbed(x[:1])[0], requires_grad=True)
        with torch.enable_grad():
            logits = self(self.shifted(x, delta))
        found = (None,)
        if logits.requires_grad:
            found = torch.autograd.grad(logits.sum(), delta, allow_unused=True)
        if found[0] is None:
            raise ValueError(
                "The network gives no gradient with respect to its inputs: its result "
                "is cut off from them (no_grad, detach, numpy or argmax inside?). "
                "Return logits computed by torch alone, or use "
                "solver='gradient_free'."
            )


def refuse_nan_gradient(gradient):
    """Raise a ValueError unless all numbers of a network's gradient are finite."""
    if not np.isfinite(gradient).all():
        raise ValueError(
            "The network's logits are finite but their gradient with respect to the "
            "inputs is not, as behind the square root or the norm of zeros, or where "
            "logits below 1e-37 make a loss too steep for single precision. Keep such "
            "an operation away from zero, scale the logits, or use "
            "solver='gradient_free'."
        )


def _as_logits(result, n_rows):
    trailing = result.shape[2:]
    if result.ndim == 0 or result.shape[0] != n_rows or any(d != 1 for d in trailing):
        raise ValueError(
            f"The network's result has shape {tuple(result.shape)} for {n_rows} rows "
            "of input; the logits of a classifier have a row a sample and a column a "
            "class. Say where they are: output=<name or position>."
        )
    if not result.is_floating_point():
        raise ValueError(
            f"The network's result has type {result.dtype}; logits are floating-point."
        )
    logits = result.reshape(n_rows, -1)
    if logits.dtype != torch.float64:
        logits = logits.float()
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def _is_recurrent(forward):
    if not isinstance(forward, torch.nn.Module):
        return False
    return any(isinstance(part, torch.nn.RNNBase) for part in forward.modules())
