"""A linear model that names its classes, in an order of its own."""

import numpy as np
import onnx
from onnx import helper


def draw_rows(n_classes, n=500, seed=0):
    """Return inputs, weights, and the number of the column that each row belongs to."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, n_classes))
    X = rng.normal(size=(n, 4)).astype(np.float32)
    return X, weight, (X @ weight + rng.gumbel(size=(n, n_classes))).argmax(axis=1)


def name_classes(weight, labels, *, zipmap=False, post_transform="SOFTMAX"):
    """Return a LinearClassifier of these labels; a ZipMap may name them instead."""
    n_classes = weight.shape[1]
    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    of_map = {kind: labels}
    named = {kind.replace("int64s", "ints"): labels}
    domain = "ai.onnx.ml"
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "p"],
            domain=domain,
            coefficients=weight.T.ravel().tolist(),
            intercepts=[0.0] * n_classes,
            post_transform=post_transform,
            **({"classlabels_ints": range(n_classes)} if zipmap else named),
        )
    ]
    value = helper.make_tensor_value_info
    outputs = [value("p", 1, ["n", n_classes])]
    if zipmap:
        nodes.append(
            helper.make_node("ZipMap", ["p"], ["maps"], domain=domain, **of_map)
        )
        key = 8 if isinstance(labels[0], str) else 7
        entry = helper.make_map_type_proto(key, helper.make_tensor_type_proto(1, None))
        sequence = helper.make_sequence_type_proto(entry)
        outputs = [helper.make_value_info("maps", sequence)]
    graph = helper.make_graph(nodes, "named", [value("x", 1, ["n", 4])], outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model
