"""NeuralClamping for deployment: its network, its two sides, and a last check."""

import importlib
import warnings
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skcalib._maps import CalibrationMap
from skcalib._networks._given import Given
from skcalib._networks._named import NamedRows
from skcalib._networks._torch import floating_types
from skcalib._onnx._files import (
    inline_outside_data,
    open_model,
)
from skcalib._onnx._inputs import InputSpec, batches, probe_inputs
from skcalib._onnx._readout import Readout, read_classifier
from skcalib._onnx._session import (
    OnnxNetwork,
    OnnxSession,
    open_onnx,
    open_session,
)
from skcalib._optional import import_optional
from skcalib._warnings import warn
from skcalib.export._perturb import network_input, perturb_tensor
from skcalib.export._record import record
from skcalib.export._surgery import Surgery, Written
from skcalib.export._verify import labels_of_map, largest_difference

# Differences to Python in a probability. Above the first a warning is due, above the
# others the model is not what was fitted: written by torch from single precision, or
# of another precision somewhere.
_LARGEST_EXPECTED, _LARGEST_EXPORTED, _LARGEST_PLAUSIBLE = 1e-3, 1e-2, 0.1


class OutputSide:
    """What a NeuralClamping does to logits, in the manner of a calibrator."""

    def __init__(self, clamping: Any, n_columns: int) -> None:
        self.classes_ = clamping.classes_
        self.n_features_in_ = n_columns
        self._map = clamping.calibration_map()
        inner = clamping.output_calibrator_
        self.keeps_class = inner is None or inner.keeps_class

    def calibration_map(self) -> CalibrationMap:
        """Return what follows the network."""
        return self._map


def calibrate_with_clamping(
    model: Any,
    clamping: Any,
    *,
    output: str | None,
    keep_original: bool,
    add_probabilities: bool,
) -> Any:
    """Write both sides of a fitted NeuralClamping into an ONNX model."""
    check_is_fitted(clamping)
    change = clamping.input_change()
    if keep_original and (change.any() or clamping.feasible_range is not None):
        raise ValueError(
            "keep_original=True cannot be had with a perturbed input: the original "
            "scores are those of inputs that are not perturbed, which takes a second "
            "run of the network. Serve the original model beside the calibrated one."
        )
    network = _network_to_write(model, output, clamping)
    exported = network.kind == "module"
    # A torch module changed inside, or at one input of several, is written with that.
    inside = exported and bool(clamping.input_types_)
    written = _export(network, clamping, inside) if exported else network.model
    source = open_model(written)
    place = None if exported else network.output
    runtime = open_onnx(written, place)
    # With the scores of a linear classifier written out.
    calibrated, _ = read_classifier(source, place)
    X = _probe(runtime.inputs, clamping)
    readout, types = _read(runtime, calibrated, network, X), runtime.tensor_types()
    if not inside:
        target = clamping.site or network_input(calibrated)
        shifted = perturb_tensor(calibrated, target, change, clamping.feasible_range)
        if readout.tensor == target:
            readout = replace(readout, tensor=shifted, path=readout.path | {shifted})
            types[shifted] = types[target]
    n_columns = _n_columns(readout, types, len(clamping.classes_))
    surgery = Surgery(calibrated, OutputSide(clamping, n_columns), readout, types)
    served = surgery.write(
        keep_original=keep_original, add_probabilities=add_probabilities
    )
    record(calibrated, clamping, outputs=asdict(served), **_summary(clamping, change))
    inline_outside_data(calibrated, source.folder)
    if X is not None:
        batched = batches(runtime.inputs, X, X.shape[0])
        expected = _python(clamping, X)
        session = open_session(calibrated, source)
        difference = _difference(session, calibrated, served, batched, expected)
        _judge(difference, exact=exported and _is_exact(network, clamping))
    return calibrated


def _network_to_write(model: Any, output: str | None, clamping: Any) -> Given:
    """Return the network that takes up the calibration: `model`, or that fitted."""
    network = Given.of(clamping.model, clamping.output)
    if model is not None:
        given = Given.of(model)
        same_kind = given.kind == network.kind and given.output is None
        network = replace(given, output=network.output) if same_kind else given
    _refuse_callable(network)
    return network if output is None else replace(network, output=output)


def _refuse_callable(network: Given) -> None:
    """Raise a TypeError for what can only be called."""
    if network.kind == "callable":
        name = getattr(network.model, "__name__", type(network.model).__name__)
        raise TypeError(
            f"The network of this NeuralClamping is the callable {name!r}, which "
            "can only be called. Fit on a torch.nn.Module or an ONNX model, or "
            "pass the ONNX form of the network: "
            "calibrate_onnx_model(model, neural_clamping)."
        )


def _export(network: Given, clamping: Any, inside: bool) -> bytes:
    torch_network = importlib.import_module("skcalib.export._clamping_torch")
    written: bytes
    if inside:
        written = torch_network.export_clamped(network.model, network.output, clamping)
    else:
        written = torch_network.export_network(
            network.model, network.output, clamping.delta_.shape
        )
    return written


def _read(runtime: OnnxNetwork, model: Any, network: Given, X: Any) -> Readout:
    """Settle where the logits are, as it was settled for the fit."""
    if network.kind == "module":
        # Whatever the module returned were its logits, also the result of a softmax.
        (output,) = (value.name for value in model.graph.output)
        # In the file they serve as what they are called, probabilities.
        return Readout(
            output, "logits", output, output, frozenset({output}), made="proba"
        )
    return runtime.confirm_on_probe() if X is None else runtime.confirm(X, X.shape[0])


def _n_columns(readout: Readout, types: dict[str, Any], n_classes: int) -> int:
    """Return the number of columns of the network's logits."""
    _, shape = types[readout.tensor]
    width = shape[1] if len(shape) > 1 else len(shape)
    if width == 0 or not isinstance(width, int):
        width = readout.columns if readout.tensor == readout.score else None
    return 1 if readout.kind == "log_odds" or width == 1 else n_classes


def _summary(clamping: Any, change: Any) -> dict[str, Any]:
    """Return what the metadata say of the perturbation, without all its entries."""
    delta, kernel = change.delta, change.kernel
    params = clamping.get_params(deep=False)
    del params["model"]
    perturbation = {
        "kind": clamping.perturbation_,
        "site": clamping.site,
        "shape": list(delta.shape),
        "norm": float(np.linalg.norm(delta)),
        "min": float(delta.min()),
        "max": float(delta.max()),
        "filter": None if kernel is None else kernel.tolist(),
    }
    return {"params": params, "perturbation": perturbation}


def _probe(specs: list[InputSpec], clamping: Any) -> Any:
    """Make up a few inputs; None where the model does not say what it takes."""
    named = len(specs) > 1 or clamping.input_names_ is not None
    if named or clamping.site is not None:
        feeds = probe_inputs(specs)
        if feeds is None:
            return None
        return NamedRows(feeds) if named else feeds[specs[0].name]
    # Not the batch size at which torch wrote the network.
    X = np.random.default_rng(0).random((3, *clamping.delta_.shape))
    if clamping.feasible_range is not None:
        X = np.clip(X, *clamping.feasible_range)
    return X.astype(specs[0].dtype)


def _difference(
    session: OnnxSession, model: Any, served: Written, batched: Any, expected: Any
) -> float:
    """Return how much the probabilities of the written model differ from Python's."""
    name, labels = served.scores, labels_of_map(model, served.scores)
    return largest_difference(session, name, served.meaning, batched, expected, labels)


def _python(clamping: Any, X: Any) -> NDArray[Any]:
    with warnings.catch_warnings():
        # After a fit on a data frame; made-up inputs have no names.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        proba: NDArray[Any] = clamping.predict_proba(X)
    return proba


def _is_exact(network: Given, clamping: Any) -> bool:
    """Whether Python computes a torch module in single precision or better."""
    return clamping.precision is None and not any(
        dtype.itemsize < 4 for dtype in floating_types(network.model)
    )


def _judge(difference: float, *, exact: bool) -> None:
    """Refuse, or warn of, what differs too much from Python."""
    if not difference <= (_LARGEST_EXPORTED if exact else _LARGEST_PLAUSIBLE):
        raise ValueError(
            "The calibrated ONNX model differs from Python by up to "
            f"{difference:.1e} in a probability. If the network is a torch module, its "
            "control flow or the lengths it computes depend on the data, which torch "
            "took as constant: write it as ONNX yourself and pass it as the model. "
            "If you passed a model, it is not the one that was fitted."
        )
    if difference > _LARGEST_EXPECTED:
        warn(
            "The calibrated ONNX model differs from Python by up to "
            f"{difference:.1e} in a probability, more than rounding in single precision"
            " explains. Compare the two on your own data before you serve it."
        )


def clamped_module(clamping: Any) -> Any:
    """Return a fitted NeuralClamping as a torch module from inputs to probabilities."""
    check_is_fitted(clamping)
    import_optional("torch", "Exporting to torch")
    torch_network = importlib.import_module("skcalib.export._clamping_torch")
    network = Given.of(clamping.model, clamping.output)
    _refuse_callable(network)
    build = (
        torch_network.clamped_onnx
        if network.kind == "onnx"
        else torch_network.clamped_module
    )
    return build(network.model, network.output, clamping)
