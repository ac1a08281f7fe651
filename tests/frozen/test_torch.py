"""TorchLogits returns a module's logits and leaves the module alone."""

import copy
import pickle
import sys

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skcalib.calibrators import TemperatureScaling
from skcalib.exceptions import ModelFormatError
from skcalib.frozen import TorchLogits

torch = pytest.importorskip("torch")

from small_network import network  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402

pytestmark = pytest.mark.torch


def draw(n=50):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n)


def expected_logits(module, X):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_never_changed(training):
    module = network().train(training)
    module[4].train(not training)  # a mixed mode is kept as well
    module[0].weight.requires_grad_(False)
    modes = [part.training for part in module.modules()]
    before = {k: v.clone() for k, v in module.state_dict().items()}
    flags = [p.requires_grad for p in module.parameters()]
    X, _ = draw()
    y = expected_logits(module, X).argmax(axis=1)
    y[::3] = 0
    pipe = make_pipeline(TorchLogits(module, batch_size=16), TemperatureScaling())
    pipe.fit(X, y).predict_proba(X)
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == flags
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_a_module_in_train_mode_gives_the_logits_of_eval_mode():
    module, (X, _) = network().train(), draw()
    found = TorchLogits(module, batch_size=7).fit_transform(X)
    assert found.dtype == np.float32
    assert_allclose(found, expected_logits(module, X), atol=1e-6)


def test_buffers_that_a_module_writes_while_running_stay():
    class Counting(torch.nn.Linear):
        def __init__(self):
            super().__init__(4, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.last = None

        def forward(self, x):
            self.calls += 1
            self.last = x
            return super().forward(x)

    module = Counting()
    TorchLogits(module).fit_transform(draw()[0])
    assert module.calls == 0
    assert module.last is None


def test_a_module_that_occurs_twice_is_run_twice():
    layer = torch.nn.Linear(4, 4)
    module = torch.nn.Sequential(layer, layer)
    X, _ = draw()
    assert_allclose(
        TorchLogits(module).transform(X), expected_logits(module, X), atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_compiled_module_in_train_mode_stays_so():
    module, (X, _) = network(), draw()
    expected = expected_logits(module, X)
    compiled = torch.jit.script(module.train())
    assert_allclose(TorchLogits(compiled).transform(X), expected, atol=1e-6)
    assert compiled.training


def test_a_clone_shares_the_module():
    module = network()
    assert clone(TorchLogits(module, batch_size=3)).module is module
    assert clone(TorchLogits(module, batch_size=3)).batch_size == 3


def test_threads_of_a_grid_search_share_the_module():
    X, y = draw(120)
    pipe = make_pipeline(TorchLogits(network()), TemperatureScaling())
    grid = {"temperaturescaling__objective": ["focal", "brier"]}
    search = GridSearchCV(pipe, grid, cv=2, scoring="neg_log_loss", n_jobs=2)
    with joblib.parallel_config(backend="threading"):
        search.fit(X, np.where(expected_logits(pipe[0].module, X)[:, 0] > 0, 0, y))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("form", ["tensor", "double", "list", "dataset", "loader"])
def test_inputs_of_every_form(form):
    X, y = draw()
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    forms = {
        "tensor": torch.from_numpy(X),
        "double": X.astype(float),
        "list": X.tolist(),
        "dataset": tensors,
        "loader": torch.utils.data.DataLoader(tensors, batch_size=9),
    }
    module = network()
    found = TorchLogits(module).fit_transform(forms[form])
    assert_allclose(found, expected_logits(module, X), atol=1e-6)


class Shuffled(torch.utils.data.Sampler):
    """A sampler that torch does not know."""

    def __len__(self):
        return 50

    def __iter__(self):
        return iter(torch.randperm(50).tolist())


def loaders(X):
    data = torch.utils.data
    pairs = data.TensorDataset(torch.from_numpy(X))
    random = data.RandomSampler(pairs)
    return {
        "shuffle": data.DataLoader(pairs, shuffle=True),
        "weighted": data.DataLoader(
            pairs, sampler=data.WeightedRandomSampler([1.0] * 50, 50)
        ),
        "subset": data.DataLoader(
            pairs, sampler=data.SubsetRandomSampler(range(50)), batch_size=9
        ),
        "batches": data.DataLoader(
            pairs, batch_sampler=data.BatchSampler(random, 9, drop_last=False)
        ),
        "batches as items": data.DataLoader(
            pairs, sampler=data.BatchSampler(random, 9, False), batch_size=None
        ),
        "distributed": data.DataLoader(
            pairs, sampler=data.DistributedSampler(pairs, num_replicas=1, rank=0)
        ),
        "unknown": data.DataLoader(pairs, sampler=Shuffled(), batch_size=9),
    }


@pytest.mark.parametrize("form", loaders(draw()[0]))
@pytest.mark.parametrize("estimator", [TorchLogits, NeuralClamping])
def test_a_loader_that_shuffles_is_refused(form, estimator):
    X, y = draw()
    with pytest.raises(ValueError, match="loses the order of the rows"):
        estimator(network()).fit(loaders(X)[form], y)


@pytest.mark.parametrize("estimator", [TorchLogits, NeuralClamping])
def test_a_loader_whose_workers_race_is_refused(estimator):
    X, y = draw()
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X))
    loader = torch.utils.data.DataLoader(pairs, num_workers=2)
    loader.in_order = False  # by an argument since torch 2.6
    with pytest.raises(ValueError, match="in_order=False, which loses the order"):
        estimator(network()).fit(loader, y)


def test_a_loader_with_an_order_of_its_own_keeps_it():
    X, _ = draw()
    pairs, order = torch.utils.data.TensorDataset(torch.from_numpy(X)), [7, 3, 3, 40]
    loader = torch.utils.data.DataLoader(pairs, sampler=order, batch_size=3)
    module = network()
    found = TorchLogits(module).transform(loader)
    assert_allclose(found, expected_logits(module, X[order]), atol=1e-6)


class Opened(torch.utils.data.Dataset):
    """Rows that are there in workers alone, as those of a file that each opens."""

    rows = None

    def __len__(self):
        return 50

    def __getitem__(self, i):
        return self.rows[i]


def open_in_worker(number):
    torch.utils.data.get_worker_info().dataset.rows = torch.from_numpy(draw()[0])


@pytest.mark.parametrize("estimator", [TorchLogits, NeuralClamping])
def test_workers_of_a_loader_are_started_as_it_says(estimator):
    loader = torch.utils.data.DataLoader(
        Opened(), batch_size=25, num_workers=1, worker_init_fn=open_in_worker
    )
    X, y = draw()
    module = network()
    found, expected = (estimator(module).fit(rows, y) for rows in (loader, X))
    name = "transform" if estimator is TorchLogits else "predict_proba"
    assert_allclose(getattr(found, name)(loader), getattr(expected, name)(X))


@pytest.mark.parametrize("estimator", [TorchLogits, NeuralClamping])
@pytest.mark.parametrize("kind", ["map", "iterable"])
def test_a_dataset_leaves_the_global_generator_where_it_is(estimator, kind):
    X, y = draw()

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.from_numpy(X))

    maps = torch.utils.data.TensorDataset(torch.from_numpy(X))
    rows, module = maps if kind == "map" else Stream(), network()
    before = torch.get_rng_state()
    fitted = estimator(module).fit(rows, y)
    (fitted.transform if estimator is TorchLogits else fitted.predict_proba)(rows)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_is_not_gathered_before_it_is_run():
    X, _ = draw()
    events = []

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            for row in X:
                events.append("read")
                yield row

    module = network()
    module.register_forward_hook(lambda *_: events.append("run"))
    loader = torch.utils.data.DataLoader(Stream(), batch_size=10)
    found = TorchLogits(module).transform(loader)
    assert_allclose(found, expected_logits(module, X), atol=1e-6)
    assert events[:11] == ["read"] * 10 + ["run"]


def test_batches_without_a_tensor_are_refused():
    loader = torch.utils.data.DataLoader(["some", "text"])
    with pytest.raises(ValueError, match=r"yields a str.*in a dict"):
        TorchLogits(network()).fit(loader)


class Wrapped(torch.nn.Module):
    """Returns its logits inside something else."""

    def __init__(self, wrap):
        super().__init__()
        self.network = network()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.network(x))


class Result:
    """Like the results of large model libraries."""

    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda z: {"loss": 0, "scores": z}, "scores"),
        (lambda z: (None, z), 1),
        (Result, None),
        (Result, "logits"),
        (lambda z: z.double()[:, :, None, None], None),
    ],
)
def test_logits_inside_something_else(wrap, output):
    module, (X, _) = Wrapped(wrap), draw()
    found = TorchLogits(module, output=output).fit_transform(X)
    assert_allclose(found, expected_logits(module.network, X), atol=1e-6)


@pytest.mark.parametrize("n_columns", [1, 3])
def test_a_module_that_squeezes_takes_a_single_row(n_columns):
    torch.manual_seed(0)
    linear, (X, y) = torch.nn.Linear(4, n_columns), draw(17)
    module, y = Wrapped(torch.squeeze), y % max(2, n_columns)
    module.network = linear
    found = TorchLogits(module, batch_size=16).fit_transform(X)
    assert_allclose(found, expected_logits(linear, X), atol=1e-6)
    one = TorchLogits(module).transform(X[:1])
    assert_allclose(one, expected_logits(linear, X[:1]), atol=1e-6)
    squeezed, plain = (
        NeuralClamping(model, batch_size=16).fit(X, y) for model in (module, linear)
    )
    for rows in (X, X[:1]):
        expected = plain.predict_proba(rows)
        assert_allclose(squeezed.predict_proba(rows), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("wrap", "n"),
    [
        (lambda z: z.reshape(-1, 1), 1),
        (lambda z: z[:0, 0], 1),
        (lambda z: z.flatten(), 2),
        (lambda z: z.sum(), 2),
    ],
)
def test_scores_without_a_row_a_sample_are_refused(wrap, n):
    with pytest.raises(ModelFormatError, match=f"for {n} rows of input"):
        TorchLogits(Wrapped(wrap)).fit(draw(n)[0])


def test_a_result_without_a_tensor_is_refused():
    X, _ = draw()
    with pytest.raises(ValueError, match=r"dict with the keys \['scores'\]"):
        TorchLogits(Wrapped(lambda z: {"scores": z})).fit(X)
    with pytest.raises(ValueError, match="has no 'logits'"):
        TorchLogits(Wrapped(lambda z: {"scores": z}), output="logits").fit(X)


def test_probabilities_are_warned_of():
    module = torch.nn.Sequential(network(), torch.nn.Softmax(dim=1))
    with pytest.warns(UserWarning, match="Remove the softmax"):
        TorchLogits(module).fit(draw()[0])


def test_inputs_that_the_module_does_not_take_are_named():
    with pytest.raises(ValueError, match=r"a batch of shape \(4, 6\)"):
        TorchLogits(network()).fit(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="at least one sample"):
        TorchLogits(network()).fit(np.zeros((0, 4)))


def test_nan_logits_are_named():
    X, _ = draw()
    X[7, 0] = np.nan
    with pytest.raises(ValueError, match="nan for row 7 of X"):
        TorchLogits(network(), batch_size=3).transform(X)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize("estimator", [TorchLogits, NeuralClamping])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_lazy_layer_that_never_ran_is_refused_and_left_alone(estimator, loaded):
    def build():
        lazy = torch.nn.LazyLinear(3), torch.nn.LazyBatchNorm1d()
        return torch.nn.Sequential(torch.nn.Linear(4, 5), *lazy)

    trained, module, (X, y) = build(), build(), draw()
    trained(torch.from_numpy(X))
    if loaded:
        module.load_state_dict(trained.state_dict())
    message = "The LazyLinear '1' of the module is lazy and has not been run"
    with pytest.raises(ValueError, match=message):
        estimator(module).fit(X, y)
    module.load_state_dict(trained.state_dict())
    module.eval()(torch.from_numpy(X))
    found = TorchLogits(module).transform(X)
    assert_allclose(found, expected_logits(trained, X), atol=1e-6)


def test_something_else_than_a_module_is_refused():
    with pytest.raises(TypeError, match="Module, not function"):
        TorchLogits(network).fit(draw()[0])


def test_the_printed_form_is_short():
    assert repr(TorchLogits(network())) == "TorchLogits(module=<Sequential>)"


def test_pickling_keeps_the_logits():
    X, _ = draw()
    frozen = TorchLogits(network()).fit(X)
    copied = pickle.loads(pickle.dumps(frozen))  # noqa: S301
    assert_allclose(copied.transform(X), frozen.transform(X))


def test_half_precision_gives_single():
    X, _ = draw()
    found = TorchLogits(network().to(torch.bfloat16)).fit_transform(X)
    assert found.dtype == np.float32


class Buffered(torch.nn.Module):
    """A network without a parameter."""

    def __init__(self, dtype):
        super().__init__()
        self.register_buffer("weight", torch.eye(4, 3, dtype=dtype))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize("given", [np.float32, np.float64])
@pytest.mark.parametrize("held", [torch.float32, torch.float64])
def test_a_network_without_parameters_takes_the_type_of_its_buffers(held, given):
    X, y = draw()
    assert_allclose(TorchLogits(Buffered(held)).transform(X.astype(given)), X[:, :3])
    fitted = NeuralClamping(Buffered(held)).fit(X.astype(given), y)
    assert fitted.predict_proba(X.astype(given)).shape == (50, 3)


def test_the_logits_of_a_real_network(data_dir, monkeypatch):
    monkeypatch.syspath_prepend(data_dir)
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    networks = pytest.importorskip("networks")
    with np.load(data_dir / "cifar10" / "cifar10_test.npz") as arrays:
        X = np.float32(arrays["x"][::400].transpose(0, 3, 1, 2) / 255)
    with np.load(data_dir / "cifar10" / "cifar10_logits.npz") as arrays:
        expected = arrays["resnet20"][::400]
    found = TorchLogits(networks.load("cifar10/resnet20").train()).fit_transform(X)
    assert_allclose(found, expected, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_module_can_be_run_on_another_device():
    module, (X, _) = network(), draw()
    found = TorchLogits(module, device="cuda").fit_transform(X)
    assert_allclose(found, expected_logits(module, X), atol=1e-3)
    assert next(module.parameters()).device.type == "cpu"


def test_a_collection_of_chunks_is_refused_before_it_is_read():
    da = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="TorchLogits needs all rows in memory"):
        TorchLogits(network()).transform(da.from_array(draw()[0], chunks=(10, 4)))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_a_frame_in_another_order_are_refused(library):
    library = pytest.importorskip(library)
    X, y = draw()
    frame = library.DataFrame({name: X[:, k] for k, name in enumerate("abcd")})
    pipe = make_pipeline(TorchLogits(network()), TemperatureScaling()).fit(frame, y)
    assert pipe.n_features_in_ == 4
    assert pipe.feature_names_in_.tolist() == list("abcd")
    assert_allclose(pipe[0].transform(frame), pipe[0].transform(frame[list("abcd")]))
    with pytest.raises(ValueError, match="same order as they were in fit"):
        pipe.predict_proba(frame[list("dabc")])
    pipe[0].set_params(module=network()).transform(frame[list("dabc")])


def test_rows_of_tokens_may_be_of_another_length_than_in_fit():
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(9, 3)

        def forward(self, x):
            return self.table(x).mean(dim=1)

    frozen = TorchLogits(Mean()).fit(np.ones((5, 4), dtype=np.int64))
    assert frozen.n_features_in_ == 4
    assert frozen.transform(np.ones((5, 7), dtype=np.int64)).shape == (5, 3)
    frozen.fit({"x": np.ones((5, 4), dtype=np.int64)})
    assert not hasattr(frozen, "n_features_in_")
