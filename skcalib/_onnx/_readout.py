"""Finding the logits in an ONNX classifier: which tensor, and how to read it."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from skcalib._numerics import PROBA_FLOOR, softmax_
from skcalib._onnx._choice import choose, find_decision
from skcalib._onnx._class_names import named_classes
from skcalib._onnx._files import ModelSource, parse_model
from skcalib._onnx._graph import (
    CLASSIFIERS,
    GraphIndex,
    attribute,
    class_labels,
    operator,
    tensor_names,
    unused_name,
)
from skcalib._onnx._outputs import FEWEST_OF_ONE, are_proba, as_columns, has_columns
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError

_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")

Kind = Literal["logits", "log_odds", "proba", "raw"]
# What scores mean to whoever reads them.
Meaning = Literal["logits", "log_proba", "proba"]


@dataclass(frozen=True)
class Readout:
    """How to read logits from a network.

    `tensor` is read. Its `kind` says what it holds: "logits", "log_odds" (one column
    for the second class), "proba", or "raw" (logits, unless data show probabilities).
    `score` is the tensor of the model's own scores, before any ZipMap, and `output`
    the graph output that serves them, None if the model serves labels only.
    `path` holds all tensors between, from which labels may have been made; `columns`
    is the number of columns of the scores, where it is known. `made` is what the
    operators between `tensor` and `score` make of logits, and `step` how far apart the
    numbers lie that static quantisation leaves of it. `labels` are those that the model
    names the columns by, if it does; `independent` says that each column is the
    probability of its class by itself, by a sigmoid inside a classifier.
    """

    tensor: str
    kind: Kind
    score: str
    output: str | None
    path: frozenset[str] = field(default=frozenset(), repr=False)
    columns: int | None = field(default=None, repr=False)
    made: Meaning = field(default="logits", repr=False)
    step: float = field(default=0.0, repr=False)
    labels: tuple[Any, ...] | None = field(default=None, repr=False)
    independent: bool = field(default=False, repr=False)

    @property
    def meaning(self) -> Meaning:
        """What the scores are that the model serves; a ZipMap changes nothing."""
        return "proba" if self.kind == "proba" else self.made

    @property
    def is_certain(self) -> bool:
        """Whether an operator of the graph says what the tensor holds."""
        return self.kind != "raw"


def read_classifier(
    source: ModelSource, output: str | None = None
) -> tuple[Any, Readout]:
    """Parse a model, to be changed by the caller, and find its logits.

    Scores that a linear classifier hides are written out in what is returned.
    """
    model = parse_model(source)
    return model, find_readout(model, output)


def find_readout(model: Any, output: str | None = None) -> Readout:
    """Find the logits behind the scores that `model` serves.

    A linear classifier hides its scores inside one operator: nodes that compute them
    are then added to `model`, which is changed in place.
    """
    index = GraphIndex(model.graph)
    if output is not None:
        return _read_named(index, output)
    found = {
        value.name: readout
        for value in model.graph.output
        if (readout := _read_output(index, value)) is not None
    }
    return choose(index, found)


def _read_named(index: GraphIndex, name: str) -> Readout:
    for value in index.graph.output:
        if value.name == name:
            # Of any shape, which data show.
            readout = _read_output(index, value, is_named=True)
            if readout is None:
                raise ModelFormatError(
                    f"The output {name!r} holds no scores of a classifier: it is no "
                    "floating-point tensor with a row a sample and a column a class."
                )
            return readout
    if index.producer(name) is None:
        raise ModelFormatError(
            f"The model has no output or inner tensor named {name!r}; its outputs are "
            f"{[value.name for value in index.graph.output]}."
        )
    return _walk(index, name, output=None)


def _read_output(
    index: GraphIndex, value: Any, *, is_named: bool = False
) -> Readout | None:
    """Read one graph output: scores, a ZipMap of them, or labels; else None."""
    kind = value.type.WhichOneof("value")
    origin, node = find_decision(index, value.name)
    if node is not None and operator(node) == "ZipMap":
        return _walk(index, node.input[0], output=value.name)
    if node is not None and operator(node) in ("ArgMax", "TopK"):
        return _walk(index, node.input[0], output=None)
    if node is not None and operator(node) in CLASSIFIERS and origin == node.output[0]:
        scores = node.output[1] if len(node.output) > 1 else ""
        return _walk(index, scores, output=None) if scores else None
    if kind == "tensor_type" and _may_be_scores(value.type.tensor_type, is_named):
        return _walk(index, value.name, output=value.name)
    return None


def is_floating(tensor_type: Any) -> bool:
    """Whether a tensor is floating-point."""
    onnx = import_optional("onnx", "Reading an ONNX model")
    floats = {onnx.TensorProto.DataType.Value(name) for name in _FLOATS}
    return tensor_type.elem_type in floats


def _may_be_scores(tensor_type: Any, of_any_shape: bool) -> bool:
    """Whether a tensor is floating-point, and (n,), (n, K) or (n, K, 1, 1)."""
    if not is_floating(tensor_type) or of_any_shape:
        return is_floating(tensor_type)
    if not tensor_type.HasField("shape"):
        return True
    dims = tensor_type.shape.dim
    return len(dims) >= 1 and all(dim.dim_value in (0, 1) for dim in dims[2:])


def _walk(index: GraphIndex, score: str, *, output: str | None) -> Readout:
    """Walk back from the scores to the logits."""
    path: list[str] = []
    end = Readout(score, "raw", score, output)
    tensor = score
    normalised = False
    while True:
        pairs = list(index.upstream(tensor))
        path.extend(name for name, _ in pairs)
        end = replace(end, step=max(end.step, _largest_step(index, pairs)))
        _, node = pairs[-1]
        if node is None:
            break
        if operator(node) == "Normalizer" and attribute(node, "norm", "MAX") == "L1":
            tensor, normalised = node.input[0], True
            continue
        found = _read_node(index, node, pairs[-1][0])
        if found is not None:
            tensor, kind = found
            # (1 - p, p) of one number, not a sigmoid for each column.
            binary = kind == "log_odds" and operator(node) != "Sigmoid"
            if normalised and kind != "logits" and not binary:
                tensor, kind = score, "proba"
            columns = 2 if binary else None
            alone = not normalised and _logistic_kind(node) == "proba"
            end = replace(
                end, tensor=tensor, kind=kind, columns=columns, independent=alone
            )
            if kind != "raw":
                logarithm = operator(node) == "LogSoftmax" and not normalised
                end = replace(end, made="log_proba" if logarithm else "proba")
        break
    if normalised and not end.is_certain:
        end = replace(end, kind="proba")
    # Labels may be taken from the logits before a cast or a reshape of them.
    through = frozenset([*path, *(name for name, _ in index.upstream(end.tensor))])
    return replace(end, path=through, labels=named_classes(index, score, through))


def _largest_step(index: GraphIndex, pairs: list[tuple[str, Any]]) -> float:
    """Return the largest distance of neighbours on the grids that are passed."""
    steps = [
        index.constant(node.input[1])
        for _, node in pairs[:-1]
        if operator(node) == "DequantizeLinear"
    ]
    return max((float(step.max()) for step in steps if step is not None), default=0.0)


def _read_node(index: GraphIndex, node: Any, tensor: str) -> tuple[str, Kind] | None:
    """Say what the maker of the scores was given: ``(tensor, kind)``."""
    if operator(node) in ("Softmax", "LogSoftmax"):
        return node.input[0], "logits"
    if operator(node) == "Sigmoid":
        return node.input[0], "log_odds"
    if operator(node) in ("Div", "Mul"):
        found = _spelt_softmax(index, node)
        return (found, "logits") if found else None
    if operator(node) == "Concat" and len(node.input) == 2:
        found = _spelt_binary(index, node)
        return (found, "log_odds") if found else None
    if operator(node) == "LinearClassifier" and tensor == node.output[1]:
        applied = attribute(node, "post_transform", "NONE")
        if applied == "SOFTMAX":
            found = _linear_scores(index, node)
            return (found, "logits") if found else (tensor, "proba")
        if applied == "LOGISTIC":
            found = _linear_scores(index, node, binary=True)
            return (found, "log_odds") if found else (tensor, _logistic_kind(node))
        return (tensor, "raw")
    if operator(node) in CLASSIFIERS and _logistic_kind(node) == "proba":
        return tensor, "proba"
    return None


def _logistic_kind(node: Any) -> Kind:
    """Say what a classifier gives: of several classes maybe a sigmoid for each."""
    applied = attribute(node, "post_transform", "NONE")
    is_several = len(class_labels(node)) > 2
    return "proba" if applied == "LOGISTIC" and is_several else "raw"


def _spelt_softmax(index: GraphIndex, node: Any) -> str | None:
    """Recognise exp(x) / sum(exp(x)), with or without x less its maximum."""
    exp, total = index.origin(node.input[0])[1], _behind_expand(index, node.input[1])
    if operator(node) == "Mul" and total is not None:
        if operator(total) != "Reciprocal":
            return None
        total = _behind_expand(index, total.input[0])
    if exp is None or total is None:
        return None
    if operator(exp) != "Exp" or operator(total) not in ("ReduceSum", "ReduceL1"):
        return None
    if index.origin(total.input[0])[1] is not exp:
        return None
    _, inner = index.origin(exp.input[0])
    if inner is not None and operator(inner) == "Sub":
        largest = _behind_expand(index, inner.input[1])
        if largest is not None and operator(largest) == "ReduceMax":
            return str(inner.input[0])
    return str(exp.input[0])


def _behind_expand(index: GraphIndex, tensor: str) -> Any:
    """Return the maker of a row's number before it was spread over the columns."""
    node = index.origin(tensor)[1]
    while node is not None and operator(node) in ("Expand", "Tile", "Max"):
        # jax takes the larger of the maximum and minus infinity.
        computed = [name for name in node.input if index.constant(name) is None]
        node = index.origin(computed[0])[1] if computed else None
    return node


def _spelt_binary(index: GraphIndex, node: Any) -> str | None:
    """Recognise the two columns (1 - p, p) with p = sigmoid(z)."""
    _, first = index.origin(node.input[0])
    _, second = index.origin(node.input[1])
    if first is None or second is None:
        return None
    if operator(first) != "Sub" or operator(second) != "Sigmoid":
        return None
    one = index.constant(first.input[0])
    if one is None or one.size != 1 or one.reshape(-1)[0] != 1:
        return None
    return str(second.input[0]) if index.origin(first.input[1])[1] is second else None


def _linear_scores(index: GraphIndex, node: Any, *, binary: bool = False) -> str | None:
    """Add nodes that compute the scores of a LinearClassifier; return their name.

    If `binary`, that is one column, from which the two classes' scores differ in sign.
    """
    onnx = import_optional("onnx", "Reading an ONNX model")
    if node.output[1] in index.linear_scores:
        return index.linear_scores[node.output[1]]
    coef = np.asarray(attribute(node, "coefficients", []), dtype=np.float32)
    intercept = np.asarray(attribute(node, "intercepts", []), dtype=np.float32)
    n_classes = len(class_labels(node))
    if n_classes < 2 or intercept.size != n_classes or coef.size % n_classes:
        return None
    coef = coef.reshape(n_classes, -1)
    if binary:
        if n_classes != 2 or (coef[0] != -coef[1]).any() or intercept.sum() != 0:
            return None
        coef, intercept = coef[1:], intercept[1:]
    graph = index.graph
    taken = tensor_names(graph)
    names = {
        key: unused_name(f"{node.output[1]}_{key}", taken)
        for key in ("float", "coef", "intercept", "product", "logits")
    }
    for key, value in (
        ("coef", coef.T),
        ("intercept", intercept),
    ):
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), names[key])
        graph.initializer.append(tensor)
    new = [
        ("Cast", [node.input[0]], "float", {"to": onnx.TensorProto.FLOAT}),
        ("MatMul", [names["float"], names["coef"]], "product", {}),
        ("Add", [names["product"], names["intercept"]], "logits", {}),
    ]
    place = next(i for i, other in enumerate(graph.node) if other is node)
    for op, inputs, key, attributes in reversed(new):
        made = onnx.helper.make_node(op, inputs, [names[key]], names[key], **attributes)
        graph.node.insert(place, made)
    index.linear_scores[node.output[1]] = names["logits"]
    return names["logits"]


def read_logits(readout: Readout, values: np.ndarray, n_rows: int) -> np.ndarray:
    """Turn the values of the tensor that was read into (n_rows, n_columns) logits."""
    values = as_columns(values, n_rows, f"The tensor {readout.tensor!r}")
    if readout.kind != "proba":
        return values if values.dtype == np.float64 else values.astype(np.float32)
    if values.dtype == np.float16:
        raise ModelFormatError(
            f"The tensor {readout.tensor!r} holds probabilities in half precision, too "
            "coarse to calibrate: everything below 6e-8 is zero and all above 0.9998 "
            "is 1. Name the tensor that holds the logits (output=...), or export the "
            "model in single precision."
        )
    proba = np.maximum(values.astype(np.float64), PROBA_FLOOR)
    if proba.shape[1] > 1:
        return np.log(proba)
    return np.log(proba) - np.log(
        np.maximum(1 - values.astype(np.float64), PROBA_FLOOR)
    )


def confirm_labels(readout: Readout, values: np.ndarray, n_rows: int) -> Readout:
    """Check what the graph said of labels that may occur together, and settle it."""
    values = as_columns(values, n_rows, f"The tensor {readout.tensor!r}")
    if readout.kind == "logits" or readout.columns == 2:
        raise ModelFormatError(
            f"The scores of {readout.output or readout.score!r} come from a softmax, "
            "so that the classes exclude each other; a MultiLabelCalibration belongs "
            "to independent sigmoids. Take the calibrator by itself."
        )
    if readout.kind == "raw":
        inside = bool(((values >= 0) & (values <= 1) | np.isnan(values)).all())
        readout = replace(readout, kind="proba" if inside else "logits")
    return replace(readout, columns=values.shape[1])


def confirm_readout(
    readout: Readout, values: np.ndarray, score: np.ndarray, n_rows: int
) -> Readout:
    """Check what the graph said on data, and settle what it could not say."""
    served = as_columns(score, n_rows, f"The tensor {readout.score!r}")
    readout = replace(readout, columns=served.shape[1])
    if readout.kind == "logits" and not has_columns(values, n_rows):
        return _of_served(readout, served)
    values = as_columns(values, n_rows, f"The tensor {readout.tensor!r}")
    if readout.independent:
        before = "export it without its post_transform, so that it serves logits"
        raise _independent(readout, before, "its log-odds are")
    if readout.kind == "log_odds" and values.shape[1] > 1:
        before = f"name the tensor before the sigmoid: output={readout.tensor!r}"
        raise _independent(readout, before, "that holds the log-odds")
    if readout.kind == "raw":
        return replace(readout, kind=_kind_of(readout, values))
    if readout.kind != "proba" and readout.tensor != readout.score:
        # Made-up inputs may lie where a logarithm or a root has no value.
        finite = np.isfinite(values).all(axis=1) & np.isfinite(served).all(axis=1)
        if not finite.any():
            return readout
        served = served[finite].astype(np.float64)
        logits = values[finite].astype(np.float64)
        if readout.kind == "log_odds":
            if served.shape[1] == 1:
                return readout
            logits = np.hstack([np.zeros_like(logits), logits])
        rounded = _rounding(values[finite], score)
        # Runtimes fuse a softmax with its grid, and are up to a step off the nearest.
        if not _same_proba(logits, served, rounded + 2 * readout.step):
            return _of_served(readout, served)
    return readout


def _rounding(logits: np.ndarray, score: np.ndarray) -> float:
    """Return how far off probabilities may be that were made of logits."""
    if logits.dtype == np.float16:
        return 1e-2 + float(np.spacing(np.abs(logits).max(initial=0)))
    return 1e-2 if score.dtype == np.float16 else 1e-4


def _of_served(readout: Readout, served: np.ndarray) -> Readout:
    """Read the scores that are served, whatever they were made of."""
    kind: Kind = "proba" if are_proba(served) else "logits"
    made: Meaning = "proba" if kind == "proba" else "logits"
    return replace(readout, tensor=readout.score, kind=kind, made=made)


def _kind_of(readout: Readout, values: np.ndarray) -> Kind:
    """Say what rows look like; infinite ones and NaN are named elsewhere."""
    values = values[np.isfinite(values).all(axis=1)]
    inside = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1 and inside and 0 < len(values) < FEWEST_OF_ONE:
        raise ModelFormatError(
            f"The {len(values)} rows of the single column {readout.tensor!r} lie "
            "between 0 and 1: probabilities, or logits by chance. Show at least "
            f"{FEWEST_OF_ONE} rows first: OnnxLogits(model).fit(X)."
        )
    return "proba" if len(values) > 0 and are_proba(values) else "logits"


def _independent(readout: Readout, before: str, log_odds: str) -> ModelFormatError:
    return ModelFormatError(
        f"The output {readout.output or readout.score!r} holds {readout.columns} "
        "independent sigmoids, whose rows are no distribution over classes. If each "
        f"sample has exactly one class, {before}. If it may have several, {log_odds} "
        "for a MultiLabelCalibration, which calibrate_onnx_model writes into the model."
    )


def _same_proba(logits: np.ndarray, served: np.ndarray, error: float) -> bool:
    """Whether softmax(logits) is what the model serves, or its logarithm."""
    if logits.shape != served.shape:
        return False
    if (served < 0).any():
        served = np.exp(served)
    return bool(np.abs(softmax_(logits.copy()) - served).max() <= error)
