import numpy as np
from numpy.testing import assert_allclose

from skcalib.calibrators._densities import BinShift

POINTS = np.array([[0.2, 0.1], [0.9, 0.2], [0.3, 0.8], [0.8, 0.9]])
HIT = np.array([True, True, False, True])


def test_a_bin_of_one_row_is_shifted_onto_its_outcome():
    fitted = BinShift.fit(POINTS, HIT, np.ones(4), n_bins=2, prior=0.0)
    assert_allclose(fitted.chance(POINTS), HIT)


def test_prior_samples_without_a_gap_shrink_the_shift():
    fitted = BinShift.fit(POINTS, HIT, np.ones(4), n_bins=2, prior=3.0)
    expected = POINTS[:, 0] + (HIT - POINTS[:, 0]) / 4
    assert_allclose(fitted.chance(POINTS), expected)
