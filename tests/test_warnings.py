"""Warnings point at the line of the user's that led to them."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcalib import BetaCalibration, TemperatureScaling


@pytest.mark.parametrize(
    "estimator",
    [
        TemperatureScaling(prior=None),
        BetaCalibration(max_iter=1),
        make_pipeline(StandardScaler(), TemperatureScaling(prior=None)),
    ],
    ids=["one call deep", "by its own fit", "in a pipeline"],
)
def test_a_fit_that_stops_early_warns_with_the_line_that_fits(estimator):
    separable = np.array([[2.0, -2.0], [1.0, -1.0], [-1.0, 1.0], [-2.0, 2.0]])
    with pytest.warns(UserWarning, match="stopped early") as caught:
        estimator.fit(separable, [0, 0, 1, 1])
    assert [warning.filename for warning in caught] == [__file__]
