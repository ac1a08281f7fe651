"""Proximity of samples to their nearest neighbours, and bins of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors


def neighbour_proximity(
    features: NDArray[Any], reference: NDArray[Any] | None, n_neighbours: int
) -> NDArray[np.float64]:
    """Return exp(- mean distance to the nearest neighbours) of each sample.

    Without `reference` the neighbours are the other samples of `features`.
    """
    others = features.shape[0] - 1 if reference is None else reference.shape[0]
    if others < n_neighbours:
        raise ValueError(
            f"{n_neighbours} neighbours are asked for among {others} other samples. "
            "Pass more samples, or ask for fewer neighbours."
        )
    among = features if reference is None else reference
    if among.shape[1] != features.shape[1]:
        raise ValueError(
            f"The samples have {features.shape[1]} features, but those among which to "
            f"look for neighbours have {among.shape[1]}."
        )
    search = NearestNeighbors(n_neighbors=n_neighbours).fit(among)
    # No argument: a sample is then not its own neighbour.
    distance, _ = search.kneighbors(None if reference is None else features)
    return np.exp(-distance.mean(axis=1, dtype=np.float64))


def mass_quantiles(
    values: NDArray[np.float64], weight: NDArray[np.float64], n_bins: int
) -> NDArray[np.float64]:
    """Inner edges of `n_bins` bins of equal mass, closed on the right."""
    order = np.argsort(values)
    cumulated = np.cumsum(weight[order])
    shares = np.arange(1, n_bins) / n_bins * cumulated[-1]
    # Shares that rounding carries just above a sum are that sum.
    last = np.searchsorted(cumulated, shares * (1 - 1e-12))
    return values[order][last]
