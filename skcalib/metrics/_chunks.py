"""One metric of the chunks of a Dask collection, which are summed where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from skcalib.metrics._accumulator import CalibrationAccumulator
    from skcalib.metrics._bins import BinStats


def accumulate(
    name: str,
    y_true: Any,
    y_proba: Any,
    labels: ArrayLike | None,
    sample_weight: Any,
    pos_label: object,
    n_bins: int = 15,
) -> CalibrationAccumulator:
    """Return what sums one metric over a Dask collection."""
    # It knows all metrics, of which some ask for it here.
    from skcalib.metrics._accumulator import CalibrationAccumulator

    accumulator = CalibrationAccumulator(
        n_bins=n_bins, metrics=[name], labels=labels, pos_label=pos_label
    )
    return accumulator.update(y_true, y_proba, sample_weight)


def bins_of_chunks(*given: Any) -> BinStats:
    """Return the bins of equal width of the predicted class."""
    from skcalib.metrics._accumulator import bins_of

    return bins_of(accumulate("ece", *given), "uniform")
