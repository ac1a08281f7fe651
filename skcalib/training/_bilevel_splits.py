"""Inner and outer rows of the networks of a bilevel problem."""

import numpy as np

from skcalib._validation import make_splits


def bilevel_splits(cv, X, codes, classes, used, rng):
    """Return checked pairs of inner and outer rows, counted among those used.

    `codes` are those of the used rows; `cv` counts all rows of `X`.
    """
    every = np.zeros(used.shape[0], dtype=codes.dtype)
    every[used] = codes
    position = np.cumsum(used) - 1
    splits = [
        (position[inner], position[outer])
        for inner, outer in make_splits(cv, X, every, used.astype(float), rng)
    ]
    for number, (inner, outer) in enumerate(splits):
        if np.intersect1d(inner, outer).size:
            raise ValueError(
                f"The inner and outer rows of split {number} overlap. The confidence "
                "has to be learned on rows that the network was not trained on."
            )
        for part, rows in (("inner", inner), ("outer", outer)):
            if np.unique(codes[rows]).shape[0] < 2:
                raise ValueError(
                    f"The {part} rows of split {number} hold one class only, "
                    f"{classes[codes[rows[0]]]!r}. Use fewer folds with cv=, or more "
                    "samples."
                )
    return splits


def find_judges(splits, n_samples):
    """Say whose outer losses move whose sample weights: (n_members, n_members), 0 or 1.

    Weights that were moved by a member's own outer rows would make these look better
    than they are, and head and stopping learn from them. So the others judge, those
    whose outer rows are other ones, if that leaves a judge for each inner row. With
    fewer than three folds it does not, and each member judges for itself.
    """
    inner, outer = np.zeros((2, len(splits), n_samples))
    for number, (inner_rows, outer_rows) in enumerate(splits):
        inner[number, inner_rows] = outer[number, outer_rows] = 1
    judges = (outer @ outer.T == 0).astype(float)
    if ((judges @ inner == 0) & (inner > 0)).any():
        judges = np.eye(len(splits))
    return judges.astype(np.float32)
