"""Mistakes of the user are told apart and answered."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

torch = pytest.importorskip("torch")

from skcalib import (  # noqa: E402
    DensityRatioCalibration,
    NeuralClamping,
    NeuralClampingCV,
    VectorScaling,
)
from skcalib.exceptions import ModelFormatError  # noqa: E402

pytestmark = pytest.mark.torch

ESTIMATORS = [NeuralClamping, NeuralClampingCV]


def identity(x):
    return x


def draw(n=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 3, n)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, None), "the target y is None"),
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples: \\[40, 39\\]"),
        (lambda X, y: (X[:0], y[:0]), "0 sample"),
        (lambda X, y: (X, np.zeros_like(y)), "one class only"),
        (lambda X, y: (X, y + 0.5), "continuous"),
        (lambda X, y: (X, y + 1), "X has 3 columns but y has 3 classes|"),
        (lambda X, y: (np.where(X > 2, np.nan, X), y), "gave nan for row"),
        (lambda X, y: (X[:, 0], y), "at least two dimensions"),
        (lambda X, y: (X.astype(str) + "a", y), "does not hold numbers"),
    ],
    ids=[
        "no y",
        "too few labels",
        "empty",
        "one class",
        "real labels",
        "shifted labels",
        "NaN",
        "one axis",
        "strings",
    ],
)
def test_bad_inputs(estimator, change, message):
    X, y = change(*draw())
    if message.endswith("|"):  # labels 1..3 are three classes in order
        assert estimator(identity).fit(X, y).classes_.tolist() == [1, 2, 3]
        return
    with pytest.raises(ValueError, match=message):
        estimator(identity).fit(X, y)


def test_labels_that_do_not_fit_the_columns():
    X, y = draw()
    with pytest.raises(ValueError, match="3 columns but y has 4 classes"):
        NeuralClamping(identity).fit(X, np.where(np.arange(40) == 0, 3, y))
    with pytest.raises(ValueError, match="3 columns of logits for 2 classes"):
        NeuralClamping(identity, classes=[0, 1]).fit(X, y)


def test_rows_outside_the_feasible_range_are_named():
    X, y = draw()
    X = np.clip(X, -0.9, 0.9)
    X[17, 2] = 1.5
    with pytest.raises(ValueError, match=r"Row 17 of X holds 1.5, outside .*\(-1, 1\)"):
        NeuralClamping(identity, feasible_range=(-1, 1), batch_size=8).fit(X, y)
    with pytest.raises(ValueError, match="do not fit inputs of shape"):
        NeuralClamping(identity, feasible_range=(np.zeros(4), 1)).fit(X, y)
    with pytest.raises(ValueError, match="empty somewhere"):
        NeuralClamping(identity, feasible_range=(1, 0)).fit(X, y)
    with pytest.raises(ValueError, match="has 1 entries"):
        NeuralClamping(identity, feasible_range=(1,)).fit(X, y)


def test_a_start_of_the_wrong_shape():
    X, y = draw()
    with pytest.raises(ValueError, match=r"start has shape \(4,\) but one input"):
        NeuralClamping(identity, start=np.zeros(4)).fit(X, y)
    with pytest.raises(ValueError, match="start holds NaN"):
        NeuralClamping(identity, start=[np.nan, 0, 0]).fit(X, y)


def test_a_network_that_returns_a_tuple():
    X, y = draw()
    with pytest.raises(ValueError, match="returned a tuple"):
        NeuralClamping(lambda x: (x, x)).fit(X, y)
    assert NeuralClamping(lambda x: (x, x), output=1).fit(X, y).delta_.shape == (3,)


def test_a_network_that_takes_tokens():
    module = torch.nn.Sequential(
        torch.nn.Embedding(10, 4), torch.nn.Flatten(), torch.nn.Linear(12, 3)
    )
    X = np.random.default_rng(0).integers(0, 10, (40, 3))
    with pytest.raises(ValueError, match="such as site='0'"):
        NeuralClamping(module).fit(X, draw()[1])


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pickled_networks_are_not_opened(tmp_path, name, estimator):
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelFormatError, match="weights_only=True"):
        estimator(path).fit(*draw())


def test_a_network_without_gradients_is_told_what_to_do():
    X, y = draw()

    def detached(x):
        return x.detach() * 2

    for estimator in (
        NeuralClamping(detached),
        NeuralClamping(detached, preset="paper"),
        NeuralClampingCV(detached),
    ):
        advice = r"NeuralClamping\(solver='gradient_free'\) without a preset"
        with pytest.raises(ValueError, match=advice):
            estimator.fit(X, y)
    with pytest.warns(UserWarning, match="usually as good"):
        NeuralClamping(detached, solver="gradient_free").fit(X, y)
    NeuralClamping(detached, solver="fixed_delta").fit(X, y)


def test_more_coordinates_than_forward_passes():
    X = np.random.default_rng(0).normal(size=(40, 3, 20, 20))
    nc = NeuralClamping(
        lambda x: x.mean(dim=(2, 3)),
        perturbation="full",
        solver="gradient_free",
        max_iter=100,
    )
    with (
        pytest.warns(UserWarning, match="usually as good"),
        pytest.raises(ValueError, match="Raise max_iter to 2400"),
    ):
        nc.fit(X, draw()[1])


def test_other_inputs_than_in_fit():
    X, y = draw()
    nc = NeuralClamping(lambda x: x[:, :3]).fit(X, y)
    with pytest.raises(ValueError, match="X has 4 features, but NeuralClamping is exp"):
        nc.predict_proba(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"inputs of shape \(3, 1\)"):
        nc.predict_proba(np.zeros((5, 3, 1)))


@pytest.mark.parametrize(
    "options",
    [
        {"gammas": []},
        {"gammas": [-1]},
        {"gammas": ["one"]},
        {"gammas": [np.inf]},
        {"penalties": [0.1, np.nan]},
    ],
)
def test_a_grid_without_sense(options):
    with pytest.raises(ValueError, match="not a list of finite, non-negative"):
        NeuralClampingCV(identity, **options).fit(*draw())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"device": "nowhere"}, ValueError, "not a device that torch knows"),
        ({"feasible_range": (None, 1)}, ValueError, "the bound None"),
        ({"feasible_range": (0, "one")}, ValueError, "the bound 'one'"),
        ({"feasible_range": (0, np.nan)}, ValueError, "the bound nan"),
        ({"output_calibrator": VectorScaling}, TypeError, "instance"),
        ({"output_calibrator": LogisticRegression()}, TypeError, "not a map of logits"),
        (
            {"output_calibrator": DensityRatioCalibration()},
            TypeError,
            "not a map of logits",
        ),
        ({"output_calibrator": VectorScaling(tol=-1)}, ValueError, "VectorScaling"),
    ],
)
def test_settings_are_refused_before_the_network_runs(
    estimator, change, error, message
):
    runs = []

    def network(x):
        runs.append(x.shape[0])
        return 1 * x

    with pytest.raises(error, match=message):
        estimator(network, **change).fit(*draw())
    assert sum(runs) <= 40  # no more than the probe


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("network", [identity, torch.nn.Identity()])
def test_a_device_that_is_not_there(network):
    with pytest.raises(ValueError, match="torch finds none here"):
        NeuralClamping(network, device="cuda").fit(*draw())


def test_a_module_without_weights():
    module = torch.nn.Linear(3, 3, device="meta")
    with pytest.raises(ValueError, match="without its weights"):
        NeuralClamping(module).fit(*draw())


def test_the_only_class_is_named_plainly():
    X, y = draw()
    with pytest.raises(ValueError, match=r"one class only: 0\. .* needs at least two"):
        NeuralClamping(identity).fit(X, np.zeros_like(y))


@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
def test_a_gradient_that_is_not_finite(solver):
    def network(x):
        return x + torch.where(x > 9, (0 * x).sqrt(), 0.0)

    with pytest.raises(ValueError, match="gradient with respect to the inputs is not"):
        NeuralClamping(network, solver=solver).fit(*draw())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_collection_of_chunks_is_refused_before_it_is_read(estimator):
    da = pytest.importorskip("dask.array")
    X, y = draw()
    chunks = da.from_array(X, chunks=(10, 3))
    with pytest.raises(TypeError, match="needs all rows in memory"):
        estimator(identity).fit(chunks, y)
    fitted = NeuralClamping(identity, perturbation="gain").fit(X, y)
    with pytest.raises(TypeError, match="needs all rows in memory"):
        fitted.predict_proba(chunks)
