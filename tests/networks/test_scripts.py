"""TorchScript and graphs of torch.export are networks like others, or are refused."""

import copy
import io
import pickle

import pytest
from numpy.testing import assert_allclose
from sklearn.model_selection import cross_val_score

torch = pytest.importorskip("torch")

from small_network import draw, expected_logits, network  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402
from skcalib._networks._torch import frozen_view  # noqa: E402
from skcalib.export import calibrate_onnx_model, to_torch  # noqa: E402
from skcalib.frozen import TorchLogits  # noqa: E402
from skcalib.training import BilevelCalibratedClassifier, mc_dropout  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch.jit
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def traced(module):
    return torch.jit.trace(module, torch.ones(8, 4), check_trace=False)


def scripted(module):
    return torch.jit.script(module)


def exported(module):
    n_rows = {0: torch.export.Dim("n_rows", min=2)}
    example = torch.zeros(8, 4)
    return torch.export.export(module, (example,), dynamic_shapes=(n_rows,)).module()


def values_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(module, values):
    for name, value in module.state_dict().items():
        assert torch.equal(value, values[name]), name


IN_TRAINING = {
    "batch norm": network,
    "dropout": lambda: torch.nn.Sequential(network()[0], *network()[2:]),
    "instance norm": lambda: torch.nn.Sequential(
        torch.nn.Unflatten(1, (2, 2)),
        torch.nn.InstanceNorm1d(2, track_running_stats=True),
        torch.nn.Flatten(),
    ),
    "attention": lambda: torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 4)),
        torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        torch.nn.Flatten(),
    ),
}


@pytest.mark.parametrize("form", [lambda m: traced(m).eval(), exported])
@pytest.mark.parametrize("part", IN_TRAINING)
def test_a_graph_made_in_train_mode_is_refused(form, part):
    (X, y), module = draw(), IN_TRAINING[part]()
    graph = form(module.train())
    before = values_of(graph)
    for wrapped in (
        TorchLogits(graph),
        NeuralClamping(graph),
        NeuralClamping(torch.nn.Sequential(graph)),
        NeuralClamping(lambda x: graph(x)),
    ):
        with pytest.raises(ValueError, match="made in train mode"):
            wrapped.fit(X, y)
        assert_same(graph, before)


def test_a_traced_function_in_train_mode_is_refused():
    module = network().train().requires_grad_(False)
    X, y = draw()
    with pytest.raises(ValueError, match="batch_norm as in training"):
        NeuralClamping(traced(lambda x: module(x))).fit(X, y)


@pytest.mark.parametrize("form", [traced, exported])
@pytest.mark.parametrize(
    "part",
    [
        torch.nn.Dropout(0.0),
        torch.nn.BatchNorm1d(4, track_running_stats=False),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_graph_of_a_train_mode_that_changes_nothing_is_taken(form, part):
    X, _ = draw()
    graph = form(part.train())
    expected = part(torch.from_numpy(X)).detach().numpy()
    assert_allclose(TorchLogits(graph).transform(X), expected, atol=1e-6)


class Branch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        if self.training:
            x = torch.nn.functional.dropout(x, 0.5)
        return self.network(x)


@pytest.mark.parametrize("module", [network, Branch])
def test_a_script_in_train_mode_gives_the_logits_of_eval_mode(module):
    X, _ = draw()
    script = scripted(module().train())
    assert_allclose(TorchLogits(script).transform(X), expected_logits(X), atol=1e-6)
    assert script.training


@pytest.mark.parametrize("form", [traced, scripted])
def test_a_view_shares_weights_but_no_buffers(form):
    module = form(network().eval())
    view = frozen_view(module, "auto")
    for own, original in zip(view.parameters(), module.parameters(), strict=True):
        assert own.data_ptr() == original.data_ptr()
        assert not own.requires_grad
    for own, original in zip(view.buffers(), module.buffers(), strict=True):
        assert own.data_ptr() != original.data_ptr()
    assert all(weight.requires_grad for weight in module.parameters())


def frozen(module):
    return torch.jit.freeze(torch.jit.script(module.eval()))


def optimized(module):
    return torch.jit.optimize_for_inference(torch.jit.script(module.eval()))


@pytest.mark.parametrize("form", [frozen, optimized])
@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, torch.nn.Sequential, lambda m: lambda x: m(x)],
    ids=["module", "inside another", "function"],
)
def test_a_script_without_a_mode_is_in_eval_mode(form, wrap):
    X, y = draw()
    module = wrap(form(network()))
    nc = NeuralClamping(module, solver="lbfgs", penalty=0.1, tol=1e-2).fit(X, y)
    assert_allclose(nc.logits(X), expected_logits(X + nc.delta_), atol=1e-5)
    if isinstance(module, torch.nn.Module):
        assert_allclose(TorchLogits(module).transform(X), expected_logits(X), atol=1e-5)
        clamped = to_torch(nc).train()
        assert_allclose(clamped(torch.from_numpy(X)), nc.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("form", [traced, scripted, frozen, optimized])
@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, torch.nn.Sequential, TorchLogits],
    ids=["module", "inside another", "wrapped"],
)
def test_scripts_travel_with_their_estimators(form, wrap):
    X, y = draw()
    model = wrap(form(network().eval()))
    nc = NeuralClamping(model, solver="fixed_delta").fit(X, y)
    expected = nc.predict_proba(X)
    for twin in (
        pickle.loads(pickle.dumps(nc)),  # noqa: S301
        copy.deepcopy(nc),
        copy.copy(nc),
    ):
        assert_allclose(twin.predict_proba(X), expected, atol=1e-6)
    file = io.BytesIO()
    torch.save(to_torch(nc), file)
    file.seek(0)
    clamped = torch.load(file, weights_only=False)
    for twin in (clamped, copy.deepcopy(clamped), copy.copy(clamped)):
        assert_allclose(twin(torch.from_numpy(X)), expected, atol=1e-6)


def test_a_script_in_a_transformer_travels():
    X, _ = draw()
    script = scripted(network().train())
    logits = TorchLogits(script)
    twin = pickle.loads(pickle.dumps(logits))  # noqa: S301
    assert twin.module.training
    assert_allclose(twin.transform(X), logits.transform(X), atol=1e-6)
    assert copy.copy(logits).module is script


@pytest.mark.slow
def test_scripts_reach_worker_processes():
    X, y = draw()
    nc = NeuralClamping(scripted(network().eval()), solver="fixed_delta")
    scores = [cross_val_score(nc, X, y, cv=2, n_jobs=n) for n in (1, 2)]
    assert_allclose(*scores)


@pytest.mark.onnx
@pytest.mark.parametrize("form", [traced, scripted, frozen, exported])
@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.Sequential])
def test_what_is_not_written_as_onnx_is_told(form, wrap):
    pytest.importorskip("onnxruntime")
    X, y = draw()
    module = wrap(form(network().eval()))
    nc = NeuralClamping(module, solver="fixed_delta").fit(X, y)
    with pytest.raises(ValueError, match="pass the module that it was made of"):
        calibrate_onnx_model(module, nc)
    written = calibrate_onnx_model(network().eval(), nc)
    assert [value.name for value in written.graph.output] == ["probabilities"]


@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.Sequential])
def test_a_script_is_trained_as_a_copy(wrap):
    X, y = draw()
    module = wrap(scripted(network()))
    before = values_of(module)
    classifier = BilevelCalibratedClassifier(module, cv=2, max_epochs=2).fit(X, y)
    assert_same(module, before)
    assert all(weight.requires_grad for weight in module.parameters())
    for trained in classifier.modules_:
        for own, weight in zip(trained.parameters(), module.parameters(), strict=True):
            assert own.is_leaf
            assert not torch.equal(own, weight)
    twin = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert_allclose(twin.predict_proba(X), classifier.predict_proba(X), atol=1e-6)


def test_a_script_beside_dropout_is_trained_by_clue():
    pytest.importorskip("skorch")
    from skcalib.training import CLUEClassifier

    X, y = draw()
    body = scripted(torch.nn.Linear(4, 8))
    module = torch.nn.Sequential(body, torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    before = values_of(module)
    classifier = CLUEClassifier(module, max_epochs=2).fit(X, y)
    assert_same(module, before)
    trained = classifier.module_.state_dict()
    assert not torch.equal(trained["0.weight"], before["0.weight"])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda m: exported(m.eval()), "torch.export, which .* cannot be trained"),
        (lambda m: traced(m.train()), "made in train mode"),
    ],
)
def test_what_has_one_mode_for_good_is_not_trained(form, message):
    X, y = draw()
    with pytest.raises(ValueError, match=message):
        BilevelCalibratedClassifier(form(network()), cv=2, max_epochs=2).fit(X, y)


def test_dropout_inside_a_script_is_told_of():
    with pytest.raises(ValueError, match="inside TorchScript is not seen"):
        mc_dropout(scripted(network()), torch.zeros(5, 4), 2)
