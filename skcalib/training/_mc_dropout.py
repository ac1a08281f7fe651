"""Monte-Carlo dropout: several random passes of one network, in one run."""

from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch.nn.modules.dropout import _DropoutNd

from skcalib._validation import check_whole

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


def mc_dropout(module, x, n_passes, *, max_rows=None, share_masks=False):
    """Run a network several times with dropout on, the rest of it as it is.

    Only dropout layers are switched on: a network in eval mode keeps the running
    statistics of its batch normalisation. All passes run as one batch. Gradients flow
    as usual, and all modes are afterwards what they were, after an error too.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it returns a tensor with one row a sample.

    x : Tensor, or tuple, list or dict of tensors
        Its input, positional inputs or inputs by name, samples along the first axis.

    n_passes : int
        Number of passes.

    max_rows : int, default=None
        Run as few passes at once as keep the batch at or below so many rows, but at
        least one; None runs all at once.

    share_masks : bool, default=False
        Whether one pass drops the same units in all rows: the passes are then
        `n_passes` thinned networks, and a row's result does not hang on its
        neighbours. Layers with their own dropout inside (attention, recurrent layers,
        alpha dropout) draw for each row all the same.

    Returns
    -------
    passes : Tensor of shape (n_passes, n_samples, ...)
        The stacked results.

    Raises
    ------
    ValueError
        If the network has no dropout layer with a positive probability, or does not
        return one row a sample.

    Notes
    -----
    Switched on are all dropout layers of torch, `torch.nn.MultiheadAttention`,
    transformer layers and recurrent layers with dropout. A call of
    ``torch.nn.functional.dropout`` inside a ``forward`` of your own cannot be seen: use
    layers. The masks come from torch's global generator.

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
    n_rows = _count_rows(x)
    if max_rows is not None:
        at_once = min(n_passes, max(1, int(max_rows) // max(1, n_rows)))
    results = []
    with dropout_on(module):
        for start in range(0, n_passes, at_once):
            n = min(at_once, n_passes - start)
            with ExitStack() as stack:
                if share_masks:
                    stack.enter_context(_shared_masks(module, n))
                results.append(_run(module, _repeat(x, n), n, n_rows))
    return results[0] if len(results) == 1 else torch.cat(results)


@contextmanager
def dropout_on(module):
    """Switch the dropout of `module` on, nothing else, and back at the end."""
    if not has_dropout(module):
        raise ValueError(
            f"{type(module).__name__} has no dropout layer with a positive "
            "probability, so all its passes would be the same. Add a torch.nn.Dropout."
        )
    kinds = (_DropoutNd, *_FUNCTIONAL, *_FUSED)
    switched = [
        layer
        for layer in module.modules()
        if isinstance(layer, kinds) and not layer.training
    ]
    try:
        # Not train(), which would switch the parts of a layer as well.
        for layer in switched:
            layer.training = True
        yield
    finally:
        for layer in switched:
            layer.training = False


def has_dropout(module):
    """Whether a layer of `module` drops anything."""
    return any(
        getattr(layer, "p" if isinstance(layer, _DropoutNd) else "dropout") > 0
        for layer in module.modules()
        if isinstance(layer, (_DropoutNd, *_FUNCTIONAL))
    )


@contextmanager
def _shared_masks(module, n_passes):
    """Let each dropout layer draw one mask a pass for all rows."""
    layers = {layer for layer in module.modules() if type(layer) in _FACTORS}
    replaced = {layer: layer.__dict__.get("forward") for layer in layers}
    try:
        for layer in layers:
            layer.forward = partial(_forward_shared, layer, n_passes)
        yield
    finally:
        for layer, own in replaced.items():
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def _forward_shared(layer, n_passes, values):
    own_forward = partial(type(layer).forward, layer)
    if values.shape[0] % n_passes or not layer.training:
        return own_forward(values)  # Not one part a pass along the first axis.
    mask = own_forward(values.new_ones((n_passes, *values.shape[1:])))
    parts = values.unflatten(0, (n_passes, -1))
    return (parts * mask.unsqueeze(1)).flatten(0, 1)


def _inputs(x):
    if isinstance(x, dict):
        return list(x.values())
    return list(x) if isinstance(x, (tuple, list)) else [x]


def _count_rows(x):
    rows = {tensor.shape[0] for tensor in _inputs(x)}
    if len(rows) != 1:
        raise ValueError(f"The inputs have different numbers of rows: {sorted(rows)}.")
    return rows.pop()


def _repeat(x, n):
    """Repeat all rows `n` times, pass after pass."""

    def repeated(tensor):
        return tensor.repeat(n, *[1] * (tensor.ndim - 1))

    if isinstance(x, dict):
        return {name: repeated(tensor) for name, tensor in x.items()}
    if isinstance(x, (tuple, list)):
        return [repeated(tensor) for tensor in x]
    return repeated(x)


def _run(module, x, n_passes, n_rows):
    if isinstance(x, dict):
        result = module(**x)
    else:
        result = module(*x) if isinstance(x, list) else module(x)
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
