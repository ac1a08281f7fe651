"""The calibration of one ONNX model, written where its scores come out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skcalib._maps import LogSigmoid
from skcalib._numerics import PROBA_FLOOR
from skcalib._onnx._graph import (
    GraphIndex,
    attribute,
    drop_unused,
    operator,
    rename_tensor,
    tensor_names,
    unused_name,
)
from skcalib._onnx._readout import Meaning, Readout
from skcalib._optional import import_optional
from skcalib._validation import refuse_order_unlike_model
from skcalib._warnings import warn
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder, model_opset
from skcalib.export._class_axis import ClassAxis
from skcalib.export._emit import Emitted
from skcalib.export._labels import (
    LabelSource,
    find_labels,
    label_beside,
    not_followed,
    relabel,
)
from skcalib.export._onnx_operations import emit
from skcalib.export._record import recorded_outputs


@dataclass(frozen=True)
class Written:
    """The outputs that a calibration was written to, and what they mean.

    `scores` is the output that stands for the model's own scores, `probabilities` one
    that was added on request.
    """

    scores: str
    meaning: Meaning
    probabilities: str | None = None


class Surgery:
    """One model on the table, changed in place."""

    def __init__(
        self,
        model: Any,
        calibrator: Any,
        readout: Readout,
        types: dict[str, tuple[str, list[Any]]],
        axis: ClassAxis | None = None,
    ) -> None:
        self.onnx = import_optional("onnx", "Writing an ONNX model")
        self.model = model
        self.graph = model.graph
        self.calibrator = calibrator
        self.readout = readout
        self.types = types
        self.axis = axis
        self._multilabel = getattr(calibrator, "multilabel", False)
        if not self._multilabel:
            refuse_order_unlike_model(readout.labels, calibrator.classes_)
        self.n_columns = self._count_columns()
        self.build = NodeBuilder(
            model_opset(model), taken=tensor_names(self.graph), prefix="skcalib_"
        )
        index = GraphIndex(self.graph)
        self.labels = find_labels(index, readout, axis.names if axis else (1, -1))
        self._label_axes = {v.output: self._count_axes(v) for v in self.labels}
        n_axes = axis.n_axes - 1 if axis else 1 + self._multilabel
        self._logits = self._outputs_of_logits(index)
        followed = {label.output for label in self.labels} | {*self._logits}
        followed |= {readout.output} if readout.output is not None else set()
        same = recorded_outputs(model)
        self._not_followed = not_followed(index, readout, followed, same, n_axes)

    def _count_columns(self) -> int:
        """Return how many columns of logits the model has, where the two agree."""
        fitted = int(self.calibrator.n_features_in_)
        _, shape = self.types[self.readout.tensor]
        if len(shape) == 1 and fitted > 1 and shape[0] == fitted:
            raise ModelFormatError(
                f"The scores {self.readout.tensor!r} have shape ({fitted},), without a "
                "batch axis. Export the model with one, so that it takes and gives a "
                f"row a sample, scores of shape (n, {fitted})."
            )
        known = shape[1] if len(shape) > 1 else 1
        if self.axis is not None:
            known = shape[self.axis.index]
        if not shape or not isinstance(known, int):
            # What was seen of the scores; of two log-odds are one column.
            is_one = self.readout.kind == "log_odds" and not self._multilabel
            known = 1 if is_one else self.readout.columns
        if known is None or known == fitted:
            return fitted
        if (known, fitted) == (2, 1):  # Fitted on the difference of the two.
            return 2
        if (known, fitted) == (1, 2) and not self._multilabel:
            return 1  # Fitted on the logarithms of both probabilities.
        hint = "Is class_axis the right axis? " if self.axis else ""
        raise ValueError(
            f"The model has {known} columns of logits but the calibrator was fitted "
            f"on {fitted}. {hint}Fit it on the logits of this model: "
            "make_pipeline(OnnxLogits(model), calibrator).fit(X, y)."
        )

    def write(self, *, keep_original: bool, add_probabilities: bool) -> Written:
        """Write the calibration; the scores that it serves mean what they meant."""
        name = self._write_beside() if keep_original else self._write_over()
        meaning = self._meaning
        added = self._add_probabilities() if add_probabilities else None
        self.build.add_to(self.model)
        if not keep_original:
            drop_unused(self.graph)
        return Written(name, meaning, added)

    @property
    def _meaning(self) -> Meaning:
        """What is served: probabilities where the model served labels alone."""
        return "proba" if self.readout.output is None else self.readout.meaning

    def _write_over(self) -> str:
        """Serve calibrated scores under the name of the scores; return it."""
        if self._not_followed:
            warn(
                f"The outputs {self._not_followed} look like labels or are made of the "
                "scores, but it cannot be seen how they follow: they stay as they are. "
                "Take labels, confidences and their like from the calibrated scores."
            )
        output = self.readout.output
        if output is None:
            return self._serve("probabilities", beside=False)
        maker = GraphIndex(self.graph).origin(output)[1]
        if maker is None:
            raise ModelFormatError(
                f"The output {output!r} is an input of the model; nothing computes it."
            )
        is_zipmap = operator(maker) == "ZipMap"
        replaced = list(self._logits)
        if not is_zipmap:
            replaced.append(output)
        source = self.readout.tensor
        for name in replaced:
            old = self.build.name(f"{name}_uncalibrated")
            rename_tensor(self.graph, name, old)
            source = old if source == name else source
        self._emit(source)
        if is_zipmap:
            maker.input[0] = self._lay_out(self.readout.score)
        for name in replaced:
            self._lay_out(name, "logits" if name in self._logits else None, name=name)
        for label in self.labels:
            relabel(label, self.build, self._label_scores(label))
        return output

    def _outputs_of_logits(self, index: GraphIndex) -> list[str]:
        """Name the other outputs that hold the logits which the scores are made of."""
        if self.readout.kind == "proba" or self.readout.output is None:
            return []
        logits, _ = index.origin(self.readout.tensor)
        return [
            value.name
            for value in self.graph.output
            if value.name != self.readout.output
            and value.type.WhichOneof("value") == "tensor_type"
            and index.origin(value.name)[0] == logits
            and self._is_laid_out(self.types[value.name][1])
        ]

    def _is_laid_out(self, shape: list[Any]) -> bool:
        """Whether calibrated logits can be given a shape, as far as it is known."""
        if self.axis is not None:
            return len(shape) in (0, self.axis.n_axes)
        columns = [self.n_columns] + [1] * len(shape)
        known = shape[1:] if len(shape) != 1 else [1]
        return all(
            not isinstance(length, int) or length == columns[i]
            for i, length in enumerate(known)
        )

    def _write_beside(self) -> str:
        """Serve calibrated scores beside what there was; return their name."""
        name = f"{self.readout.output or self.readout.score}_calibrated"
        return self._serve(name, beside=True)

    def _serve(self, wanted: str, *, beside: bool) -> str:
        self._emit(self.readout.tensor)
        name = unused_name(wanted, tensor_names(self.graph))
        element, shape = self._layout(self.readout.score)
        if element == self.onnx.TensorProto.FLOAT16:
            element = self.onnx.TensorProto.FLOAT
        self._lay_out(self.readout.score, name=name, element=element)
        make_info = self.onnx.helper.make_tensor_value_info
        self.graph.output.append(make_info(name, element, shape))
        for label in self.labels:
            scores = self._label_scores(label)
            if beside:
                self._serve_label(label, label_beside(label, self.build, scores))
            else:
                relabel(label, self.build, scores)
        return name

    def _count_axes(self, label: LabelSource) -> int:
        """Return how many axes the scores have that a label is decided by."""
        if operator(label.origin) != "ArgMax":
            return 2
        _, shape = self.types.get(label.origin.input[0], ("", []))
        if shape:
            return len(shape)
        _, shape = self.types[label.output]
        if label.chain or not shape:
            return 2
        return len(shape) + (attribute(label.origin, "keepdims", 1) == 0)

    def _label_scores(self, label: LabelSource) -> str:
        """Return the scores whose largest names the class, laid out as labels are."""
        scores, n_classes = self.emitted.label_scores, len(self.calibrator.classes_)
        if self.axis is not None:
            return self.axis.write_back(self.build, scores, n_classes)
        n_axes = self._label_axes[label.output]
        if n_axes <= 2:
            return scores
        return self.build.reshape(scores, [-1, n_classes] + [1] * (n_axes - 2))

    def _add_probabilities(self) -> str:
        """Serve the probabilities of all classes as an output more."""
        taken = tensor_names(self.graph) | {
            name for node in self.build.nodes for name in node.output
        }
        name = unused_name("probabilities", taken)
        element, _ = self._layout(self.readout.score)
        if element == self.onnx.TensorProto.FLOAT16:
            element = self.onnx.TensorProto.FLOAT
        proba, n_classes = self.emitted.proba, len(self.calibrator.classes_)
        shape: list[Any] = ["batch", n_classes]
        if self.axis is not None:
            proba = self.axis.write_back(self.build, proba, n_classes)
            shape = list(self.types[self.readout.tensor][1])
            shape[self.axis.index] = n_classes
        self.build.cast(proba, element, output=name)
        make_info = self.onnx.helper.make_tensor_value_info
        self.graph.output.append(make_info(name, element, shape))
        return name

    def _serve_label(self, label: LabelSource, tensor: str) -> None:
        name = unused_name(f"{label.output}_calibrated", tensor_names(self.graph))
        self.build.op("Identity", tensor, output=name)
        served = next(v for v in self.graph.output if v.name == label.output)
        twin = type(served).FromString(served.SerializeToString())
        twin.name = name
        self.graph.output.append(twin)

    def _emit(self, tensor: str) -> None:
        """Write the calibration of `tensor`."""
        build = self.build
        x = build.cast(tensor, np.float64)
        if self.axis is not None:
            x = self.axis.write_rows(build, x, self.n_columns)
        elif len(self.types[self.readout.tensor][1]) != 2:
            x = build.reshape(x, [-1, self.n_columns])
        if self.readout.kind == "proba":
            x = self._log_of(x)
        if self.n_columns > self.calibrator.n_features_in_:
            x = build.op("MatMul", x, build.constant([[-1.0], [1.0]]))
        elif self.n_columns < self.calibrator.n_features_in_:
            both = build.op("MatMul", x, build.constant([[-1.0, 1.0]]))
            x = emit(LogSigmoid(), build, both, 2)
        self.emitted = Emitted(self.calibrator, build, x)

    def _log_of(self, proba: str) -> str:
        build, floor = self.build, self.build.constant(PROBA_FLOOR)
        log_p = build.op("Log", build.op("Max", proba, floor))
        if self.n_columns > 1 and not self._multilabel:
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
        score: str,
        meaning: Meaning | None = None,
        name: str | None = None,
        element: int | None = None,
    ) -> str:
        """Give calibrated scores the type and shape of those they stand for."""
        build = self.build
        meaning = self._meaning if meaning is None else meaning
        values: str = getattr(self.emitted, meaning)
        known, shape = self._layout(score)
        columns = 1 if len(shape) == 1 else self.readout.columns or shape[1]
        if self.axis is not None:
            columns = self.readout.columns
        if not isinstance(columns, int) or score in self._logits:
            columns = self.n_columns
        if columns == 1 and meaning == "proba":
            values = build.op("Gather", values, build.constant([1], np.int64), axis=1)
        elif columns == 1:  # the log-odds of the second class
            values = build.op("MatMul", values, build.constant([[-1.0], [1.0]]))
        element = known if element is None else element
        if meaning == "logits":
            values = self._finite(values, element)
        if self.axis is not None:
            values = self.axis.write_back(build, values, columns)
        elif len(shape) != 2:
            shape = [-1, *([columns] + [1] * 9)[: len(shape) - 1]]
            values = build.reshape(values, shape)
        return build.cast(values, element, output=name)

    def _finite(self, logits: str, element: int) -> str:
        """Cut logits to what the type they are served in can hold."""
        half = element == self.onnx.TensorProto.FLOAT16
        largest = float(np.finfo(np.float16 if half else np.float32).max) * (1 - 2**-8)
        below = self.build.op("Min", logits, self.build.constant(largest))
        return self.build.op("Max", below, self.build.constant(-largest))


_ELEMENTS = {
    "tensor(float)": "FLOAT",
    "tensor(double)": "DOUBLE",
    "tensor(float16)": "FLOAT16",
    "tensor(bfloat16)": "BFLOAT16",
}
