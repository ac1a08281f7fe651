"""Networks in the printed form of the estimators that hold them."""

from typing import Any


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
