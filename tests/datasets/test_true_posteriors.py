"""Blobs, spirals and blood alcohol: the posteriors are the truth."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from skcalib.datasets import (
    make_blood_alcohol,
    make_overlapping_blobs,
    make_spirals,
)

MAKERS = {
    "blobs": make_overlapping_blobs,
    "five blobs": lambda n, **keywords: make_overlapping_blobs(n, 5, **keywords),
    "wide blobs": lambda n, **keywords: make_overlapping_blobs(
        n, n_features=4, **keywords
    ),
    "spirals": make_spirals,
    "three spirals": lambda n, **keywords: make_spirals(n, 3, **keywords),
    "blood alcohol": make_blood_alcohol,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_the_posterior_is_calibrated_in_every_region(name):
    _, y, posterior = MAKERS[name](20_000, return_posterior=True, random_state=0)
    assert_allclose(posterior.sum(axis=1), 1, rtol=1e-12)
    hit = np.eye(posterior.shape[1])[y]
    for low, high in [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)]:
        inside = (posterior > low) & (posterior <= high)
        assert inside.sum() > 100
        residual = (hit - posterior)[inside]
        assert abs(residual.mean()) < 4 * residual.std() / np.sqrt(residual.shape[0])


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_gives_the_same_data(name):
    first = MAKERS[name](30, return_posterior=True, random_state=3)
    again = MAKERS[name](30, random_state=3)
    other = MAKERS[name](30, random_state=4)
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_the_posterior_of_blobs_is_bayes_rule():
    X, _, posterior = make_overlapping_blobs(
        50, 3, radius=2.0, return_posterior=True, random_state=0
    )
    angle = np.array([0, 2, 4]) * np.pi / 3
    centres = 2 * np.column_stack([np.cos(angle), np.sin(angle)])
    density = norm.pdf(X[:, np.newaxis] - centres).prod(axis=2)
    assert_allclose(posterior, density / density.sum(axis=1, keepdims=True), rtol=1e-9)


def test_blobs_without_distance_cannot_be_told_apart():
    posterior = make_overlapping_blobs(9, 4, radius=0, return_posterior=True)[2]
    assert_allclose(posterior, 0.25)


@pytest.mark.parametrize(("turns", "noise"), [(1.0, 0.1), (2.5, 0.03)])
def test_the_posterior_of_spirals_is_the_integral_along_the_arms(turns, noise):
    X, _, posterior = make_spirals(
        8, 2, turns=turns, noise=noise, return_posterior=True, random_state=1
    )
    for x, expected in zip(X, posterior, strict=True):

        def density(t, k, x=x):
            angle = 2 * np.pi * (turns * t + k / 2)
            squares = (x[0] - t * np.cos(angle)) ** 2 + (x[1] - t * np.sin(angle)) ** 2
            return np.exp(-squares / (2 * noise**2))

        parts = np.linspace(0, 1, 41)
        integrals = [
            sum(
                quad(density, a, b, args=(k,), epsabs=1e-13)[0]
                for a, b in pairwise(parts)
            )
            for k in (0, 1)
        ]
        assert expected[1] == pytest.approx(integrals[1] / sum(integrals), abs=1e-9)


def test_a_point_far_from_all_arms_still_has_a_posterior():
    # A noise so small that every density is 0 in double precision.
    posterior = make_spirals(5, noise=1e-3, return_posterior=True, random_state=0)[2]
    assert np.isfinite(posterior).all()
    assert posterior.max(axis=1).min() > 0.5


def test_the_posterior_of_blood_alcohol_is_the_integral_over_people():
    X, _, posterior = make_blood_alcohol(40, return_posterior=True, random_state=0)
    uncertain = np.flatnonzero((posterior[:, 1] > 0.02) & (posterior[:, 1] < 0.98))
    assert uncertain.size > 2
    for row in uncertain:
        sex, weight, drinks, hours, meal = X[row]
        grams = 8 * drinks * (1 - 0.1 * meal)
        peak = 100 * grams / (1000 * weight * (0.68 if sex else 0.55))

        def above(factor, peak=peak, hours=hours):
            # Given the factor, the elimination has to be small enough.
            most = (peak / factor - 0.05) / hours
            return norm.pdf(factor, 1, 0.05) * norm.cdf(most, 0.015, 0.003)

        expected = quad(above, 0.6, 1.4, limit=200, epsabs=1e-12)[0]
        assert posterior[row, 1] == pytest.approx(expected, abs=1e-6)


def test_blood_alcohol_has_the_features_it_names():
    X, y = make_blood_alcohol(5_000, random_state=0)
    sex, weight, drinks, hours, meal = X.T
    assert set(sex) == {0, 1}
    assert weight[sex == 1].mean() == pytest.approx(82, abs=1)
    assert weight[sex == 0].mean() == pytest.approx(68, abs=1)
    assert set(drinks) == set(range(1, 16))
    assert hours.min() >= 0.5
    assert hours.max() <= 8
    assert set(meal) == {0, 1, 2}
    assert 0.3 < y.mean() < 0.7


def test_a_lower_limit_is_exceeded_more_often():
    strict = make_blood_alcohol(500, limit=0.02, random_state=0)[1]
    loose = make_blood_alcohol(500, limit=0.08, random_state=0)[1]
    assert (strict >= loose).all()
    assert strict.mean() > loose.mean() + 0.1


@pytest.mark.parametrize(
    ("make", "arguments", "name"),
    [
        (make_overlapping_blobs, {"n_samples": 0}, "n_samples"),
        (make_overlapping_blobs, {"n_classes": 1}, "n_classes"),
        (make_overlapping_blobs, {"n_features": 1}, "n_features"),
        (make_overlapping_blobs, {"radius": -1}, "radius"),
        (make_spirals, {"noise": 0}, "noise"),
        (make_spirals, {"turns": 0}, "turns"),
        (make_blood_alcohol, {"limit": 0}, "limit"),
    ],
)
def test_impossible_parameters_are_named(make, arguments, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        make(**arguments)
