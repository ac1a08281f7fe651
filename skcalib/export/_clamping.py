"""NeuralClamping for deployment: its network, its two sides, and a last check."""

import importlib
import os
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skcalib._backends._onnx import open_network, open_session
from skcalib._backends._onnx_files import (
    ModelSource,
    inline_outside_data,
    open_source,
    parse_model,
)
from skcalib._backends._onnx_inputs import InputSpec, probe_inputs
from skcalib._backends._onnx_readout import Readout, find_readout
from skcalib._backends._torch import is_module
from skcalib._maps import CalibrationMap
from skcalib._optional import import_optional
from skcalib.export._perturb import network_input, perturb_tensor
from skcalib.export._record import record
from skcalib.export._surgery import Surgery
from skcalib.export._verify import largest_difference
from skcalib.frozen import OnnxLogits, TorchLogits

# Differences to Python in a probability. Above the first a warning is due, above the
# others the model is not what was fitted: written by torch from single precision, or
# of another precision somewhere.
_LARGEST_EXPECTED, _LARGEST_EXPORTED, _LARGEST_PLAUSIBLE = 1e-3, 1e-2, 0.1


def perturbs_inputs(estimator: Any) -> bool:
    """Whether `estimator` is a NeuralClamping, told without importing torch."""
    return hasattr(estimator, "delta_") or hasattr(estimator, "feasible_range")


@dataclass(frozen=True)
class ClampedModel:
    """The network of a NeuralClamping: a torch module, an ONNX model or a callable."""

    kind: Literal["torch", "onnx", "callable"]
    model: Any
    output: Any

    @classmethod
    def of(cls, clamping: Any) -> "ClampedModel":
        """Unwrap the network of a fitted NeuralClamping."""
        model, output = clamping.model, clamping.output
        if isinstance(model, OnnxLogits | TorchLogits):
            output = model.output if output is None else output
            model = getattr(model, model._network)
        if isinstance(model, str | os.PathLike | bytes) or hasattr(
            model, "SerializeToString"
        ):
            return cls("onnx", model, output)
        return cls("torch" if is_module(model) else "callable", model, output)

    @property
    def is_half(self) -> bool:
        """Whether a torch module holds numbers in half precision."""
        parameters = self.model.parameters() if self.kind == "torch" else ()
        return any(p.is_floating_point() and p.itemsize < 4 for p in parameters)


class OutputSide:
    """What a NeuralClamping does to logits, in the manner of a calibrator."""

    def __init__(self, clamping: Any, n_columns: int) -> None:
        self.classes_ = clamping.classes_
        self.n_features_in_ = n_columns
        self._map = clamping._calibration_map()
        inner = clamping.output_calibrator_
        self._keeps_class = inner is None or inner._keeps_class

    def _calibration_map(self) -> CalibrationMap:
        return self._map


def calibrate_with_clamping(
    model: Any, clamping: Any, *, output: str | None, keep_original: bool
) -> Any:
    """Write both sides of a fitted NeuralClamping into an ONNX model."""
    check_is_fitted(clamping)
    delta = np.asarray(clamping.delta_, dtype=np.float32)
    if keep_original and (delta.any() or clamping.feasible_range is not None):
        raise ValueError(
            "keep_original=True cannot be had with a perturbed input: the original "
            "scores are those of inputs that are not perturbed, which takes a second "
            "run of the network. Serve the original model beside the calibrated one."
        )
    network = ClampedModel.of(clamping)
    exported = model is None and network.kind == "torch"
    if model is None:
        model = _own_model(network, clamping)
    if output is None and network.kind == "onnx":
        output = network.output
    source = open_source(model)
    runtime = open_network(model, output)
    calibrated = parse_model(source)
    find_readout(calibrated, output)  # may write out the scores of a linear model
    readout, types = runtime.confirm_on_probe(), runtime.tensor_types()
    if exported:
        readout = replace(readout, kind="logits")
    target = clamping.site or network_input(calibrated)
    shifted = perturb_tensor(calibrated, target, delta, clamping.feasible_range)
    if readout.tensor == target:
        readout = replace(readout, tensor=shifted, path=readout.path | {shifted})
        types[shifted] = types[target]
    n_columns = _n_columns(readout, types, len(clamping.classes_))
    surgery = Surgery(calibrated, OutputSide(clamping, n_columns), readout, types)
    served = surgery.write_beside() if keep_original else surgery.write_over()
    record(calibrated, clamping, **_summary(clamping, delta))
    inline_outside_data(calibrated, source.folder)
    _verify(calibrated, source, served, clamping, exported=exported)
    return calibrated


def _own_model(network: ClampedModel, clamping: Any) -> Any:
    """Return the ONNX form of the network that was fitted."""
    if network.kind == "onnx":
        return network.model
    _refuse_callable(network)
    if clamping.site is not None:
        raise ValueError(
            f"site={clamping.site!r} names a tensor of an ONNX model. Pass that model: "
            "calibrate_onnx_model(model, neural_clamping)."
        )
    torch_network = importlib.import_module("skcalib.export._torch_network")
    return torch_network.export_network(
        network.model, network.output, clamping.delta_.shape
    )


def _refuse_callable(network: ClampedModel) -> None:
    if network.kind == "callable":
        name = getattr(network.model, "__name__", type(network.model).__name__)
        raise TypeError(
            f"The network of this NeuralClamping is the callable {name!r}, which can "
            "only be called. Fit on a torch.nn.Module or an ONNX model, or pass the "
            "ONNX form of the network: calibrate_onnx_model(model, neural_clamping)."
        )


def _n_columns(readout: Readout, types: dict[str, Any], n_classes: int) -> int:
    """Return the number of columns of the network's logits."""
    _, shape = types[readout.tensor]
    width = shape[1] if len(shape) > 1 else len(shape)
    if width == 0 or not isinstance(width, int):
        width = readout.columns if readout.tensor == readout.score else None
    return 1 if readout.kind == "log_odds" or width == 1 else n_classes


def _summary(clamping: Any, delta: NDArray[np.float32]) -> dict[str, Any]:
    """Return what the metadata say of the perturbation, without all its entries."""
    params = clamping.get_params(deep=False)
    del params["model"]
    perturbation = {
        "kind": clamping.perturbation_,
        "site": clamping.site,
        "shape": list(delta.shape),
        "norm": float(np.linalg.norm(delta)),
        "min": float(delta.min()),
        "max": float(delta.max()),
    }
    return {"params": params, "perturbation": perturbation}


def _verify(
    model: Any, source: ModelSource, served: str, clamping: Any, *, exported: bool
) -> None:
    """Run the written model on made-up inputs and compare it with Python."""
    session = open_session(model, source)
    X = _probe(session, clamping)
    if X is None:
        return
    difference = largest_difference(session, served, X, clamping.predict_proba(X))
    exact = (
        exported
        and clamping.precision is None
        and not ClampedModel.of(clamping).is_half
    )
    allowed = _LARGEST_EXPORTED if exact else _LARGEST_PLAUSIBLE
    if not difference <= allowed:
        advice = (
            "What torch wrote is not the network: it takes lengths or branches of one "
            "batch as constants. Write the network as ONNX yourself and pass it: "
            "calibrate_onnx_model(model, neural_clamping)."
            if exported
            else "Pass the model that NeuralClamping was fitted on, or its ONNX form."
        )
        raise ValueError(
            "The calibrated ONNX model differs from Python by up to "
            f"{difference:.1e} in a probability. {advice}"
        )
    if difference > _LARGEST_EXPECTED:
        warnings.warn(
            "The calibrated ONNX model differs from Python by up to "
            f"{difference:.1e} in a probability, more than rounding in single precision"
            " explains. Compare the two on your own data before you serve it.",
            UserWarning,
            stacklevel=4,
        )


def _probe(session: Any, clamping: Any) -> NDArray[Any] | None:
    """Make up a few inputs; None where the model does not say what it takes."""
    specs = [InputSpec.of(argument) for argument in session.get_inputs()]
    if clamping.site is not None:
        feeds = probe_inputs(specs)
        return None if feeds is None or len(feeds) != 1 else feeds[specs[0].name]
    # Not the batch size at which torch wrote the network.
    X = np.random.default_rng(0).random((3, *clamping.delta_.shape))
    if clamping.feasible_range is not None:
        X = np.clip(X, *clamping.feasible_range)
    return X.astype(specs[0].dtype)


def clamped_module(clamping: Any) -> Any:
    """Return a fitted NeuralClamping as a torch module from inputs to probabilities."""
    check_is_fitted(clamping)
    import_optional("torch", "Exporting to torch")
    torch_network = importlib.import_module("skcalib.export._torch_network")
    network = ClampedModel.of(clamping)
    _refuse_callable(network)
    build = (
        torch_network.clamped_onnx
        if network.kind == "onnx"
        else torch_network.clamped_module
    )
    return build(network.model, network.output, clamping)
