"""Rows of a network's several inputs, kept together under their names."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# What a batch for training calls its labels, beside the inputs.
_LABELS = ("labels", "label")


class NamedRows(Mapping[str, Any]):
    """Arrays or tensors of the same rows, one for each input of a network.

    ``rows["mask"]`` is one of them; a slice, or row numbers, gives those rows of all.

    Parameters
    ----------
    parts : mapping from str to array or tensor
        The inputs. Anything else becomes an array.

    Attributes
    ----------
    shape : tuple of int
        The number of rows alone, as inputs have shapes of their own.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = {
            name: part if _has_rows(part) else np.asarray(part)
            for name, part in parts.items()
        }
        # As an integer also where torch traces a run.
        lengths = {
            int(part.shape[0]) if part.shape else 0 for part in self._parts.values()
        }
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "X has no samples, or not equally many for each input: "
                f"{self.describe()}. Pass at least one row, and equally many for each."
            )
        self.shape: tuple[int] = (lengths.pop(),)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._parts[key]
        return self.each(lambda part: part[key])

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def each(self, function: Callable[[Any], Any]) -> "NamedRows":
        """Return the same inputs after a function of one of them."""
        return NamedRows({name: function(part) for name, part in self.items()})

    def describe(self) -> str:
        """Say of each input its shape and type."""
        parts = self._parts.items()
        return ", ".join(
            f"{name} of shape {tuple(part.shape)} and type {part.dtype}"
            for name, part in parts
        )


def _has_rows(part: Any) -> bool:
    """Whether rows are told by their numbers, as those of a data frame are not."""
    return hasattr(part, "shape") and not hasattr(part, "iloc")


def each(function: Callable[[Any], Any], rows: Any) -> Any:
    """Return a function of the rows of a network's input, or of each of several."""
    return rows.each(function) if isinstance(rows, NamedRows) else function(rows)


def perturbed_name(rows: NamedRows, site: str | None) -> str:
    """Return which of several inputs of tensors is perturbed.

    That is the one of the name `site`, or of None the only one of real numbers.
    """
    if site in rows:
        return str(site)
    real = [name for name, part in rows.items() if part.is_floating_point()]
    if site is None and len(real) == 1:
        return real[0]
    if site is None:
        raise ValueError(
            f"Of the inputs {[*rows]}, those of real numbers are {real}; one of them "
            "is perturbed. Name it, such as inputs_embeds, or a part of the network "
            "whose result is perturbed, such as an embedding: site=..."
        )
    raise ValueError(f"The inputs are {[*rows]}; site={site!r} is none of them.")


def split_labels(rows: Mapping[str, Any]) -> tuple[NamedRows, Any]:
    """Return named inputs, and the labels that stand beside them or None."""
    if isinstance(rows, NamedRows):
        return rows, None
    if not all(isinstance(name, str) for name in rows):
        raise TypeError(
            f"X is a {type(rows).__name__} whose keys are no names. Pass a dict from "
            "the names of the network's inputs to arrays or tensors."
        )
    parts = dict(rows)
    labels = [parts.pop(name) for name in _LABELS if name in parts]
    return NamedRows(parts), labels[0] if labels else None
