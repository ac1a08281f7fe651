"""An ONNX classifier as a torch module whose logits can be differentiated."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skcalib._numerics import PROBA_FLOOR
from skcalib._onnx._files import ModelSource, open_source
from skcalib._onnx._in_torch._nodes import Graph
from skcalib._onnx._in_torch._plan import Compiler, Plan, run_steps
from skcalib._onnx._in_torch._registry import Place
from skcalib._onnx._inputs import InputSpec
from skcalib._onnx._outputs import as_columns
from skcalib._onnx._readout import Readout, read_classifier
from skcalib._onnx._session import OnnxNetwork, open_onnx
from skcalib.exceptions import NotDifferentiableError


class OnnxModule(nn.Module):
    """Logits of an ONNX network, computed by torch operators.

    ``module(x)`` returns ``(n, K)`` or ``(n, 1)`` logits. ``module(x, shift)`` adds
    `shift` to the tensor at `site` on the way: to the input itself, or to the inner
    tensor that was named, which may follow an input of integers.

    Weights are buffers, so that nothing requires a gradient. It computes in float32
    whatever the file says, in float64 after ``.double()``. Pickling keeps the path, or
    the bytes, of the model.

    Attributes
    ----------
    input_name : str
        Name of the input.

    input_shape : tuple or None
        Its lengths, None for those that are free; None if not even the rank is known.

    input_dtype : numpy.dtype
        Its type in the file.

    fixed_batch : int or None
        The number of rows that each batch must have, if the file says so.

    site : str
        The tensor that `shift` is added to.

    readout : Readout
        The tensor that is read, and what it holds.

    is_confirmed : bool
        Whether values and gradients have been compared with onnxruntime's.
    """

    _anchor: Tensor

    def __init__(
        self,
        source: ModelSource,
        output: str | None,
        site: str | None,
        spec: InputSpec,
        readout: Readout,
        graph: Graph | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._output = output
        self._spec = spec
        self.input_name = spec.name
        self.input_shape = spec.shape
        self.input_dtype: np.dtype[Any] = spec.dtype
        self.fixed_batch = spec.fixed_batch
        self.site = spec.name if site is None else site
        self.is_confirmed = False
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self.use(readout, graph)

    def reference(self) -> OnnxNetwork:
        """Return the same network in onnxruntime."""
        return open_onnx(self._source.path or self._source.data, self._output)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._anchor.device

    def use(self, readout: Readout, graph: Graph | None = None) -> None:
        """Read the logits as `readout` says, from the graph if it has been read."""
        graph = graph or read_graph(self._source, self._output)
        compiler = Compiler(graph, self.input_name)
        plan = compiler.plan(readout.tensor, kept=[self.site])
        self.readout = readout
        self._check_path(compiler, plan)
        self._target = plan.slots[readout.tensor]
        self._site_slot = plan.slots[self.site]
        self._split = _position_after(plan, self._site_slot)
        self._steps = plan.steps
        self._literals = plan.literals
        self.is_quantised = any(step.node.op == "QuantizeLinear" for step in plan.steps)
        self.is_half = graph.has_halves
        place = self._anchor
        self._buffers.clear()
        self._buffers["_anchor"] = place
        for name, value in plan.buffers.items():
            dtype = place.dtype if value.is_floating_point() else value.dtype
            self.register_buffer(name, value.to(place.device, dtype))

    def _check_path(self, compiler: Compiler, plan: Plan) -> None:
        target = self.readout.tensor
        if target not in plan.slots or self.site not in plan.slots:
            tensor = target if target not in plan.slots else self.site
            fixed = compiler.is_constant(tensor)
            raise NotDifferentiableError(
                f"The tensor {tensor!r} "
                + ("does not depend on the input" if fixed else "is not on the way")
                + f", so the logits {target!r} cannot be differentiated with respect "
                f"to {self.site!r}. Name a tensor between the input "
                f"{self.input_name!r} and the logits: site=..."
            )

    def _values(self, x: Tensor) -> tuple[dict[Any, Any], Place]:
        place = Place(self._anchor.dtype, self._anchor.device)
        if x.is_floating_point() and x.dtype != place.dtype:
            x = x.to(place.dtype)
        values: dict[Any, Any] = {**self._literals, **self._buffers, 0: x}
        return values, place

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the logits of `x`, with `shift` added at the site.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            A batch of inputs.

        shift : Tensor, default=None
            What is added to the tensor at the site; may be broadcast over the rows.

        Returns
        -------
        Tensor of shape (n, K) or (n, 1)
            Logits; a single column is the log-odds of the second class.
        """
        return self._logits(self.scores(x, shift), x.shape[0])

    def scores(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the tensor that the logits are read from, as it is in the graph."""
        values, place = self._values(x)
        run_steps(self._steps[: self._split], values, place)
        if shift is not None:
            values[self._site_slot] = values[self._site_slot] + shift
        run_steps(self._steps[self._split :], values, place)
        return values[self._target]

    def site_values(self, x: Tensor) -> Tensor:
        """Return the tensor at the site for a batch of inputs."""
        values, place = self._values(x)
        run_steps(self._steps[: self._split], values, place)
        return values[self._site_slot]

    def _logits(self, values: Tensor, n_rows: int) -> Tensor:
        """Lay out and read the target; `read_logits` in torch."""
        name = f"The tensor {self.readout.tensor!r}"
        values = as_columns(values, n_rows, name)
        if self.readout.kind != "proba":
            return values
        logarithm = values.clamp_min(PROBA_FLOOR).log()
        if values.shape[1] > 1:
            return logarithm
        return logarithm - (1 - values).clamp_min(PROBA_FLOOR).log()

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the model and how it is read, not the weights."""
        arguments = (self._source.path or self._source.data, self._output)
        state = (self.is_confirmed, self._anchor.dtype, self._anchor.device)
        return _reopen, (*arguments, self.site, self._spec, self.readout, *state)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxModule":
        """Copy the weights; the steps hold no state and are shared."""
        twin = type(self).__new__(type(self))
        twin.__dict__ = dict(self.__dict__)
        twin._buffers = {
            name: None if value is None else value.detach().clone()
            for name, value in self._buffers.items()
        }
        memo[id(self)] = twin
        return twin

    def extra_repr(self) -> str:
        """Name the model and its ends."""
        return (
            f"{self._source.name}, input={self.input_name!r}, site={self.site!r}, "
            f"logits={self.readout.tensor!r}"
        )


def _position_after(plan: Plan, slot: int) -> int:
    """Return how many steps it takes until a value is there."""
    for position, step in enumerate(plan.steps):
        if slot in getattr(step, "results", ()):
            return position + 1
    return 0


def _reopen(
    model: Any,
    output: str | None,
    site: str,
    spec: InputSpec,
    readout: Readout,
    is_confirmed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> OnnxModule:
    """Build a pickled module again, without confirming it once more."""
    module = OnnxModule(open_source(model), output, site, spec, readout)
    module.is_confirmed = is_confirmed
    return module.to(device=device, dtype=dtype).eval()


def read_graph(source: ModelSource, output: str | None) -> Graph:
    """Read the graph, with the scores of linear classifiers written out."""
    model, _ = read_classifier(source, output)
    return Graph(model, source)
