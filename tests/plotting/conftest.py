"""What the tests of figures share."""

import pytest


@pytest.fixture
def pyplot():
    """Figures are closed after the test."""
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")
