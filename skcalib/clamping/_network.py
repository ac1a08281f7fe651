"""Frozen networks of all kinds behind one call: inputs on the device to logits."""

import contextlib
import os
import warnings

import numpy as np
import torch

from skcalib._backends._outputs import are_proba
from skcalib._backends._torch import _pick, frozen_view, module_device
from skcalib.exceptions import ModelFormatError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Network:
    """A frozen network on a device.

    Attributes
    ----------
    device : torch.device
        Where inputs are expected.

    dtype : torch.dtype
        Floating-point type of the inputs.

    differentiable : bool
        Whether input gradients can be had; if not, `reason` says why.

    fixed_batch : int or None
        The number of rows that the network insists on.
    """

    def __init__(
        self,
        forward,
        device,
        dtype=torch.float32,
        *,
        output=None,
        precision=None,
        channels_last=False,
        compiled=False,
        fixed_batch=None,
        reason=None,
    ):
        self.device = torch.device(device)
        self.dtype = dtype
        self.differentiable = reason is None
        self.reason = reason
        self.fixed_batch = fixed_batch
        self._forward = torch.compile(forward) if compiled else forward
        self._output = output
        self._precision = PRECISIONS.get(precision)
        self._channels_last = channels_last

    def __call__(self, x):
        """Return the logits of a batch, of shape (n, K) with K at least 2.

        One column of log-odds z becomes the two columns (0, z).
        """
        n_rows = x.shape[0]
        if self.fixed_batch is not None and n_rows < self.fixed_batch:
            x = torch.cat([x, x[-1:].expand(self.fixed_batch - n_rows, *x.shape[1:])])
        if self._channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            result = _pick(self._forward(x), self._output)
        return _as_logits(result, x.shape[0])[:n_rows]

    def _autocast(self):
        if self._precision is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._precision)

    def probe(self, inputs, n_classes=None):
        """Check the network on the first batch of `inputs`; return its columns."""
        _, x = next(inputs.batches())
        x = x + 0
        try:
            with torch.no_grad():
                logits = self(x)
        except (RuntimeError, TypeError, IndexError) as error:
            raise self._refused(x, inputs, error) from error
        self._check_logits(logits.cpu().numpy(), n_classes)
        if self.differentiable:
            self._check_gradient(x)
        return logits.shape[1]

    def _refused(self, x, inputs, error):
        return ValueError(
            f"The network could not be run on a batch of shape {tuple(x.shape)} and "
            f"type {x.dtype}: {error}. Pass X in the shape and scale the network was "
            "trained on."
        )

    def _check_logits(self, logits, n_classes):
        refuse_nan(logits)
        if n_classes is not None and logits.shape[1] != n_classes:
            raise ValueError(
                f"The network has {logits.shape[1]} columns of logits for {n_classes} "
                "classes. It needs one column a class."
            )
        if are_proba(logits):
            warnings.warn(
                "The network's results are non-negative and sum to 1: probabilities, "
                "not logits. Remove the softmax at its end.",
                UserWarning,
                stacklevel=4,
            )

    def _check_gradient(self, x):
        x = x[:2].detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = self(x * 1)
            if not logits.requires_grad:
                raise ValueError(
                    "The network gives no gradient with respect to its inputs: its "
                    "result is detached from them (no_grad, detach, numpy or argmax "
                    "inside?). Return logits computed by torch alone, or use "
                    "solver='gradient_free'."
                )


def refuse_nan(logits, rows=None):
    """Raise a ValueError that names the first row of `logits` that is not finite."""
    finite = np.isfinite(logits).all(axis=1)
    if finite.all():
        return
    row = int(np.argmin(finite))
    name = row if rows is None else int(rows[row])
    raise ValueError(
        f"The network gave {logits[row][~np.isfinite(logits[row])][0]} for row {name} "
        f"of X ({(~finite).sum()} of {len(finite)} rows are not finite). Check that X "
        "is scaled as in training and holds no NaN."
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


def open_network(
    model,
    *,
    device="auto",
    output=None,
    site=None,
    precision=None,
    channels_last=False,
    compile=False,  # noqa: A002
):
    """Open a network of any kind that `NeuralClamping` takes.

    Returns
    -------
    network : Network
    """
    if hasattr(model, "_network"):  # TorchLogits, OnnxLogits
        output = model.output if output is None else output
        if device == "auto":
            device = getattr(model, "device", "auto")
        model = getattr(model, model._network)
    options = {
        "precision": precision,
        "channels_last": channels_last,
        "compiled": compile,
    }
    if _is_onnx(model):
        return _open_onnx(model, device, output, site, options)
    if isinstance(model, torch.nn.Module):
        return _open_module(model, device, output, options)
    if not callable(model):
        raise TypeError(
            "The model must be a torch.nn.Module, TorchLogits, OnnxLogits, a path, "
            "bytes or onnx.ModelProto of an ONNX model, or a callable; got "
            f"{type(model).__name__}."
        )
    device = "cpu" if device == "auto" else device
    return Network(model, device, output=output, **options)


def _is_onnx(model):
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(model, kinds) or hasattr(model, "SerializeToString")


def _open_module(module, device, output, options, fixed_batch=None):
    view = frozen_view(module, str(device))
    if options["channels_last"]:
        view = view.to(memory_format=torch.channels_last)
    floating = (p.dtype for p in view.parameters() if p.is_floating_point())
    return Network(
        view,
        module_device(view),
        next(floating, torch.float32),
        output=output,
        fixed_batch=fixed_batch,
        **options,
    )


def _open_onnx(model, device, output, site, options):
    from skcalib._backends._onnx_torch import differentiable_network

    if isinstance(model, str | os.PathLike) and str(model).endswith((".pt", ".pth")):
        raise ModelFormatError(
            f"{os.fspath(model)!r} looks like a pickle of torch, whose reading could "
            "execute code. Load it yourself with torch.load(..., weights_only=True) "
            "and pass the module."
        )
    module = differentiable_network(model, output=output, site=site)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return _open_module(module, device, None, options)
