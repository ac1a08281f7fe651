"""Networks as users hand them over: told apart, taken out of wrappers, printed.

It imports no torch, so that any room can ask.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

from skcalib._networks._torch import is_module
from skcalib._onnx._files import is_onnx_model
from skcalib._onnx._session import open_onnx


@dataclass(frozen=True)
class Given:
    """A torch module, an ONNX model or anything else, such as a callable.

    `output` says where its logits are; `device` and `providers`, where it is to run.
    """

    kind: Literal["module", "onnx", "callable"]
    model: Any
    output: Any = None
    device: Any = "auto"
    providers: list[Any] | None = None

    @classmethod
    def of(cls, model: Any, output: Any = None) -> "Given":
        """Take a network out of a TorchLogits or OnnxLogits around it, if it has one.

        What they say of it holds where `output` says nothing.
        """
        device, providers = "auto", None
        # The parameter that holds it; a module may have any attribute, its class not.
        inner = getattr(type(model), "_network", None)
        if isinstance(inner, str):
            output = getattr(model, "output", None) if output is None else output
            device = getattr(model, "device", "auto")
            providers = getattr(model, "providers", None)
            model = getattr(model, inner)
        if is_onnx_model(model):
            return cls("onnx", model, output, device, providers)
        kind: Literal["module", "callable"] = (
            "module" if is_module(model) else "callable"
        )
        return cls(kind, model, output, device, providers)

    @property
    def labels(self) -> tuple[Any, ...] | None:
        """The labels by which an ONNX model names its columns, if it does."""
        if self.kind != "onnx":
            return None
        return open_onnx(self.model, self.output, self.providers).readout.labels


def perturbs_inputs(estimator: Any) -> bool:
    """Whether a calibrator acts on the inputs of its network, not on logits alone.

    Those are the classes that say so, of neural clamping.
    """
    return getattr(estimator, "_perturbs_inputs", False) is True


class SharedByCopies:
    """An object whose pickles hold its network in another form; a copy shares it."""

    def __copy__(self) -> Self:
        """Return an object of the same attributes."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin


class Brief:
    """Stands for a network where an estimator is printed, without its weights."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __repr__(self) -> str:
        network = self._network
        if isinstance(network, bytes | bytearray):
            return f"<{len(network)} bytes>"
        if isinstance(network, str) or hasattr(network, "get_params"):
            return repr(network)
        if hasattr(network, "__fspath__"):
            return repr(network.__fspath__())
        return f"<{getattr(network, '__name__', type(network).__name__)}>"
