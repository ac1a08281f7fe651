"""A fitted calibrator as an ONNX model of its own."""

import json
import numbers
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

import skcalib
from skcalib._optional import import_optional
from skcalib.export._builder import NodeBuilder
from skcalib.export._onnx_operations import clip, emit_map

# What current runtimes and those of the last years all read.
_OPSET = 17
_IR_VERSION = 8
METADATA_KEY = "skcalib.calibration"


def to_onnx(calibrator: Any, *, dtype: Any = np.float32) -> Any:
    """Write a fitted calibrator as an ONNX model from logits to probabilities.

    Parameters
    ----------
    calibrator : estimator
        A fitted calibrator of skcalib.

    dtype : {numpy.float32, numpy.float64}, default=numpy.float32
        Type of the logits that come in and of the probabilities that go out. The
        arithmetic between runs in float64, as in Python.

    Returns
    -------
    model : onnx.ModelProto
        A model with the input ``logits`` of shape (batch, n_columns), where a single
        column is the log-odds of the second class, and the outputs ``probabilities``
        of shape (batch, n_classes) and ``label`` of shape (batch,). How the calibration
        was made stands in its metadata.

    Raises
    ------
    ValueError
        If `dtype` is another type, or the labels have no type in ONNX.

    See Also
    --------
    calibrate_onnx_model : Writes the calibration into the model that gave the logits.
    to_torch : The same for torch.

    Examples
    --------
    >>> from skcalib import TemperatureScaling
    >>> from skcalib.export import to_onnx
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> model = to_onnx(TemperatureScaling().fit(logits, [0, 0, 1, 1]))
    >>> [output.name for output in model.graph.output]
    ['probabilities', 'label']
    """
    onnx = import_optional("onnx", "Exporting to ONNX")
    check_calibrator(calibrator)
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype} is neither numpy.float32 nor numpy.float64.")
    build = NodeBuilder(_OPSET, taken={"logits", "probabilities", "label"})
    columns, proba = emit_calibration(
        calibrator, build, build.cast("logits", np.float64)
    )
    build.cast(proba, dtype, output="probabilities")
    classes = np.asarray(calibrator.classes_)
    scores = label_scores(calibrator, columns, "probabilities")
    build.labels(scores, classes, output="label")

    element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    info = onnx.helper.make_tensor_value_info
    label_type = next(
        t for t in build.initializers if t.name == build.nodes[-1].input[0]
    )
    graph = onnx.helper.make_graph(
        build.nodes,
        type(calibrator).__name__,
        [info("logits", element, ["batch", calibrator.n_features_in_])],
        [
            info("probabilities", element, ["batch", len(classes)]),
            info("label", label_type.data_type, ["batch"]),
        ],
        build.initializers,
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="skcalib",
        producer_version=skcalib.__version__,
    )
    record(model, calibrator)
    onnx.checker.check_model(model)
    return model


def check_calibrator(calibrator: Any) -> None:
    """Refuse what is not a fitted calibrator of skcalib."""
    if isinstance(calibrator, Pipeline):
        raise TypeError(
            "Got a Pipeline where a calibrator is needed. Pass its last step, or use "
            "calibrate_onnx_model for a Pipeline that starts with OnnxLogits."
        )
    if not hasattr(calibrator, "_calibration_map"):
        raise TypeError(
            f"{type(calibrator).__name__} cannot be exported: it is no calibrator of "
            "skcalib that is a map from logits to probabilities."
        )
    check_is_fitted(calibrator)


def emit_calibration(calibrator: Any, build: NodeBuilder, x: str) -> tuple[str, str]:
    """Write the map of the float64 logits `x`; return ``(columns, probabilities)``."""
    n_columns = len(calibrator.classes_)
    if calibrator.n_features_in_ == 1:
        nothing = build.op("Mul", clip(build, x), build.constant(0.0))
        x = build.op("Concat", nothing, x, axis=1)
    mapped = emit_map(calibrator._calibration_map(), build, clip(build, x), n_columns)
    return x, mapped


def label_scores(calibrator: Any, columns: str, proba: str) -> str:
    """Return the scores whose largest names the class, as in `predict`."""
    # A method that keeps the predicted class reads it off the logits, so that
    # rounding of the probabilities makes no new ties.
    return columns if getattr(calibrator, "_keeps_class", False) else proba


def record(model: Any, calibrator: Any) -> None:
    """Note in the metadata of `model` how the calibration was made."""
    learned = {
        name: float(value)
        for name, value in vars(calibrator).items()
        if name.endswith("_")
        and not name.startswith("_")
        and isinstance(value, numbers.Real)
        and name != "n_features_in_"
    }
    content = {
        "method": type(calibrator).__name__,
        "params": calibrator.get_params(deep=False),
        "learned": learned,
        "classes": np.asarray(calibrator.classes_).tolist(),
        "skcalib_version": skcalib.__version__,
    }
    for entry in list(model.metadata_props):
        if entry.key == METADATA_KEY:
            model.metadata_props.remove(entry)
    text = json.dumps(content, default=_jsonable)
    model.metadata_props.add(key=METADATA_KEY, value=text)


def _jsonable(value: Any) -> Any:
    """Write NumPy values as lists and numbers, and the rest by their representation."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)
