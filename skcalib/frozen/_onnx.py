"""Logits of a network in an ONNX file."""

import os
from numbers import Integral
from typing import Any

import numpy as np

from skcalib._onnx._session import open_onnx
from skcalib._sklearn_compat import HasMethods, Interval
from skcalib.frozen._base import FrozenLogits


class OnnxLogits(FrozenLogits):
    """Run an ONNX classifier and return its logits.

    The logits are found also when the model serves something else: the walk goes back
    from its scores through `Softmax`, `LogSoftmax`, `Sigmoid`, a softmax spelt out in
    basic operators, `ArgMax`, `ZipMap`, or a linear classifier of ``ai.onnx.ml``, and
    is confirmed on data. Where probabilities are all there is, such as in a forest,
    their logarithm is used.

    Parameters
    ----------
    model : str, path-like, bytes or onnx.ModelProto
        The network. A path is reopened in worker processes; bytes and messages
        travel there whole.

    output : str, default=None
        Name of the output, or of an inner tensor, to start from. Needed only where
        the model has several outputs that could be its scores.

    batch_size : int, default=256
        Rows a run. A model with a fixed batch keeps its own.

    providers : list, default=None
        Execution providers of onnxruntime; None means the CPU.

    Attributes
    ----------
    readout_ : Readout
        The tensor that is read and what it holds. Set by `fit`; `transform` finds it
        again where `fit` was not called, or the file was replaced by another network.

    n_features_in_ : int
        Number of columns, where `fit` got a table.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, where it was a frame; `transform` needs them in the same order.

    See Also
    --------
    TorchLogits : The same for a torch module.
    skcalib.export.calibrate_onnx_model : Writes a calibration back into the model.

    Notes
    -----
    Probabilities below 1e-12 are raised to that before the logarithm. Logarithms
    differ from the network's own logits by a constant in each row, which temperature,
    Dirichlet and one-vs-rest methods do not notice, but vector and matrix scaling do.

    Some models name their classes, in a ZipMap or a classifier of ``ai.onnx.ml``, and
    not all in sorted order. A calibrator behind them learns of it by `classes`, or from
    the columns of a frame, ``set_output(transform="pandas")``; `fit` warns if `y` holds
    these classes, or some of them, and others would be taken for theirs.

    No session is copied or pickled: each process keeps the last few open.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper
    >>> rows = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    >>> proba = [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 2])]
    >>> nodes = [helper.make_node("Softmax", ["x"], ["p"], axis=1)]
    >>> opsets = [helper.make_opsetid("", 17)]
    >>> model = helper.make_model(
    ...     helper.make_graph(nodes, "tiny", rows, proba),
    ...     opset_imports=opsets, ir_version=8,
    ... )
    >>> from skcalib.frozen import OnnxLogits
    >>> OnnxLogits(model).fit_transform(np.array([[3.0, 1.0]], dtype=np.float32))
    array([[3., 1.]], dtype=float32)
    """

    _network = "model"
    _parameter_constraints: dict = {
        "model": [str, os.PathLike, bytes, HasMethods("SerializeToString")],
        "output": [str, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "providers": [list, None],
    }

    def __init__(
        self,
        model: Any,
        *,
        output: str | None = None,
        batch_size: int = 256,
        providers: Any = None,
    ) -> None:
        self.model = model
        self.output = output
        self.batch_size = batch_size
        self.providers = providers

    def _classes(self):
        return self._open().readout.labels

    def _open(self):
        return open_onnx(self.model, self.output, self.providers)

    def _note_features(self, X):
        if len(self._open().inputs) == 1:  # Several come by name, in any order.
            super()._note_features(X)

    def _check(self, X):
        network = self._open()
        self.readout_ = network.confirm(X, self.batch_size)
        return next(network.logits(X, self.batch_size, self.readout_))

    def _compute(self, X):
        network = self._open()
        readout = getattr(self, "readout_", None)
        if readout is None or readout.path != network.readout.path:
            readout = network.confirm(X, self.batch_size)
        return np.concatenate(list(network.logits(X, self.batch_size, readout)))
