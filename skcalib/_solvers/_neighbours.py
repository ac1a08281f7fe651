"""Proximity of samples to their nearest neighbours."""

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
