"""The calibration of one ONNX model, written where its scores come out."""

from typing import Any

import numpy as np

from skcalib._backends._onnx_graph import GraphIndex, tensor_names, unused_name
from skcalib._backends._onnx_readout import PROBA_FLOOR, Readout
from skcalib._optional import import_optional
from skcalib._warnings import warn
from skcalib.exceptions import ModelFormatError
from skcalib.export._builder import NodeBuilder, model_opset
from skcalib.export._emit import emit_calibration, label_scores
from skcalib.export._labels import (
    LabelSource,
    find_labels,
    label_beside,
    other_labels,
    relabel,
)
from skcalib.export._rewire import add_nodes, drop_unused, rename_tensor


class Surgery:
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
        self.n_columns = self._count_columns()
        self.build = NodeBuilder(
            model_opset(model), taken=tensor_names(self.graph), prefix="skcalib_"
        )
        index = GraphIndex(self.graph)
        self.labels = find_labels(index, readout)
        self._other_labels = other_labels(index, self.labels)

    def _count_columns(self) -> int:
        """Return how many columns of logits the model has, where the two agree."""
        fitted = int(self.calibrator.n_features_in_)
        _, shape = self.types[self.readout.tensor]
        known = shape[1] if len(shape) > 1 else 1
        if not shape or not isinstance(known, int) or known == fitted:
            return fitted
        if (known, fitted) == (2, 1):  # Fitted on the difference of the two.
            return 2
        raise ValueError(
            f"The model has {known} columns of logits but the calibrator was fitted "
            f"on {fitted}. Fit it on the logits of this model: "
            "make_pipeline(OnnxLogits(model), calibrator).fit(X, y)."
        )

    def write_over(self) -> str:
        """Serve calibrated probabilities under the name of the scores; return it."""
        if self._other_labels:
            warn(
                f"The outputs {self._other_labels} look like labels, but it cannot be "
                "seen how they follow from the scores: they stay as they are. Take the "
                "labels from the calibrated probabilities."
            )
        output = self.readout.output
        if output is None:
            return self._serve("probabilities", beside=False)
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
        add_nodes(self.model, self.build)
        drop_unused(self.graph)
        return output

    def write_beside(self) -> str:
        """Serve calibrated probabilities beside what there was; return their name."""
        name = f"{self.readout.output or self.readout.score}_calibrated"
        return self._serve(name, beside=True)

    def _serve(self, wanted: str, *, beside: bool) -> str:
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
        add_nodes(self.model, self.build)
        return name

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
        if self.n_columns > self.calibrator.n_features_in_:
            x = build.op("MatMul", x, build.constant([[-1.0], [1.0]]))
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


_ELEMENTS = {
    "tensor(float)": "FLOAT",
    "tensor(double)": "DOUBLE",
    "tensor(float16)": "FLOAT16",
    "tensor(bfloat16)": "BFLOAT16",
}
