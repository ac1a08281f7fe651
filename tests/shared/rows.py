"""Rows of shares."""


def normalise(rows):
    """Divide each row by its sum."""
    return rows / rows.sum(axis=1, keepdims=True)
