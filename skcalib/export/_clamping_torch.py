"""NeuralClamping's networks in torch: calibrated whole, or written as ONNX."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from skcalib._networks._given import SharedByCopies
from skcalib._networks._module_copy import is_exported
from skcalib._networks._named import NamedRows, perturbed_name
from skcalib._networks._result import as_logits, pick_logits
from skcalib._networks._sharing import portable_scripts
from skcalib._networks._site import SiteModule
from skcalib._networks._torch import floating_types, frozen_view, run_module
from skcalib._onnx._in_torch import differentiable_network
from skcalib._onnx._outputs import own_row
from skcalib.clamping._change import Change
from skcalib.export._torch_operations import Calibration

_OPSET = 17


class ClampedNetwork(SharedByCopies, nn.Module):
    """Inputs to probabilities: filter and shift, clip, run the network, calibrate.

    With `at_site`, what is changed is the tensor at the site of an `OnnxModule` or a
    `SiteModule`; else of several inputs the one of the name `site`. `is_named` says
    that inputs came by name when it was fitted. The network stays in eval mode whatever
    mode the module is put in, and its parameters are not trained.
    """

    delta: Tensor
    kernel: Tensor | None
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        change: Change,
        feasible_range: tuple[Any, Any] | None,
        calibration: Calibration,
        *,
        at_site: bool = False,
        site: str | None = None,
        is_named: bool = False,
    ) -> None:
        super().__init__()
        low, high = (None, None) if feasible_range is None else feasible_range
        buffers = {"delta": change.delta, "kernel": change.kernel}
        for name, value in (buffers | {"low": low, "high": high}).items():
            tensor = None if value is None else _tensor(value)
            self.register_buffer(name, tensor)
        self.axis = change.axis
        self.network = network.requires_grad_(False)
        self.calibration = calibration
        self.at_site = at_site
        self.site = site
        self.is_named = is_named
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state, with TorchScript as the bytes of its file."""
        return portable_scripts(vars(self))

    def forward(self, x: Any = None, /, **named: Tensor) -> Tensor:
        """Map inputs of shape (n, ...) to probabilities of shape (n, n_classes).

        Several inputs come as keywords, one of which may be `x`, or as a mapping.
        """
        if not self.is_named and [*named] == ["x"]:
            x = named.pop("x")
        if named or isinstance(x, Mapping):
            x = NamedRows(named or x)
        proba: Tensor = self.calibration(as_logits(self.logits(x), x.shape[0]))
        return proba

    def logits(self, x: Any) -> Any:
        """Return the network's result for changed inputs, `NamedRows` if several."""
        if self.at_site:
            if self.kernel is None and self.low is None:
                return self.network(x, self.delta)
            values = self.network.site_values(x)  # type: ignore[operator]
            return self.network(x, self._shift(values) - values)
        if not isinstance(x, NamedRows):
            return self.network(self._shift(x).to(self._dtype()))
        name = perturbed_name(x, self.site)
        return self.network(
            NamedRows({**x, name: self._shift(x[name]).to(self._dtype())})
        )

    def train(self, mode: bool = True) -> "ClampedNetwork":
        """Set the mode; the network stays in eval mode."""
        self.training = mode
        self.calibration.train(mode)
        # Not by `eval`, which a graph of torch.export refuses.
        for part in self.network.modules():
            part.training = False
        return self

    def _shift(self, values: Tensor) -> Tensor:
        # A convolution, unlike a sum, takes inputs of the type of its weights only.
        values = values.to(torch.promote_types(values.dtype, self.delta.dtype))
        change = Change(self.delta, self.kernel, self.axis)
        values = values + change.map(lambda part: part.to(values.dtype))(values)
        if self.low is None or self.high is None:
            return values
        return torch.clamp(values, self.low, self.high)

    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(floating_types(self.network), self.delta.dtype)
        return dtype


class _Logits(nn.Module):
    """A network that returns nothing but its logits."""

    def __init__(self, network: nn.Module, output: str | int | None) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, x: Any, *shift: Tensor) -> Tensor:
        result = self.network(x, *shift) if shift else run_module(self.network, x)
        logits: Tensor = pick_logits(result, self.output)
        return logits

    def site_values(self, x: Any) -> Tensor:
        values: Tensor = self.network.site_values(x)  # type: ignore[operator]
        return values


class _Rows(nn.Module):
    """A network whose results have a row a sample, also of one sample."""

    def __init__(self, network: nn.Module, n_columns: int) -> None:
        super().__init__()
        self.network = network
        self.n_columns = n_columns

    def forward(self, *parts: Tensor) -> Tensor:
        logits: Tensor = self.network(*parts)
        return logits.reshape(-1, self.n_columns)


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def clamped_module(
    module: nn.Module, output: str | int | None, clamping: Any
) -> ClampedNetwork:
    """Return a torch network with both sides of a fitted NeuralClamping."""
    # A whole copy: moving or loading a view would reach the weights of the original.
    copied = frozen_view(module, "auto", own_weights=True)
    at_site = clamping.site in dict(copied.named_modules())
    if at_site:
        copied = SiteModule(copied, clamping.site)
    return _clamped(_Logits(copied, output), clamping, at_site=at_site)


def clamped_onnx(model: Any, output: str | None, clamping: Any) -> ClampedNetwork:
    """Return an ONNX network with both sides of a fitted NeuralClamping."""
    network = differentiable_network(model, output=output, site=clamping.site)
    at_site = clamping.site is not None or len(network.inputs) > 1
    return _clamped(network, clamping, at_site=at_site)


def _clamped(
    network: nn.Module, clamping: Any, *, at_site: bool = False
) -> ClampedNetwork:
    calibration = Calibration(clamping.calibration_map(), len(clamping.classes_))
    return ClampedNetwork(
        network,
        clamping.input_change(),
        clamping.feasible_range,
        calibration,
        at_site=at_site,
        site=clamping.site,
        is_named=clamping.input_names_ is not None,
    )


class _Changed(nn.Module):
    """The logits of changed inputs, which come one by one."""

    def __init__(self, clamped: ClampedNetwork, names: list[str] | None) -> None:
        super().__init__()
        self.clamped = clamped
        self.names = names

    def forward(self, *parts: Tensor) -> Any:
        if self.names is None:
            return self.clamped.logits(*parts)
        return self.clamped.logits(NamedRows(dict(zip(self.names, parts, strict=True))))


def export_network(
    module: nn.Module, output: str | int | None, input_shape: tuple[int, ...]
) -> bytes:
    """Write a network as ONNX, from ``input`` to ``probabilities``, its logits so far.

    A network in half precision is written in single precision, and so is one in double
    precision that convolves, which onnxruntime cannot do with doubles.
    """
    network, real = _as_written(module)
    example = torch.zeros(2, *input_shape, dtype=real)
    return _trace(_Logits(network, output).eval(), {"input": example}, module)


def export_clamped(module: nn.Module, output: str | int | None, clamping: Any) -> bytes:
    """Write a network with the input side of a NeuralClamping in it, as ONNX.

    For one that is perturbed at a site, or at one of several inputs: from these to
    ``probabilities``, its logits so far.
    """
    network, real = _as_written(module)
    clamped = clamped_module(network, output, clamping)
    example = {}
    for name, (kind, shape) in zip(
        clamping.input_names_ or ["input"], clamping.input_types_, strict=True
    ):
        dtype = getattr(torch, kind)
        # Tokens that are there, and masks that hide nothing.
        example[name] = torch.ones(
            2, *shape, dtype=real if dtype.is_floating_point else dtype
        )
    return _trace(_Changed(clamped, clamping.input_names_), example, module)


def _as_written(module: nn.Module) -> tuple[nn.Module, torch.dtype]:
    """Return a network in a precision that onnxruntime runs, and that of its inputs."""
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) or is_exported(part):
            raise ValueError(
                "The network is, or holds, a module of TorchScript or torch.export, "
                "which cannot be written as ONNX: pass the module that it was made of, "
                "or the file that torch.onnx.export made of that one, as the model: "
                "calibrate_onnx_model(model, neural_clamping)."
            )
    network = frozen_view(module, "cpu")
    floating = set(floating_types(network))
    wide = torch.float64 in floating
    if floating & {torch.float16, torch.bfloat16} or (wide and _convolves(network)):
        network = frozen_view(network, "cpu", own_weights=True).float()
        wide = False
    return network, torch.float64 if wide else torch.float32


def _convolves(network: nn.Module) -> bool:
    return any(isinstance(part, _ConvNd) for part in network.modules())


@contextlib.contextmanager
def _attention_in_operators() -> Iterator[None]:
    """Keep torch from fusing attention into an operator that ONNX lacks."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _trace(network: nn.Module, example: dict[str, Tensor], module: nn.Module) -> bytes:
    """Write a network that is run on `example` by the exporter that traces one run."""
    try:
        with torch.no_grad():
            row = network(*(part[:1] for part in example.values()))
        if own_row(row, 1) is not row:
            network = _Rows(network, row.numel()).eval()
        return _written(network, example)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"torch could not write {type(module).__name__} as an ONNX model: {error}. "
            "Write it yourself and pass the result: "
            "calibrate_onnx_model(model, neural_clamping)."
        ) from error


def _written(network: nn.Module, example: dict[str, Tensor]) -> bytes:
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        _attention_in_operators(),
    ):
        # Of its own deprecation, and of every length that it takes as constant: the
        # model is run with another batch size before it is handed out.
        warnings.simplefilter("ignore")
        target = Path(folder, "network.onnx")
        torch.onnx.export(
            network,
            tuple(example.values()),
            target,
            opset_version=_OPSET,
            dynamo=False,
            input_names=[*example],
            output_names=["probabilities"],
            dynamic_axes={name: {0: "batch"} for name in (*example, "probabilities")},
        )
        return target.read_bytes()
