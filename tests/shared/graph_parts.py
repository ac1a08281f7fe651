"""Parts of graphs that tests put together."""

from onnx import TensorProto, helper


def node(op, inputs, outputs=("p",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def info(name, shape=("n", 3), element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)
