"""Inputs that are logits but for an offset, which a perturbation should add."""

import numpy as np

OFFSET = np.array([2.0, 0.0, -1.0, -1.0])


def draw(n, offset=OFFSET, temperature=2.0, seed=0):
    """Draw inputs that lack an offset and are too large, with their labels."""
    rng = np.random.default_rng(seed)
    X = 3 * rng.normal(size=(n, 4))
    noise = rng.gumbel(size=X.shape)
    y = ((X + offset) / temperature + noise).argmax(axis=1)
    return X.astype(np.float32), y
