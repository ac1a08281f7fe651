"""What a fitted calibrator has learned, in short: its numbers and short vectors."""

from html import escape
from numbers import Real
from typing import Any

import numpy as np

# Longer vectors are not shown.
LONGEST = 10
# How the fit went, told after what it found.
COURSE = ("loss", "n_iter", "gradient_norm")


def learned(calibrator: Any) -> dict[str, Any]:
    """Return the learned numbers and short vectors by name, also of what was chosen."""
    chosen = getattr(calibrator, "best_calibrator_", None)
    attributes = vars(calibrator) | ({} if chosen is None else vars(chosen))
    values = {
        name.rstrip("_"): value
        if isinstance(value, dict | tuple)
        else np.asarray(value).tolist()
        for name, value in attributes.items()
        if name.endswith("_")
        and not name.startswith("_")
        and name not in ("classes_", "n_features_in_", "best_index_")
        and _is_short(value)
    }
    delta = getattr(calibrator, "delta_", None)
    if delta is not None:
        values["delta_norm"] = float(np.linalg.norm(delta))
        values["delta_max"] = float(np.abs(delta).max())
    return dict(sorted(values.items(), key=lambda item: item[0] in COURSE))


def learned_text(calibrator: Any) -> list[tuple[str, str]]:
    """Return the learned numbers as text, those of a dict one by one."""
    texts = []
    for name, value in learned(calibrator).items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        texts += [(f"{name} {key}".rstrip(), _as_short_text(v)) for key, v in entries]
    return texts


def learned_html(calibrator: Any) -> str:
    """Return a line for a notebook; nothing before `fit`."""
    if not hasattr(calibrator, "classes_"):
        return ""
    texts = [f"{k} = {v}" for k, v in learned_text(calibrator) if k != "gradient_norm"]
    return f"<p>{escape(', '.join(texts))}</p>" if texts else ""


def _is_short(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.size <= LONGEST
    if isinstance(value, dict):
        entries = value.items()
        return all(isinstance(k, str) and isinstance(v, Real) for k, v in entries)
    return isinstance(value, str | Real | tuple)


def _as_short_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_as_short_text(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
