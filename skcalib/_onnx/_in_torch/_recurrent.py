"""Recurrent layers, one explicit step after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from skcalib._onnx._in_torch._registry import Function, Node, operator

_Activation = Callable[[Tensor], Tensor]
_Step = Callable[..., list[Tensor]]

_ACTIVATIONS: dict[str, _Activation] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "Softsign": functional.softsign,
    "Softplus": functional.softplus,
}
_USUAL = {
    "RNN": ["Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
}


@operator("RNN", "GRU", "LSTM", since=7)
def _recurrent(node: Node) -> Function:
    direction = node.get("direction", "forward")
    chosen = _activations(node, 2 if direction == "bidirectional" else 1)
    backwards = {
        "forward": (False,),
        "reverse": (True,),
        "bidirectional": (False, True),
    }[direction]
    by_batch = bool(node.get("layout", 0))
    if node.get("clip") is not None or node.get("input_forget", 0):
        raise node.refuse("clips or couples its gates, which is not supported")
    steps: dict[str, _Step] = {
        "RNN": _rnn_step,
        "LSTM": _lstm_step,
        "GRU": _gru_step(bool(node.get("linear_before_reset", 0))),
    }
    step = steps[node.op]
    lstm = node.op == "LSTM"

    def run(x: Tensor, w: Tensor, r: Tensor, *others: Tensor | None) -> Any:
        every = [*others, *[None] * (5 - len(others))]
        bias, lengths, states = every[0], every[1], every[2:]
        if lengths is not None:
            raise node.refuse("takes rows of different lengths, which is not supported")
        x = x.transpose(0, 1) if by_batch else x
        found = []
        for d, reverse in enumerate(backwards):
            start = [_start(s, d, x, r, by_batch) for s in states[: 1 + lstm]]
            parts = [None if p is None else p[d] for p in (bias, states[2])]
            made = _walk(step, chosen[d], x, w[d], r[d], parts, start, reverse)
            found.append(made)
        return _outputs(found, by_batch)

    return run


def _activations(node: Node, directions: int) -> list[list[_Activation]]:
    names = node.get("activations") or _USUAL[node.op] * directions
    if node.get("activation_alpha") or node.get("activation_beta"):
        raise node.refuse("uses activations with parameters: not supported")
    each = len(_USUAL[node.op])
    try:
        found = [_ACTIVATIONS[name.capitalize()] for name in names]
    except KeyError as error:
        raise node.refuse(f"uses the activation {error}: not supported") from error
    return [found[d * each : (d + 1) * each] for d in range(directions)]


def _start(
    state: Tensor | None, d: int, x: Tensor, r: Tensor, by_batch: bool
) -> Tensor:
    if state is None:
        return x.new_zeros(x.shape[1], r.shape[-1])
    return state[:, d] if by_batch else state[d]


def _walk(
    step: _Step,
    activations: list[_Activation],
    x: Tensor,
    w: Tensor,
    r: Tensor,
    parts: list[Tensor | None],
    state: list[Tensor],
    reverse: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run one direction: ``(all hidden states, last state)``."""
    bias, peepholes = parts
    size = w.shape[0]
    inputs = functional.linear(x, w, None if bias is None else bias[:size])
    own = None if bias is None else bias[size:]
    hidden: list[Tensor] = []
    rows = inputs.unbind(0)
    for row in reversed(rows) if reverse else rows:
        state = step(activations, row, r, own, peepholes, *state)
        hidden.append(state[0])
    return torch.stack(hidden[::-1] if reverse else hidden), state


def _outputs(
    found: list[tuple[Tensor, list[Tensor]]], by_batch: bool
) -> tuple[Tensor, ...]:
    """Put the directions together: all hidden states, the last, the last cells."""
    every = torch.stack([hidden for hidden, _ in found], 1)
    last = zip(*(state for _, state in found), strict=True)
    if by_batch:
        return every.permute(2, 0, 1, 3), *(torch.stack(s, 1) for s in last)
    return every, *(torch.stack(s) for s in last)


def _rnn_step(
    activations: list[_Activation],
    row: Tensor,
    r: Tensor,
    own: Tensor | None,
    peepholes: None,
    hidden: Tensor,
) -> list[Tensor]:
    return [activations[0](row + functional.linear(hidden, r, own))]


def _lstm_step(
    activations: list[_Activation],
    row: Tensor,
    r: Tensor,
    own: Tensor | None,
    peepholes: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
) -> list[Tensor]:
    gate, inner, outer = activations
    i, o, f, c = (row + functional.linear(hidden, r, own)).chunk(4, -1)
    if peepholes is None:
        cell = gate(f) * cell + gate(i) * inner(c)
        return [gate(o) * outer(cell), cell]
    p_i, p_o, p_f = peepholes.chunk(3)
    cell = gate(f + p_f * cell) * cell + gate(i + p_i * cell) * inner(c)
    return [gate(o + p_o * cell) * outer(cell), cell]


def _gru_step(after_product: bool) -> _Step:
    """Apply the reset gate after the recurrent product, as torch does, or before."""

    def step(
        activations: list[_Activation],
        row: Tensor,
        r: Tensor,
        own: Tensor | None,
        peepholes: None,
        hidden: Tensor,
    ) -> list[Tensor]:
        gate, inner = activations
        ends = [2 * hidden.shape[-1], hidden.shape[-1]]
        r_gates, r_inner = r.split(ends)
        b_gates, b_inner = (None, None) if own is None else own.split(ends)
        row_gates, row_inner = row.split(ends, -1)
        gates = gate(row_gates + functional.linear(hidden, r_gates, b_gates))
        update, reset = gates.chunk(2, -1)
        if after_product:
            candidate = reset * functional.linear(hidden, r_inner, b_inner)
        else:
            candidate = functional.linear(reset * hidden, r_inner, b_inner)
        candidate = inner(row_inner + candidate)
        return [(1 - update) * candidate + update * hidden]

    return step
