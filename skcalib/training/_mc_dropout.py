"""Monte-Carlo dropout: several random passes of one network, in one run."""

from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch.nn.modules.dropout import _DropoutNd

from skcalib._networks._module_copy import is_compiled
from skcalib._validation import check_whole
from skcalib.training._modules import ONE_AT_A_TIME, logits_of

# Layers whose dropout hangs on their own `training` flag, with its probability.
_FUNCTIONAL = (torch.nn.MultiheadAttention, torch.nn.RNNBase)
# In eval mode it may take a fused path that leaves its dropout layers out.
_FUSED = (torch.nn.TransformerEncoderLayer,)
# A mask is a factor on these layers' input, so one row's mask serves the others.
_FACTORS = (
    torch.nn.Dropout,
    torch.nn.Dropout1d,
    torch.nn.Dropout2d,
    torch.nn.Dropout3d,
)
# Networks that were found to need all rows from the input on, as long as they live: by
# sites the layers that drop what has no rows, such as a weight. With one of these, each
# pass is a run of its own.
_UNSPLIT: WeakKeyDictionary[torch.nn.Module, dict[object, WeakSet]] = (
    WeakKeyDictionary()
)


def mc_dropout(
    module: Any,
    x: Any,
    n_passes: int,
    *,
    max_rows: int | None = None,
    share_masks: bool = False,
    sites: Any = None,
) -> Any:
    """Run a network several times with dropout on, the rest of it as it is.

    Only dropout layers are switched on: a network in eval mode keeps the running
    statistics of its batch normalisation. All passes run as one batch, and what lies
    before the first dropout layer runs once for all of them. Gradients flow as usual,
    and all modes are afterwards what they were, after an error too.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it returns a tensor with one row a sample, or an output with such
        `logits`, as Hugging Face has it.

    x : Tensor, or tuple, list or mapping of tensors
        Its input, positional inputs or inputs by name, samples along the first axis.
        What is no tensor, such as None or a flag, goes to the network as it is.

    n_passes : int
        Number of passes.

    max_rows : int, default=None
        Run as few passes at once as keep the batch at or below so many rows, but at
        least one; None runs all at once.

    share_masks : bool, default=False
        Whether one pass drops the same units in all rows: the passes are then
        `n_passes` thinned networks, and a row's result does not hang on its
        neighbours. Layers with their own dropout inside (attention, recurrent layers,
        alpha dropout) draw for each row all the same. The rows may lie along the second
        axis of sequences, as recurrent layers have them.

    sites : list of str, default=None
        Names of the parts of the network, as ``named_modules`` has them, whose dropout
        is on; all other dropout is off. With those before its last layers only a
        network with dropout everywhere runs once but for these. None is all of it.

    Returns
    -------
    passes : Tensor of shape (n_passes, n_samples, ...)
        The stacked results.

    Raises
    ------
    ValueError
        If the network, or a part at the sites, has no dropout layer with a positive
        probability, or the network does not return one row a sample.

    TypeError
        If `x` holds no tensor, or `sites` is a single name.

    Notes
    -----
    Switched on are all dropout layers of torch, `torch.nn.MultiheadAttention`,
    transformer layers and recurrent layers with dropout. A call of
    ``torch.nn.functional.dropout`` inside a ``forward`` of your own cannot be seen: use
    layers. The masks come from torch's global generator.

    The rows are repeated where the first dropout layer meets them, not at the input,
    which gives the same passes from the same masks. That takes a network where all that
    follows hangs on the rows through this layer alone. Others, such as one with a
    connection around the layer, one that draws before it, or a compiled one, are run on
    repeated rows as a whole; a network is tried once, and its forward then runs twice.
    Batch normalisation in train mode counts rows before the layer once. Where dropout
    sits from the first layers on, S passes cost S runs; `sites` takes the last ones.
    Where a layer drops what has no rows, such as a weight (DropConnect), the passes are
    run one at a time, but not in a compiled network: there they share that mask.

    Calls in several threads wait for each other, since they switch layers and draw from
    generators that threads share.

    Gradient checkpointing (``torch.utils.checkpoint``) runs parts of the network anew
    in the backward pass, where dropout is as it was before: switch it off for a loss of
    these passes. With ``use_reentrant=True`` only wrong gradients would show it.

    Examples
    --------
    >>> import torch
    >>> from skcalib.training import mc_dropout
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout()).eval()
    >>> mc_dropout(network, torch.ones(5, 2), 4).shape
    torch.Size([4, 5, 3])
    >>> network.training
    False
    """
    n_passes = at_once = check_whole("n_passes", n_passes)
    if isinstance(sites, str):
        raise TypeError(f"sites={sites!r} is a single name; pass a list, [{sites!r}].")
    sites = None if sites is None else tuple(sites)
    n_rows = _count_rows(x)
    if max_rows is not None:
        at_once = min(n_passes, max(1, int(max_rows) // max(1, n_rows)))
    results = []
    with ONE_AT_A_TIME, dropout_on(module, sites):
        for start in range(0, n_passes, at_once):
            n = min(at_once, n_passes - start)
            results.append(_run_passes(module, x, n, n_rows, share_masks, sites))
    return results[0] if len(results) == 1 else torch.cat(results)


@contextmanager
def dropout_on(module, sites=None):
    """Switch the dropout of `module` on, nothing else, and back at the end.

    With `sites` it is that of these parts, and that of all others is switched off.
    """
    wanted = set(_layers_at(module, sites))
    if not any(map(_drops, wanted)):
        where = "" if sites is None else f" at sites={sites!r}"
        raise ValueError(
            f"{type(module).__name__} has no dropout layer with a positive "
            f"probability{where}, so all its passes would be the same; that inside "
            "TorchScript is not seen. Add a torch.nn.Dropout"
            f"{where and ' there, or name parts that have one'}."
        )
    kinds = (_DropoutNd, *_FUNCTIONAL, *_FUSED)
    modes = {
        layer: layer.training for layer in module.modules() if isinstance(layer, kinds)
    }
    try:
        # Not train(), which would switch the parts of a layer as well.
        for layer in modes:
            fused = isinstance(layer, _FUSED) and not wanted.isdisjoint(layer.modules())
            layer.training = fused or layer in wanted
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


def has_dropout(module, sites=None):
    """Whether a layer of `module`, or of its parts at `sites`, drops anything."""
    return any(map(_drops, _layers_at(module, sites)))


def _drops(layer):
    if not isinstance(layer, (_DropoutNd, *_FUNCTIONAL)):
        return False
    return getattr(layer, "p" if isinstance(layer, _DropoutNd) else "dropout") > 0


def _layers_at(module, sites):
    """Yield all layers of a network, or those of its parts at the sites."""
    parts = dict(module.named_modules())
    for name in [""] if sites is None else sites:
        if name not in parts:
            dropping = [own for own, part in parts.items() if own and _drops(part)]
            raise ValueError(
                f"sites={sites!r} names {name!r}, which is no part of the "
                f"{type(module).__name__}. Its layers with dropout are {dropping}."
            )
        yield from parts[name].modules()


def _run_passes(module, x, n_passes, n_rows, share_masks, sites):
    """Run passes as one batch, with one pass of what lies before the first dropout."""
    # A single row fits whatever else comes, and would hide that branches meet. What has
    # been put in the place of a layer's own forward has to run as it is.
    whole = n_rows == 1 or any(
        is_compiled(layer)
        or (isinstance(layer, _DropoutNd) and "forward" in vars(layer))
        for layer in module.modules()
    )
    splits = n_passes > 1 and sites not in _UNSPLIT.get(module, {}) and not whole
    if splits:
        try:
            return _run_split(module, x, n_passes, n_rows, share_masks)
        except Exception:  # noqa: S110 - a true error comes again below.
            pass
    rowless = _UNSPLIT.get(module, {}).get(sites) or WeakSet()
    if not rowless:
        state = _State(module, x)
        masks = _Masks(n_passes, n_rows, share_masks, rowless)
        with masks.drawn_by(module):
            passes = _run(module, _repeat(x, n_passes), n_passes, n_rows)
        if splits or rowless:
            _UNSPLIT.setdefault(module, {})[sites] = rowless
        if not rowless or n_passes == 1:
            return passes
        state.restore()
    with _Masks(1, n_rows, share_masks, rowless).drawn_by(module):
        return torch.cat(
            [_run(module, _repeat(x, 1), 1, n_rows) for _ in range(n_passes)]
        )


def _run_split(module, x, n_passes, n_rows, share_masks):
    """Copy the rows where the first dropout layer meets them, not at the input.

    Right where all that follows depends on the rows through that layer alone and
    nothing random came before. Else the rows do not fit each other, or the generators
    have moved: it raises, and leaves generators and buffers as they were.
    """
    state = _State(module, x)
    masks = _Masks(n_passes, n_rows, share_masks, WeakSet(), state.generators)
    try:
        with masks.drawn_by(module):
            # A copy: the first layer may work in place.
            passes = _run(module, _repeat(x, 1), n_passes, n_rows)
        if masks.rowless:
            raise ValueError("A layer drops what has no rows.")
    except BaseException:
        state.restore()
        raise
    return passes


class _State:
    """What a run moves: torch's generators, and buffers of layers in train mode."""

    def __init__(self, module, x):
        self.generators = _Generators(x)
        self._kept = [
            (buffer, buffer.clone())
            for layer in module.modules()
            if layer.training
            for buffer in layer.buffers(recurse=False)
        ]

    @torch.no_grad()
    def restore(self):
        """Set all back to the start."""
        self.generators.restore()
        for buffer, before in self._kept:
            buffer.copy_(before)


class _Generators:
    """The states of torch's generators where a network runs."""

    def __init__(self, x):
        self._device = _inputs(x)[0].device
        self._access = [(torch.get_rng_state, torch.set_rng_state)]
        if self._device.type == "cuda":
            reader = partial(torch.cuda.get_rng_state, self._device)
            writer = partial(torch.cuda.set_rng_state, device=self._device)
            self._access.append((reader, writer))
        self._start = [read() for read, _ in self._access]

    def untouched(self, values):
        """Whether nothing random is known to have been drawn where `values` are."""
        if values.device != self._device or self._device.type not in ("cpu", "cuda"):
            return False
        now = [read() for read, _ in self._access]
        return all(map(torch.equal, now, self._start))

    def restore(self):
        """Set the generators back to the start."""
        for (_, write), state in zip(self._access, self._start, strict=True):
            write(state)


class _Masks:
    """How dropout layers draw for the passes of one run.

    `rowless` are the layers found to drop what has no rows. With `generators` the rows
    enter once, and the first layer copies them.
    """

    def __init__(self, n_passes, n_rows, share, rowless, generators=None):
        self.n_passes = n_passes
        self.n_rows = n_rows
        self.share = share
        self.rowless = rowless
        self.generators = generators

    @contextmanager
    def drawn_by(self, module):
        """Let the dropout layers of `module` draw as this says."""
        parts = set(module.modules())
        watched = self.share or not any(map(is_compiled, parts))
        layers = {m for m in parts if watched and isinstance(m, _DropoutNd)}
        layers = {m for m in layers if "forward" not in vars(m)}
        try:
            for layer in layers:
                layer.forward = partial(self._forward, layer)
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _forward(self, layer, values):
        own_forward = partial(type(layer).forward, layer)
        if not layer.training or layer.p == 0 or layer in self.rowless:
            return own_forward(values)
        copies = 1 if self.generators is None else self._copies(values)
        axes = self._axes(layer, values) if copies == 1 else [0]
        if not axes:
            self.rowless.add(layer)
        # Where rows may lie along either axis, each draws for itself.
        if not self.share or type(layer) not in _FACTORS or len(axes) != 1:
            return own_forward(_repeat(values, copies) if copies > 1 else values)
        (axis,) = axes
        shape = list(values.shape)
        shape[axis] = self.n_passes
        mask = own_forward(values.new_ones(shape))
        parts = values.unflatten(axis, (self.n_passes // copies, -1))
        return (parts * mask.unsqueeze(axis + 1)).flatten(axis, axis + 1)

    def _axes(self, layer, values):
        """Return the axes that the rows of all passes may lie along."""
        n = max(1, self.n_passes * self.n_rows)
        if isinstance(values, torch.nn.Parameter) or values.ndim == 0:
            return []
        sequences = type(layer) is torch.nn.Dropout and values.ndim == 3
        exact = [axis for axis in range(1 + sequences) if values.shape[axis] == n]
        return exact or ([0] if values.shape[0] % n == 0 else [])

    def _copies(self, values):
        """Return how often to repeat the rows: once for each pass, and never again."""
        if values.shape[0] != self.n_rows or not self.generators.untouched(values):
            raise ValueError("The rows cannot be copied here.")
        self.generators = None
        return self.n_passes


def _has_rows(value):
    return isinstance(value, torch.Tensor) and value.ndim > 0


def _inputs(x):
    """Return the tensors of the input; flags and None go to the network as they are."""
    parts = list(x.values()) if isinstance(x, Mapping) else x
    parts = parts if isinstance(parts, (tuple, list)) else [parts]
    tensors = [part for part in parts if _has_rows(part)]
    if not tensors:
        kinds = sorted({type(part).__name__ for part in parts})
        raise TypeError(f"x holds no tensor with rows, but {', '.join(kinds)}.")
    return tensors


def _count_rows(x):
    rows = {tensor.shape[0] for tensor in _inputs(x)}
    if len(rows) != 1:
        raise ValueError(f"The inputs have different numbers of rows: {sorted(rows)}.")
    return rows.pop()


def _repeat(x, n):
    """Repeat all rows `n` times, pass after pass."""

    def repeated(part):
        return part.repeat(n, *[1] * (part.ndim - 1)) if _has_rows(part) else part

    if isinstance(x, Mapping):
        return {name: repeated(part) for name, part in x.items()}
    if isinstance(x, (tuple, list)):
        return [repeated(part) for part in x]
    return repeated(x)


def _run(module, x, n_passes, n_rows):
    if isinstance(x, Mapping):
        result = module(**x)
    else:
        result = module(*x) if isinstance(x, (tuple, list)) else module(x)
    result = logits_of(result)
    if not isinstance(result, torch.Tensor):
        raise ValueError(
            f"The module returned a {type(result).__name__}, not a tensor. Wrap it in "
            "a module that returns its logits or means only."
        )
    if result.ndim == 0 or result.shape[0] != n_passes * n_rows:
        raise ValueError(
            f"The module returned shape {tuple(result.shape)} for {n_passes * n_rows} "
            "rows. Samples have to lie along the first axis of input and output."
        )
    return result.unflatten(0, (n_passes, n_rows))
