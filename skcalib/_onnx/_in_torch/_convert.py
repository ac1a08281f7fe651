"""Converting an ONNX model into a differentiable torch module."""

from dataclasses import replace
from typing import Any

from skcalib._onnx._files import open_model
from skcalib._onnx._in_torch import (  # noqa: F401  (they fill the table)
    _activations,
    _classical,
    _elementwise,
    _indexing,
    _layers,
    _normalisation,
    _pooling,
    _quantised,
    _recurrent,
    _reductions,
    _resize,
    _shapes,
)
from skcalib._onnx._in_torch._find_input import find_inputs
from skcalib._onnx._in_torch._module import OnnxModule, read_graph
from skcalib._onnx._in_torch._verify import verify
from skcalib._onnx._inputs import probe_inputs
from skcalib._onnx._session import open_onnx


def differentiable_network(
    model: Any, output: str | None = None, site: str | None = None
) -> OnnxModule:
    """Open an ONNX classifier as a torch module of its logits.

    Parameters
    ----------
    model : str, path-like, bytes or onnx.ModelProto
        The network.

    output : str, default=None
        Name of the output, or inner tensor, that holds the scores; see `OnnxLogits`.

    site : str, default=None
        Name of the tensor that is perturbed; None means the input, of several the only
        one that holds real numbers.

    Returns
    -------
    OnnxModule
        ``module(x, shift=None)`` gives logits of shape (n, K) or (n, 1); several inputs
        are a mapping `x`.

    Raises
    ------
    NotDifferentiableError
        If an operator is not supported or has no gradient, the inputs hold integers and
        no site is named, or values or gradients are not those of onnxruntime.

    Examples
    --------
    >>> from onnx import TensorProto, helper
    >>> rows = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    >>> proba = [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])]
    >>> nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=1)]
    >>> opsets = [helper.make_opsetid("", 17)]
    >>> model = helper.make_model(
    ...     helper.make_graph(nodes, "tiny", rows, proba),
    ...     opset_imports=opsets, ir_version=8,
    ... )
    >>> import torch
    >>> from skcalib._onnx._in_torch import differentiable_network
    >>> network = differentiable_network(model)
    >>> network(torch.tensor([[3.0, 1.0]]), shift=torch.tensor([0.5, 0.0]))
    tensor([[3.5000, 1.0000]])
    """
    source = open_model(model)
    network = open_onnx(model, output)
    graph = read_graph(source, output)
    target = network.readout.tensor
    inputs, site = find_inputs(graph, target, network.inputs, site)
    # Unless made-up inputs settle it, the first rows that are seen do.
    readout = network.try_probe() or replace(network.readout, kind="logits")
    module = OnnxModule(source, output, site, inputs, readout, graph).eval()
    feeds = probe_inputs(network.inputs)
    if feeds is not None:
        module.is_confirmed = verify(module, network, feeds)
    return module
