"""Parts of graphs that tests put together."""

from onnx import TensorProto, helper, numpy_helper


def node(op, inputs, outputs=("p",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def info(name, shape=("n", 3), element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def make_model(
    nodes, inputs, outputs, constants=(), *, opset=17, ml=None, ir_version=8
):
    """Return a model; `constants` are arrays by name, `ml` the opset of ai.onnx.ml."""
    made = [numpy_helper.from_array(a, name) for name, a in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, made)
    opsets = [helper.make_opsetid("", opset)]
    if ml is not None:
        opsets.append(helper.make_opsetid("ai.onnx.ml", ml))
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
