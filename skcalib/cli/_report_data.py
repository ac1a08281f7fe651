"""What the script of the report draws: sums of narrow bins, and a sample of rows."""

import base64
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skcalib._judging import HeldOut
from skcalib.calibrators import TemperatureScaling
from skcalib.metrics._bins import BinStats, bin_stats, uniform_edges
from skcalib.metrics._classwise import class_stats

# Of more classes the worst are shown.
MOST_CLASSES = 12
# About so many narrow bins are kept; any divisor of their number can be shown.
_NARROW = 120
_MOST_BINS = 40
# The sample that temperatures are tried on holds so many numbers, of two bytes each;
# fewer rows than these would say little.
_MOST_NUMBERS = 30_000
_FEWEST_ROWS = 200
# A step of the log-probabilities of the sample, as whole numbers.
_STEP = 1e-3


def worst_classes(sums: BinStats, n_bins: int) -> list[int]:
    """All classes if they are few; else those furthest off, the furthest first."""
    if len(sums.weight) <= MOST_CLASSES:
        return list(range(len(sums.weight)))
    errors = class_errors(sums, n_bins)
    return np.argsort(-errors, kind="stable")[:MOST_CLASSES].tolist()


def class_errors(sums: BinStats, n_bins: int) -> NDArray[np.float64]:
    """Calibration error of every class, from sums of narrower bins."""
    gaps = sums.confidence - sums.hit
    joined = gaps.reshape(len(gaps), n_bins, -1).sum(axis=2)
    errors: NDArray[np.float64] = np.abs(joined).sum(axis=1) / sums.weight.sum(axis=1)
    return errors


def narrow_sums(held_out: HeldOut, proba: NDArray[Any], n_bins: int) -> BinStats:
    """Sum every class over bins of which a whole number make one of `n_bins`."""
    weight = np.ones(len(proba))
    return class_stats(proba, held_out.codes, weight, _n_narrow(n_bins))


def drawn_data(
    held_out: HeldOut, sums: list[BinStats], shown: list[int], n_bins: int
) -> dict[str, Any]:
    """Return what the report's script reads, before and after, as plain numbers."""
    narrow = _n_narrow(n_bins)
    views = {
        name: [_as_table(_top_sums(held_out, proba, narrow))]
        + [_as_table(of_class.each(itemgetter(k))) for k in shown]
        for name, proba, of_class in zip(
            ("before", "after"), (held_out.before, held_out.after), sums, strict=True
        )
    }
    return {
        "classes": [str(held_out.classes[k]) for k in shown],
        "narrow": narrow,
        "bins": n_bins,
        "choices": [
            n
            for n in range(min(2, n_bins), max(_MOST_BINS, n_bins) + 1)
            if not narrow % n
        ],
        "views": views,
        "sample": _sample(held_out, shown),
    }


def _n_narrow(n_bins: int) -> int:
    return n_bins * max(1, round(_NARROW / n_bins))


def _top_sums(held_out: HeldOut, proba: NDArray[Any], narrow: int) -> BinStats:
    return bin_stats(
        proba.max(axis=1).astype(np.float64),
        proba.argmax(axis=1) == held_out.codes,
        np.ones(len(proba)),
        uniform_edges(narrow),
    )


def _as_table(sums: BinStats) -> list[list[float]]:
    """Rows of bin, samples, sum of confidences and hits, where samples are."""
    return [
        [b, int(sums.weight[b]), round(float(sums.confidence[b]), 4), int(sums.hit[b])]
        for b in np.flatnonzero(sums.weight).tolist()
    ]


def _sample(held_out: HeldOut, shown: list[int]) -> dict[str, Any] | None:
    """Return log-probabilities of some rows.

    None if the classes are too many, or all rows of one class.
    """
    n_rows, n_classes = held_out.before.shape
    size = min(n_rows, _MOST_NUMBERS // n_classes)
    if size < min(n_rows, _FEWEST_ROWS):
        return None
    rows = np.random.default_rng(0).choice(n_rows, size, replace=False)
    codes = held_out.codes[rows]
    if np.unique(codes).size < 2:
        return None
    with np.errstate(divide="ignore"):
        logits = np.log(held_out.before[rows].astype(np.float64))
    logits -= logits.max(axis=1, keepdims=True)
    steps = np.maximum(np.rint(logits / _STEP), np.iinfo(np.int16).min)
    fitted = TemperatureScaling(classes=np.arange(n_classes)).fit(steps * _STEP, codes)
    return {
        "classes": n_classes,
        "columns": shown,
        "step": _STEP,
        "logits": base64.b64encode(steps.astype("<i2").tobytes()).decode("ascii"),
        "codes": codes.tolist(),
        "temperature": fitted.temperature_,
    }
