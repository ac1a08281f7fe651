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

    Looked at are the rows it was fitted to. The standard error is the larger of those
    by the probabilities and by the labels, as either alone is too small by chance where
    a class is rare.
    """
    proba = column_on_host(calibrator.predict_proba(logits))
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    total, squares = weight.sum(), weight**2
    order = np.argsort(calibrator.classes_)
    codes = order[np.searchsorted(calibrator.classes_, y, sorter=order)]
    n_classes = proba.shape[1]
    share = np.bincount(codes, weight, n_classes) / total
    mean = weight @ proba / total
    by_proba = squares @ proba - squares @ proba**2
    own = np.bincount(codes, squares, n_classes)
    by_labels = own * (1 - 2 * share) + squares.sum() * share**2
    error = np.sqrt(np.maximum(by_proba, by_labels).clip(0)) / total
    gap = np.abs(mean - share)
    off = (gap > ERRORS * error) & (gap > MATERIAL * np.minimum(share, 1 - share))
    if not off.any():
        return
    k = int(np.where(off, gap, 0).argmax())
    warn(
        f"The mean calibrated probability of {calibrator.classes_.tolist()[k]!r} is "
        f"{mean[k]:.4f} on held-out samples, and its share {share[k]:.4f} (standard "
        f"error of the difference {error[k]:.4f}). A temperature, the default, leaves "
        "base rates as they are, shifted by class weights or resampling for instance. "
        "Pass calibrator=CalibratorSearch() to correct them, or "
        "calibrator=TemperatureScaling() if they are meant.",
        BaseRateWarning,
    )
