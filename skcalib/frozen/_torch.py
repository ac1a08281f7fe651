"""Logits of a torch module."""

from numbers import Integral
from typing import Any

import numpy as np

from skcalib._networks._given import SharedByCopies
from skcalib._networks._torch import frozen_view, is_module, module_logits
from skcalib._onnx._outputs import warn_of_proba
from skcalib._sklearn_compat import Interval
from skcalib.frozen._base import FrozenLogits


class TorchLogits(SharedByCopies, FrozenLogits):
    """Run a trained torch module and return its logits.

    The module is never changed: neither its weights and buffers nor its train or eval
    mode. It runs on a view of itself in eval mode that shares its weights, without
    gradients and not compiled. What acts as in training all the same, such as a module
    in train mode that its ``forward`` knows by a global name, is refused.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it returns logits, without a softmax at the end.

    batch_size : int, default=256
        Rows a run.

    device : str or torch.device, default="auto"
        Where to run: "auto" is where the module lies; elsewhere takes a copy of it.

    output : str or int, default=None
        Which part of its result holds the logits, where the module returns a tuple, a
        dict or an object. An attribute `logits` is found by itself.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns, where `fit` got a table.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, where it was a frame; `transform` needs them in the same order.

    See Also
    --------
    OnnxLogits : The same for an ONNX file, which reaches worker processes by its path.

    Notes
    -----
    `X` is an array, a tensor, a Dataset or a DataLoader. A loader keeps its batches and
    its order, so it must not shuffle; inputs are the first of what it yields.

    Several inputs come by name, as a dict of arrays or tensors or in batches that are
    dicts, and are passed to ``forward`` by keyword: ``input_ids``, ``attention_mask``.
    Labels beside them, under ``labels`` or ``label``, are left out.

    A clone shares the module. Worker processes get a pickled copy of it: prefer
    threads, or an ONNX file, for `n_jobs` with a large network.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skcalib.frozen import TorchLogits
    >>> module = torch.nn.Linear(2, 3)
    >>> TorchLogits(module).fit_transform(np.zeros((4, 2))).shape
    (4, 3)
    """

    _network = "module"
    _parameter_constraints: dict = {
        "module": [callable],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",
        "output": [str, Integral, None],
    }

    def __init__(
        self,
        module: Any,
        *,
        batch_size: int = 256,
        device: Any = "auto",
        output: str | int | None = None,
    ) -> None:
        self.module = module
        self.batch_size = batch_size
        self.device = device
        self.output = output

    def __getstate__(self):
        """Return the state, with a module's weights as arrays that joblib can map."""
        from skcalib._networks._sharing import portable

        state = super().__getstate__()
        return {**state, "module": portable(state["module"])}

    def _run(self, X):
        if not is_module(self.module):
            raise TypeError(
                "TorchLogits needs a torch.nn.Module, not "
                f"{type(self.module).__name__}. OnnxLogits takes ONNX files."
            )
        from skcalib._networks._inputs import rows_in_order

        view = frozen_view(self.module, self.device)
        return module_logits(view, rows_in_order(X, self.batch_size), self.output)

    def _check(self, X):
        logits = next(self._run(X))
        warn_of_proba(logits)
        return logits

    def _compute(self, X):
        return np.concatenate(list(self._run(X)))
