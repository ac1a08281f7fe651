"""An ONNX classifier as a torch module whose logits can be differentiated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skcalib._numerics import PROBA_FLOOR
from skcalib._onnx._files import ModelSource, open_model
from skcalib._onnx._in_torch._nodes import Graph
from skcalib._onnx._in_torch._plan import Compiler, Plan, run_steps
from skcalib._onnx._in_torch._registry import Place
from skcalib._onnx._inputs import InputSpec, fixed_batch
from skcalib._onnx._outputs import as_columns
from skcalib._onnx._readout import Readout, read_classifier
from skcalib._onnx._session import OnnxNetwork, open_onnx
from skcalib.exceptions import NotDifferentiableError

# One input, or several by name.
Batch = Tensor | Mapping[str, Tensor]


class OnnxModule(nn.Module):
    """Logits of an ONNX network, computed by torch operators.

    ``module(x)`` returns ``(n, K)`` or ``(n, 1)`` logits. ``module(x, shift)`` adds
    `shift` to the tensor at `site` on the way: to the input itself, or to the inner
    tensor that was named, which may follow inputs of integers. Several inputs come by
    name, as a mapping.

    Weights are buffers, so that nothing requires a gradient. It computes in float32
    whatever the file says, in float64 after ``.double()``. Pickling keeps the path, or
    the bytes, of the model.

    Attributes
    ----------
    inputs : list of InputSpec
        Name, shape and type of each input.

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
        site: str,
        inputs: list[InputSpec],
        readout: Readout,
        graph: Graph | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._output = output
        self.inputs = inputs
        self.fixed_batch = fixed_batch(inputs)
        self.site = site
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
        compiler = Compiler(graph, self._names)
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
                f"to {self.site!r}. Name a tensor between the inputs {self._names} and "
                "the logits: site=..."
            )

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    def _values(self, x: Batch) -> tuple[dict[Any, Any], Place]:
        place = Place(self._anchor.dtype, self._anchor.device)
        values: dict[Any, Any] = {**self._literals, **self._buffers}
        for slot, spec in enumerate(self.inputs):
            part = self._part(x, spec.name)
            real = spec.dtype.kind == "f" or part.is_floating_point()
            values[slot] = part.to(place.dtype if real else _integer_type(spec.dtype))
        return values, place

    def _part(self, x: Batch, name: str) -> Tensor:
        if isinstance(x, Tensor) and len(self.inputs) == 1:
            return x
        if isinstance(x, Tensor) or name not in x:
            found = [*x] if isinstance(x, Mapping) else "a single array"
            raise ValueError(
                f"The model has the inputs {self._names}, but X has {found}. Pass a "
                "dict that names all of them."
            )
        return x[name]

    def forward(self, x: Batch, shift: Tensor | None = None) -> Tensor:
        """Return the logits of `x`, with `shift` added at the site.

        Parameters
        ----------
        x : Tensor of shape (n, ...), or mapping from name to Tensor
            A batch of inputs.

        shift : Tensor, default=None
            What is added to the tensor at the site; may be broadcast over the rows.

        Returns
        -------
        Tensor of shape (n, K) or (n, 1)
            Logits; a single column is the log-odds of the second class.
        """
        n_rows = self._part(x, self.inputs[0].name).shape[0]
        return self._logits(self.scores(x, shift), n_rows)

    def scores(self, x: Batch, shift: Tensor | None = None) -> Tensor:
        """Return the tensor that the logits are read from, as it is in the graph."""
        values, place = self._values(x)
        run_steps(self._steps[: self._split], values, place)
        if shift is not None:
            values[self._site_slot] = values[self._site_slot] + shift
        run_steps(self._steps[self._split :], values, place)
        return values[self._target]

    def site_values(self, x: Batch) -> Tensor:
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
        return _reopen, (*arguments, self.site, self.inputs, self.readout, *state)

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
            f"{self._source.name}, inputs={self._names}, site={self.site!r}, "
            f"logits={self.readout.tensor!r}"
        )


def _integer_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _position_after(plan: Plan, slot: int) -> int:
    """Return how many steps it takes until a value is there."""
    for position, step in enumerate(plan.steps):
        if slot in step.results:
            return position + 1
    return 0


def _reopen(
    model: Any,
    output: str | None,
    site: str,
    inputs: list[InputSpec],
    readout: Readout,
    is_confirmed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> OnnxModule:
    """Build a pickled module again, without confirming it once more."""
    module = OnnxModule(open_model(model), output, site, inputs, readout)
    module.is_confirmed = is_confirmed
    return module.to(device=device, dtype=dtype).eval()


def read_graph(source: ModelSource, output: str | None) -> Graph:
    """Read the graph, with the scores of linear classifiers written out."""
    model, _ = read_classifier(source, output)
    return Graph(model, source)
