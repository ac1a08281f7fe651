"""Writing a calibration into the ONNX model whose logits it was fitted on."""

from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from skcalib._networks._given import perturbs_inputs
from skcalib._onnx._files import inline_outside_data, open_model
from skcalib._onnx._readout import read_classifier
from skcalib._onnx._session import open_onnx
from skcalib.export._clamping import calibrate_with_clamping
from skcalib.export._class_axis import ClassAxis, find_dense_output
from skcalib.export._emit import check_calibrator
from skcalib.export._record import record
from skcalib.export._surgery import Surgery
from skcalib.frozen import OnnxLogits
from skcalib.meta import DenseCalibration


def calibrate_onnx_model(
    model: Any,
    calibrator: Any,
    *,
    output: str | None = None,
    keep_original: bool = False,
    add_probabilities: bool = False,
    class_axis: int | None = None,
) -> Any:
    """Write a calibration into an ONNX model.

    Parameters
    ----------
    model : str, path-like, bytes, onnx.ModelProto, torch.nn.Module or None
        The model to calibrate. It is not changed. With a `NeuralClamping`, None stands
        for the network it was fitted on, and a torch module is written as ONNX on the
        way.

    calibrator : estimator
        A calibrator fitted on the logits of `model`, with a `MultiLabelCalibration`
        those before independent sigmoids, a fitted
        ``make_pipeline(OnnxLogits(model), calibrator)``, or a fitted `NeuralClamping`,
        whose perturbation is then added to the model's input. With a fitted
        `GroupCalibration` the model gets an input more, ``group``, as in `to_onnx`.

    output : str, default=None
        The output that holds the scores, where the model has several; by default that
        of the pipeline's `OnnxLogits`.

    keep_original : bool, default=False
        If false, calibrated scores take the place of the model's: same name, same
        layout, same type, same meaning, and its labels follow them. Logits stay logits
        (log-probabilities where a calibration has no logits), probabilities stay
        probabilities, and a further output of the logits behind the probabilities is
        calibrated with them. If true, all outputs stay as they are, to the last bit,
        and the calibrated ones come beside them as ``<name>_calibrated``. A perturbed
        input leaves no original outputs.

    add_probabilities : bool, default=False
        Whether the calibrated probabilities, a column a class, are served as an output
        more, ``probabilities``, or ``probabilities_2`` where that name is taken.

    class_axis : int, default=None
        The axis of the scores that holds the classes, where the model has scores of
        every pixel or token: 1 of (n, K, H, W), -1 of (n, T, K). By default that of a
        `DenseCalibration`, or a row a sample.

    Returns
    -------
    model : onnx.ModelProto
        The calibrated model, with the opset, inputs and dynamic batch of the original.
        How it was calibrated stands in its metadata under ``skcalib.calibration``,
        and there under ``outputs`` which output holds what.

    Raises
    ------
    ModelFormatError
        If the model cannot be read or is no classifier, or nothing shows whether its
        scores are logits or probabilities: pass the pipeline, which has seen data.
    TypeError
        If the network of a `NeuralClamping` is a bare callable, or the calibrator is
        none of skcalib.
    ValueError
        If the calibrator was fitted for another number of classes, or for those that
        the model names in another order, or the calibrated model would not give the
        probabilities of a `NeuralClamping`.

    See Also
    --------
    save_onnx : Writes the result to a file.
    to_onnx : The calibration as a model of its own.

    Notes
    -----
    The calibration runs in float64 between two casts. Probabilities of a
    half-precision model are rounded to its own type at the end, unless they are served
    beside the original scores: those are in single precision.

    A calibrator of two columns for a model of one, behind a sigmoid, is taken as fitted
    on the logarithms of both probabilities. Fit it on the column of logits by itself
    where it should have learned from those: vector and matrix scaling of the columns
    (0, z) are not the same.

    Weights that lie in a file of their own are read into the result up to 1.5 GB
    together; larger ones stay outside (see `save_onnx`).

    With a `NeuralClamping` the result is run in onnxruntime on made-up inputs and
    compared with Python. A torch module is written with a dynamic batch, from
    ``input``, or several inputs by their names, to ``probabilities``, by the exporter
    of torch that traces one run: control flow that depends on the data is not carried
    over. What its `site` names may be a part of it.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper
    >>> from sklearn.pipeline import make_pipeline
    >>> from skcalib import TemperatureScaling
    >>> from skcalib.export import calibrate_onnx_model
    >>> from skcalib.frozen import OnnxLogits
    >>> rows = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    >>> proba = [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])]
    >>> nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=1)]
    >>> opsets = [helper.make_opsetid("", 17)]
    >>> model = helper.make_model(
    ...     helper.make_graph(nodes, "tiny", rows, proba),
    ...     opset_imports=opsets, ir_version=8,
    ... )
    >>> X = np.array([[4, 0], [4, 0], [4, 0], [0, 4]], dtype=np.float32)
    >>> pipe = make_pipeline(OnnxLogits(model), TemperatureScaling())
    >>> pipe = pipe.fit(X, [0, 0, 1, 1])
    >>> [value.name for value in calibrate_onnx_model(model, pipe).graph.output]
    ['p']
    """
    if perturbs_inputs(calibrator):
        return calibrate_with_clamping(
            model,
            calibrator,
            output=output,
            keep_original=keep_original,
            add_probabilities=add_probabilities,
        )
    if isinstance(calibrator, DenseCalibration):
        class_axis = calibrator.class_axis if class_axis is None else class_axis
    calibrator, frozen = _split_pipeline(calibrator)
    if output is None and frozen is not None:
        output = frozen.output
    source = open_model(model)
    if class_axis is not None and output is None:
        output = find_dense_output(source)
    network = open_onnx(model, output)
    calibrated, readout = read_classifier(source, output)
    types, axis = network.tensor_types(), None
    if class_axis is not None:
        axis = ClassAxis(class_axis, types[readout.tensor][1], readout.tensor)
    settled = getattr(frozen, "readout_", None)
    if settled is None or settled.path != readout.path:
        settled = network.confirm_on_probe(
            axis.as_rows if axis else np.asarray,
            multilabel=getattr(calibrator, "multilabel", False),
        )
    surgery = Surgery(calibrated, calibrator, settled, types, axis)
    written = surgery.write(
        keep_original=keep_original, add_probabilities=add_probabilities
    )
    record(calibrated, calibrator, outputs=asdict(written))
    inline_outside_data(calibrated, source.folder)
    return calibrated


def _split_pipeline(calibrator: Any) -> tuple[Any, OnnxLogits | None]:
    """Return the calibrator, and the OnnxLogits before it if there is one."""
    frozen = None
    if isinstance(calibrator, Pipeline):
        steps = [step for _, step in calibrator.steps]
        if perturbs_inputs(steps[-1]):
            raise TypeError(
                "Got a Pipeline that ends in NeuralClamping; the steps before it "
                f"({[type(step).__name__ for step in steps[:-1]]}) cannot be written "
                "into an ONNX model. Pass the NeuralClamping itself, and serve the "
                "model on inputs that those steps have transformed."
            )
        if len(steps) != 2 or not isinstance(steps[0], OnnxLogits):
            names = [type(step).__name__ for step in steps]
            raise TypeError(
                f"Got a Pipeline of {names}; an ONNX model can take up one of exactly "
                "two steps, OnnxLogits and a calibrator."
            )
        frozen, calibrator = steps
    check_calibrator(calibrator)
    return calibrator, frozen
