"""A tensor as an array: NumPy's functions, called on it, run where the tensor lies.

Statistics of a block of rows are written once, in NumPy's terms. NumPy hands a function
that is called on an array of another kind over to that array (`__array_ufunc__` and
`__array_function__`), and so the same statistic runs on a device: here stands what each
function is called in torch. Types follow NumPy's rules of promotion. What is not in the
tables is refused by name, and nothing comes to the host but by `on_host`.

The standard of the array API would not do: it has no `bincount`, no `einsum` and no
assignment in place, on which the speed of the statistics on the host rests.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch import Tensor

# What these are called in torch, by the name of the ufunc.
UFUNCS: dict[str, Callable[..., Any]] = {
    "absolute": torch.abs,
    "add": torch.add,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "divide": torch.divide,
    "divmod": lambda x, y: (torch.floor_divide(x, y), torch.remainder(x, y)),
    "entr": torch.special.entr,
    "equal": torch.eq,
    "exp": torch.exp,
    "expit": torch.special.expit,
    "expm1": torch.expm1,
    "floor_divide": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "invert": torch.bitwise_not,
    "isfinite": torch.isfinite,
    "less": torch.lt,
    "less_equal": torch.le,
    "log": torch.log,
    "log1p": torch.log1p,
    "matmul": torch.matmul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "multiply": torch.multiply,
    "negative": torch.negative,
    "not_equal": torch.ne,
    "power": torch.pow,
    "remainder": torch.remainder,
    "rint": torch.round,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "subtract": torch.subtract,
    "vecdot": torch.linalg.vecdot,
}
# The form in torch of other functions, filled below; the array itself comes first.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}


class DeviceArray(NDArrayOperatorsMixin):
    """A tensor that NumPy's functions take for an array.

    Parameters
    ----------
    tensor : torch.Tensor
        Of a type that NumPy has, without gradients.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    @property
    def size(self) -> int:
        return self.tensor.numel()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(str(self.tensor.dtype).removeprefix("torch."))

    @property
    def T(self) -> "DeviceArray":  # noqa: N802
        return DeviceArray(self.tensor.T)

    def __len__(self) -> int:
        return len(self.tensor)

    def __float__(self) -> float:
        return float(self.tensor)

    def __int__(self) -> int:
        return int(self.tensor)

    def __bool__(self) -> bool:
        return bool(self.tensor)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        _refuse("This", self.tensor.device)

    def on_host(self) -> Any:
        """Bring the numbers to the host, as an array or a number."""
        return self.tensor.cpu().numpy()[()]

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any
    ) -> Any:
        function = UFUNCS.get(ufunc.__name__)
        if function is None or method != "__call__" or options:
            _refuse(f"numpy.{ufunc.__name__}", self.tensor.device)
        tensors = self._alike(*inputs, exact=ufunc.__name__ != "divide")
        if not out:
            return _wrapped(function(*tensors))
        if not isinstance(out[0], DeviceArray):
            _refuse(f"numpy.{ufunc.__name__} into an array", self.tensor.device)
        function(*tensors, out=out[0].tensor)
        return out[0]

    def __array_function__(self, function: Any, _: Any, inputs: Any, given: Any) -> Any:
        if function not in FUNCTIONS:
            _refuse(f"numpy.{function.__name__}", self.tensor.device)
        return FUNCTIONS[function](self, *inputs, **given)

    def of(self, values: Any, dtype: Any = None) -> Tensor:
        """Return values as a tensor of this device; a number stays on the host."""
        if isinstance(values, DeviceArray):
            tensor = values.tensor
        else:
            # A copy, since tensors know no negative strides.
            values = np.array(values, order="C")
            tensor = torch.from_numpy(values)
            if values.ndim:
                tensor = tensor.to(self.tensor.device)
        return tensor if dtype is None else tensor.to(torch_type(dtype))

    def _alike(self, *values: Any, exact: bool = True) -> list[Tensor]:
        """Return values as tensors of the type that NumPy would compute in."""
        dtype = np.result_type(*(getattr(v, "dtype", v) for v in values))
        if not exact and dtype.kind in "iub":
            dtype = np.dtype(np.float64)
        return [self.of(value, dtype) for value in values]

    def __getitem__(self, key: Any) -> "DeviceArray":
        return DeviceArray(self.tensor[self._index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tensor[self._index(key)] = self.of(value).to(self.tensor.dtype)

    def _index(self, key: Any) -> Any:
        if isinstance(key, tuple):
            return tuple(map(self._index, key))
        if isinstance(key, (DeviceArray, np.ndarray, list)):
            index = self.of(key)
            return index if index.dtype == torch.bool else index.long()
        return key

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> "DeviceArray":
        return DeviceArray(self.tensor.to(torch_type(dtype), copy=copy))

    def copy(self) -> "DeviceArray":
        return DeviceArray(self.tensor.clone())

    def reshape(self, *shape: Any) -> "DeviceArray":
        return DeviceArray(self.tensor.reshape(*shape))

    def ravel(self) -> "DeviceArray":
        return self.reshape(-1)

    def sum(
        self, axis: int | None = None, dtype: Any = None, keepdims: bool = False
    ) -> "DeviceArray":
        chosen = None if dtype is None else torch_type(dtype)
        dims = _dims(self, axis)
        return DeviceArray(self.tensor.sum(dims, keepdim=keepdims, dtype=chosen))

    def max(self, axis: int | None = None, keepdims: bool = False) -> "DeviceArray":
        return DeviceArray(torch.amax(self.tensor, _dims(self, axis), keepdim=keepdims))

    def min(self, axis: int | None = None, keepdims: bool = False) -> "DeviceArray":
        return DeviceArray(torch.amin(self.tensor, _dims(self, axis), keepdim=keepdims))

    def argmax(self, axis: int | None = None) -> "DeviceArray":
        tensor = self.tensor
        tensor = tensor.byte() if tensor.dtype == torch.bool else tensor
        return DeviceArray(torch.argmax(tensor, axis))

    def any(self, axis: int | None = None) -> "DeviceArray":
        return DeviceArray(torch.any(self.tensor, _dims(self, axis)))

    def all(self, axis: int | None = None) -> "DeviceArray":
        return DeviceArray(torch.all(self.tensor, _dims(self, axis)))


def as_array(tensor: Tensor) -> Any:
    """Return a tensor as what NumPy's functions take, and so as whatever they take."""
    return DeviceArray(tensor)


def _wrapped(computed: Any) -> Any:
    if isinstance(computed, tuple):
        return tuple(map(DeviceArray, computed))
    return DeviceArray(computed)


def _dims(x: DeviceArray, axis: int | None) -> Any:
    return tuple(range(x.ndim)) if axis is None else axis


def torch_type(dtype: Any) -> torch.dtype:
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


def _refuse(what: str, device: torch.device) -> NoReturn:
    raise TypeError(
        f"{what} is not computed on {device}, where the tensor lies, and rows are not "
        "moved unasked. Pass tensor.cpu()."
    )


def _in_torch(function: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(form: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[function] = form
        return form

    return register


Like = DeviceArray


def _new(
    make: Callable[..., Tensor], like: Like, shape: Any, dtype: Any = float, **_: Any
) -> DeviceArray:
    device = like.tensor.device
    return DeviceArray(make(shape, dtype=torch_type(dtype or float), device=device))


def _new_like(
    make: Callable[..., Tensor], like: Like, x: Like, dtype: Any = None
) -> DeviceArray:
    return DeviceArray(make(x.tensor, dtype=torch_type(dtype or x.dtype)))


FUNCTIONS[np.empty] = partial(_new, torch.empty)
FUNCTIONS[np.ones] = partial(_new, torch.ones)
FUNCTIONS[np.zeros_like] = partial(_new_like, torch.zeros_like)
FUNCTIONS[np.ones_like] = partial(_new_like, torch.ones_like)


@_in_torch(np.full_like)
def _(like: Like, x: Like, value: Any) -> DeviceArray:
    return DeviceArray(torch.full_like(x.tensor, value))


@_in_torch(np.full)
def _(like: Like, shape: Any, value: float, dtype: Any = None, **_: Any) -> Any:
    return _new(torch.zeros, like, shape, dtype or float) + value


@_in_torch(np.arange)
def _(like: Like, *limits: int) -> DeviceArray:
    return DeviceArray(torch.arange(*limits, device=like.tensor.device))


@_in_torch(np.array)
def _(like: Like, values: Any, dtype: Any = None, order: str = "K") -> DeviceArray:
    return DeviceArray(like.of(values, dtype).to(like.tensor.device).clone())


@_in_torch(np.asarray)
def _(like: Like, values: Any, dtype: Any = None) -> DeviceArray:
    return DeviceArray(like.of(values, dtype).to(like.tensor.device))


@_in_torch(np.stack)
def _(like: Like, arrays: Any, axis: int = 0) -> DeviceArray:
    return DeviceArray(torch.stack(like._alike(*arrays), axis))


@_in_torch(np.concatenate)
def _(like: Like, arrays: Any, axis: int = 0) -> DeviceArray:
    return DeviceArray(torch.cat(like._alike(*arrays), axis))


@_in_torch(np.hstack)
def _(like: Like, arrays: Any) -> DeviceArray:
    return DeviceArray(torch.hstack(like._alike(*arrays)))


@_in_torch(np.column_stack)
def _(like: Like, arrays: Any) -> DeviceArray:
    return DeviceArray(torch.column_stack(like._alike(*arrays)))


@_in_torch(np.clip)
def _(like: Like, x: Like, low: Any, high: Any, out: Like | None = None) -> DeviceArray:
    cut = torch.clamp(x.tensor, low, high, out=None if out is None else out.tensor)
    return DeviceArray(cut)


@_in_torch(np.where)
def _(like: Like, condition: Any, x: Any, y: Any) -> DeviceArray:
    chosen, other = like._alike(x, y)
    return DeviceArray(torch.where(like.of(condition), chosen, other))


@_in_torch(np.argmax)
def _(like: Like, x: Like, axis: int | None = None) -> DeviceArray:
    return x.argmax(axis)


@_in_torch(np.partition)
def _(like: Like, x: Like, kth: int, axis: int = -1) -> DeviceArray:
    return DeviceArray(torch.sort(x.tensor, axis).values)


@_in_torch(np.cumsum)
def _(like: Like, x: Like, axis: int | None = None) -> DeviceArray:
    if axis is None:
        return DeviceArray(torch.cumsum(x.tensor.reshape(-1), 0))
    return DeviceArray(torch.cumsum(x.tensor, axis))


@_in_torch(np.vdot)
def _(like: Like, x: Any, y: Any) -> DeviceArray:
    x, y = like._alike(x, y)
    return DeviceArray((x * y).sum())


@_in_torch(np.einsum)
def _(like: Like, indices: str, *operands: Any, dtype: Any = None) -> DeviceArray:
    tensors = like._alike(*operands)
    if dtype is not None:
        tensors = [tensor.to(torch_type(dtype)) for tensor in tensors]
    return DeviceArray(torch.einsum(indices, *tensors))


@_in_torch(np.take_along_axis)
def _(like: Like, x: Like, index: Like, axis: int) -> DeviceArray:
    return DeviceArray(torch.take_along_dim(x.tensor, index.tensor, axis))


@_in_torch(np.flatnonzero)
def _(like: Like, x: Like) -> DeviceArray:
    return DeviceArray(torch.nonzero(x.tensor.reshape(-1)).reshape(-1))


@_in_torch(np.bincount)
def _(like: Like, index: Like, weight: Any = None, minlength: int = 0) -> DeviceArray:
    share = None if weight is None else like.of(weight, float)
    return DeviceArray(torch.bincount(index.tensor, share, minlength))


@_in_torch(np.searchsorted)
def _(like: Like, knots: Any, x: Any, side: str = "left") -> DeviceArray:
    knots, values = like._alike(knots, x)
    right = side == "right"
    return DeviceArray(torch.searchsorted(knots, values.contiguous(), right=right))


@_in_torch(np.interp)
def _(like: Like, x: Any, knots: Any, values: Any) -> DeviceArray:
    x, knots, values = like._alike(x, knots, values)
    n_knots = knots.shape[0]
    if n_knots == 1:
        return DeviceArray(torch.full_like(x, float(values[0])))
    right = torch.searchsorted(knots, x.contiguous(), right=True)
    left = (right - 1).clamp(0, n_knots - 2)
    slope = torch.diff(values) / torch.diff(knots)
    between = slope[left] * (x - knots[left]) + values[left]
    low = torch.where(x <= knots[0], values[0], between)
    return DeviceArray(torch.where(x >= knots[-1], values[-1], low))
