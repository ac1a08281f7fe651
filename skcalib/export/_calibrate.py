"""Writing a calibration into the ONNX model whose logits it was fitted on."""

import warnings
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from skcalib._backends._onnx import open_network
from skcalib._backends._onnx_files import inline_outside_data, open_source, parse_model
from skcalib._backends._onnx_graph import GraphIndex, tensor_names, unused_name
from skcalib._backends._onnx_readout import PROBA_FLOOR, Readout, find_readout
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder
from skcalib.export._labels import (
    LabelSource,
    find_labels,
    label_beside,
    other_labels,
    relabel,
)
from skcalib.export._rewire import drop_unused, rename_tensor, sort_nodes
from skcalib.export._to_onnx import (
    check_calibrator,
    emit_calibration,
    label_scores,
    record,
)
from skcalib.frozen import OnnxLogits


def calibrate_onnx_model(
    model: Any,
    calibrator: Any,
    *,
    output: str | None = None,
    keep_original: bool = False,
) -> Any:
    """Write a calibration into an ONNX model.

    Parameters
    ----------
    model : str, path-like, bytes or onnx.ModelProto
        The model to calibrate. It is not changed.

    calibrator : estimator
        A calibrator fitted on the logits of `model`, or a fitted
        ``make_pipeline(OnnxLogits(model), calibrator)``.

    output : str, default=None
        The output that holds the scores, where the model has several; by default that
        of the pipeline's `OnnxLogits`.

    keep_original : bool, default=False
        If false, the calibrated probabilities take the place of the model's scores:
        same name, same layout, same type, and its labels follow them. If true, all
        outputs stay as they are, to the last bit, and the calibrated ones come beside
        them as ``<name>_calibrated``.

    Returns
    -------
    model : onnx.ModelProto
        The calibrated model, with the opset, inputs and dynamic batch of the original.
        How it was calibrated stands in its metadata under ``skcalib.calibration``.

    Raises
    ------
    ModelFormatError
        If the model cannot be read or is no classifier.
    ValueError
        If the calibrator was fitted for another number of classes.

    See Also
    --------
    save_onnx : Writes the result to a file.
    to_onnx : The calibration as a model of its own.

    Notes
    -----
    The calibration runs in float64 between two casts. Probabilities of a
    half-precision model are rounded to its own type at the end, unless they are served
    beside the original scores: those are in single precision.

    Weights that lie in a file of their own are read into the result up to 1.5 GB
    together; larger ones stay outside (see `save_onnx`).

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
    calibrator, frozen = _split_pipeline(calibrator)
    if output is None and frozen is not None:
        output = frozen.output
    source = open_source(model)
    network = open_network(model, output)
    calibrated = parse_model(source)
    readout = find_readout(calibrated, output)
    settled = getattr(frozen, "readout_", None)
    if settled is None or settled.path != readout.path:
        settled = network.confirm_on_probe()
    surgery = _Surgery(calibrated, calibrator, settled, network.tensor_types())
    if keep_original:
        surgery.write_beside()
    else:
        surgery.write_over()
    record(calibrated, calibrator)
    inline_outside_data(calibrated, source.folder)
    return calibrated


def _split_pipeline(calibrator: Any) -> tuple[Any, OnnxLogits | None]:
    """Return the calibrator, and the OnnxLogits before it if there is one."""
    frozen = None
    if isinstance(calibrator, Pipeline):
        steps = [step for _, step in calibrator.steps]
        if len(steps) != 2 or not isinstance(steps[0], OnnxLogits):
            names = [type(step).__name__ for step in steps]
            raise TypeError(
                f"Got a Pipeline of {names}; an ONNX model can take up one of exactly "
                "two steps, OnnxLogits and a calibrator."
            )
        frozen, calibrator = steps
    check_calibrator(calibrator)
    return calibrator, frozen


class _Surgery:
    """One model on the table, changed in place."""

    def __init__(
        self,
        model: Any,
        calibrator: Any,
        readout: Readout,
        types: dict[str, tuple[str, list[Any]]],
    ) -> None:
        self.onnx = import_optional("onnx", "Writing an ONNX model")
        self.model = model
        self.graph = model.graph
        self.calibrator = calibrator
        self.readout = readout
        self.types = types
        self.n_columns = int(calibrator.n_features_in_)
        self._check_columns()
        self.build = NodeBuilder(
            _opset(model), taken=tensor_names(self.graph), prefix="skcalib_"
        )
        index = GraphIndex(self.graph)
        self.labels = find_labels(index, readout)
        self._other_labels = other_labels(index, self.labels)

    def _check_columns(self) -> None:
        _, shape = self.types[self.readout.tensor]
        known = shape[1] if len(shape) > 1 else 1
        if isinstance(known, int) and shape and known != self.n_columns:
            raise ValueError(
                f"The model has {known} columns of logits but the calibrator was "
                f"fitted on {self.n_columns}. Fit it on the logits of this model: "
                "make_pipeline(OnnxLogits(model), calibrator).fit(X, y)."
            )

    def write_over(self) -> None:
        """Serve calibrated probabilities under the name of the scores."""
        if self._other_labels:
            warnings.warn(
                f"The outputs {self._other_labels} look like labels, but it cannot be "
                "seen how they follow from the scores: they stay as they are. Take the "
                "labels from the calibrated probabilities.",
                UserWarning,
                stacklevel=3,
            )
        output = self.readout.output
        if output is None:
            self._serve("probabilities", beside=False)
            return
        zipmap = GraphIndex(self.graph).origin(output)[1]
        if zipmap is None:
            raise ModelFormatError(
                f"The output {output!r} is an input of the model; nothing computes it."
            )
        source = self.readout.tensor
        if zipmap.op_type == "ZipMap":
            columns, proba = self._emit(source)
            zipmap.input[0] = self._lay_out(proba, self.readout.score)
        else:
            old = self.build.name(f"{output}_uncalibrated")
            rename_tensor(self.graph, output, old)
            columns, proba = self._emit(old if source == output else source)
            self._lay_out(proba, output, name=output)
        scores = label_scores(self.calibrator, columns, proba)
        for label in self.labels:
            relabel(label, self.build, scores)
        self._finish()
        drop_unused(self.graph)

    def write_beside(self) -> None:
        """Serve calibrated probabilities, and labels, beside what there was."""
        name = f"{self.readout.output or self.readout.score}_calibrated"
        self._serve(name, beside=True)

    def _serve(self, wanted: str, *, beside: bool) -> None:
        columns, proba = self._emit(self.readout.tensor)
        name = unused_name(wanted, tensor_names(self.graph))
        element, shape = self._layout(self.readout.score)
        if element == self.onnx.TensorProto.FLOAT16:
            element = self.onnx.TensorProto.FLOAT
        self._lay_out(proba, self.readout.score, name=name, element=element)
        make_info = self.onnx.helper.make_tensor_value_info
        self.graph.output.append(make_info(name, element, shape))
        scores = label_scores(self.calibrator, columns, proba)
        for label in self.labels:
            if beside:
                self._serve_label(label, label_beside(label, self.build, scores))
            else:
                relabel(label, self.build, scores)
        self._finish()

    def _serve_label(self, label: LabelSource, tensor: str) -> None:
        name = unused_name(f"{label.output}_calibrated", tensor_names(self.graph))
        self.build.op("Identity", tensor, output=name)
        served = next(v for v in self.graph.output if v.name == label.output)
        twin = type(served).FromString(served.SerializeToString())
        twin.name = name
        self.graph.output.append(twin)

    def _emit(self, tensor: str) -> tuple[str, str]:
        """Write the calibration of `tensor`; return (columns, probabilities)."""
        build = self.build
        x = build.cast(tensor, np.float64)
        if len(self.types[self.readout.tensor][1]) != 2:
            x = build.reshape(x, [-1, self.n_columns])
        if self.readout.kind == "proba":
            x = self._log_of(x)
        return emit_calibration(self.calibrator, build, x)

    def _log_of(self, proba: str) -> str:
        build, floor = self.build, self.build.constant(PROBA_FLOOR)
        log_p = build.op("Log", build.op("Max", proba, floor))
        if self.n_columns > 1:
            return log_p
        others = build.op("Sub", build.constant(1.0), proba)
        log_others = build.op("Log", build.op("Max", others, floor))
        return build.op("Sub", log_p, log_others)

    def _layout(self, score: str) -> tuple[int, list[Any]]:
        """Return the element type and shape in which scores are served."""
        kind, shape = self.types[score]
        element = self.onnx.TensorProto.DataType.Value(_ELEMENTS[kind])
        n_classes = len(self.calibrator.classes_)
        if not shape:
            return element, ["batch", n_classes if self.n_columns > 1 else 1]
        return element, shape

    def _lay_out(
        self,
        proba: str,
        score: str,
        name: str | None = None,
        element: int | None = None,
    ) -> str:
        """Give probabilities the type and shape of the scores they stand for."""
        build = self.build
        known, shape = self._layout(score)
        columns = 1 if len(shape) == 1 else self.readout.columns or shape[1]
        if not isinstance(columns, int):
            columns = self.n_columns
        if columns == 1:
            proba = build.op("Gather", proba, build.constant([1], np.int64), axis=1)
        if len(shape) != 2:
            proba = build.reshape(proba, [-1, *([columns] + [1] * 9)[: len(shape) - 1]])
        return build.cast(proba, known if element is None else element, output=name)

    def _finish(self) -> None:
        """Add the new nodes and constants to the graph, in order."""
        constants = self.build.initializers
        if self.model.ir_version < 4:
            # Before version 4 every initializer had to be an input of the model.
            make = self.onnx.helper.make_node
            nodes = [make("Constant", [], [t.name], value=t) for t in constants]
            self.graph.node.extend(nodes)
        else:
            self.graph.initializer.extend(constants)
        self.graph.node.extend(self.build.nodes)
        sort_nodes(self.graph)


_ELEMENTS = {
    "tensor(float)": "FLOAT",
    "tensor(double)": "DOUBLE",
    "tensor(float16)": "FLOAT16",
    "tensor(bfloat16)": "BFLOAT16",
}


def _opset(model: Any) -> int:
    """Return the opset of the standard operators, adding one if the model has none."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    model.opset_import.add(domain="", version=13)
    return 13
