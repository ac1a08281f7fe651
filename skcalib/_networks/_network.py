"""Frozen networks of all kinds behind one call: inputs on the device to logits."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skcalib._networks._folding import fold_batch_norm
from skcalib._networks._given import Given
from skcalib._networks._torch import (
    as_logits,
    checked_device,
    frozen_view,
    module_device,
    pick_logits,
)
from skcalib._networks._train_mode import (
    refuse_compiled_in_train_mode,
    refuse_train_mode,
)
from skcalib._onnx._files import open_source
from skcalib._onnx._outputs import are_proba, refuse_nan
from skcalib._onnx._readout import Readout
from skcalib._onnx._recent import Recent
from skcalib._onnx._session import OnnxNetwork, open_onnx
from skcalib._warnings import warn
from skcalib.exceptions import NotDifferentiableError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FAULTS = (RuntimeError, TypeError, IndexError)
# Of weights that have digits to spare for a change.
_FOLDED_DTYPES = (torch.float32, torch.float64)
# Rows on which a network is tried out.
PROBE_ROWS = 16
# Converted ONNX networks, the last few used: converting one and confirming its gradient
# costs far more than a batch. They hold no state, so that all may share them.
_converted = Recent(4)


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

    confirm : callable, default=None
        Takes a few inputs and raises where `forward` is not what it stands for.

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
        forward: Callable[..., Any],
        device: str | torch.device,
        weight_dtype: torch.dtype = torch.float32,
        *,
        output: str | int | None = None,
        precision: str | None = None,
        channels_last: bool = False,
        compiled: bool = False,
        fixed_batch: int | None = None,
        site: str | None = None,
        input_dtype: torch.dtype | None = None,
        reason: str | None = None,
        watched: bool = False,
        confirm: Callable[[Tensor], None] | None = None,
    ) -> None:
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
        self._module: Any = forward
        self._confirm = confirm
        self._watched = watched
        self._compiled = compiled
        # cuDNN differentiates recurrent layers in train mode only.
        self._avoids_cudnn = self.device.type == "cuda" and _is_recurrent(forward)
        self._forward: Any = torch.compile(forward) if compiled else forward
        self._weight_dtype = weight_dtype
        self._output = output
        self._precision = None if precision is None else PRECISIONS[precision]
        self._channels_last = channels_last

    def __call__(self, values: Any) -> Tensor:
        """Return the logits of a batch, of shape (n, K) with K at least 2.

        `values` are inputs, or a pair of inputs and a shift at the site. One column of
        log-odds z becomes the two columns (0, z).
        """
        return self._run(self._forward, values)

    def _run(self, forward: Any, values: Any, *, rounded: bool = True) -> Tensor:
        given = values if isinstance(values, tuple) else (values,)
        n_rows = given[0].shape[0]
        arguments = [self._prepare(argument) for argument in given]
        if self._watched:
            refuse_train_mode(self._module, *arguments)
            self._watched = False
        with contextlib.ExitStack() as stack:
            for context in self._contexts(rounded):
                stack.enter_context(context)
            result = pick_logits(forward(*arguments), self._output)
        logits: Tensor = as_logits(result, arguments[0].shape[0])
        return logits[:n_rows]

    def _prepare(self, x: Tensor) -> Tensor:
        lacking = (self.fixed_batch or 0) - x.shape[0]
        if lacking > 0:
            x = torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])])
        if x.is_floating_point():
            x = x.to(self._weight_dtype)
        if self._channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _contexts(self, rounded: bool) -> Iterator[Any]:
        if rounded and self._precision is not None:
            yield torch.autocast(self.device.type, dtype=self._precision)
        if self._avoids_cudnn:
            yield torch.backends.cudnn.flags(enabled=False)

    def shifted(self, x: Tensor, delta: Tensor, bounds: Any = None) -> Any:
        """Return what the network takes for ``clip(x + delta)``, in new tensors."""
        if self.site is None:
            values = x + delta
            return values if bounds is None else values.clamp(*bounds)
        base = self.perturbed(x)
        if bounds is None:
            return x, delta.expand(base.shape)
        return x, (base + delta).clamp(*bounds) - base

    def perturbed(self, x: Tensor) -> Tensor:
        """Return the tensor of a batch that is perturbed: the inputs, or the site."""
        if self.site is None:
            return x
        with torch.no_grad():
            values: Tensor = self._module.site_values(self._prepare(x))
        return values[: x.shape[0]]

    def probe(
        self, inputs: Any, n_classes: int | None = None, *, gradient: bool = True
    ) -> int:
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
        if self._confirm is not None:
            self._confirm(x)
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

    def _fold(self, values: Any) -> None:
        """From here on run a leaner form of the network, if it has one."""
        if self._compiled or self._weight_dtype not in _FOLDED_DTYPES:
            return  # the compiler does so itself; few digits leave nothing to check by
        self._forward = fold_batch_norm(
            self._forward, lambda forward: self._run(forward, values, rounded=False)
        )

    def _refused(self, x: Tensor, error: Exception) -> ValueError:
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

    def _takes_integers(self, x: Tensor) -> bool:
        try:
            with torch.no_grad():
                self._forward(x.long())
        except Exception:  # it refuses these too, in words of its own
            return False
        return True

    def _check_logits(self, logits: NDArray[Any], n_classes: int | None) -> None:
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

    def _check_gradient(self, x: Tensor) -> None:
        x = x[:2]
        delta = torch.zeros_like(self.perturbed(x[:1])[0], requires_grad=True)
        with torch.enable_grad():
            logits = self(self.shifted(x, delta))
        found: tuple[Tensor | None, ...] = (None,)
        if logits.requires_grad:
            found = torch.autograd.grad(logits.sum(), delta, allow_unused=True)
        if found[0] is None:
            raise ValueError(
                "The network gives no gradient with respect to its inputs: its result "
                "is cut off from them (no_grad, detach, numpy or argmax inside?). "
                "Return logits computed by torch alone, or use "
                "solver='gradient_free'."
            )


def refuse_nan_gradient(gradient: NDArray[Any]) -> None:
    """Raise a ValueError unless all numbers of a network's gradient are finite."""
    if not np.isfinite(gradient).all():
        raise ValueError(
            "The network's logits are finite but their gradient with respect to the "
            "inputs is not, as behind the square root or the norm of zeros, or where "
            "logits below 1e-37 make a loss too steep for single precision. Keep such "
            "an operation away from zero, scale the logits, or use "
            "solver='gradient_free'."
        )


def _is_recurrent(forward: Any) -> bool:
    if not isinstance(forward, torch.nn.Module):
        return False
    return any(isinstance(part, torch.nn.RNNBase) for part in forward.modules())


def open_network(
    model: Any,
    *,
    device: Any = "auto",
    output: str | int | None = None,
    site: str | None = None,
    precision: str | None = None,
    channels_last: bool = False,
    compile: bool = False,  # noqa: A002
) -> Network:
    """Open a network of any kind that `NeuralClamping` takes.

    A module runs on a view of itself in eval mode that shares its weights, whatever
    its own mode is: BatchNorm and dropout act as at inference, and nothing of the
    module is changed. A callable is run as it is, and refused where a module behind
    it acts as in training. An ONNX model whose gradient cannot be had is opened for
    forward passes alone: `differentiable` is False and `reason` says why.

    Parameters
    ----------
    model : torch.nn.Module, TorchLogits, OnnxLogits, path, bytes, ModelProto, callable
        The network.

    device : str, default="auto"
        Where to run. "auto" is where a module lies, a GPU for an ONNX model if there
        is one, and the CPU for a callable. Elsewhere takes a copy of a module.

    output : str or int, default=None
        Where the logits are in the network's result.

    site : str, default=None
        Inner tensor of an ONNX model that is perturbed in the place of its input.

    precision : {"bf16", "fp16"}, default=None
        Type of the heavy operators; sums and perturbation stay as they are.

    channels_last : bool, default=False
        Whether images have their channels innermost in memory.

    compile : bool, default=False
        Whether the network goes through `torch.compile`.

    Returns
    -------
    network : Network
        The frozen network.
    """
    given = Given.of(model, output)
    device = given.device if device == "auto" else device
    if str(device) != "auto":
        checked_device(device)
    options: dict[str, Any] = {
        "precision": precision,
        "channels_last": channels_last,
        "compiled": compile,
    }
    if given.kind == "onnx":
        return _open_onnx(given, device, site, options)
    if site is not None:
        raise ValueError(
            f"site={site!r} names a tensor inside an ONNX model. For a torch module, "
            "pass the part behind that tensor as the model, and its values as X."
        )
    if given.kind == "module":
        return _open_module(given, device, options)
    forward = given.model
    if not callable(forward):
        raise TypeError(
            "The model must be a torch.nn.Module, TorchLogits, OnnxLogits, a path, "
            "bytes or onnx.ModelProto of an ONNX model, or a callable; got "
            f"{type(forward).__name__}."
        )
    device = "cpu" if device == "auto" else device
    watched = not refuse_compiled_in_train_mode(forward)
    return Network(forward, device, output=given.output, watched=watched, **options)


def _open_module(given: Given, device: Any, options: dict[str, Any]) -> Network:
    view = frozen_view(given.model, str(device))
    if options["channels_last"]:
        view = view.to(memory_format=torch.channels_last)
    floating = (p.dtype for p in view.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    device = module_device(view) if str(device) == "auto" else device
    output = given.output
    return Network(view, device, dtype, output=output, watched=True, **options)


def _open_onnx(
    given: Given, device: Any, site: str | None, options: dict[str, Any]
) -> Network:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, reason = _convert(given, site, device)
    if module is None:
        session = open_onnx(given.model, given.output, given.providers)
        if site is not None or [spec.dtype.kind for spec in session.inputs] != ["f"]:
            # There is nothing, or not one thing, that could be perturbed.
            raise NotDifferentiableError(reason)
        return _forward_only(session, reason)
    return Network(
        module,
        device,
        fixed_batch=module.fixed_batch,
        site=site,
        input_dtype=_integer_type(module.input_dtype),
        confirm=partial(_confirm, module),
        **options,
    )


def _confirm(module: Any, x: Tensor) -> None:
    """Compare a converted network with the original, unless that has been done."""
    from skcalib._onnx._in_torch import confirm

    if not module.is_confirmed:
        confirm(module, x)


def _convert(given: Given, site: str | None, device: Any) -> tuple[Any, str | None]:
    """Return ``(module, None)``, or ``(None, reason)`` where there is no gradient."""
    from skcalib._onnx._in_torch import differentiable_network

    def convert() -> tuple[Any, str | None]:
        try:
            module = differentiable_network(given.model, given.output, site)
        except NotDifferentiableError as error:
            return None, str(error)
        return module.to(device).eval(), None

    key = (os.getpid(), open_source(given.model), given.output, site, str(device))
    found: tuple[Any, str | None] = _converted.get(key, convert)
    return found


def _integer_type(dtype: np.dtype[Any]) -> torch.dtype | None:
    """Return the torch type of inputs of integers, None where they are real."""
    return None if dtype.kind == "f" else torch.from_numpy(np.empty(0, dtype)).dtype


class _Session:
    """Logits by onnxruntime, on the CPU, without gradients."""

    def __init__(self, session: OnnxNetwork) -> None:
        self._session = session
        self._readout: Readout | None = None

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.numpy()
        if self._readout is None:
            self._readout = self._session.confirm(rows, rows.shape[0])
        (logits,) = self._session.logits(rows, rows.shape[0], self._readout)
        return torch.from_numpy(logits)


def _forward_only(session: OnnxNetwork, reason: str | None) -> Network:
    fixed = session.inputs[0].fixed_batch
    return Network(_Session(session), "cpu", fixed_batch=fixed, reason=reason)
