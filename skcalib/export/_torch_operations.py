"""The torch form of calibration maps: a small module for each operation."""

from collections.abc import Sequence
from dataclasses import fields
from functools import singledispatch
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from skcalib import _maps as ops
from skcalib.export._tables import PackedTables, pack_tables


class Calibration(nn.Module):
    """Logits to probabilities, computed in float64 and given in the type of the input.

    Its numbers stay in float64 whatever type the module is asked to take; they do move
    between devices.
    """

    def __init__(self, calibration_map: ops.CalibrationMap, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.operations = _sequence(calibration_map)

    def forward(self, logits: Tensor) -> Tensor:
        """Map (n, n_features) logits, or (n,) log-odds, to (n, n_classes)."""
        return self._as_given(self._mapped(logits), logits)

    def _mapped(self, logits: Tensor) -> Tensor:
        if not logits.is_floating_point():
            raise TypeError(f"The logits are {logits.dtype}; floating point is needed.")
        x = logits.reshape(-1, 1) if logits.ndim == 1 else logits
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ValueError(
                f"The logits have shape {tuple(logits.shape)}; the calibration was "
                f"fitted on {self.n_features} columns."
            )
        x = x.to(torch.float64).clamp(-ops.LARGEST_LOGIT, ops.LARGEST_LOGIT)
        if self.n_features == 1:
            x = torch.cat([torch.zeros_like(x), x], dim=1)
        mapped: Tensor = self.operations(x)
        return mapped

    @staticmethod
    def _as_given(proba: Tensor, logits: Tensor) -> Tensor:
        wide = logits.dtype == torch.float64
        return proba if wide else proba.to(torch.float32)

    def _apply(self, fn: Any, recurse: bool = True) -> "Calibration":
        # What `.to`, `.cuda` and `.half` call: follow the device, not the type.
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(fn(tensor).device)

        return super()._apply(move, recurse)


class DenseCalibration(Calibration):
    """Logits of places to probabilities: the classes lie along an axis of their own."""

    def __init__(
        self, calibration_map: ops.CalibrationMap, n_features: int, class_axis: int
    ) -> None:
        super().__init__(calibration_map, n_features)
        self.class_axis = class_axis

    def forward(self, logits: Tensor) -> Tensor:
        """Map (n, ..., n_features, ...) logits; those of one or two axes as rows."""
        if logits.ndim <= 2:
            return super().forward(logits)
        last = logits.movedim(self.class_axis, -1)
        proba = super().forward(last.reshape(-1, last.shape[-1]))
        laid = proba.reshape(*last.shape[:-1], proba.shape[1])
        return laid.movedim(-1, self.class_axis)


class GroupedCalibration(Calibration):
    """Logits and the number of each row's group to probabilities.

    The last row of `factor` and `offset` is that of all other numbers.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        log_proba: ops.CalibrationMap,
        n_features: int,
        factor: NDArray[Any],
        offset: NDArray[Any],
    ) -> None:
        super().__init__(log_proba, n_features)
        self.register_buffer("factor", _tensor(factor))
        self.register_buffer("offset", _tensor(offset))

    def forward(self, logits: Tensor, group: Tensor) -> Tensor:  # type: ignore[override]
        """Map (n, n_features) logits and (n,) numbers of groups to (n, n_classes)."""
        told = self._mapped(logits)
        if group.shape != told.shape[:1] or group.is_floating_point():
            raise ValueError(
                f"The groups are {group.dtype} of shape {tuple(group.shape)}; each of "
                f"the {told.shape[0]} rows needs one whole number."
            )
        # Bytes and truth values would index as a mask.
        group = group.long()
        other = self.factor.shape[0] - 1
        number = torch.where((group >= 0) & (group < other), group, other)
        scaled = told * self.factor[number] + self.offset[number]
        return self._as_given(scaled.softmax(dim=1), logits)


def _sequence(calibration_map: ops.CalibrationMap) -> nn.Sequential:
    return nn.Sequential(*(as_module(op) for op in calibration_map.operations))


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))


@singledispatch
def as_module(operation: ops.Operation) -> nn.Module:
    """Build the module of one operation, from (n, K) to (n, K) in float64."""
    if type(operation).in_torch is ops.Operation.in_torch:
        operation.in_torch(None, None)  # Raises now, not when a row comes.
    return OwnForm(operation)


class Numbers(nn.Module):
    """Base of the operations that hold numbers: buffers, not parameters."""

    def __init__(self, **numbers: Any) -> None:
        super().__init__()
        for name, value in numbers.items():
            self.register_buffer(name, _tensor(value))


class OwnForm(Numbers):
    """The torch form that an operation brings along, beside its numbers."""

    def __init__(self, operation: Any) -> None:
        held = {
            field.name: getattr(operation, field.name) for field in fields(operation)
        }
        numeric = (Real, np.ndarray)
        super().__init__(**{k: v for k, v in held.items() if isinstance(v, numeric)})
        self._operation = operation

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        mapped: Tensor = self._operation.in_torch(x, self)
        return mapped


class Scale(Numbers):
    """See `skcalib._maps.Scale`."""

    factor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        return x * self.factor


class Clip(Numbers):
    """See `skcalib._maps.Clip`."""

    lower: Tensor
    upper: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        return torch.clamp(x, self.lower, self.upper)


class Affine(Numbers):
    """See `skcalib._maps.Affine`."""

    coef: Tensor
    intercept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        product = x * self.coef if self.coef.ndim == 1 else x @ self.coef.T
        return product + self.intercept


class Log(nn.Module):
    """See `skcalib._maps.Log`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        return torch.log(x)


class LogOdds(nn.Module):
    """See `skcalib._maps.LogOdds`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        is_top, largest, top_log_odds, rest = _split_top(x)
        others = torch.exp(-top_log_odds) * (1 - rest)
        below = (x - largest) - torch.log1p(others)
        return torch.where(is_top, top_log_odds, below)


class BetaLink(Numbers):
    """See `skcalib._maps.BetaLink`."""

    a: Tensor
    b: Tensor
    c: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        log_p = logsigmoid(x)
        return self.a * log_p - self.b * (log_p - x) + self.c


class Lookup(Numbers):
    """See `skcalib._maps.Lookup`; `tables` are packed as in `PackedTables`."""

    knots: Tensor
    start: Tensor
    rise: Tensor
    origin: Tensor
    width: Tensor

    def __init__(self, tables: PackedTables) -> None:
        names = ("knots", "start", "rise", "origin", "width")
        super().__init__(**{name: getattr(tables, name) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        if self.knots.shape[0] == 1:
            piece = torch.searchsorted(self.knots[0], x.detach().contiguous())
        else:
            columns = x.detach().T.contiguous()
            piece = torch.searchsorted(self.knots, columns).T
        row = torch.arange(self.knots.shape[0], device=x.device)
        index = piece + row * self.start.shape[1]
        share = (x - self.origin.view(-1)[index]) / self.width.view(-1)[index]
        return self.start.view(-1)[index] + share * self.rise.view(-1)[index]


class EntropyScale(nn.Module):
    """See `skcalib._maps.EntropyScale`."""

    def __init__(self, table: ops.Table) -> None:
        super().__init__()
        self.look_up = Lookup(pack_tables([table]))

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        entropy = -(torch.exp(x) * x).sum(dim=1, keepdim=True)
        scaled: Tensor = x * self.look_up(entropy)
        return scaled


class ReplaceTop(nn.Module):
    """See `skcalib._maps.ReplaceTop`."""

    def __init__(self, table: ops.Table) -> None:
        super().__init__()
        self.look_up = Lookup(pack_tables([table]))

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        is_top, _, top_log_odds, rest = _split_top(x)
        proba = self.look_up(top_log_odds)
        return torch.where(is_top, proba, rest * (1 - proba))


class WeightedSum(Numbers):
    """See `skcalib._maps.WeightedSum`."""

    weights: Tensor
    constant: Tensor

    def __init__(self, operation: ops.WeightedSum) -> None:
        super().__init__(weights=operation.weights, constant=operation.constant)
        self.parts = nn.ModuleList(_sequence(part) for part in operation.parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        mapped: Sequence[Tensor] = [part(x) for part in self.parts]
        total = torch.zeros_like(x) + self.constant
        for weight, part in zip(self.weights, mapped, strict=True):
            total = total + weight * part
        return total


class PerColumn(nn.Module):
    """See `skcalib._maps.PerColumn`."""

    def __init__(self, operation: ops.PerColumn) -> None:
        super().__init__()
        parts = [part.logits or part for part in operation.parts]
        self.parts = nn.ModuleList(map(_sequence, parts))
        self.have_logits = [part.logits is not None for part in operation.parts]

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        shared = len(self.parts) == 1
        columns = [x.reshape(-1)] if shared else x.unbind(dim=1)
        mapped = map(self._log_odds, self.parts, self.have_logits, columns)
        return torch.stack(list(mapped), dim=1).reshape(x.shape)

    @staticmethod
    def _log_odds(part: nn.Module, has_logits: bool, x: Tensor) -> Tensor:
        pair: Tensor = part(torch.stack([torch.zeros_like(x), x], dim=1))
        if not has_logits:
            pair = torch.log(pair.clamp(min=ops.SMALLEST))
        return pair[:, 1] - pair[:, 0]


class Renormalise(nn.Module):
    """See `skcalib._maps.Renormalise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a block of rows."""
        return x / x.sum(dim=1, keepdim=True)


def _split_top(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``(is_top, largest, top_log_odds, rest)``; see `skcalib._numerics`."""
    largest, top = x.max(dim=1, keepdim=True)
    # Among equal entries the first counts, which max does not promise on every device.
    top = (x == largest).to(torch.int8).argmax(dim=1, keepdim=True)
    is_top = torch.arange(x.shape[1], device=x.device) == top
    others = x.masked_fill(is_top, -torch.inf)
    second = others.amax(dim=1, keepdim=True)
    rest = torch.exp(others - second)
    total = rest.sum(dim=1, keepdim=True)
    return is_top, largest, (largest - second) - torch.log(total), rest / total


@as_module.register
def _(operation: ops.Scale) -> nn.Module:
    return Scale(factor=operation.factor)


@as_module.register
def _(operation: ops.Clip) -> nn.Module:
    return Clip(lower=operation.lower, upper=operation.upper)


@as_module.register
def _(operation: ops.Affine) -> nn.Module:
    return Affine(coef=operation.coef, intercept=operation.intercept)


@as_module.register
def _(operation: ops.Softmax) -> nn.Module:
    return nn.Softmax(dim=1)


@as_module.register
def _(operation: ops.Sigmoid) -> nn.Module:
    return nn.Sigmoid()


@as_module.register
def _(operation: ops.PerColumn) -> nn.Module:
    return PerColumn(operation)


@as_module.register
def _(operation: ops.LogSoftmax) -> nn.Module:
    return nn.LogSoftmax(dim=1)


@as_module.register
def _(operation: ops.Log) -> nn.Module:
    return Log()


@as_module.register
def _(operation: ops.LogSigmoid) -> nn.Module:
    return nn.LogSigmoid()


@as_module.register
def _(operation: ops.LogOdds) -> nn.Module:
    return LogOdds()


@as_module.register
def _(operation: ops.BetaLink) -> nn.Module:
    return BetaLink(a=operation.a, b=operation.b, c=operation.c)


@as_module.register
def _(operation: ops.Lookup) -> nn.Module:
    return Lookup(pack_tables(operation.tables))


@as_module.register
def _(operation: ops.EntropyScale) -> nn.Module:
    return EntropyScale(operation.table)


@as_module.register
def _(operation: ops.ReplaceTop) -> nn.Module:
    return ReplaceTop(operation.table)


@as_module.register
def _(operation: ops.WeightedSum) -> nn.Module:
    return WeightedSum(operation)


@as_module.register
def _(operation: ops.Renormalise) -> nn.Module:
    return Renormalise()
