"""NeuralClamping on small networks, for which the answers are known."""

import io
import pickle
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from lacking_offset import OFFSET, draw
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skcalib.exceptions import InterruptedWarning

torch = pytest.importorskip("torch")

from skcalib import (  # noqa: E402
    CalibratorSearch,
    NeuralClamping,
    NeuralClampingCV,
    TemperatureScaling,
    VectorScaling,
)
from skcalib._networks import _inputs  # noqa: E402
from skcalib._validation import make_splits  # noqa: E402
from skcalib.clamping import _problem  # noqa: E402
from skcalib.clamping._linearised import Linearised  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.datasets import load_demo  # noqa: E402
from skcalib.frozen import TorchLogits  # noqa: E402

pytestmark = pytest.mark.torch


def identity(x):
    return x


def images(n=200, seed=0):
    """Draw images whose class is a matter of brightness and slope, one channel dimmed.

    Calibration images are darker on the left than the network expects.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2, 8, 8)).astype(np.float32)
    module = small_network()
    with torch.no_grad():
        logits = module(torch.from_numpy(X)).double().numpy()
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    shade = np.linspace(-1, 0.5, 8, dtype=np.float32)
    return module, X + shade, y


def small_network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.AvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.BatchNorm1d(24),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(24, 3),
        Amplify(),
    ).eval()


class Amplify(torch.nn.Module):
    def forward(self, x):
        return 20 * x


def centred(delta):
    return delta - delta.mean()


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_a_lacking_offset_is_found(gamma):
    X, y = draw(3000)
    nc = NeuralClamping(identity, gamma=gamma, temperature_objective="log_loss")
    nc.fit(X, y)
    assert nc.perturbation_ == "full"
    assert_allclose(centred(nc.delta_), OFFSET, atol=0.3)
    assert nc.temperature_ == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("gamma", [0.0, None])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_anything_to_find_it_is_temperature_scaling(gamma, seed):
    X, y = draw(600, offset=0, seed=seed)
    nc = NeuralClamping(identity, gamma=gamma).fit(X, y)
    ts = TemperatureScaling().fit(X, y)
    assert nc.perturbation_ == "none"
    assert nc.penalty_ == np.inf
    assert not nc.delta_.any()
    assert nc.temperature_ == ts.temperature_
    assert_allclose(nc.predict_proba(X), ts.predict_proba(X), rtol=1e-6)


def test_a_low_frequency_shift_of_images_is_found():
    module, X, y = images(1500)
    nc = NeuralClamping(module, gamma=0, perturbation=4).fit(X, y)
    assert nc.perturbation_ == 4
    found = nc.delta_.mean(axis=(0, 1))
    assert found[:3].mean() > found[-3:].mean() + 0.15
    plain = TemperatureScaling().fit(TorchLogits(module).fit_transform(X), y)
    _, X_test, y_test = images(1500, seed=1)
    logits = TorchLogits(module).fit_transform(X_test)
    rows = np.arange(1500)
    gain = np.log(nc.predict_proba(X_test)[rows, y_test]).mean()
    gain -= np.log(plain.predict_proba(logits)[rows, y_test]).mean()
    assert gain > 0.02


@pytest.mark.parametrize("loss", ["focal", "brier"])
@pytest.mark.parametrize("perturbation", ["full", "channel", "low_frequency", 3])
def test_the_descent_ends_at_a_stationary_point(loss, perturbation):
    module, X, y = images()
    nc = NeuralClamping(
        module.double(),
        objective=loss,
        perturbation=perturbation,
        penalty=0.01,
        temperature_objective="joint",
        max_iter=200,
        tol=1e-10,
    ).fit(X, y)

    def objective(delta):
        with torch.no_grad():
            logits = module(torch.from_numpy(X + delta).double())
        log_p = torch.log_softmax(logits / nc.temperature_, 1).numpy()
        own = log_p[np.arange(len(y)), y]
        proba = np.exp(log_p)
        if loss == "brier":
            losses = ((proba - np.eye(3)[y]) ** 2).sum(axis=1)
        else:
            losses = -(1 - np.exp(own)) * own
        return losses.mean() + 0.01 * (delta.astype(float) ** 2).sum()

    lowest = objective(nc.delta_)
    assert nc.loss_ == pytest.approx(lowest, abs=1e-6)
    assert nc.loss_curve_[-1] == pytest.approx(lowest, abs=1e-6)
    # Steps inside the span: towards zero and beyond the optimum.
    for factor in (0.9, 0.98, 1.02, 1.1):
        assert objective(factor * nc.delta_) > lowest


@pytest.mark.parametrize("seed", [7, 11, 15, 30])
def test_a_descent_starts_also_where_few_rows_would_not_follow_the_gradient(seed):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    ).requires_grad_(False)
    module[4].weight *= 6
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(1000, 3, 6, 6, generator=generator)
    proba = module(X + torch.tensor([0.1, -0.1, 0.05])[:, None, None]).softmax(dim=1)
    y = torch.multinomial(proba, 1, generator=generator)[:, 0]
    options = {"perturbation": "channel", "penalty": 1e-3, "gamma": 0}
    nc = NeuralClamping(module, **options).fit(X, y)
    lowest = NeuralClamping(module, max_iter=200, tol=1e-9, **options).fit(X, y)
    assert nc.delta_.any()
    assert nc.loss_ < lowest.loss_ + 1e-5


def test_the_linearised_solver_ends_as_low_as_lbfgs():
    module, X, y = images(600)
    fast = NeuralClamping(module, gamma=0, penalty=0.01).fit(X, y)
    assert fast.perturbation_ in (4, 8)
    slow = NeuralClamping(
        module,
        gamma=0,
        penalty=0.01,
        perturbation=fast.perturbation_,
        solver="lbfgs",
        max_iter=100,
        tol=1e-9,
    ).fit(X, y)
    assert fast.n_iter_ <= 4 < slow.n_iter_
    gain = fast.loss_curve_[0] - slow.loss_
    assert fast.loss_ - slow.loss_ < 0.02 * gain


def test_the_joint_temperature_minimises_the_loss_of_the_perturbation():
    X, y = draw(600, offset=0)
    nc = NeuralClamping(identity, gamma=1).fit(X, y)
    focal = TemperatureScaling(objective="focal", gamma=1).fit(X, y)
    assert nc.perturbation_ == "none"
    assert nc.temperature_ == focal.temperature_
    without_prior = focal.set_params(prior=None).fit(X, y)
    assert nc.loss_ == pytest.approx(without_prior.loss_)


def test_an_output_calibrator_takes_the_place_of_the_temperature():
    X, y = draw(600)
    nc = NeuralClamping(identity, output_calibrator=VectorScaling()).fit(X, y)
    expected = VectorScaling().fit(X + nc.delta_, y)
    assert_allclose(nc.output_calibrator_.coef_, expected.coef_, rtol=1e-6)
    assert_allclose(
        nc.predict_proba(X), expected.predict_proba(X + nc.delta_), rtol=1e-5
    )
    assert nc.decision_function(X).shape == (600, 4)
    assert_array_equal(nc.predict(X), expected.predict(X + nc.delta_))


def test_a_fixed_perturbation_stays():
    X, y = draw(600)
    start = np.array([0.5, 0, 0, -1])
    nc = NeuralClamping(identity, solver="fixed_delta", start=start).fit(X, y)
    assert_allclose(nc.delta_, start)
    ts = TemperatureScaling().fit(X + start.astype(np.float32), y)
    assert nc.temperature_ == pytest.approx(ts.temperature_, rel=1e-6)


def test_inputs_and_perturbed_inputs_stay_in_the_feasible_range():
    seen = []

    def network(x):
        seen.append((float(x.detach().min()), float(x.detach().max())))
        return 10 * x

    X, y = draw(600)
    X = (X - X.min()) / (X.max() - X.min())
    nc = NeuralClamping(network, feasible_range=(0, 1)).fit(X, y)
    nc.predict_proba(X)
    assert nc.delta_.any()
    assert min(low for low, _ in seen) >= 0
    assert max(high for _, high in seen) <= 1


def test_outputs_belong_together():
    X, y = draw(600)
    nc = NeuralClamping(identity).fit(X, np.array(list("abcd"))[y])
    proba = nc.predict_proba(X)
    assert proba.dtype == np.float32
    assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    scores = nc.decision_function(X).astype(float)
    assert_allclose(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), proba, 1e-4)
    assert_array_equal(nc.predict(X), nc.classes_[proba.argmax(axis=1)])
    assert_allclose(nc.logits(X), X + nc.delta_)
    assert is_classifier(nc)


def test_a_column_of_log_odds_means_two_classes():
    X, y = draw(600)
    y = (y > 1).astype(int)
    nc = NeuralClamping(lambda x: x[:, 2:3] - x[:, :1]).fit(X, y)
    assert nc.predict_proba(X).shape == (600, 2)
    assert nc.decision_function(X).shape == (600,)


@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
def test_integer_weights_equal_repeated_rows(solver):
    X, y = draw(200)
    weight = np.random.default_rng(1).integers(0, 3, 200)
    options = {"perturbation": "full", "penalty": 0.001, "solver": solver}
    options |= {"tol": 1e-12, "max_iter": 100}
    weighted = NeuralClamping(identity, **options).fit(X, y, sample_weight=weight)
    repeated = NeuralClamping(identity, **options).fit(
        np.repeat(X, weight, axis=0), np.repeat(y, weight)
    )
    assert_allclose(weighted.delta_, repeated.delta_, atol=1e-4)
    assert weighted.temperature_ == pytest.approx(repeated.temperature_, rel=1e-4)


@pytest.mark.parametrize("form", ["array", "stream"])
@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_equal_inputs_share_a_fold(solver, form, monkeypatch):
    if form == "stream":
        monkeypatch.setattr(_inputs, "free_memory", lambda: 0)
    module, X, y = images(60)
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 3))
    drawn = []

    def spy(*args, **kwargs):
        drawn.append(make_splits(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(_problem, "make_splits", spy)
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, (X[rows], y[rows])))
    nc = NeuralClamping(module, solver=solver, max_iter=1, batch_size=7, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        nc.fit(data) if form == "stream" else nc.fit(X[rows], y[rows])
    assert drawn
    for splits in drawn:
        for train, test in splits:
            assert not np.intersect1d(rows[train], rows[test]).size


def test_groups_stay_on_one_side():
    X, y = draw(200)
    groups = np.arange(200) // 5
    nc = NeuralClamping(identity).fit(X, y, groups=groups)
    splits = make_splits(5, X, y, np.ones(200), 0, groups)
    expected = NeuralClamping(identity, cv=splits).fit(X, y)
    assert_array_equal(nc.delta_, expected.delta_)
    blind = NeuralClamping(identity).fit(X, y)
    gains = (each.selection_["gain"] for each in (nc, blind))
    assert not np.array_equal(*gains)


@pytest.mark.parametrize(
    "clamping", [NeuralClamping(identity, solver="fixed_delta"), NeuralClampingCV(1.0)]
)
def test_an_output_calibrator_keeps_groups_together(clamping):
    X, y = draw(40)
    groups = np.arange(200) // 5
    X, y = X[groups] + np.float32(0.01) * np.arange(200)[:, None], y[groups]
    search = CalibratorSearch([TemperatureScaling(), VectorScaling()], rule="best")
    clamping = clone(clamping).set_params(model=identity, output_calibrator=search)
    found = clamping.fit(X, y, groups=groups)
    expected = clone(search).fit(found.logits(X), y, groups=groups)
    blind = clone(search).fit(found.logits(X), y)
    of = found.output_calibrator_.cv_results_
    assert_allclose(of["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert (of["mean_test_score"] < blind.cv_results_["mean_test_score"]).all()


def test_the_scale_of_the_inputs_does_not_count():
    X, y = draw(600)
    unit = NeuralClamping(identity).fit(X, y)
    scaled = NeuralClamping(lambda x: x / 255).fit(255 * X, y)
    assert scaled.perturbation_ == unit.perturbation_
    assert_allclose(scaled.delta_ / 255, unit.delta_, atol=5e-3)
    assert scaled.temperature_ == pytest.approx(unit.temperature_, rel=1e-3)


def test_labels_come_from_a_dataset_of_pairs():
    X, y = draw(600)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(pairs, batch_size=100)
    expected = NeuralClamping(identity).fit(X, y)
    for data in (pairs, loader):
        nc = NeuralClamping(identity).fit(data)
        assert_allclose(nc.delta_, expected.delta_, atol=1e-5)
        assert nc.predict_proba(data).shape == (600, 4)


def test_the_network_is_untouched():
    module, X, y = images()
    module.train()
    module[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    flags = [p.requires_grad for p in module.parameters()]
    for options in ({}, {"solver": "lbfgs", "max_iter": 3}, {"preset": "paper"}):
        if "preset" in options:
            options["max_iter"] = 2
        nc = NeuralClamping(module, cv=2, **options)
        if "solver" in options:
            nc.set_params(penalty=0.01)
        with pytest.warns(ConvergenceWarning) if "solver" in options else nullcontext():
            nc.fit(X, y)
        nc.predict_proba(X)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == flags
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize(("preset", "power"), [("paper", 2), ("reference", 1)])
def test_the_loss_of_a_preset_has_the_norm_that_it_descends_on(preset, power):
    X, y = draw(600)
    nc = NeuralClamping(identity, preset=preset, space="raw", max_iter=20).fit(X, y)
    proba = nc.predict_proba(X)[np.arange(600), y].astype(float)
    focal = np.mean(-(1 - proba) * np.log(proba))
    norm = np.linalg.norm(nc.delta_)
    assert norm > 0.001
    expected = focal + nc.penalty_ * norm**power
    assert nc.loss_ == pytest.approx(expected, rel=1e-5)
    assert nc.loss_ == pytest.approx(nc.loss_curve_[-1], rel=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("penalty", 0.1),
        ("solver", "lbfgs"),
        ("validation_fraction", 0.2),
    ],
)
@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_what_a_preset_would_override_is_refused(preset, name, value):
    X, y = draw(60)
    nc = NeuralClamping(identity, preset=preset, max_iter=1, **{name: value})
    with pytest.raises(
        ValueError, match=f"{name}=.* was passed with preset='{preset}'"
    ):
        nc.fit(X, y)


def test_what_says_the_same_as_the_preset_is_taken():
    X, y = draw(60)
    same = {
        "solver": "sgd",
        "temperature_objective": "joint",
        "validation_fraction": None,
    }
    plain = NeuralClamping(identity, preset="paper", max_iter=1).fit(X, y)
    nc = clone(plain).set_params(**same).fit(X, y)
    assert_array_equal(nc.delta_, plain.delta_)
    assert nc.loss_ == plain.loss_


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e-20])
def test_subnormal_logits_have_a_temperature(scale):
    X, y = draw(600)
    unit = NeuralClamping(identity, solver="fixed_delta").fit(X, y)
    X = np.float32(scale * X.astype(float))
    tiny = NeuralClamping(identity, solver="fixed_delta").fit(X, y)
    # The prior of the temperature pulls tiny logits, far from T = 1, a little more.
    assert tiny.temperature_ / scale == pytest.approx(unit.temperature_, rel=0.06)
    assert np.isfinite(NeuralClamping(identity).fit(X, y).predict_proba(X)).all()


def test_a_gradient_beyond_single_precision_is_named():
    X, y = draw(600)
    nc = NeuralClamping(identity, solver="lbfgs")
    with pytest.raises(ValueError, match="too steep for single precision"):
        nc.fit(np.float32(1e-42 * X.astype(float)), y)


@pytest.mark.parametrize(
    ("context", "options"),
    [
        (torch.no_grad, {"perturbation": 2}),
        (torch.inference_mode, {"perturbation": 2}),
        (torch.inference_mode, {"perturbation": "filter"}),
        (torch.inference_mode, {"solver": "sgd"}),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_does_not_mind_gradients_that_are_switched_off(context, options):
    nc = NeuralClamping(small_network(), max_iter=2, **options).fit(*images()[1:])
    with context():
        module, X, y = images()
        twin = NeuralClamping(module, max_iter=2, **options).fit(torch.tensor(X), y)
        assert torch.is_grad_enabled() is False
    assert_allclose(twin.delta_, nc.delta_, atol=1e-6)
    assert twin.temperature_ == pytest.approx(nc.temperature_)


def test_images_have_no_number_of_features_that_an_earlier_fit_saw():
    nc = NeuralClamping(identity, solver="fixed_delta", start="zeros").fit(*draw(600))
    assert nc.n_features_in_ == 4
    module, X, y = images()
    nc.set_params(model=module).fit(X, y)
    assert not hasattr(nc, "n_features_in_")


def test_a_clone_shares_the_network_and_a_copy_works_alone():
    module, X, y = images()
    nc = NeuralClamping(module, gamma=0, output_calibrator=VectorScaling()).fit(X, y)
    twin = clone(nc)
    assert twin.model is module
    assert twin.output_calibrator is not nc.output_calibrator
    assert not hasattr(twin, "delta_")
    loaded = pickle.loads(pickle.dumps(nc))  # noqa: S301
    assert_allclose(loaded.predict_proba(X), nc.predict_proba(X))


def test_the_representation_holds_no_weights():
    text = repr(NeuralClamping(small_network(), gamma=0.5))
    assert text == "NeuralClamping(gamma=0.5, model=<Sequential>)"
    assert NeuralClamping(identity)._repr_html_()


def test_it_is_the_last_step_of_a_pipeline():
    X, y = draw(600)
    pipe = make_pipeline(FunctionTransformer(np.negative), NeuralClamping(identity))
    pipe.fit(-X, y)
    assert_allclose(pipe[-1].delta_, NeuralClamping(identity).fit(X, y).delta_)


@pytest.mark.slow
def test_the_wrapped_networks_of_frozen_are_taken():
    module, X, y = images()
    plain = NeuralClamping(module, gamma=0).fit(X, y)
    wrapped = NeuralClamping(TorchLogits(module, batch_size=7), gamma=0).fit(X, y)
    assert_allclose(wrapped.predict_proba(X), plain.predict_proba(X), atol=1e-6)


def test_a_warm_start_goes_on_where_the_last_fit_ended():
    X, y = draw(600)
    nc = NeuralClamping(
        identity, perturbation="full", penalty=0.001, max_iter=2, warm_start=True
    )
    with pytest.warns(ConvergenceWarning, match="max_iter was reached"):
        first = nc.fit(X, y).loss_
    nc.set_params(max_iter=30).fit(X, y)
    assert nc.loss_curve_[0] == pytest.approx(first, rel=1e-5)
    cold = NeuralClamping(identity, perturbation="full", penalty=0.001).fit(X, y)
    assert nc.loss_ == pytest.approx(cold.loss_, abs=5e-6)
    assert nc.loss_curve_[0] < cold.loss_curve_[0]


def test_a_warm_start_of_a_preset_keeps_the_penalty():
    X, y = draw(600)
    nc = NeuralClamping(identity, preset="paper", max_iter=2, warm_start=True)
    first = nc.fit(X, y).penalty_
    assert nc.fit(X, y).penalty_ == first


# The first call of all looks whether the network acts as in training.
@pytest.mark.parametrize("stop_at", [5, 6, 9])
def test_an_interrupt_keeps_the_best_point(stop_at):
    calls = []

    def network(x):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return 1 * x

    X, y = draw(200)
    nc = NeuralClamping(network, perturbation="full", penalty=0.001, solver="lbfgs")
    with pytest.warns(InterruptedWarning, match="interrupted"):
        nc.fit(X, y)
    assert nc.predict_proba(X).shape == (200, 4)


def test_an_interrupted_choice_leaves_temperature_scaling():
    calls = []

    def network(x):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return 1 * x

    X, y = draw(200)
    with pytest.warns(InterruptedWarning, match="interrupted"):
        nc = NeuralClamping(network).fit(X, y)
    assert nc.perturbation_ == "none"
    assert nc.temperature_ == TemperatureScaling().fit(X, y).temperature_


@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
@pytest.mark.parametrize("stop_at", [8, 12])
def test_an_interrupt_ends_the_whole_choice(monkeypatch, solver, stop_at):
    X, y = draw(200)
    calls = []
    kind, name = {
        "auto": (Linearised, "evaluate"),
        "lbfgs": (Objective, "evaluate"),
    }[solver]
    evaluate = getattr(kind, name)

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(kind, name, interrupted)
    with pytest.warns(InterruptedWarning, match="interrupted"):
        nc = NeuralClamping(identity, solver=solver, perturbation="full").fit(X, y)
    assert len(calls) == stop_at
    assert nc.perturbation_ == "none"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("n", "seed"), [(8, 1), (8, 2), (12, 1), (16, 1)])
def test_few_rows_are_not_separated_by_a_perturbation(n, seed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    demo = load_demo()
    rows = np.random.default_rng(seed).permutation(600)[:n]
    X, y = demo.X_calibration[rows], demo.y_calibration[rows]
    nc = NeuralClamping(demo.model).fit(X, y)
    assert nc.perturbation_ == "none"
    assert nc.temperature_ > 0.3


def test_weights_count_as_repetitions_in_the_whole_choice():
    X, y = draw(150)
    counts = np.random.default_rng(0).integers(0, 4, 150)
    repeated = np.repeat(np.arange(150), counts)
    half = np.arange(150) % 2 == 0
    cv = [np.flatnonzero(half), np.flatnonzero(~half)]
    cv_repeated = [np.flatnonzero(part[repeated]) for part in (half, ~half)]
    weighted = NeuralClamping(identity, cv=[cv, cv[::-1]])
    weighted.fit(X, y, sample_weight=counts)
    again = NeuralClamping(identity, cv=[cv_repeated, cv_repeated[::-1]])
    again.fit(X[repeated], y[repeated])
    assert weighted.penalty_ == pytest.approx(again.penalty_, rel=1e-9)
    assert weighted.perturbation_ == again.perturbation_ != "none"
    assert weighted.temperature_ == pytest.approx(again.temperature_, rel=1e-6)
    assert_allclose(weighted.delta_, again.delta_, atol=1e-5)


@pytest.mark.parametrize("mean", [1 / 150, 1000])
def test_weights_that_are_not_whole_count_alike_whatever_their_mean(mean):
    X, y = draw(150)
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 150)
    expected = NeuralClamping(identity).fit(X, y, sample_weight=weight)
    scaled = NeuralClamping(identity).fit(X, y, sample_weight=mean * weight)
    assert scaled.perturbation_ == expected.perturbation_
    assert scaled.temperature_ == pytest.approx(expected.temperature_, rel=1e-6)
    assert_allclose(scaled.plain_temperatures_, expected.plain_temperatures_, rtol=1e-6)


def test_the_choice_is_told_while_it_runs(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    nc = NeuralClamping(identity, verbose=1).fit(*draw(200))
    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        "[NeuralClamping] deriving the logits of 200 samples by 12 coordinates"
    )
    tried = [line for line in lines if "gain" in line and "by the network" not in line]
    assert len(tried) == len(nc.selection_["gamma"]) - 1  # all but no perturbation


def test_progress_goes_to_the_error_stream(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    X, y = draw(200)
    nc = NeuralClamping(identity, solver="lbfgs", penalty=0.01, verbose=1).fit(X, y)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(nc.loss_curve_)
    assert lines[0].startswith("[NeuralClamping] epoch 1: loss ")


@pytest.mark.filterwarnings("error")
def test_rows_and_labels_that_must_not_be_written_to_are_taken_quietly():
    X, y = draw(100)
    expected = NeuralClamping(torch.nn.Identity()).fit(X, y).predict_proba(X)
    for part in (X, y):
        part.flags.writeable = False
    warned_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        proba = NeuralClamping(torch.nn.Identity()).fit(X, y).predict_proba(X)
    finally:
        torch.set_warn_always(warned_always)
    assert_array_equal(proba, expected)
