"""Frozen networks of all kinds behind one call: inputs on the device to logits."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skcalib._networks._folding import fold_batch_norm
from skcalib._networks._given import Given
from skcalib._networks._named import NamedRows, each, perturbed_name
from skcalib._networks._onnx import SessionLogits, confirm_once, convert
from skcalib._networks._processes import Processes
from skcalib._networks._result import as_logits, pick_logits
from skcalib._networks._site import SiteModule
from skcalib._networks._torch import (
    checked_device,
    describe,
    floating_types,
    frozen_view,
    module_device,
    run_module,
)
from skcalib._networks._train_mode import modules_behind, refuse_train_mode
from skcalib._onnx._inputs import fixed_batch
from skcalib._onnx._outputs import refuse_nan, warn_of_proba
from skcalib._onnx._session import open_onnx
from skcalib.exceptions import NotDifferentiableError

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
        Takes a tensor of inputs, or several by name, and gives logits. One that has
        `site_values` takes a shift at its site as a second argument.

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
        Name of the inner tensor, or of the one of several inputs, that is perturbed;
        None for the input, or for the only one that holds real numbers.

    reason : str, default=None
        Why no input gradients can be had; None if they can.

    watched : bool, default=False
        Whether `forward` may act as in training, which the first run is to show.

    confirm : callable, default=None
        Takes a few inputs and raises where `forward` is not what it stands for.

    processes : Processes, default=None
        Those among which passes are shared out.

    Attributes
    ----------
    device : torch.device
        Where inputs are expected.

    dtype : torch.dtype
        Floating-point type of the perturbation: float32, or float64 where the weights
        are.

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
        reason: str | None = None,
        watched: bool = False,
        confirm: Callable[[Tensor], None] | None = None,
        processes: Processes | None = None,
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(
                f"precision must be None, 'bf16' or 'fp16'; got {precision!r}."
            )
        self.device = torch.device(device)
        self.dtype = torch.float64 if weight_dtype == torch.float64 else torch.float32
        self.differentiable = reason is None
        self.reason = reason
        self.fixed_batch = fixed_batch
        self.site = site
        self._module: Any = forward
        self._is_inner = site is not None and hasattr(forward, "site_values")
        self._confirm = confirm
        self.processes = processes if fixed_batch is None else None
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
        given = values if isinstance(values, tuple) else (values,)
        n_rows, processes = given[0].shape[0], self.processes
        part = None if processes is None else processes.part(n_rows)
        if processes is None or part is None:
            return self._run(self._forward, given)
        own = tuple(argument[part] for argument in given)
        return processes.gather(self._run(self._forward, own), n_rows)

    def _run(self, forward: Any, values: Any, *, rounded: bool = True) -> Tensor:
        given = values if isinstance(values, tuple) else (values,)
        n_rows = given[0].shape[0]
        arguments = [each(self._prepare, argument) for argument in given]
        if self._watched:
            refuse_train_mode(partial(self._pass, self._module), *arguments)
            self._watched = False
        with contextlib.ExitStack() as stack:
            for context in self._contexts(rounded):
                stack.enter_context(context)
            result = pick_logits(self._pass(forward, *arguments), self._output)
        logits: Tensor = as_logits(result, arguments[0].shape[0])
        return logits[:n_rows]

    def _pass(self, forward: Any, *arguments: Any) -> Any:
        if hasattr(self._module, "site_values"):  # it reads names itself
            return forward(*arguments)
        return run_module(forward, *arguments)

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

    def shifted(self, x: Any, delta: Tensor, bounds: Any = None) -> Any:
        """Return what the network takes for ``clip(x + delta)``, in new tensors."""
        if self.processes is not None:
            delta = self.processes.sum_gradient(delta, x.shape[0])
        if not self._is_inner:
            seen = self.perturbed(x)
            values = seen + delta
            values = values if bounds is None else values.clamp(*bounds)
            if seen is x:
                return values
            name = self._input(x)
            # The network may work in place, and the other inputs are the user's.
            return NamedRows(
                {k: values if k == name else v.clone() for k, v in x.items()}
            )
        if bounds is None and self.fixed_batch is None and self.processes is None:
            return x, delta
        base = self.perturbed(x)
        if bounds is None:
            return x, delta.expand(base.shape)
        return x, (base + delta).clamp(*bounds) - base

    def perturbed(self, x: Any) -> Tensor:
        """Return the tensor of a batch that is perturbed: the inputs, or the site."""
        if not self._is_inner:
            named = isinstance(x, NamedRows) or self.site is not None
            values: Tensor = x[self._input(x)] if named else x
            return values
        prepared = each(self._prepare, x)
        with torch.no_grad():
            values = self._module.site_values(prepared)
        if values.shape[:1] != prepared.shape[:1] or not values.is_floating_point():
            raise ValueError(
                f"What is at the site {self.site!r} has shape {tuple(values.shape)} "
                f"and type {values.dtype} for {x.shape[0]} rows; a perturbation needs "
                "real numbers, and rows along the first axis. Name another: site=..."
            )
        return values[: x.shape[0]].to(self.dtype)

    def _input(self, x: Any) -> str:
        """Return which of several inputs is perturbed."""
        named = isinstance(x, NamedRows)
        if named and (self.site is None or self.site in x):
            return perturbed_name(x, self.site)
        parts: list[str] = [*dict(getattr(self._module, "named_modules", dict)())][1:]
        raise ValueError(
            f"site={self.site!r} is neither an input nor a part of the network. The "
            f"inputs are {[*x] if named else 'a single one without a name'}; the parts "
            f"are {', '.join(parts[:8]) or 'none'}{', ...' * (len(parts) > 8)}."
        )

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
        if self._is_inner:
            return  # a layer that was replaced would no longer be shifted
        self._forward = fold_batch_norm(
            self._forward, lambda forward: self._run(forward, values, rounded=False)
        )

    def _refused(self, x: Any, error: Exception) -> ValueError:
        if self._takes_integers(x):
            return ValueError(
                "The network takes whole numbers, such as tokens, to which no "
                "perturbation can be added. Name the embedding, to whose result it "
                f"can, such as site={self._embedding()!r}. For a function, pass the "
                "part of the network behind it as the model and what is embedded as X."
            )
        return ValueError(
            f"The network could not be run on {describe(x)}: {error}. Pass X in the "
            "shape and scale the network was trained on; bytes are cast, not rescaled."
        )

    def _embedding(self) -> str:
        kinds = torch.nn.Embedding, torch.nn.EmbeddingBag
        parts: dict[str, Any] = dict(getattr(self._module, "named_modules", dict)())
        names = (name for name, part in parts.items() if isinstance(part, kinds))
        return next(names, "...")

    def _takes_integers(self, x: Any) -> bool:
        if isinstance(x, NamedRows) or self.site is not None:
            return False  # which have not been cast
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
        warn_of_proba(logits[:, 1:] if single else logits)

    def _check_gradient(self, x: Any) -> None:
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
                "NeuralClamping(solver='gradient_free') without a preset."
            )


def refuse_nan_gradient(gradient: NDArray[Any]) -> None:
    """Raise a ValueError unless all numbers of a network's gradient are finite."""
    if not np.isfinite(gradient).all():
        raise ValueError(
            "The network's logits are finite but their gradient with respect to the "
            "inputs is not, as behind the square root or the norm of zeros, or where "
            "logits below 1e-37 make a loss too steep for single precision. Keep such "
            "an operation away from zero, scale the logits, or use "
            "NeuralClamping(solver='gradient_free') without a preset."
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
    distributed: bool = False,
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

    device : str or torch.device, default="auto"
        Where to run. "auto" is where a module lies, a GPU for an ONNX model if there
        is one, and for a callable where the first module lies that it closes over, or
        else the CPU. Elsewhere takes a copy of a module.

    output : str or int, default=None
        Where the logits are in the network's result.

    site : str, default=None
        What is perturbed in the place of the input: an inner tensor of an ONNX model,
        the result of a part of a torch module, or one of several inputs.

    precision : {"bf16", "fp16"}, default=None
        Type of the heavy operators; sums and perturbation stay as they are.

    channels_last : bool, default=False
        Whether images have their channels innermost in memory.

    compile : bool, default=False
        Whether the network goes through `torch.compile`.

    distributed : bool, default=False
        Whether passes are shared out among the processes of torch.distributed.

    Returns
    -------
    network : Network
        The frozen network.
    """
    given = Given.of(model, output)
    device = given.device if str(device) == "auto" else device
    if str(device) != "auto":
        checked_device(device)
    options: dict[str, Any] = {
        "precision": precision,
        "channels_last": channels_last,
        "compiled": compile,
        "processes": Processes() if distributed else None,
    }
    if given.kind == "onnx":
        return _open_onnx(given, device, site, options)
    options["site"] = site
    if given.kind == "module":
        return _open_module(given, device, options)
    forward = given.model
    if not callable(forward):
        raise TypeError(
            "The model must be a torch.nn.Module, TorchLogits, OnnxLogits, a path, "
            "bytes or onnx.ModelProto of an ONNX model, or a callable; got "
            f"{type(forward).__name__}."
        )
    modules, is_compiled = modules_behind(forward)
    if str(device) == "auto":
        places = (
            module_device(m) for m in modules if any(True for _ in m.parameters())
        )
        device = next(places, "cpu")
    return Network(
        forward, device, output=given.output, watched=not is_compiled, **options
    )


def _open_module(given: Given, device: Any, options: dict[str, Any]) -> Network:
    view = frozen_view(given.model, str(device))
    if options["channels_last"]:
        view = view.to(memory_format=torch.channels_last)
    dtype = next(floating_types(view), torch.float32)
    device = module_device(view) if str(device) == "auto" else device
    site, output = options["site"], given.output
    if site is not None and site in dict(view.named_modules()):
        view = SiteModule(view, site)
    return Network(view, device, dtype, output=output, watched=True, **options)


def _open_onnx(
    given: Given, device: Any, site: str | None, options: dict[str, Any]
) -> Network:
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, reason = convert(given, site, device)
    if module is None:
        session = open_onnx(given.model, given.output, given.providers)
        real = [spec.name for spec in session.inputs if spec.dtype.kind == "f"]
        if site not in (None, *real) or (site is None and len(real) != 1):
            # There is nothing, or not one thing, that could be perturbed.
            raise NotDifferentiableError(reason)
        return Network(
            SessionLogits(session),
            "cpu",
            fixed_batch=fixed_batch(session.inputs),
            site=site,
            reason=reason,
        )
    return Network(
        module,
        device,
        fixed_batch=module.fixed_batch,
        site=module.site if len(module.inputs) > 1 else site,
        confirm=partial(confirm_once, module),
        **options,
    )
