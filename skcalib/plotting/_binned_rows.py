"""What a reliability diagram shows: sums per bin, and their range under calibration."""

from dataclasses import replace

import numpy as np
from sklearn.utils import check_random_state

from skcalib._validation import check_proba, check_top_label
from skcalib.metrics._bins import (
    bin_stats,
    equal_mass_stats,
    rank_scores,
    uniform_edges,
)


def rows_of(y_true, y_proba, labels, sample_weight, class_):
    """Probability, hit and weight of each row, for the top label or one class."""
    if class_ is None:
        return check_top_label(y_true, y_proba, labels, sample_weight)
    codes, proba, weight = check_proba(y_true, y_proba, labels, sample_weight)
    if labels is not None:
        columns = np.flatnonzero(np.asarray(labels) == class_)
    else:
        columns = codes[np.asarray(y_true) == class_]
    if columns.shape[0] == 0:
        raise ValueError(
            f"class_={class_!r} is not a class of y_true. Pass one of the labels, and "
            "name the classes of all columns if it never occurs: labels=[...]."
        )
    column = columns[0]
    return proba[:, column].astype(np.float64), codes == column, weight


class BinnedRows:
    """The rows, sorted and ready to be summed per bin for any outcome."""

    def __init__(self, confidence, hit, weight, n_bins, strategy):
        self._ranked = rank_scores(confidence, hit)
        self._weight = weight[self._ranked.order]
        self._n_bins = n_bins
        self._strategy = strategy
        self.stats = self._sum(self._ranked.hit)

    def _sum(self, hit):
        ranked = replace(self._ranked, hit=hit)
        if self._strategy == "quantile":
            return equal_mass_stats(ranked, self._weight, self._n_bins)
        edges = uniform_edges(self._n_bins)
        return bin_stats(ranked.confidence, hit, self._weight, edges)

    @property
    def histogram(self):
        """Share of the weight in bins of equal width."""
        confidence, hit = self._ranked.confidence, self._ranked.hit
        edges = uniform_edges(self._n_bins)
        return bin_stats(confidence, hit, self._weight, edges).share

    def band(self, n_bootstrap, confidence_level, random_state):
        """Range of each bin's accuracy when outcomes follow the probabilities."""
        if n_bootstrap == 0:
            return None
        random = check_random_state(random_state)
        confidence = self._ranked.confidence
        draws = np.stack(
            [
                self._sum(random.random_sample(confidence.shape[0]) < confidence).hit
                for _ in range(n_bootstrap)
            ]
        )
        tail = (1 - confidence_level) / 2
        weight = self.stats.weight
        ends = np.quantile(draws, [tail, 1 - tail], axis=0)
        ratio = np.full_like(ends, np.nan)
        low, high = np.divide(ends, weight, out=ratio, where=weight > 0)
        return low, high
