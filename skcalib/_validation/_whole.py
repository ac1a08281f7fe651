"""Whole numbers, such as counts."""

from numbers import Integral
from typing import Any


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least `least`; refuse anything else."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} is not a whole number of at least {least}.")
    return int(value)
