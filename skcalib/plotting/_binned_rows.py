"""What a reliability diagram shows: sums per bin, and their range under calibration."""

from dataclasses import replace

import numpy as np
from scipy.special import betaincinv, ndtri
from sklearn.utils import check_random_state

from skcalib._numerics import is_whole
from skcalib._validation import check_columns, check_top_label
from skcalib.metrics._bins import rank_scores
from skcalib.metrics._resampling import Replicate, bootstrap_weights


def rows_of(y_true, y_proba, labels, sample_weight, pos_label, class_):
    """Probability, hit and weight of each row, for the top label or one class."""
    if class_ is None:
        return check_top_label(y_true, y_proba, labels, sample_weight, pos_label)
    codes, proba, weight, classes = check_columns(
        y_true, y_proba, labels, sample_weight, pos_label
    )
    if class_ not in classes:
        raise ValueError(
            f"class_={class_!r} is not a class of y_true. Pass one of the labels, and "
            "name the classes of all columns if it never occurs: labels=[...]."
        )
    column = classes.index(class_)
    return proba[:, column].astype(np.float64), codes == column, weight


class BinnedRows:
    """The rows, sorted and ready to be summed per bin for any outcome."""

    def __init__(self, confidence, hit, weight, n_bins, strategy):
        self._ranked = rank_scores(confidence, hit)
        self._weight = weight[self._ranked.order]
        self._n_bins = n_bins
        self._strategy = strategy
        self.stats = self._sum(self._ranked.hit, self._weight)

    def _sum(self, hit, weight):
        rows = Replicate(replace(self._ranked, hit=hit), weight, self._n_bins)
        return rows.mass_bins if self._strategy == "quantile" else rows.bins

    @property
    def histogram(self):
        """Share of the weight in bins of equal width."""
        return Replicate(self._ranked, self._weight, self._n_bins).bins.share

    def band(self, interval, n_bootstrap, confidence_level, random_state):
        """Range of each bin's accuracy, NaN where a bin is empty."""
        if interval in FORMULAS:
            refuse_fractions(is_whole(self._weight))
            return band_by_formula(self.stats, interval, confidence_level)
        if n_bootstrap == 0:
            return None
        rows = self._ranked.confidence, self._ranked.hit, self._weight
        draws = np.stack(
            [
                _accuracy(self._sum(hit, weight))
                for hit, weight in redraw(*rows, interval, n_bootstrap, random_state)
            ]
        )
        tail = (1 - confidence_level) / 2
        filled = self.stats.weight > 0
        ends = np.full((2, self._n_bins), np.nan)
        # A bin that a draw leaves empty says nothing about its accuracy.
        ends[:, filled] = np.nanquantile(draws[:, filled], [tail, 1 - tail], axis=0)
        return ends[0], ends[1]


def refuse_fractions(are_whole):
    """Refuse weights that are not whole, for what needs numbers of rows."""
    if not are_whole:
        raise ValueError(
            "An interval by formula needs numbers of rows: weights have to be "
            'whole for it. Draw the band instead, interval="confidence".'
        )


def band_by_formula(stats, interval, confidence_level):
    """Return ends of an interval of each bin's accuracy, from its hits."""
    filled = stats.weight > 0
    ends = np.full((2, filled.shape[0]), np.nan)
    rows, hits = stats.weight[filled], stats.hit[filled]
    ends[:, filled] = FORMULAS[interval](hits, rows, (1 - confidence_level) / 2)
    return ends[0], ends[1]


def clopper_pearson(hits, rows, tail):
    """Return the rates beyond which so many hits, or so few, are as rare as `tail`."""
    low, high = np.zeros_like(rows), np.ones_like(rows)
    some, short = hits > 0, hits < rows
    low[some] = betaincinv(hits[some], (rows - hits)[some] + 1, tail)
    high[short] = betaincinv(hits[short] + 1, (rows - hits)[short], 1 - tail)
    return low, high


def wilson(hits, rows, tail):
    """Return the ends of the rates that the score test does not reject."""
    z = -ndtri(tail)
    reach = z * np.sqrt(hits * (rows - hits) / rows + z**2 / 4)
    middle, total = hits + z**2 / 2, rows + z**2
    low, high = (middle - reach) / total, (middle + reach) / total
    return np.maximum(low, 0), np.minimum(high, 1)


# Intervals that need no draws.
FORMULAS = {"clopper_pearson": clopper_pearson, "wilson": wilson}


def _accuracy(stats):
    return np.where(stats.weight > 0, stats.accuracy, np.nan)


def redraw(confidence, hit, weight, interval, n_draws, random_state):
    """Yield outcomes and weights of the rows, one pair a draw of a band.

    "consistency" draws the outcomes with the probabilities that are stated,
    "confidence" the rows with replacement.
    """
    random = check_random_state(random_state)
    if interval == "consistency":
        for _ in range(n_draws):
            yield random.random_sample(confidence.shape[0]) < confidence, weight
    else:
        for chunk in bootstrap_weights(weight, n_draws, random):
            for replicate in chunk:
                yield hit, replicate


def check_interval(interval, formulas=()):
    """Refuse a band that does not exist, or is by none of these formulas."""
    if interval not in ("consistency", "confidence", *formulas):
        by_formula = f"; {' or '.join(map(repr, formulas))} for the latter by formula"
        raise ValueError(
            f"interval={interval!r} is not known; use 'consistency' for where a "
            "calibrated classifier would lie, or 'confidence' for where this one may"
            f"{by_formula if formulas else ''}."
        )
