"""Lists of calibrators: their names, and the default ones from simple to complex."""

from itertools import count, islice
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.utils.parallel import Parallel

from skcalib._validation._options import is_ragged
from skcalib.calibrators import (
    BetaCalibration,
    EnsembleTemperatureScaling,
    IsotonicCalibration,
    OrderPreservingScaling,
    PlattScaling,
    SmoothingSplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.meta import DenseCalibration, MultiLabelCalibration, OptionCalibration

# Structured matrix scaling for data that speak more clearly than its penalties assume.
# A hundredth of them is a round number. What the mixture gains by it is measured by
# `benchmarks/default_search.py`: much on letter-gnb, languages, the wide and the weak
# network (docs/choosing.rst).
WEAK: dict[str, Any] = {
    "intercept_penalty": 0.01,
    "diagonal_penalty": 0.01,
    "off_diagonal_penalty": 0.01,
}
# From so many classes on, their many numbers take many samples a class to pay, and
# finding them takes longer than all else (`benchmarks/default_search.py`). First they
# wait for what a matrix is worth, then they are not tried at all.
MANY, TOO_MANY = 50, 300
VECTOR, MATRIX = (
    "StructuredMatrixScaling(structure='vector')",
    "StructuredMatrixScaling",
)
WEAK_MATRIX = "StructuredMatrixScaling(weak penalties)"
_NEEDED = (
    "Pass a list of calibrators, or of pairs of a name and a calibrator, such as "
    "[TemperatureScaling()], or a dict from name to calibrator."
)


def default_candidates(n_classes):
    """Return the calibrators that are tried when none are named, simplest first.

    They learn different things; what several of them learn, the first one stands for.
    """
    simplest = EnsembleTemperatureScaling()
    if n_classes == 2:
        # Of one score a smooth curve learns what lines and powers of it would, and
        # steps what is not smooth.
        curves = [SmoothingSplineCalibration(), VennAbersCalibration()]
        return named_candidates([simplest, *curves])
    vector = StructuredMatrixScaling(structure="vector")
    matrix = StructuredMatrixScaling()
    candidates = named_candidates([simplest, OrderPreservingScaling(), vector, matrix])
    if n_classes < TOO_MANY:
        candidates[WEAK_MATRIX] = StructuredMatrixScaling(**WEAK)
    return candidates


def waiting(n_classes):
    """Return the default candidates that wait until the others are judged, by name.

    Each is tried if the first of the two that it waits for is better than the second.
    """
    return {WEAK_MATRIX: (MATRIX, VECTOR)} if MANY <= n_classes < TOO_MANY else {}


def common_calibrators():
    """Return the calibrators that are compared when none are named, simplest first."""
    return [
        TemperatureScaling(),
        EnsembleTemperatureScaling(),
        OrderPreservingScaling(),
        PlattScaling(),
        BetaCalibration(),
        StructuredMatrixScaling(structure="vector"),
        VectorScaling(),
        StructuredMatrixScaling(),
        IsotonicCalibration(method="strict"),
    ]


def named_candidates(calibrators):
    """Return a dict from name to calibrator, in the order given."""
    if not isinstance(calibrators, (list, tuple, dict)):
        raise TypeError(f"calibrators is {calibrators!r}. {_NEEDED}")
    if not len(calibrators):
        raise ValueError("calibrators is empty; name at least one calibrator.")
    if isinstance(calibrators, dict):
        return dict(map(_checked, calibrators.items()))
    named = {}
    for name, calibrator in map(_as_pair, calibrators):
        unique, further = name, count(2)
        while unique in named:
            unique = f"{name} ({next(further)})"
        named[unique] = calibrator
    return named


def _as_pair(entry):
    """Return the name of a calibrator, and the calibrator."""
    return _checked(
        entry if isinstance(entry, tuple) else (readable_name(entry), entry)
    )


def _checked(pair):
    """Return a pair of a name and a calibrator, and refuse others."""
    if len(pair) == 2 and isinstance(pair[0], str) and _is_calibrator(pair[1]):
        return pair
    entry = pair[-1]
    raise TypeError(
        f"calibrators holds {entry!r}, which is no calibrator of logits and no pair of "
        f"a name and one. {_NEEDED}"
    )


def _is_calibrator(thing):
    """Whether it can be fitted to logits, told which classes their columns are."""
    is_estimator = hasattr(thing, "fit") and not isinstance(thing, type)
    return is_estimator and "classes" in thing.get_params(deep=False)


def refuse_layouts(name, calibrators, X):
    """Refuse calibrators, or logits for them, of more than one class and row a sample.

    `name` is what judges probabilities of one class in each row.
    """
    for calibrator in calibrators:
        calibrator = getattr(calibrator, "estimator", calibrator)  # A search over it.
        kind = type(calibrator).__name__
        if isinstance(calibrator, MultiLabelCalibration):
            raise TypeError(
                f"{kind} calibrates labels that may occur together, and {name} judges "
                f"by one class in each row. Fit it directly, {kind}().fit(X, y), and "
                "judge it on other rows by calibration_report(..., multilabel=True)."
            )
        for layout, rows, is_layout in (
            (OptionCalibration, "pad_options(X)", is_ragged),
            (DenseCalibration, "as_rows(X, y)", _is_deep),
        ):
            if isinstance(calibrator, layout) and is_layout(X):
                raise TypeError(
                    f"{name} needs a matrix of logits, one row a sample, of "
                    f"{kind} too. Fit it directly, {kind}().fit(X, y), or pass rows, "
                    f"which skcalib.{rows} gives."
                )


def _is_deep(X):
    return not is_ragged(X) and np.ndim(X) > 2


def readable_name(calibrator):
    """Return the class and the parameters that are not at their defaults."""
    with config_context(print_changed_only=True):
        text = " ".join(repr(calibrator).split())
    return text.removesuffix("()")


def run_told(calls, names, n_calls, n_jobs, tell):
    """Return what the `n_calls` of each candidate give, and tell when they are done."""
    outcomes = iter(Parallel(n_jobs=n_jobs, return_as="generator")(calls))
    by_name = []
    for name in names:
        by_name.append(list(islice(outcomes, n_calls)))
        tell(f"{name} is done, {len(by_name)} of {len(names)}")
    return by_name
