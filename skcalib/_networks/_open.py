"""Opening what the user calls a model: a module, an ONNX file, a callable."""

import os

import numpy as np
import torch

from skcalib._networks._network import Network
from skcalib._networks._torch import checked_device, frozen_view, module_device
from skcalib._networks._train_mode import refuse_compiled_in_train_mode
from skcalib._onnx._files import is_onnx_model, open_source
from skcalib._onnx._recent import Recent
from skcalib._onnx._session import open_network as open_session
from skcalib.exceptions import NotDifferentiableError

# Converted ONNX networks, the last few used: converting one and confirming its gradient
# costs far more than a batch. They hold no state, so that all may share them.
_converted = Recent(4)


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
    providers = None
    if isinstance(getattr(model, "_network", None), str):  # TorchLogits, OnnxLogits
        output = model.output if output is None else output
        providers = getattr(model, "providers", None)
        if device == "auto":
            device = getattr(model, "device", "auto")
        model = getattr(model, model._network)
    if str(device) != "auto":
        checked_device(device)
    options = {
        "precision": precision,
        "channels_last": channels_last,
        "compiled": compile,
    }
    if is_onnx_model(model):
        return _open_onnx(model, device, output, site, providers, options)
    if site is not None:
        raise ValueError(
            f"site={site!r} names a tensor inside an ONNX model. For a torch module, "
            "pass the part behind that tensor as the model, and its values as X."
        )
    if isinstance(model, torch.nn.Module):
        return _open_module(model, device, output, options)
    if not callable(model):
        raise TypeError(
            "The model must be a torch.nn.Module, TorchLogits, OnnxLogits, a path, "
            "bytes or onnx.ModelProto of an ONNX model, or a callable; got "
            f"{type(model).__name__}."
        )
    device = "cpu" if device == "auto" else device
    watched = not refuse_compiled_in_train_mode(model)
    return Network(model, device, output=output, watched=watched, **options)


def _open_module(module, device, output, options):
    view = frozen_view(module, str(device))
    if options["channels_last"]:
        view = view.to(memory_format=torch.channels_last)
    floating = (p.dtype for p in view.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    device = module_device(view) if str(device) == "auto" else device
    return Network(view, device, dtype, output=output, watched=True, **options)


def _open_onnx(model, device, output, site, providers, options):
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, reason = _convert(model, output, site, device)
    if module is None:
        session = open_session(model, output, providers)
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
        **options,
    )


def _convert(model, output, site, device):
    """Return ``(module, None)``, or ``(None, reason)`` where there is no gradient."""
    from skcalib._onnx._in_torch import differentiable_network

    def convert():
        try:
            module = differentiable_network(model, output=output, site=site)
        except NotDifferentiableError as error:
            return None, str(error)
        return module.to(device).eval(), None

    key = (os.getpid(), open_source(model), output, site, str(device))
    return _converted.get(key, convert)


def _integer_type(dtype):
    """Return the torch type of inputs of integers, None where they are real."""
    return None if dtype.kind == "f" else torch.from_numpy(np.empty(0, dtype)).dtype


class _Session:
    """Logits by onnxruntime, on the CPU, without gradients."""

    def __init__(self, session):
        self._session = session
        self._readout = None

    def __call__(self, x):
        rows = x.numpy()
        if self._readout is None:
            self._readout = self._session.confirm(rows, rows.shape[0])
        (logits,) = self._session.logits(rows, rows.shape[0], self._readout)
        return torch.from_numpy(logits)


def _forward_only(session, reason):
    fixed = session.inputs[0].fixed_batch
    return Network(_Session(session), "cpu", fixed_batch=fixed, reason=reason)
