"""How much memory there is."""

from pathlib import Path
from typing import Any


def free_memory() -> float:
    """Bytes of memory that can be had, infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    sizes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(next(sizes, "0")) or float("inf")


# Devices of tensors whose memory is that of the host.
HOST = ("cpu",)


def lies_on_host(tensor: Any) -> bool:
    """Whether NumPy reads the memory of a tensor."""
    return tensor.device.type in HOST
