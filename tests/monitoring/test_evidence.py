import numpy as np
import pytest
from scipy.integrate import quad

from skcalib.monitoring._evidence import adjusted, over_groups, over_streams


def test_the_adjuster_is_one():
    def density(x):  # with y = e^x
        return float(np.exp(adjusted(np.array([x]))[0] - x))

    area = quad(density, 0, 1)[0] + quad(density, 1, 600, limit=500)[0]
    # What is left beyond e^600 is the integral of about 1 / x^2.
    assert area + 1 / 600 == pytest.approx(1, abs=1e-4)


def test_the_adjuster_does_not_fall_and_has_no_seam():
    x = np.concatenate([np.linspace(0, 2e-3, 2001), np.linspace(2e-3, 800, 2000)])
    values = adjusted(x)
    assert (np.diff(values) >= -1e-9).all()
    assert values[0] == pytest.approx(np.log(0.5))
    assert np.isfinite(values).all()


def test_a_group_has_its_share_of_the_half():
    assert over_groups([3.0]) == 3.0
    wealth = over_groups([np.log(2), np.log(4), np.log(8)])
    assert np.exp(wealth) == pytest.approx(0.5 * 2 + 0.25 * 4 + 0.25 * 8)


def test_streams_are_averaged_after_adjustment():
    single = adjusted(np.array([5.0]))[0]
    assert over_streams(np.array([5.0, 5.0])) == pytest.approx(single)
