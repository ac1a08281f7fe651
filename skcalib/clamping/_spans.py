"""The perturbations that can be asked for by name, and which of them to try."""

from numbers import Integral

import numpy as np

from skcalib.clamping._perturbation import Channel, Full, LowFrequency

DEFAULT_SIZE = 8
# Cosines a side that are tried where the data may choose.
SIZES = (4, 8)


def open_basis(perturbation, shape):
    """Return the basis of "full", "channel", "low_frequency" or a number of cosines."""
    if perturbation in ("full", "auto"):
        return Full(shape)
    axis = channel_axis(shape)
    if perturbation == "channel":
        return Channel(shape, axis)
    size = perturbation if isinstance(perturbation, Integral) else DEFAULT_SIZE
    return LowFrequency(shape, int(size), axis)


def canonical(perturbation):
    """Return what a perturbation is called in results."""
    return DEFAULT_SIZE if perturbation == "low_frequency" else perturbation


def channel_axis(shape):
    """Return the axis of the channels: the first, unless only the last looks so."""
    colours = (1, 3, 4)
    last = len(shape) == 3 and shape[-1] in colours and shape[0] not in colours
    return len(shape) - 1 if last else 0


def spans_to_try(perturbation, shape):
    """Return ``[(name, basis)]`` by growing dimension."""
    if perturbation != "auto":
        return [(canonical(perturbation), open_basis(perturbation, shape))]
    if len(shape) == 1:
        return [("full", Full(shape))]
    found = {}
    for size in SIZES:
        basis = open_basis(size, shape)
        found.setdefault(basis.dim, (size, basis))
    return list(found.values())


def columns_within(small, large):
    """Return which coordinates of `large` are those of `small`."""
    if small is large:
        return slice(None)
    number = np.arange(large.dim).reshape(large.lengths)
    return number[tuple(slice(0, n) for n in small.lengths)].ravel()
