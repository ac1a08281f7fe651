"""CLUEClassifier and CLUERegressor: what they learn, keep, accept and refuse."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcalib.datasets import make_overlapping_blobs

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch")

from exploding import Exploding  # noqa: E402
from module_parts import InPlace, Output  # noqa: E402

from skcalib.training import (  # noqa: E402
    BilevelCalibratedClassifier,
    CLUEClassifier,
    CLUERegressor,
)

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
nn = torch.nn
SMALL = {"hidden_layer_sizes": (16,), "max_epochs": 15, "lr": 0.02, "random_state": 0}


def draw_classes(n=200, n_classes=3, seed=0):
    return make_overlapping_blobs(n, n_classes, random_state=seed)


def draw_values(n=400, seed=0):
    """A line with a standard deviation of 0.5 around it, in units of a thousand."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (n, 1))
    return X, 1000 * (X[:, 0] + rng.normal(scale=0.5, size=n)) + 5000


def network(n_in=2, n_out=3, p=0.3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_in, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(16, n_out),
    )


@pytest.mark.parametrize("estimator", [CLUEClassifier, CLUERegressor])
def test_dropout_is_on_at_the_sites_only(estimator):
    X, y = draw_classes(64)
    n_out = 3 if estimator is CLUEClassifier else 2
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(2, 16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, n_out),
    )
    rows = []
    for part in (module[1], module[4]):
        part.register_forward_hook(lambda *run: rows.append(len(run[2])))
    settings = {"n_passes": 5, "n_predict_passes": 10, "batch_size": 64}
    fitted = estimator(module, sites=["3"], max_epochs=1, random_state=0, **settings)
    fitted.fit(X, y)
    assert [64, 320] in [rows[i : i + 2] for i in range(len(rows))]
    rows.clear()
    fitted.predict(X)
    assert rows[:2] == [64, 640]
    with pytest.raises(ValueError, match=r"no dropout layer .* at sites=\['1'\]"):
        fitted.set_params(sites=["1"]).fit(X, y)


@pytest.mark.slow
def test_the_probabilities_come_near_the_true_ones():
    X, y = draw_classes(1000)
    X_test, _, posterior = make_overlapping_blobs(
        500, return_posterior=True, random_state=1
    )
    classifier = CLUEClassifier(max_epochs=40, lr=0.01, random_state=0).fit(X, y)
    proba = classifier.predict_proba(X_test)
    assert np.abs(proba - posterior).mean() < 0.04
    entropy = -(posterior * np.log(posterior)).sum(axis=1)
    assert np.abs(classifier.predict_uncertainty(X_test) - entropy).mean() < 0.08


@pytest.mark.slow
def test_the_standard_deviation_comes_near_the_true_one():
    X, y = draw_values(1000)
    # Compared sample by sample: averaged over the batch, only the mean would be right.
    regressor = CLUERegressor(
        reduction="sample", alpha=0.5, max_epochs=60, lr=0.01, random_state=0
    ).fit(X, y)
    grid = np.linspace(-1.5, 1.5, 20)[:, np.newaxis]
    mean, std = regressor.predict(grid, return_std=True)
    assert_allclose(mean, 1000 * grid[:, 0] + 5000, atol=150)
    assert_allclose(std, 500, rtol=0.25)
    assert_allclose(regressor.predict_uncertainty(grid), std**2)
    assert_array_equal(regressor.predict(grid), mean)


@pytest.mark.parametrize("kind", [CLUEClassifier, CLUERegressor])
def test_the_same_seed_gives_the_same_and_leaves_the_generators_alone(kind):
    X, y = draw_classes()
    before = torch.random.get_rng_state()
    first, again, other = (
        kind(**{**SMALL, "random_state": seed}).fit(X, y).predict_uncertainty(X)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("kind", [CLUEClassifier, CLUERegressor])
def test_under_autocast_the_same_is_learned(kind):
    X, y = draw_classes()
    plain = kind(**SMALL).fit(X, y).predict_uncertainty(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fitted = kind(**SMALL).fit(X, y)
        assert torch.is_autocast_cache_enabled()
    assert_allclose(fitted.predict_uncertainty(X), plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", [CLUEClassifier, CLUERegressor])
def test_a_row_is_mapped_alike_alone_in_a_batch_and_each_time(kind):
    X, y = draw_classes()
    estimator = kind(**SMALL, batch_size=32).fit(X, y)
    together = estimator.predict_uncertainty(X)
    alone = [estimator.predict_uncertainty(X[row : row + 1])[0] for row in range(20)]
    assert_allclose(together[:20], alone, rtol=1e-5, atol=1e-6)
    backwards = estimator.predict_uncertainty(X[::-1])
    assert_allclose(backwards[::-1], together, rtol=1e-5, atol=1e-6)
    assert_array_equal(estimator.predict_uncertainty(X), together)


def test_uncertainty_is_the_entropy_of_the_probabilities():
    X, y = draw_classes()
    classifier = CLUEClassifier(**SMALL).fit(X, y)
    proba = classifier.predict_proba(X)
    entropy = -(proba * np.log(proba)).sum(axis=1)
    assert_allclose(classifier.predict_uncertainty(X), entropy, rtol=1e-4)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)


def count_passes(classifier, X):
    """Mean number of passes of a row."""
    rows = []
    hook = classifier.module_.register_forward_hook(
        lambda *run: rows.append(len(run[2]))
    )
    classifier.predict_proba(X)
    hook.remove()
    return sum(rows) / len(X)


def test_rows_have_as_many_passes_as_the_tolerance_asks_for():
    X, y = draw_classes()
    counts = []
    for tol in (0, 0.01, 0.03, 1):
        classifier = CLUEClassifier(**SMALL, predict_tol=tol, n_predict_passes=200)
        counts.append(count_passes(classifier.fit(X, y), X))
    assert counts[0] == 200
    assert counts[3] == 10
    assert counts[0] > counts[1] > counts[2] > counts[3]
    classifier.set_params(n_predict_passes=3)
    assert count_passes(classifier, X) == 3


def test_the_error_of_the_mean_is_about_the_tolerance():
    X, y = draw_classes()
    few = CLUEClassifier(**SMALL, predict_tol=0.02, n_predict_passes=1000)
    few.fit(X, y)
    many = copy.copy(few).set_params(predict_tol=0)
    away = few.predict_proba(X) - many.predict_proba(X)
    assert 0.001 < np.sqrt((away**2).mean()) < 0.02
    assert np.abs(away).max() < 0.08


def test_the_units_of_features_and_target_do_not_matter():
    X, y = draw_values()
    base = CLUERegressor(**SMALL).fit(X, y).predict(X)
    scaled = CLUERegressor(**SMALL).fit(1e6 * X + 1e6, 1e-3 * y)
    assert_allclose(scaled.predict(1e6 * X + 1e6), 1e-3 * base, rtol=1e-2)


def test_a_large_offset_of_a_feature_takes_no_digits_of_it():
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0, 600, (300, 1))
    y = np.sin(seconds[:, 0] / 100)
    base, late = (
        CLUERegressor(**SMALL).fit(X, y).predict(X) for X in (seconds, 1.7e9 + seconds)
    )
    assert_allclose(late, base, atol=1e-3)


def test_rows_without_weight_do_not_count_and_weights_have_no_unit():
    X, y = draw_classes()
    weight = np.repeat([1.0, 2.0], 100)
    kept = CLUEClassifier(**SMALL).fit(X, y, weight).predict_proba(X)
    more = np.vstack([X, 100 + X]), np.r_[y, y]
    ignored = CLUEClassifier(**SMALL).fit(*more, np.r_[7 * weight, np.zeros(200)])
    assert_allclose(ignored.predict_proba(X), kept, atol=1e-5)


def test_a_heavy_class_becomes_more_probable():
    X, y = draw_classes()
    plain = CLUEClassifier(**SMALL).fit(X, y).predict_proba(X)[:, 1].mean()
    heavy = CLUEClassifier(**SMALL).fit(X, y, np.where(y == 1, 10, 1))
    assert heavy.predict_proba(X)[:, 1].mean() > plain + 0.1


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True]])
def test_labels_come_back(labels):
    X, y = draw_classes(n_classes=2)
    classifier = CLUEClassifier(**SMALL).fit(X, np.array(labels)[y])
    assert_array_equal(classifier.classes_, labels)
    assert set(classifier.predict(X)) == set(labels)
    assert classifier.score(X, np.array(labels)[y]) > 0.7


def test_a_module_may_know_classes_that_do_not_occur():
    X, y = draw_classes()
    by_number = CLUEClassifier(network(n_out=5), max_epochs=3).fit(X, y)
    assert_array_equal(by_number.classes_, np.arange(5))
    names = np.array(["a", "b", "c", "d", "e"])
    named = CLUEClassifier(network(n_out=5), max_epochs=3, classes=names)
    named.fit(X, names[y + 1])
    assert named.predict_proba(X).shape == (200, 5)
    assert_array_equal(named.classes_, names)


def test_a_network_that_ends_in_a_softmax_is_told_of():
    X, y = draw_classes()
    with pytest.warns(UserWarning, match="look like probabilities, not logits"):
        CLUEClassifier(network().append(nn.Softmax(1)), max_epochs=1).fit(X, y)


def test_true_values_of_half_precision_or_with_gradients_are_taken():
    X, y = draw_values(60)
    tensor = torch.as_tensor(y).bfloat16().requires_grad_()
    found, expected = (
        CLUERegressor(**SMALL).fit(X, values).predict(X)
        for values in (tensor, tensor.detach().float().numpy())
    )
    assert_array_equal(found, expected)
    assert tensor.requires_grad


def test_one_output_is_the_log_odds_of_the_second_class():
    X, y = draw_classes(n_classes=2)
    module = network(n_out=1)
    classifier = CLUEClassifier(module, max_epochs=20, lr=0.02, random_state=0)
    assert classifier.fit(X, y).score(X, y) > 0.8
    assert classifier.predict_proba(X).shape == (200, 2)


def test_a_module_is_copied_and_a_callable_is_called_with_the_seed():
    X, y = draw_classes()
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fitted = CLUEClassifier(module, max_epochs=2).fit(X, y)
    assert fitted.module_ is not module
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not any(part.training for part in fitted.module_.modules())

    def build():
        return nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.3), nn.Linear(16, 3))

    first, again = (
        CLUEClassifier(build, max_epochs=2, random_state=0).fit(X, y) for _ in range(2)
    )
    assert_array_equal(first.predict_proba(X), again.predict_proba(X))


def test_images_and_whole_numbers_reach_a_module_as_they_are():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    images = rng.normal(size=(60, 1, 6, 6)) + y[:, None, None, None]
    torch.manual_seed(0)
    convolution = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(64, 2)
    )
    fitted = CLUEClassifier(convolution, max_epochs=30, lr=0.02, random_state=0)
    assert fitted.fit(images, y).score(images, y) > 0.7
    tokens = rng.integers(0, 9, (60, 4))
    embedding = nn.Sequential(
        nn.Embedding(9, 3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, 2)
    )
    assert CLUEClassifier(embedding, max_epochs=2).fit(tokens, y).n_features_in_ == 4


@pytest.mark.parametrize("kind", [CLUEClassifier, BilevelCalibratedClassifier])
def test_tensors_of_half_precision_or_with_gradients_are_taken(kind):
    X, y = draw_classes(60)
    tensor = torch.as_tensor(X).bfloat16().requires_grad_()
    rows = tensor.detach().float().numpy()
    expected = kind(max_epochs=1).fit(rows, y).predict_proba(rows)
    assert_array_equal(
        kind(max_epochs=1).fit(tensor, y).predict_proba(tensor), expected
    )


@pytest.mark.parametrize("kind", [CLUEClassifier, BilevelCalibratedClassifier])
def test_the_kind_of_numbers_is_that_of_fit(kind):
    X, y = draw_classes()
    fitted = kind(network(), max_epochs=1).fit(X, y)
    whole = fitted.predict_proba([[1, 2]])
    assert_array_equal(whole, fitted.predict_proba([[1.0, 2.0]]))
    tokens = np.random.default_rng(0).integers(0, 9, (60, 4))
    fitted = kind(Tokens(), max_epochs=1).fit(tokens, tokens[:, 0] > 4)
    proba = fitted.predict_proba(tokens)
    assert_array_equal(fitted.predict_proba(tokens.astype(float)), proba)
    with pytest.raises(ValueError, match=r"needs X.astype\(np.float32\)"):
        kind(network(), max_epochs=1).fit(X.astype(np.uint8), y)


@pytest.mark.parametrize("kind", [CLUEClassifier, BilevelCalibratedClassifier])
def test_a_first_layer_may_work_in_place(kind):
    X, y = draw_classes()
    X = np.round(64 * X) / 64  # So that 10 more and less is exact in single precision.
    shifted = nn.Sequential(InPlace(), network())
    settings = {"max_epochs": 2, "random_state": 0}
    expected = kind(network(), **settings).fit(X, y).predict_proba(X)
    found = kind(shifted, **settings).fit(X + 10, y).predict_proba(X + 10)
    assert_allclose(found, expected, rtol=1e-6)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(8, 2)

    def forward(self, input_ids):
        hidden = self.embedding(input_ids).mean(dim=1)
        return Output(logits=self.output(self.dropout(hidden)))


def test_modules_that_return_an_output_with_logits_are_trained():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 9, (60, 4))
    y = (tokens.mean(axis=1) > 4).astype(int)
    torch.manual_seed(0)
    classifier = CLUEClassifier(Tokens(), max_epochs=60, lr=0.05, random_state=0)
    assert classifier.fit(tokens, y).score(tokens, y) > 0.8


def test_double_precision_modules_compute_in_double_precision():
    X, y = draw_values(100)
    module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.3), nn.Linear(8, 2)).double()
    regressor = CLUERegressor(module, max_epochs=2).fit(X, y)
    assert regressor.module_[0].weight.dtype == torch.float64
    assert np.isfinite(regressor.predict(X)).all()


class BatchSizes(nn.Module):
    """Notes the sizes of the batches that it is trained on."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.sizes = []

    def forward(self, x):
        if self.training:
            self.sizes.append(x.shape[0])
        return self.inner(x)


def test_no_single_row_is_left_over_for_a_batch():
    X, y = draw_classes(65)
    options = {"batch_size": 32, "n_passes": 1, "max_epochs": 1, "random_state": 0}
    classifier = CLUEClassifier(BatchSizes, **options).fit(X, y)
    assert classifier.module_.sizes == [22, 22, 21]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "kind", [CLUEClassifier, CLUERegressor, BilevelCalibratedClassifier]
)
def test_a_fit_does_not_mind_gradients_that_are_switched_off(context, kind):
    X, y = draw_classes(60)
    options = {"hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}
    outside = kind(**options).fit(X, y).predict(X)
    with context():
        inside = kind(**options).fit(X, y).predict(X)
    assert_array_equal(inside, outside)


def test_clones_pickles_pipelines_and_grids():
    X, y = draw_classes()
    classifier = CLUEClassifier(**SMALL).fit(X, y)
    proba = classifier.predict_proba(X)
    copied = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert_array_equal(copied.predict_proba(X), proba)
    assert_array_equal(clone(classifier).fit(X, y).predict_proba(X), proba)
    pipeline = make_pipeline(StandardScaler(), CLUEClassifier(**SMALL))
    grid = GridSearchCV(
        pipeline, {"clueclassifier__alpha": [0.5, 1]}, cv=2, scoring="neg_log_loss"
    )
    assert np.isfinite(grid.fit(X, y).cv_results_["mean_test_score"]).all()


def test_early_stopping_keeps_the_best_weights():
    X, y = draw_classes(100)
    classifier = CLUEClassifier(
        hidden_layer_sizes=(64,),
        lr=0.05,
        max_epochs=200,
        early_stopping=True,
        validation_fraction=0.3,
        n_iter_no_change=3,
        random_state=0,
    ).fit(X, y)
    losses = classifier.history_[:, "valid_loss"]
    assert classifier.n_iter_ == len(losses) < 200
    best = int(np.argmin(losses))
    assert best == len(losses) - 4
    stopped = clone(classifier).set_params(max_epochs=best + 1).fit(X, y)
    assert_array_equal(stopped.predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize(
    ("kind", "y", "fraction", "message"),
    [
        (CLUEClassifier, ["a"] * 19 + ["b"], 0.1, "=0.1 of .* class b has a single"),
        (CLUEClassifier, [0, 1, 2] * 3, 0.1, "1 of 9 .*=0.1; .*, 3. .* out 3 to 6"),
        (CLUEClassifier, [0, 1, 2] * 3, 0.7, "7 of 9 .*=0.7; .*, 3. .* out 3 to 6"),
        (CLUERegressor, [1.0], 0.1, "=0.1 of .* X has a single row"),
        (CLUERegressor, [1.0, 2.0, 3.0], 0.9, "3 of 3 .*=0.9; .* out 1 to 2 rows"),
    ],
)
def test_too_few_rows_to_hold_some_out_are_refused(kind, y, fraction, message):
    settings = {"early_stopping": True, "validation_fraction": fraction}
    with pytest.raises(ValueError, match=message):
        kind(max_epochs=1, **settings).fit(np.zeros((len(y), 2)), y)


@pytest.mark.parametrize("fraction", [3 / 9, 6 / 9])
def test_as_many_rows_held_out_as_classes_are_enough(fraction):
    X, settings = draw_classes(9)[0], {"early_stopping": True, "max_epochs": 1}
    classifier = CLUEClassifier(validation_fraction=fraction, **settings)
    assert classifier.fit(X, [0, 1, 2] * 3).n_iter_ == 1


def test_scores_of_predictions_by_epoch_are_refused():
    X, y = draw_classes(60)
    scoring = skorch.callbacks.EpochScoring("accuracy")
    classifier = CLUEClassifier(max_epochs=1, early_stopping=True, callbacks=[scoring])
    with pytest.raises(NotImplementedError, match="EpochScoring has nothing to score"):
        classifier.fit(X, y)


def test_a_network_that_is_trained_on_predicts_in_eval_mode():
    X, y = draw_classes(64)
    classifier = CLUEClassifier(network(), max_epochs=1, random_state=0).fit(X, y)
    classifier.net_.module_.train()
    alone = classifier.predict_proba(X[:2])
    assert_allclose(classifier.predict_proba(X)[:2], alone, atol=1e-6)
    classifier.net_.module_.eval()
    assert_array_equal(classifier.predict_proba(X[:2]), alone)


def test_callbacks_checkpoints_and_net_parameters_reach_skorch(tmp_path, capsys):
    X, y = draw_classes()
    checkpoint = skorch.callbacks.Checkpoint(
        monitor="train_loss_best", f_params="weights.pt", dirname=str(tmp_path)
    )
    classifier = CLUEClassifier(
        **SMALL,
        callbacks=[checkpoint],
        optimizer=torch.optim.SGD,
        net_params={"optimizer__momentum": 0.5},
    ).fit(X, y)
    assert (tmp_path / "weights.pt").exists()
    assert classifier.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    told = capsys.readouterr()
    assert told.out + told.err == ""


@pytest.mark.parametrize("early_stopping", [False, True])
def test_progress_is_told_by_epoch(capsys, early_stopping):
    clue = CLUEClassifier(**SMALL, early_stopping=early_stopping, verbose=1)
    history = clue.fit(*draw_classes()).history_
    told = capsys.readouterr()
    loss = history[0]["valid_loss" if early_stopping else "train_loss"]
    assert told.out == ""
    assert told.err.startswith(f"[CLUEClassifier] epoch 1: loss {loss:.6f}\n")
    assert told.err.count("\n") == len(history)


class Interrupted(nn.Module):
    """Is interrupted in its third run in train mode."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.runs = 0

    def forward(self, x):
        self.runs += self.training
        if self.runs == 3:
            raise KeyboardInterrupt
        return self.inner(x)


def test_an_interrupt_ends_the_fit_and_the_search_around_it():
    X, y = draw_classes(60)
    classifier = CLUEClassifier(Interrupted, max_epochs=9, random_state=0)
    search = GridSearchCV(classifier, {"lr": [0.01, 0.02]}, cv=2)
    for estimator in (classifier, search):
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X, y)
    assert not hasattr(classifier, "module_")


def test_a_callback_may_end_the_training_as_in_skorch():
    class Enough(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **keywords):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    classifier = CLUEClassifier(**SMALL, callbacks=[Enough()]).fit(*draw_classes(60))
    assert classifier.n_iter_ == 2


def exploding(good_runs):
    return Exploding(network(), good_runs)


@pytest.mark.parametrize(("good_runs", "epoch", "kept"), [(5, 3, 2), (4, 3, 1)])
def test_a_loss_that_explodes_stops_with_the_last_good_weights(good_runs, epoch, kept):
    # Two steps an epoch. The weights after step 4 are not known to be good until the
    # fifth has given a loss.
    X, y = draw_classes(100)
    settings = {"batch_size": 50, "random_state": 0}
    classifier = CLUEClassifier(exploding(good_runs), max_epochs=9, **settings)
    message = f"stopped in epoch {epoch}: .* end of epoch {kept} are kept"
    with pytest.warns(ConvergenceWarning, match=message):
        classifier.fit(X, y)
    assert classifier.n_iter_ == kept
    stopped = CLUEClassifier(exploding(99), max_epochs=kept, **settings).fit(X, y)
    for name, value in stopped.module_.state_dict().items():
        assert torch.equal(classifier.module_.state_dict()[name], value), name


def test_a_loss_that_explodes_at_once_is_an_error():
    X, y = draw_classes(100)
    with pytest.raises(ValueError, match=r"failed in epoch 1: .* Lower the learning"):
        CLUEClassifier(exploding(0)).fit(X, y)


def test_weights_that_explode_in_the_last_step_are_given_up():
    X, y = draw_classes(100)

    class Spoil(skorch.callbacks.Callback):
        def on_epoch_end(self, net, **keywords):
            if len(net.history) == 3:
                next(iter(net.module_.parameters())).data[:] = float("nan")

    classifier = CLUEClassifier(**{**SMALL, "max_epochs": 3}, callbacks=[Spoil()])
    with pytest.warns(ConvergenceWarning, match="a weight was no longer finite"):
        classifier.fit(X, y)
    assert classifier.n_iter_ == 2
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_inputs_beyond_the_numbers_of_the_network_are_refused():
    X, y = draw_classes()
    classifier = CLUEClassifier(**SMALL).fit(X, y)
    huge = np.vstack([X[:3], [[1e300, 0.0]]])
    with pytest.raises(ValueError, match="gave nan for row 3 of X"):
        classifier.predict_proba(huge)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": nn.Linear(2, 3)}, "no dropout layer"),
        ({"hidden_layer_sizes": ()}, "no dropout layer"),
        ({"module": network(n_in=7)}, r"could not be run on a batch of shape \(2, 2\)"),
        ({"module": network(n_out=2)}, "X has 2 columns but y has 3 classes"),
        ({"module": network(n_out=1)}, "X has 2 columns but y has 3 classes"),
        ({"classes": [0, 1, 5]}, "y holds labels that classes does not name"),
        ({"alpha": 2}, "The 'alpha' parameter"),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments, message):
    X, y = draw_classes()
    with pytest.raises(ValueError, match=message):
        CLUEClassifier(**arguments).fit(X, y)


@pytest.mark.parametrize("kind", [CLUEClassifier, BilevelCalibratedClassifier])
@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "is not a device that torch knows"), ("cuda", "torch finds none here")],
)
def test_a_device_that_cannot_be_had_is_refused(kind, device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        kind(device=device).fit(*draw_classes())


def test_other_mistakes_are_named():
    X, y = draw_classes()
    with pytest.raises(TypeError, match=r"module\(\) gave a dict"):
        CLUEClassifier(dict).fit(X, y)
    with pytest.raises(ValueError, match="y holds one class only"):
        CLUEClassifier().fit(X, y, sample_weight=(y == 0).astype(float))
    with pytest.raises(ValueError, match="negative value"):
        CLUEClassifier().fit(X, y, sample_weight=-np.ones(200))
    with pytest.raises(ValueError, match="the default network takes"):
        CLUEClassifier().fit(X.reshape(200, 2, 1), y)
    with pytest.raises(ValueError, match=r"returned shape \(2, 3\); CLUERegressor"):
        CLUERegressor(network()).fit(X, y)
    with pytest.raises(ValueError, match="requires y to be passed"):
        CLUERegressor().fit(X, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_processor_gives():
    X, y = draw_classes()
    accuracies = [
        CLUEClassifier(**SMALL, device=device).fit(X, y).score(X, y)
        for device in ("cpu", "cuda")
    ]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_module_is_trained_where_it_lies():
    X, y = draw_classes()
    classifier = CLUEClassifier(network().cuda(), max_epochs=2).fit(X, y)
    assert next(classifier.module_.parameters()).is_cuda
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("estimator", [CLUEClassifier, CLUERegressor])
def test_predictions_in_threads_are_those_of_one(estimator):
    X, y = draw_classes(300)
    fitted = estimator(**{**SMALL, "max_epochs": 2}).fit(X, y)
    alone = fitted.predict_uncertainty(X)
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(fitted.predict_uncertainty, [X] * 30))
    for uncertainty in (*together, fitted.predict_uncertainty(X)):
        assert_array_equal(uncertainty, alone)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize(
    "estimator", [CLUEClassifier, CLUERegressor, BilevelCalibratedClassifier]
)
def test_fits_in_threads_are_those_of_one(estimator):
    X, y = draw_classes(200)
    small = {"hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0}

    def fitted(_):
        network = estimator(**small).fit(X, y)
        return getattr(network, "predict_proba", network.predict)(X)

    alone = fitted(0)
    with ThreadPoolExecutor(2) as threads:
        for together in threads.map(fitted, range(2)):
            assert_array_equal(together, alone)


@pytest.mark.parametrize("kind", [CLUEClassifier, BilevelCalibratedClassifier])
@pytest.mark.parametrize(("dtype", "known"), [("Int64", "i"), ("boolean", "b")])
def test_labels_of_pandas_own_types_stay_what_they_are(kind, dtype, known):
    pandas = pytest.importorskip("pandas")
    X, y = draw_classes(60, n_classes=2)
    labels = pandas.Series(y).astype(dtype)
    fitted = kind(max_epochs=1, random_state=0).fit(X, labels)
    assert_array_equal(fitted.classes_, [0, 1])
    assert fitted.classes_.dtype.kind == known
