"""What the checks share: drawn logits, fresh calibrators, comparisons that explain."""

import numpy as np
from sklearn.base import clone


def draw_logits(n_samples=150, n_classes=3, seed=0):
    """Draw over-confident logits and labels 0..K-1; every class occurs."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3.0, size=(n_samples, n_classes))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return logits, y


def fresh(calibrator, **params):
    """Clone `calibrator` with every random state 0 and these parameters."""
    new = clone(calibrator)
    seeds = {
        key: 0
        for key in new.get_params()
        if key == "random_state" or key.endswith("__random_state")
    }
    return new.set_params(**seeds, **params)


def fresh_with_splits(calibrator, groups):
    """Clone `calibrator`; its `cv` is set to leave one group out at a time.

    The folds then stay the same when rows are repeated, removed or reordered. Of a
    calibrator in another it is set where the other has none, and so hands on all rows.
    Where `cv` takes only a number of folds it is left alone.
    """
    splits = [
        (np.flatnonzero(groups != group), np.flatnonzero(groups == group))
        for group in np.unique(groups)
    ]
    new = fresh(calibrator)
    paths = [key.split("__") for key in new.get_params()]
    owners = [path[:-1] for path in paths if path[-1] == "cv"]
    depth = min(map(len, owners), default=0)
    for owner in owners:
        if len(owner) == depth:
            new = _with_splits(new, "__".join(owner), splits)
    return new


def _with_splits(calibrator, owner, splits):
    """Clone with these as the `cv` of what bears it, the same if it takes none."""
    new = fresh(calibrator, **{f"{owner}__cv".removeprefix("__"): splits})
    try:
        new.get_params().get(owner, new)._validate_params()
    except ValueError:
        return calibrator
    return new


def require(condition, message):
    """Raise AssertionError with `message` unless `condition` holds."""
    if not condition:
        raise AssertionError(message)


def require_close(actual, expected, what, *, atol=1e-6):
    """Require equal shapes and entries that differ by at most `atol`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    require(
        actual.shape == expected.shape,
        f"{what}: the shapes are {actual.shape} and {expected.shape}.",
    )
    difference = np.abs(actual - expected)
    largest = difference.max(initial=0.0)
    require(
        largest <= atol,
        f"{what}: the largest difference is {largest:.3g}, allowed is {atol:g}, "
        f"in row {np.unravel_index(difference.argmax(), difference.shape)[0]}.",
    )


def require_probabilities(proba, shape, what):
    """Require rows of this shape that are finite, non-negative and sum to 1."""
    require(
        proba.shape == shape,
        f"{what}: predict_proba has shape {proba.shape}, expected {shape}.",
    )
    bad = ~np.isfinite(proba).all(axis=1)
    require(not bad.any(), f"{what}: row {bad.argmax()} holds NaN or infinity.")
    require((proba >= 0).all(), f"{what}: the smallest probability is {proba.min()}.")
    error = np.abs(proba.sum(axis=1, dtype=np.float64) - 1)
    require(
        (error <= 1e-6).all(),
        f"{what}: row {error.argmax()} sums to 1 with an error of {error.max():.3g}.",
    )


def require_error(error_type, words, what, call, *args):
    """Require that `call` raises `error_type` and that the message holds `words`."""
    try:
        call(*args)
    except error_type as error:
        missing = [word for word in words if word.lower() not in str(error).lower()]
        require(
            not missing,
            f"{what}: the message should mention {missing}, but reads: {error}",
        )
    except Exception as error:
        raise AssertionError(
            f"{what}: expected {error_type.__name__}, but {type(error).__name__} was "
            f"raised: {error}"
        ) from error
    else:
        raise AssertionError(
            f"{what}: expected {error_type.__name__}, but nothing was raised."
        )
