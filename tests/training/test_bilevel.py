"""BilevelCalibratedClassifier: what it learns, keeps, accepts and refuses."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, PredefinedSplit, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcalib._progress import Progress
from skcalib.datasets import make_overlapping_blobs, make_spirals
from skcalib.metrics import expected_calibration_error

torch = pytest.importorskip("torch")

from exploding import Exploding  # noqa: E402

from skcalib.training import (  # noqa: E402
    BilevelCalibratedClassifier,
    _bilevel_train,
)
from skcalib.training._bilevel_confidence import (  # noqa: E402
    confident_log_proba,
    fit_head,
    outer_losses,
)
from skcalib.training._bilevel_splits import find_judges  # noqa: E402
from skcalib.training._bilevel_train import BilevelTraining, Settings  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
nn = torch.nn
SMALL = {"hidden_layer_sizes": (8,), "cv": 3, "max_epochs": 4, "random_state": 0}


def draw(n=150, n_classes=3, seed=0):
    return make_overlapping_blobs(n, n_classes, random_state=seed)


def network(n_out=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_out)
    )


@pytest.mark.slow
def test_the_probabilities_come_near_the_true_ones():
    X, y = draw(500)
    X_test, y_test, posterior = make_overlapping_blobs(
        2000, return_posterior=True, random_state=1
    )
    classifier = BilevelCalibratedClassifier(max_epochs=8, random_state=0).fit(X, y)
    proba = classifier.predict_proba(X_test)
    assert np.abs(proba - posterior).mean() < 0.04
    assert expected_calibration_error(y_test, proba) < 0.04


def test_progress_is_told_by_epoch(capsys):
    classifier = BilevelCalibratedClassifier(**SMALL, verbose=1).fit(*draw(60))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"[BilevelCalibratedClassifier] epoch {k + 1}: loss {loss:.6f}"
        for k, loss in enumerate(classifier.outer_loss_curve_)
    ]


def test_a_step_of_training_is_that_of_the_inner_loss_the_outer_level_sees(monkeypatch):
    X, y = draw(40)
    x, codes = torch.as_tensor(X).double(), torch.as_tensor(y)
    weight = torch.linspace(0.5, 1.5, 40).double()
    module, inner, outer = network().double()[0:1], np.arange(30), np.arange(30, 40)
    module.append(nn.Linear(8, 3).double())
    settings = Settings("head", "one_step", 0.1, 0.3, torch.optim.SGD, 1e-2, 2, 64, 5)
    told = Progress("", shown=False)
    split = (inner, outer)
    training = BilevelTraining([module], [split], x, codes, weight, settings, told)
    training.scores[0] = torch.linspace(-1, 1, 40)
    parameters = list(module.parameters())
    shares = 2 * torch.sigmoid(training.scores[0, inner])
    losses = nn.functional.cross_entropy(
        module(x[inner]), codes[inner], reduction="none"
    )
    squares = sum((p**2).sum() for p in parameters)
    loss = (weight[inner] * shares * losses).mean() + 0.3 * squares
    expected = torch.autograd.grad(loss, parameters)

    seen = []

    solve = _bilevel_train.solve_hypergradient

    def spy(inner_loss, outer_loss, parameters, *others, **options):
        seen.extend(torch.autograd.grad(inner_loss, parameters, retain_graph=True))
        return solve(inner_loss, outer_loss, parameters, *others, **options)

    monkeypatch.setattr(_bilevel_train, "solve_hypergradient", spy)
    training._hypergradient(0, training.members[0], np.array([1.0, 1.0, 0.0]))
    before = [p.detach().clone() for p in parameters]
    training._train_epoch(0, training.members[0])
    for gradient, old, new, of_outer in zip(
        expected, before, parameters, seen, strict=True
    ):
        assert_allclose((old - new.detach()) / 1e-2, gradient, rtol=1e-6, atol=1e-9)
        assert_allclose(of_outer, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_wrong_labels_of_the_inner_part_lose_their_weight():
    X, y = make_spirals(600, noise=0.12, random_state=0)
    inner, outer = np.arange(400), np.arange(400, 600)
    wrong = np.flatnonzero((y == 0) & (np.arange(600) < 400))[::2]
    taught = y.copy()
    taught[wrong] = 1
    X_test, y_test = make_spirals(1000, noise=0.12, random_state=1)
    settings = {"cv": [(inner, outer)], "max_epochs": 45, "random_state": 0}
    learned = BilevelCalibratedClassifier(**settings).fit(X, taught)
    plain = BilevelCalibratedClassifier(weight_lr=0, **settings).fit(X, taught)
    right = np.setdiff1d(inner, wrong)
    weights = learned.sample_weights_
    assert np.median(weights[wrong]) < 0.2 * np.median(weights[right])
    assert np.isnan(weights[outer]).all()
    assert_array_equal(plain.sample_weights_[inner], 1)
    assert learned.score(X_test, y_test) > plain.score(X_test, y_test) + 0.1


class TwoOutputs(nn.Module):
    """Logits of three classes and of the confidence."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(2, 8), nn.ReLU())
        self.classes = nn.Linear(8, 3)
        self.confidence = nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.body(x)
        return self.classes(hidden), self.confidence(hidden)


@pytest.mark.parametrize("module", [None, TwoOutputs()], ids=["perceptron", "own"])
def test_the_confidence_is_the_second_output_of_the_network(module):
    X, y = draw()
    rows = np.arange(150)
    settings = {**SMALL, "cv": [(rows[:100], rows[100:])], "max_epochs": 20}
    classifier = BilevelCalibratedClassifier(
        module, confidence="network", **settings
    ).fit(X, y)
    assert classifier.head_coef_ is None
    assert classifier.sample_weights_[:100].std() > 0.001
    with torch.no_grad():
        x = torch.as_tensor(X, dtype=torch.float32)
        logits, confidence = classifier.modules_[0](x)
    proba = classifier.predict_proba(X)
    assert_array_equal(proba.argmax(axis=1), logits.argmax(dim=1))
    stated = torch.sigmoid(confidence[:, 0]).numpy()
    # Below the second class the predicted one has to stay ahead of it.
    ahead = stated > 0.5
    assert ahead.any()
    assert_allclose(classifier.predict_confidence(X)[ahead], stated[ahead], rtol=1e-5)


def test_the_outer_rows_train_the_confidence_and_nothing_else_of_a_network():
    X, y = draw()
    rows = np.arange(150)
    settings = {"cv": [(rows[:100], rows[100:])], "max_epochs": 1, "weight_lr": 0}
    wrong = np.where(rows < 100, y, (y + 1) % 3)
    states = [
        BilevelCalibratedClassifier(
            TwoOutputs(), confidence="network", random_state=0, **settings
        )
        .fit(X, labels)
        .modules_[0]
        .state_dict()
        for labels in (y, wrong)
    ]
    differ = {n for n in states[0] if not torch.equal(*(s[n] for s in states))}
    assert "confidence.weight" in differ
    assert differ <= {"confidence.weight", "confidence.bias"}


@pytest.mark.slow
def test_the_second_output_learns_how_often_the_first_is_right():
    X, y = draw(600)
    classifier = BilevelCalibratedClassifier(
        confidence="network", hidden_layer_sizes=(16,), max_epochs=15, random_state=0
    ).fit(X, y)
    X_test, y_test = draw(2000, seed=1)
    error = expected_calibration_error(y_test, classifier.predict_proba(X_test))
    assert error < 0.06
    pickled = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert_array_equal(pickled.predict(X), classifier.predict(X))


@pytest.mark.parametrize("method", ["one_step", "neumann", "cg"])
def test_each_hypergradient_moves_the_weights_and_lowers_the_outer_loss(method):
    X, y = draw()
    classifier = BilevelCalibratedClassifier(
        **{**SMALL, "max_epochs": 8}, hypergradient=method
    ).fit(X, y)
    curve = classifier.outer_loss_curve_
    assert len(curve) == classifier.n_iter_ == 8
    assert curve[classifier.best_epoch_ - 1] == min(curve) < curve[0]
    assert classifier.sample_weights_.std() > 0.01
    assert ((classifier.sample_weights_ > 0) & (classifier.sample_weights_ < 2)).all()


def test_training_stops_without_improvement_and_keeps_the_best_epoch():
    X, y = draw()
    settings = {**SMALL, "lr": 0.05, "n_iter_no_change": 3}
    classifier = BilevelCalibratedClassifier(**{**settings, "max_epochs": 60})
    classifier.fit(X, y)
    best = classifier.best_epoch_
    assert classifier.n_iter_ == best + 3 < 60
    assert best == 1 + np.argmin(classifier.outer_loss_curve_)
    stopped = BilevelCalibratedClassifier(**{**settings, "max_epochs": best}).fit(X, y)
    assert_array_equal(stopped.predict_proba(X), classifier.predict_proba(X))
    assert_array_equal(stopped.sample_weights_, classifier.sample_weights_)


def test_probabilities_confidence_and_prediction_agree():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(**SMALL).fit(X, y)
    proba = classifier.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert_array_equal(classifier.predict_confidence(X), proba.max(axis=1))
    assert_array_equal(classifier.predict(X), proba.argmax(axis=1))
    extreme = classifier.predict_proba(1e4 * X)
    assert np.isfinite(extreme).all()


def test_a_row_is_mapped_alike_alone_and_in_a_batch():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(network(), **SMALL).fit(X, y)
    alone = np.vstack([classifier.predict_proba(row[np.newaxis]) for row in X[:20]])
    assert_allclose(alone, classifier.predict_proba(X)[:20], rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_and_leaves_the_generators_alone():
    X, y = draw()
    before = torch.random.get_rng_state()
    first, again, other = (
        BilevelCalibratedClassifier(**{**SMALL, "random_state": seed})
        .fit(X, y)
        .predict_proba(X)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_under_autocast_the_same_is_learned():
    X, y = draw()
    plain = BilevelCalibratedClassifier(**SMALL).fit(X, y).predict_proba(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fitted = BilevelCalibratedClassifier(**SMALL).fit(X, y)
    assert_allclose(fitted.predict_proba(X), plain, atol=0.05)


def test_double_precision_may_be_the_default_of_torch():
    X, y = draw()
    torch.set_default_dtype(torch.float64)
    try:
        fitted = BilevelCalibratedClassifier(**{**SMALL, "max_epochs": 15}).fit(X, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert next(fitted.modules_[0].parameters()).dtype == torch.float64
    assert fitted.sample_weights_.std() > 0.001
    assert fitted.score(X, y) > 0.7


def test_rows_without_weight_do_not_count_and_weights_have_no_unit():
    X, y = draw()
    weight = np.repeat([1.0, 2.0], 75)
    kept = BilevelCalibratedClassifier(**SMALL).fit(X, y, weight)
    more = np.vstack([X, 100 + X]), np.r_[y, y], np.r_[7 * weight, np.zeros(150)]
    ignored = BilevelCalibratedClassifier(**SMALL).fit(*more)
    assert_allclose(ignored.predict_proba(X), kept.predict_proba(X), atol=1e-4)
    assert_allclose(ignored.sample_weights_[:150], kept.sample_weights_, atol=1e-3)
    assert np.isnan(ignored.sample_weights_[150:]).all()


def test_a_heavy_class_becomes_more_probable():
    X, y = draw()
    plain = BilevelCalibratedClassifier(**SMALL).fit(X, y)
    heavy = BilevelCalibratedClassifier(**SMALL).fit(X, y, np.where(y == 1, 10, 1))
    shift = heavy.predict_proba(X)[:, 1].mean() - plain.predict_proba(X)[:, 1].mean()
    assert shift > 0.1


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True]])
def test_labels_come_back(labels):
    X, y = draw(n_classes=2)
    classifier = BilevelCalibratedClassifier(**SMALL).fit(X, np.array(labels)[y])
    assert_array_equal(classifier.classes_, labels)
    assert set(classifier.predict(X)) == set(labels)
    assert classifier.score(X, np.array(labels)[y]) > 0.7


def test_modules_are_copied_and_may_know_classes_that_do_not_occur():
    X, y = draw()
    module = network(n_out=5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    classifier = BilevelCalibratedClassifier(module, **SMALL).fit(X, y)
    assert_array_equal(classifier.classes_, np.arange(5))
    assert classifier.predict_proba(X).shape == (150, 5)
    assert len(classifier.modules_) == 3
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not any(m.training for part in classifier.modules_ for m in part.modules())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.layer(x).mean(dim=1))


def test_networks_with_attention_are_trained():
    X = np.random.default_rng(0).normal(size=(60, 3, 4))
    settings = {"cv": 3, "max_epochs": 2, "random_state": 0}
    fitted = BilevelCalibratedClassifier(Attention, **settings).fit(
        X, X.sum((1, 2)) > 0
    )
    assert fitted.sample_weights_.std() > 0.001


def test_a_network_that_ends_in_a_softmax_is_told_of():
    X, y = draw()
    module = network().append(nn.Softmax(1))
    with pytest.warns(UserWarning, match="look like probabilities, not logits"):
        BilevelCalibratedClassifier(module, **SMALL).fit(X, y)


def test_what_cannot_be_trained_is_refused_with_the_reason():
    X, y = draw()
    module = network()
    with pytest.raises(ValueError, match=r"module\(\) gave the same module twice"):
        BilevelCalibratedClassifier(lambda: module, **SMALL).fit(X, y)
    lbfgs = BilevelCalibratedClassifier(optimizer=torch.optim.LBFGS, **SMALL)
    with pytest.raises(ValueError, match="LBFGS needs the loss anew within a step"):
        lbfgs.fit(X, y)
    frozen = network().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that can be trained"):
        BilevelCalibratedClassifier(frozen, **SMALL).fit(X, y)


def test_one_output_is_the_log_odds_of_the_second_class():
    X, y = draw(n_classes=2)
    classifier = BilevelCalibratedClassifier(lambda: network(1), **SMALL).fit(X, y)
    assert classifier.score(X, y) > 0.8
    assert classifier.predict_proba(X).shape == (150, 2)


def test_clones_pickles_pipelines_and_grids():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(**SMALL).fit(X, y)
    proba = classifier.predict_proba(X)
    copied = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert_array_equal(copied.predict_proba(X), proba)
    assert_array_equal(clone(classifier).fit(X, y).predict_proba(X), proba)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), BilevelCalibratedClassifier(**SMALL)),
        {"bilevelcalibratedclassifier__weight_lr": [0, 0.1]},
        cv=2,
        scoring="neg_log_loss",
    )
    assert np.isfinite(grid.fit(X, y).cv_results_["mean_test_score"]).all()


def test_the_outer_part_may_be_given_in_every_way_of_scikit_learn():
    X, y = draw()
    rows = np.arange(150)
    by_pair = BilevelCalibratedClassifier(**{**SMALL, "cv": [(rows[:90], rows[90:])]})
    folds = PredefinedSplit(np.where(rows < 90, -1, 0))
    by_folds = BilevelCalibratedClassifier(**{**SMALL, "cv": folds})
    first, second = by_pair.fit(X, y), by_folds.fit(X, y)
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert_array_equal(np.isnan(first.sample_weights_), rows >= 90)
    shuffled = ShuffleSplit(2, test_size=0.3, random_state=0)
    several = BilevelCalibratedClassifier(**{**SMALL, "cv": shuffled}).fit(X, y)
    assert len(several.modules_) == 2


def test_large_parts_are_drawn_from(monkeypatch):
    X, y = draw()
    monkeypatch.setattr("skcalib.training._bilevel_train._HYPERGRADIENT_ROWS", 10)
    rows = np.arange(150)
    settings = {**SMALL, "cv": [(rows[:90], rows[90:])], "max_epochs": 2}
    settings["lr"] = 0.001  # The second epoch is better than the first.
    weights = BilevelCalibratedClassifier(**settings).fit(X, y).sample_weights_
    # One step after the first epoch, of ten rows.
    assert np.count_nonzero(weights[:90] != 1) == 10


def test_members_are_judged_by_others_where_there_are_enough():
    rows = np.arange(6)
    folds = [(np.delete(rows, [k, k + 1]), rows[k : k + 2]) for k in (0, 2, 4)]
    assert_array_equal(find_judges(folds, 6), 1 - np.eye(3))
    assert_array_equal(find_judges(folds[:2], 6), np.eye(2))
    assert_array_equal(find_judges(folds[:1], 6), [[1]])


def test_it_abstains_below_the_threshold_with_the_declared_label():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(
        **SMALL, reject_threshold=0.6, reject_label=-1
    ).fit(X, y)
    confident = classifier.predict_confidence(X) >= 0.6
    assert 0 < confident.mean() < 1
    expected = np.where(confident, classifier.predict_proba(X).argmax(axis=1), -1)
    assert_array_equal(classifier.predict(X), expected)
    names = np.array(["a", "b", "c"])
    named = BilevelCalibratedClassifier(
        **SMALL, reject_threshold=0.6, reject_label="unsure"
    ).fit(X, names[y])
    assert_array_equal(named.predict(X) == "unsure", ~confident)
    classifier.set_params(reject_threshold=None)
    assert set(classifier.predict(X)) == {0, 1, 2}


@pytest.mark.parametrize("label", [-1, 999])
def test_it_abstains_with_a_label_that_the_type_of_the_classes_cannot_hold(label):
    X, y = draw()
    classifier = BilevelCalibratedClassifier(
        **SMALL, reject_threshold=0.6, reject_label=label
    ).fit(X, y.astype(np.uint8))
    confident = classifier.predict_confidence(X) >= 0.6
    expected = np.where(confident, classifier.predict_proba(X).argmax(axis=1), label)
    assert_array_equal(classifier.predict(X), expected)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "needs a reject_label that is none of the classes, and it is None"),
        (2, "none of the classes, and it is 2"),
        ("unsure", "reject_label='unsure' is of another kind than the classes"),
    ],
)
def test_labels_of_abstention_that_cannot_be_told_are_refused(label, message):
    X, y = draw()
    classifier = BilevelCalibratedClassifier(
        **SMALL, reject_threshold=0.6, reject_label=label
    )
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, y)


def exploding(good_runs):
    return Exploding(network(), good_runs)


def test_a_loss_that_explodes_stops_with_the_best_networks_so_far():
    # One network, two steps an epoch: the third epoch cannot be trained.
    X, y = draw(150)
    rows = np.arange(150)
    settings = {"cv": [(rows[:100], rows[100:])], "random_state": 0}
    classifier = BilevelCalibratedClassifier(exploding(5), max_epochs=9, **settings)
    message = (
        "stopped in epoch 3: the inner loss was .* networks of epoch [12], the best"
    )
    with pytest.warns(ConvergenceWarning, match=message):
        classifier.fit(X, y)
    stopped = BilevelCalibratedClassifier(exploding(99), max_epochs=2, **settings)
    stopped.fit(X, y)
    for name, value in stopped.modules_[0].state_dict().items():
        assert torch.equal(classifier.modules_[0].state_dict()[name], value), name
    assert len(classifier.outer_loss_curve_) == 2


def test_a_loss_that_explodes_at_once_is_an_error():
    X, y = draw(100)
    with pytest.raises(ValueError, match=r"failed in epoch 1: .* Lower the learning"):
        BilevelCalibratedClassifier(exploding(0), cv=2).fit(X, y)


def test_inputs_beyond_the_numbers_of_the_network_are_refused():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="gave nan for row 3 of X"):
        classifier.predict_proba(np.vstack([X[:3], [[1e300, 0.0]]]))


class OneLayer(nn.Module):
    """Two outputs without a parameter that only the second has."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, x):
        outputs = self.layer(x)
        return outputs[:, :3], outputs[:, 3:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cv": [(np.arange(90), [])]}, "Split 0 of cv has 90 rows to fit on and 0"),
        ({"cv": [(np.arange(100), np.arange(100, 150))]}, "outer rows of split 0 hold"),
        ({"cv": [(np.arange(100, 150), np.arange(90))]}, "inner rows of split 0 hold"),
        ({"cv": [(np.arange(120), np.arange(110, 150))]}, "of split 0 overlap"),
        ({"module": nn.Linear(7, 3)}, r"could not be run on a batch of shape \(2, 2\)"),
        ({"module": nn.Linear(2, 2)}, "X has 2 columns but y has 3 classes"),
        ({"module": nn.Flatten(0)}, r"turned 2 rows into a tensor of shape \(4,\)"),
        ({"classes": [0, 1, 5]}, "y holds labels that classes does not name"),
        ({"hypergradient": "newton"}, "The 'hypergradient' parameter"),
        ({"weight_lr": -0.1}, "The 'weight_lr' parameter"),
        (
            {"module": network(), "confidence": "network"},
            r"logits of the classes and, \(n_samples, 1\), .* returned a Tensor",
        ),
        (
            {"module": OneLayer(), "confidence": "network"},
            "needs parameters that only the confidence uses",
        ),
        (
            {"module": TwoOutputs()},
            "turned 2 rows into a tuple",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments, message):
    X, y = draw()
    X, y = X[np.argsort(y)], np.sort(y)
    with pytest.raises(ValueError, match=message):
        BilevelCalibratedClassifier(**{**SMALL, **arguments}).fit(X, y)


def test_the_head_minimises_its_penalised_loss():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 3, generator=generator)
    codes = torch.multinomial(torch.softmax(logits / 2, 1), 1, generator=generator)[
        :, 0
    ]
    weight = torch.rand(200, generator=generator)
    head = fit_head(logits, codes, weight)
    proba = torch.softmax(logits.double(), 1).max(1)
    hit = (proba.indices == codes).numpy()
    p, w = proba.values.numpy(), weight.numpy()

    def loss(head):
        score = head[0] * np.log(p) - head[1] * np.log(1 - p) + head[2]
        rows = np.logaddexp(0, np.where(hit, -score, score))
        return w @ rows + np.sum((head - [1, 1, 0]) ** 2) / 2

    assert loss(head) == pytest.approx(minimize(loss, head, tol=1e-10).fun, rel=1e-9)
    # The logits are twice too large.
    assert head[0] * np.log(0.9) - head[1] * np.log(0.1) + head[2] < np.log(9)


def test_a_head_that_is_always_right_stays_finite():
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]]).repeat(50, 1)
    head = fit_head(logits, logits.argmax(1), torch.ones(100))
    proba = confident_log_proba(logits, head).exp().max(1).values
    assert np.isfinite(head).all()
    assert ((proba > 0.99) & (proba <= 1)).all()


def test_the_outer_loss_is_the_likelihood_of_the_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator).double()
    codes = torch.arange(50) % 4
    head = np.array([0.9, 1.2, 0.5])
    log_proba = confident_log_proba(logits, head)
    losses = -log_proba.gather(1, codes[:, None])[:, 0]
    assert_allclose(outer_losses(logits, codes, head), losses, rtol=1e-9)
    softmax = torch.softmax(logits, 1)
    p, top = softmax.max(1)
    score = head[0] * p.log() - head[1] * (1 - p).log() + head[2]
    confidence = torch.sigmoid(score)
    others = softmax * ((1 - confidence) / (1 - p))[:, None]
    expected = others.scatter(1, top[:, None], confidence[:, None])
    assert_allclose(log_proba.exp(), expected, rtol=1e-9)


def test_the_predicted_class_stays_ahead_of_a_head_that_distrusts_it():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1e4, -1e4, 0.0]])
    proba = confident_log_proba(logits, np.array([0.0, 0.0, -50.0])).exp()
    assert_array_equal(proba.argmax(1), [0, 0, 0])
    assert_allclose(proba.sum(1), 1, rtol=1e-12)
    assert (proba >= 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_module_is_trained_where_it_lies():
    X, y = draw()
    classifier = BilevelCalibratedClassifier(network().cuda(), **SMALL).fit(X, y)
    assert all(next(m.parameters()).is_cuda for m in classifier.modules_)
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_processor_gives():
    X, y = draw()
    accuracies = [
        BilevelCalibratedClassifier(**SMALL, device=device).fit(X, y).score(X, y)
        for device in ("cpu", "cuda")
    ]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)
