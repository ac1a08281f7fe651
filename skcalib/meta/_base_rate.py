"""Whether calibrated probabilities have the base rates of the classes on average."""

import numpy as np

from skcalib._validation import column_on_host
from skcalib._warnings import warn
from skcalib.exceptions import BaseRateWarning

# A mean probability is off where it differs by so many standard errors, and by so much
# of the share of the class, or of all others.
ERRORS = 5
MATERIAL = 0.1


def warn_of_base_rates(calibrator, logits, y, sample_weight):
    """Warn where a fitted calibrator leaves a mean probability off its class's share.

    Looked at are the rows it was fitted to.
    """
    proba = column_on_host(calibrator.predict_proba(logits))
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    order = np.argsort(calibrator.classes_)
    codes = order[np.searchsorted(calibrator.classes_, y, sorter=order)]
    rates = _compare_rates(proba, codes, weight)
    k = int(rates[-1].argmax())
    if rates[-1, k]:
        name = calibrator.classes_.tolist()[k]
        _warn(name, rates[:, k], otherwise="CalibratorSearch()")


def warn_of_label_rates(proba, labels, is_known, weight, names):
    """Warn once where mean probabilities of labels are off their shares."""
    rates = np.zeros((4, len(names)))
    for k in np.flatnonzero(is_known.any(axis=0)).tolist():
        rows = is_known[:, k]
        p, codes = proba[rows, k], labels[rows, k].astype(np.intp)
        both = np.column_stack([1 - p, p])
        rates[:, k] = _compare_rates(both, codes, weight[rows])[:, 1]
    off = rates[-1] > 0
    if off.any():
        k = int(rates[-1].argmax())
        others = f"; {off.sum()} of {off.size} labels are off" if off.size > 1 else ""
        _warn(names.tolist()[k], rates[:, k], "PlattScaling()", others)


def _compare_rates(proba, codes, weight):
    """Return mean probability, share, standard error and material gap of each class.

    The standard error is the larger of those by the probabilities and by the labels, as
    either alone is too small by chance where a class is rare.
    """
    total, squares = weight.sum(), weight**2
    n_classes = proba.shape[1]
    share = np.bincount(codes, weight, n_classes) / total
    mean = weight @ proba / total
    by_proba = squares @ proba - squares @ proba**2
    own = np.bincount(codes, squares, n_classes)
    by_labels = own * (1 - 2 * share) + squares.sum() * share**2
    error = np.sqrt(np.maximum(by_proba, by_labels).clip(0)) / total
    gap = np.abs(mean - share)
    off = (gap > ERRORS * error) & (gap > MATERIAL * np.minimum(share, 1 - share))
    return np.array([mean, share, error, np.where(off, gap, 0)])


def _warn(name, rates, otherwise, others=""):
    mean, share, error, _ = rates
    warn(
        f"The mean calibrated probability of {name!r} is {mean:.4f} on held-out "
        f"samples, and its share {share:.4f} (standard error of the difference "
        f"{error:.4f}){others}. A temperature, the default, leaves base rates as they "
        "are, shifted by class weights or resampling for instance. Pass "
        f"calibrator={otherwise} to correct them, or calibrator=TemperatureScaling() "
        "if they are meant.",
        BaseRateWarning,
    )
