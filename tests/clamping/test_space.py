"""Where a perturbation lives: in units of the inputs, or of normalised ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV, TemperatureScaling  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._filter import Filter  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.clamping._perturbation import LowFrequency  # noqa: E402
from skcalib.clamping._space import InSpace  # noqa: E402
from skcalib.export import to_torch  # noqa: E402
from skcalib.metrics import ece_scorer  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # Few epochs are enough for what is tested here.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SHAPE = (2, 6, 6)
UNITS = np.array([0.2, 5.0])
ALONG = UNITS[:, np.newaxis, np.newaxis]


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.AvgPool2d(3),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 3),
    )


def draw(n=200):
    """Draw normalised images with an offset, and labels by what they were without."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, *SHAPE))
    with torch.no_grad():
        logits = 30 * network().double()(torch.from_numpy(X)).numpy()
    return X + 0.3, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "lbfgs", "perturbation": "full", "penalty": 0.01, "max_iter": 3},
        {"solver": "sgd", "max_iter": 1},
        {"solver": "fixed_delta", "start": "random"},
        {"solver": "gradient_free", "perturbation": "gain"},
        {"perturbation": 2},
        {"perturbation": ("filter", 3, "full")},
        {"preset": "reference", "max_iter": 2},
        {"preset": "paper", "max_iter": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_space_does_what_normalised_inputs_would(options):
    X, y = draw()
    module, units = network(), torch.from_numpy(ALONG).float()
    kept = {"gamma": 0, "batch_size": 64}
    normalised = NeuralClamping(lambda z: 50 * module(z), space=1.0, **kept, **options)
    normalised.fit(X, y)
    raw = NeuralClamping(
        lambda x: 50 * module(x / units), space=UNITS, **kept, **options
    )
    raw.fit(ALONG * X, y)
    assert normalised.delta_.any()
    assert_allclose(raw.delta_, ALONG * normalised.delta_, rtol=1e-4, atol=1e-5)
    assert raw.temperature_ == pytest.approx(normalised.temperature_, rel=1e-5)
    assert raw.penalty_ == pytest.approx(normalised.penalty_)
    assert raw.loss_ == pytest.approx(normalised.loss_, rel=1e-5)
    assert_allclose(
        raw.predict_proba(ALONG * X), normalised.predict_proba(X), atol=1e-5
    )


@pytest.mark.parametrize("own", [True, False])
def test_derivatives_by_coordinates_of_a_space_are_differences(own):
    X, y = draw(10)
    opened = open_network(network().double())
    objective = Objective(opened, Inputs(ALONG * X, opened, 4), y)
    small = LowFrequency(SHAPE, 2)
    filters = Filter(SHAPE, 3, own, small, np.array([0.3, -0.1]), np.array([1.0, 2.0]))
    rng = np.random.default_rng(1)
    for inner in (small, filters):
        basis = InSpace(inner, UNITS)
        theta = 0.1 * rng.normal(size=basis.dim)
        point = basis.at(theta)
        assert_allclose(basis.coordinates(point.change), theta, atol=1e-12)
        gradient = objective.evaluate(point, 0.0)[2]
        direction = rng.normal(size=basis.dim)
        step = 1e-5 * direction
        above, below = (
            objective.value(basis.at(theta + sign * step).change, 0.0)
            for sign in (1, -1)
        )
        assert gradient @ direction == pytest.approx((above - below) / 2e-5, rel=1e-5)
        jacobian = objective.jacobian(basis, point.change)
        above, below = (
            objective.logits(basis.at(theta + sign * step).change) for sign in (1, -1)
        )
        assert_allclose(jacobian @ direction, (above - below) / 2e-5, atol=1e-4)


@pytest.mark.slow
def test_standardised_is_the_deviation_of_each_channel():
    X, y = draw()
    X = ALONG * X
    options = {"perturbation": "channel", "penalty": 0.001, "max_iter": 2}
    found, given = (
        NeuralClamping(network(), space=space, **options).fit(X, y)
        for space in ("standardised", X.std(axis=(0, 2, 3)))
    )
    assert_allclose(found.delta_, given.delta_, rtol=1e-4)
    search = NeuralClampingCV(network(), gammas=[0], space="standardised").fit(X, y)
    single = NeuralClamping(network(), gamma=0, space="standardised").fit(X, y)
    assert_allclose(search.delta_, single.delta_)


def test_exports_know_nothing_of_the_space():
    X, y = draw()
    options = {"perturbation": "filter", "penalty": 0.001, "max_iter": 2}
    nc = NeuralClamping(network(), space=UNITS, **options).fit(X, y)
    module = to_torch(nc)
    with torch.no_grad():
        proba = module(torch.from_numpy(X).float()).numpy()
    assert_allclose(proba, nc.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("space", [0.0, [1.0, -1.0], [1.0, 2.0, 3.0], ["a", "b"]])
def test_what_is_no_space_is_refused(space):
    X, y = draw(40)
    with pytest.raises(ValueError, match="space"):
        NeuralClamping(network(), space=space).fit(X, y)


def test_the_penalty_of_a_sum_is_that_of_the_mean_times_the_weights():
    X, y = draw()
    weight = np.arange(len(y)) % 3
    options = {"perturbation": "channel", "max_iter": 2}
    by_sum = NeuralClamping(
        network(), penalty=0.01 * weight.sum(), reduction="sum", **options
    ).fit(X, y, sample_weight=weight)
    by_mean = NeuralClamping(network(), penalty=0.01, **options)
    by_mean.fit(X, y, sample_weight=weight)
    assert by_sum.penalty_ == pytest.approx(0.01)
    assert_allclose(by_sum.delta_, by_mean.delta_, rtol=1e-6)


def test_repeated_rows_make_the_steps_of_a_sum_longer():
    X, y = draw(100)
    options = {"preset": "paper", "max_iter": 1, "random_state": 0}
    once = NeuralClamping(network(), **options).fit(X, y)
    twice = NeuralClamping(network(), **options)
    twice.fit(X, y, sample_weight=np.full(100, 2))
    assert twice.temperature_ - 1 == pytest.approx(
        2 * (once.temperature_ - 1), rel=1e-6
    )


@pytest.mark.slow
def test_four_steps_of_the_published_recipe_reach_temperature_scaling(cifar_images):
    module, X, y = cifar_images
    options = {"preset": "paper", "batch_size": 64, "channels_last": True}
    recipe = NeuralClamping(module, max_iter=4, **options).fit(X, y)
    scaled = NeuralClamping(module, solver="fixed_delta").fit(X, y)
    assert recipe.temperature_ == pytest.approx(scaled.temperature_, abs=0.1)
    literal = NeuralClamping(module, max_iter=4, space="raw", reduction="mean")
    literal.set_params(**options).fit(X[:128], y[:128])
    assert abs(literal.temperature_ - 1) < 0.005


def test_an_exponent_that_is_given_is_that_of_the_temperature():
    X, y = draw()
    logits = NeuralClamping(network(), solver="fixed_delta").fit(X, y).logits(X)
    for gamma, same in [
        (None, TemperatureScaling()),
        (0.0, TemperatureScaling()),
        (2.0, TemperatureScaling(objective="focal", gamma=2.0)),
    ]:
        nc = NeuralClamping(network(), solver="fixed_delta", gamma=gamma).fit(X, y)
        temperature = same.fit(logits, y).temperature_
        assert nc.temperature_ == pytest.approx(temperature, rel=1e-6)


def test_a_search_over_the_exponent_chooses_among_different_models():
    X, y = draw()
    nc = NeuralClamping(network(), solver="fixed_delta")
    search = GridSearchCV(nc, {"gamma": [0, 1, 2]}, scoring=ece_scorer, cv=3).fit(X, y)
    assert len(set(search.cv_results_["mean_test_score"])) == 3
    own = NeuralClampingCV(
        network(), perturbation="channel", scoring="neg_expected_calibration_error"
    ).fit(X, y)
    nothing = np.isinf(own.cv_results_["penalty"])
    assert len(set(own.cv_results_["mean_test_score"][nothing])) == 3


def test_the_ablation_takes_a_fit_apart():
    X, y = draw()
    nc = NeuralClamping(network(), gamma=1, perturbation=2, penalty=1e-4).fit(X, y)
    found = nc.ablation(X, y, metrics=["accuracy", "nll"])
    plain = NeuralClamping(network(), solver="fixed_delta").fit(X, y)
    logits = plain.logits(X)
    focal = TemperatureScaling(objective="focal", gamma=1).fit(logits, y)
    expected = {
        "uncalibrated": torch.softmax(torch.from_numpy(logits), 1).numpy(),
        "perturbation only": torch.softmax(torch.from_numpy(nc.logits(X)), 1).numpy(),
        "both": nc.predict_proba(X),
        "temperature scaling": plain.predict_proba(X),
        "temperature scaling, same loss": focal.predict_proba(logits),
    }
    assert [*found] == [*list(expected)[:2], "output only", *list(expected)[2:]]
    for name, proba in expected.items():
        own = np.maximum(proba[np.arange(len(y)), y], np.finfo(float).eps)
        assert found[name]["nll"].value == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert found["output only"]["accuracy"] == found["uncalibrated"]["accuracy"]
    assert_array_equal(
        found["both"]["accuracy"], found["perturbation only"]["accuracy"]
    )
