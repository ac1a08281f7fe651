"""A fitted calibrator as an ONNX model of its own."""

from typing import Any

import numpy as np

import skcalib
from skcalib._networks._given import perturbs_inputs
from skcalib._onnx._graph import tensor_names
from skcalib._optional import import_optional
from skcalib.export._builder import NodeBuilder
from skcalib.export._clamping import calibrate_with_clamping
from skcalib.export._emit import Emitted, check_calibrator
from skcalib.export._record import record

# What current runtimes and those of the last years all read.
_OPSET = 17
_IR_VERSION = 8


def to_onnx(calibrator: Any, *, dtype: Any = np.float32) -> Any:
    """Write a fitted calibrator as an ONNX model from logits to probabilities.

    Parameters
    ----------
    calibrator : estimator
        A fitted calibrator of skcalib. A fitted `NeuralClamping`, which acts on the
        inputs of its network, gives the whole calibrated network, as
        ``calibrate_onnx_model(None, calibrator)`` does. A `GroupCalibration` takes the
        name of each row's group as a second input, ``group``, text or integers; rows of
        other groups are calibrated as the whole.

    dtype : {numpy.float32, numpy.float64}, default=numpy.float32
        Type of the logits that come in and of the probabilities that go out. The
        arithmetic between runs in float64, as in Python. The types of a whole network
        are its own.

    Returns
    -------
    model : onnx.ModelProto
        A model with the input ``logits`` of shape (batch, n_columns), where a single
        column is the log-odds of the second class, and the outputs ``probabilities``
        of shape (batch, n_classes) and ``label`` of shape (batch,); that of a
        `MultiLabelCalibration` has a column of 0 and 1 for each label. How the
        calibration was made stands in its metadata. A whole network keeps its own
        input, and has the output ``probabilities`` if it is a torch module.

    Raises
    ------
    ValueError
        If `dtype` is another type, or labels or groups have no type in ONNX.

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
    if perturbs_inputs(calibrator):
        return calibrate_with_clamping(
            None, calibrator, output=None, keep_original=False, add_probabilities=False
        )
    onnx = import_optional("onnx", "Exporting to ONNX")
    check_calibrator(calibrator)
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype} is neither numpy.float32 nor numpy.float64.")
    build = NodeBuilder(_OPSET, taken={"logits", "probabilities", "label"})
    emitted = Emitted(calibrator, build, build.cast("logits", np.float64))
    build.cast(emitted.proba, dtype, output="probabilities")
    scores = emitted.label_scores
    if scores == emitted.proba:  # as they are served, so that the two agree
        scores = "probabilities"
    label = _write_label(calibrator, build, scores, dtype)
    model = _model(calibrator, build, dtype, label)
    record(model, calibrator)
    onnx.checker.check_model(model)
    return model


def _write_label(
    calibrator: Any, build: NodeBuilder, scores: str, dtype: np.dtype
) -> Any:
    """Write the class of each row, or which labels are set; return what is served."""
    info = build.onnx.helper.make_tensor_value_info
    if getattr(calibrator, "multilabel", False):
        whole = build.onnx.TensorProto.INT64
        is_set = build.op("Greater", scores, build.constant(0.5, dtype))
        build.cast(is_set, whole, output="label")
        return info("label", whole, ["batch", len(calibrator.classes_)])
    build.labels(scores, np.asarray(calibrator.classes_), output="label")
    table = next(t for t in build.initializers if t.name == build.nodes[-1].input[0])
    return info("label", table.data_type, ["batch"])


def _model(calibrator: Any, build: NodeBuilder, dtype: np.dtype, label: Any) -> Any:
    """Put the nodes between the input of logits and the two outputs."""
    onnx = import_optional("onnx", "Exporting to ONNX")
    element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        build.nodes,
        type(calibrator).__name__,
        [
            info("logits", element, ["batch", calibrator.n_features_in_]),
            *build.inputs,
        ],
        [
            info("probabilities", element, ["batch", len(calibrator.classes_)]),
            label,
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
    build.opsets(model)
    return model


def take_probabilities(model: Any, floor: float, *, normalise: bool) -> None:
    """Let what `to_onnx` wrote take probabilities, as `logits_from_proba` reads them.

    Its input is then ``uncalibrated_probabilities``; its result has the shorter name.
    """
    given = next(value for value in model.graph.input if value.name == "logits")
    given.name = "uncalibrated_probabilities"
    build = NodeBuilder(_OPSET, taken=tensor_names(model.graph), prefix="uncalibrated_")
    x = build.cast(given.name, np.float64)
    if normalise:
        x = build.op("Div", x, build.reduce("ReduceSum", x))
    x = build.op("Log", build.op("Max", x, build.constant(floor)))
    build.cast(x, given.type.tensor_type.elem_type, output="logits")
    build.add_to(model)
    given.doc_string = model.doc_string = (
        f"Takes probabilities; the logits are log(max(probabilities, {floor:g}))."
    )
