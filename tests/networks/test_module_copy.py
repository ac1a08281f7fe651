"""Networks whose forward refers to the original are seen in eval mode all the same."""

import copy
import functools
import pickle

import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from small_network import draw, expected_logits, network  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.export import to_torch  # noqa: E402
from skcalib.frozen import TorchLogits  # noqa: E402
from skcalib.training import BilevelCalibratedClassifier  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # Importing the compiler, and torch.jit by itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def compiled(module):
    return torch.compile(module, backend="eager")


def compiled_in_place(module):
    module.compile(backend="eager")
    return module


def compiled_part(module):
    module[3] = compiled(module[3])
    module[1].compile(backend="eager")
    return module


def compiled_forward(module):
    module.forward = compiled(module.forward)
    return module


def bound(module):
    module.forward = module.forward
    return module


def hooked(module):
    """Patch each part as libraries of large models do to move weights about."""

    def new_forward(part, *args):
        return part._old_forward(*args)

    for part in module.modules():
        part._old_forward = part.forward
        replaced = functools.partial(new_forward, part)
        part.forward = functools.update_wrapper(replaced, part._old_forward)
    return module


def closure(module):
    for part in module.modules():
        part.forward = around(part.forward)
    return module


def around(old):
    def forward(x):
        return old(x)

    return functools.wraps(old)(forward)


def default_argument(module):
    module.forward = lambda x, parts=list(module): functools.reduce(
        lambda value, part: part(value), parts, x
    )
    return module


def script_inside(module):
    module[1] = torch.jit.script(module[1])
    module[3] = torch.jit.script(module[3])
    return module


FORMS = [
    compiled,
    compiled_in_place,
    compiled_part,
    compiled_forward,
    bound,
    hooked,
    closure,
    default_argument,
    script_inside,
]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def patched(request):
    return request.param(network())


def state_of(module):
    return (
        {name: tensor.clone() for name, tensor in module.state_dict().items()},
        [part.training for part in module.modules()],
        [p.requires_grad for p in module.parameters()],
    )


def assert_unchanged(module, state):
    tensors, modes, flags = state_of(module)
    assert modes == state[1]
    assert flags == state[2]
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[0][name]), name


def test_logits_are_those_of_eval_mode_and_nothing_changes(patched):
    X, _ = draw()
    state = state_of(patched)
    assert_allclose(TorchLogits(patched).transform(X), expected_logits(X), atol=1e-6)
    assert_unchanged(patched, state)


def test_clamping_leaves_it_alone(patched):
    X, y = draw()
    state = state_of(patched)
    nc = NeuralClamping(patched, solver="lbfgs", penalty=0.1, tol=1e-2).fit(X, y)
    assert_unchanged(patched, state)
    assert not any(p.grad is not None for p in patched.parameters())
    moved = expected_logits(X + nc.delta_)
    assert_allclose(nc.logits(X), moved, atol=1e-5)
    exported = to_torch(nc)(torch.from_numpy(X)).numpy()
    assert_allclose(exported, nc.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("form", [compiled, compiled_in_place, bound, hooked])
def test_it_travels_to_other_processes(form):
    X, _ = draw()
    module = form(network())
    if form is hooked:  # a function of this test cannot be pickled; a method can
        for part in module.modules():
            part.forward = part._old_forward
    twin = pickle.loads(pickle.dumps(NeuralClamping(module)))  # noqa: S301
    found = open_network(twin.model)(torch.from_numpy(X))
    assert_allclose(found.detach(), expected_logits(X), atol=1e-6)


def test_training_learns_a_copy(patched):
    X, y = draw()
    state = state_of(patched)
    classifier = BilevelCalibratedClassifier(
        patched, cv=2, max_epochs=2, random_state=0
    ).fit(X, y)
    assert_unchanged(patched, state)
    assert not any(p.grad is not None for p in patched.parameters())
    first = classifier.modules_[0][0].weight
    assert not torch.equal(first, network()[0].weight)


@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without processes"
)
def test_a_network_of_several_processes_is_seen_without_them():
    X, y = draw()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = torch.nn.parallel.DistributedDataParallel(network())
        state = state_of(module)
        assert_allclose(TorchLogits(module).transform(X), expected_logits(X), atol=1e-6)
        nc = NeuralClamping(module, perturbation="full", penalty=0.05).fit(X, y)
        assert_allclose(nc.logits(X), expected_logits(X + nc.delta_), atol=1e-5)
        BilevelCalibratedClassifier(module, cv=2, max_epochs=2).fit(X, y)
        assert_unchanged(module, state)
    finally:
        torch.distributed.destroy_process_group()


def exported(module):
    n_rows = {0: torch.export.Dim("n_rows", min=2)}
    example = torch.zeros(5, 4)
    return torch.export.export(module, (example,), dynamic_shapes=(n_rows,)).module()


@pytest.mark.parametrize("graph_of", [torch.fx.symbolic_trace, exported])
def test_graphs_of_torch_are_networks_like_others(graph_of):
    X, y = draw()
    module = graph_of(network().eval())
    assert_allclose(TorchLogits(module).transform(X), expected_logits(X), atol=1e-6)
    nc = NeuralClamping(module, solver="lbfgs", penalty=0.1, tol=1e-2).fit(X, y)
    clamped = to_torch(nc)
    assert_allclose(clamped(torch.from_numpy(X)), nc.predict_proba(X), atol=1e-5)
    assert not any(part.training for part in clamped.train().network.modules())


def test_a_symbolic_graph_is_trained_as_a_copy():
    X, y = draw()
    module = torch.fx.symbolic_trace(network())
    state = state_of(module)
    options = {"max_epochs": 2, "random_state": 0}
    BilevelCalibratedClassifier(module, cv=2, **options).fit(X, y)
    assert_unchanged(module, state)


def test_methods_of_the_original_that_are_hooks_write_to_the_view():
    class Recording(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)
            self.layer.register_forward_hook(self.keep)
            self.last = None

        def keep(self, part, inputs, output):
            self.last = output

        def forward(self, x):
            return self.layer(x) + 0 * self.last

    module = Recording()
    TorchLogits(module).transform(draw()[0])
    assert module.last is None


def test_what_refers_to_no_module_is_shared():
    module = network()
    module.notes = {"list": [1, 2]}
    view = open_network(module)._module
    assert view.notes is module.notes
    assert view[0]._forward_hooks is module[0]._forward_hooks


class Holder:
    """Runs a module that no walk over its attributes finds."""

    def __init__(self, module):
        self.module = module

    def __call__(self, x):
        return self.module(x)


GLOBAL = network()


def held_inside():
    module = network()
    module.forward = Holder(copy.deepcopy(module).train())
    return module


def functional_dropout(x):
    return torch.nn.functional.dropout(x[:, :3], 0.5, True)


UNSEEN = {
    "closure": lambda: (lambda m: lambda x: m(x))(network()),
    "global": lambda: lambda x: GLOBAL(x),
    "partial": lambda: functools.partial(lambda m, x: m(x), network()),
    "method": lambda: network().forward,
    "object": lambda: Holder(network()),
    "inside a module": held_inside,
    "functional": lambda: functional_dropout,
    "compiled function": lambda: compiled((lambda m: lambda x: m(x))(network())),
    "compiled module": lambda: (lambda m: lambda x: m(x))(compiled(network())),
    "recurrent": lambda: (lambda m: lambda x: m(x[:, None])[0][:, 0])(
        torch.nn.LSTM(4, 3, num_layers=2, dropout=0.5)
    ),
}


@pytest.mark.parametrize("form", UNSEEN)
def test_a_function_around_a_module_in_train_mode_is_refused(form):
    X, y = draw()
    function = UNSEEN[form]()
    state = state_of(GLOBAL)
    with pytest.raises(ValueError, match=r"Call eval\(\) on"):
        NeuralClamping(function, penalty=1.0).fit(X, y)
    assert_unchanged(GLOBAL, state)


def test_a_module_put_back_to_train_mode_is_noticed_in_predictions():
    module, (X, y) = network().eval(), draw()
    nc = NeuralClamping(lambda x: module(x), solver="fixed_delta").fit(X, y)
    module.train()
    with pytest.raises(ValueError, match="runs batch_norm as in training"):
        nc.predict_proba(X)


@pytest.mark.parametrize(
    "part",
    [
        torch.nn.Dropout(0.0),
        torch.nn.BatchNorm1d(4, track_running_stats=False),
        torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    ],
    ids=lambda part: type(part).__name__,
)
def test_train_mode_that_changes_nothing_is_taken(part):
    X, _ = draw()
    module = torch.nn.Sequential(part, torch.nn.Linear(4, 3)).train()
    x = torch.from_numpy(X)
    assert torch.equal(open_network(lambda x: module(x))(x), module(x))


def test_inputs_are_not_overwritten_by_a_layer_that_works_in_place():
    module = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 3))
    X = torch.from_numpy(draw()[0])
    before = X.clone()
    TorchLogits(module).fit(X).transform(X)
    assert torch.equal(X, before)
