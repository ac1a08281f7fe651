"""Networks of several inputs: dicts, batches that are dicts, tokens, sites."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from added_delta import evaluate  # noqa: E402
from token_model import (  # noqa: E402
    LENGTH,
    WIDTH,
    export,
    labels_of,
    make_module,
    make_tokens,
)
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from skcalib import NeuralClamping  # noqa: E402
from skcalib._networks import _inputs  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._named import NamedRows  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402
from skcalib.clamping._objective import Objective  # noqa: E402
from skcalib.exceptions import NotDifferentiableError  # noqa: E402
from skcalib.export import to_torch  # noqa: E402
from skcalib.frozen import OnnxLogits, TorchLogits  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def module():
    return make_module()


@pytest.fixture
def tokens():
    return make_tokens(20)[0]


def expected(module, X):
    tensors = {name: torch.as_tensor(part) for name, part in X.items()}
    with torch.no_grad():
        return copy.deepcopy(module).eval()(**tensors).logits.numpy()


def items(X, y=None):
    """One dict a row, with labels as a collator of HuggingFace returns them."""
    rows = [{k: torch.as_tensor(v[i]) for k, v in X.items()} for i in range(20)]
    if y is not None:
        rows = [row | {"labels": int(k)} for row, k in zip(rows, y, strict=True)]
    return rows


FORMS = {
    "dict of arrays": lambda X: X,
    "dict of lists": lambda X: {k: v.tolist() for k, v in X.items()},
    "dict of tensors": lambda X: {k: torch.from_numpy(v) for k, v in X.items()},
    "dict with labels": lambda X: {**X, "labels": np.arange(20)},
    "loader of dicts": lambda X: DataLoader(items(X), batch_size=6),
    "loader of labelled dicts": lambda X: DataLoader(items(X, range(20)), batch_size=6),
    "loader of pairs": lambda X: DataLoader(
        [(row, 1) for row in items(X)], batch_size=6
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_torch_logits_takes_named_inputs_of_every_form(form, module, tokens):
    found = TorchLogits(module, batch_size=7).fit_transform(FORMS[form](tokens))
    assert_allclose(found, expected(module, tokens), atol=1e-5)
    assert module.training


@pytest.mark.parametrize("form", FORMS)
def test_inputs_reads_named_inputs_of_every_form(form, module, tokens):
    network = open_network(module, site="embedding")
    inputs = Inputs(FORMS[form](tokens), network, 6)
    assert (inputs.n_samples, inputs.shape) == (20, (LENGTH, WIDTH))
    order = np.array([3, 19, 3, 0, 7, 8, 1, 2])
    for rows in (None, order):
        batches = [x for _, x in inputs.batches(rows)]
        for name, part in tokens.items():
            found = np.concatenate([x[name].numpy() for x in batches])
            assert_array_equal(found, part if rows is None else part[order])
            assert found.dtype.kind == "i"
    labelled = "labelled" in form or form == "dict with labels"
    if labelled:
        assert_array_equal(inputs.labels(), np.arange(20))


def test_a_dataset_of_dicts_that_does_not_fit_is_streamed(module, tokens, monkeypatch):
    monkeypatch.setattr(_inputs, "free_memory", lambda: 100)
    loader = DataLoader(items(tokens, range(20)), batch_size=6)
    inputs = Inputs(loader, open_network(module, site="embedding"), 6)
    assert not inputs.resident
    assert inputs.hashes() is None
    (x,) = (x for _, x in inputs.batches(np.array([19, 4])))
    assert_array_equal(x["input_ids"], tokens["input_ids"][[19, 4]])
    assert_array_equal(inputs.labels(), np.arange(20))


def test_equal_rows_of_all_inputs_have_equal_hashes(module):
    ids = np.zeros((4, LENGTH), dtype=int)
    mask = np.ones_like(ids)
    mask[3, 5:] = 0
    X = {"input_ids": ids, "attention_mask": mask}
    hashes = Inputs(X, open_network(module, site="embedding")).hashes()
    assert len(set(hashes[:3].tolist())) == 1
    assert hashes[3] != hashes[0]


def test_a_site_and_an_embedded_input_give_the_same_loss_and_gradient(module, tokens):
    with torch.no_grad():
        embedded = module.embedding(torch.from_numpy(tokens["input_ids"])).numpy()
    X = {"inputs_embeds": embedded, "attention_mask": tokens["attention_mask"]}
    y = labels_of(module, tokens)
    delta = 0.3 * np.random.default_rng(2).normal(size=(LENGTH, WIDTH))
    results = []
    for rows, site in ((tokens, "embedding"), (X, None), (X, "inputs_embeds")):
        network = open_network(module, site=site)
        inputs = Inputs(rows, network, 6)
        assert network.probe(inputs) == 3
        for bounds in (None, (-1.0, 1.0)):
            objective = Objective(network, inputs, y, feasible_range=bounds)
            results.append(evaluate(objective, delta, 0.2))
    for bounded in (0, 1):
        for found in results[2 + bounded :: 2]:
            for ours, theirs in zip(found, results[bounded], strict=True):
                assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert abs(results[0][1] - results[1][1]) > 1e-4


def test_a_module_with_a_site_is_left_as_it_was(module, tokens):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    clamping = NeuralClamping(module, site="embedding", solver="lbfgs", max_iter=2)
    clamping.fit(tokens, labels_of(module, tokens))
    module.train()
    assert not module.embedding._forward_hooks
    assert [*module.state_dict()] == [*before]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


class InPlace(torch.nn.Module):
    """Works in place on both of its inputs."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def forward(self, x, mask=None):
        hidden = self.cell(x.sub_(1.0))
        return self.head(hidden if mask is None else hidden * mask.mul_(0.5))


@pytest.mark.parametrize("bounds", [None, (-9.0, 9.0)])
@pytest.mark.parametrize(
    ("site", "named"), [("cell", False), ("cell", True), ("x", True)]
)
def test_a_module_that_works_in_place_leaves_all_inputs_as_they_were(
    site, named, bounds
):
    torch.manual_seed(0)
    module = InPlace()
    X = {"x": np.random.default_rng(0).normal(size=(30, 4)), "mask": np.ones((30, 1))}
    X = {name: part.astype(np.float32) for name, part in X.items()}
    before, tensors = copy.deepcopy(X), {k: torch.tensor(v) for k, v in X.items()}
    delta = np.ones(4 if site == "x" else 5)
    settings = {"start": delta, "gamma": 0, "feasible_range": bounds}
    clamping = NeuralClamping(module, site=site, solver="fixed_delta", **settings)
    given = X if named else X["x"]
    logits = clamping.fit(given, np.arange(30) % 3).logits(given)
    with torch.no_grad():
        hidden = module.cell(tensors["x"] + (site == "x") - 1) + (site == "cell")
        direct = module.head(hidden / 2 if named else hidden)
    assert_allclose(logits, direct, atol=1e-5)
    served = to_torch(clamping)(tensors if named else tensors["x"])
    assert_allclose(served, clamping.predict_proba(given), atol=1e-6)
    for name, part in X.items():
        assert_array_equal(part, before[name])


def test_clamping_at_a_site_takes_labels_from_the_batches(module, tokens):
    y = labels_of(module, tokens)
    settings = {"perturbation": "full", "penalty": 0.1, "solver": "lbfgs"}
    fits = [
        NeuralClamping(module, site="embedding", **settings).fit(*data)
        for data in ((tokens, torch.from_numpy(y)), (DataLoader(items(tokens, y)),))
    ]
    assert fits[0].delta_.any()
    assert_allclose(fits[0].delta_, fits[1].delta_, atol=1e-6)
    proba = fits[0].predict_proba(tokens)
    assert_allclose(proba, fits[1].predict_proba(DataLoader(items(tokens))), atol=1e-6)


def test_a_site_deep_in_the_network_may_return_a_tuple():
    class Deep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = torch.nn.GRU(4, 5, batch_first=True)
            self.head = torch.nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])

    torch.manual_seed(0)
    module, x = Deep(), torch.randn(6, 2, 4)
    network = open_network(module, site="cells")
    assert network.perturbed(x).shape == (6, 2, 5)
    shift = torch.randn(2, 5)
    with torch.no_grad():
        direct = module.head(module.cells(x)[0][:, -1] + shift[-1])
    assert_allclose(network(network.shifted(x, shift)), direct, atol=1e-6)


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unused = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("layer", "runs 2 times in a pass"),
        ("unused", "is not run"),
        ("nothing", r"neither an input nor a part.*parts are layer, unused"),
    ],
)
def test_parts_that_cannot_be_a_site_are_refused(site, message):
    network = open_network(Twice(), site=site)
    with pytest.raises(ValueError, match=message):
        network.probe(Inputs(np.ones((3, 4)), network))


def test_a_site_of_integers_or_without_rows_first_is_refused():
    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.turned = torch.nn.Identity(), torch.nn.Identity()
            self.embedding = torch.nn.Embedding(9, 3)

        def forward(self, x):
            embedded = self.embedding(self.tokens(x))
            return self.turned(embedded.transpose(0, 1)).sum(0)

    X = np.zeros((4, 2), dtype=int)
    with pytest.raises(ValueError, match=r"\(1, 2\) and type torch.int64 for 1 rows"):
        Inputs(X, open_network(Parts(), site="tokens"))
    with pytest.raises(ValueError, match="rows along the first axis"):
        Inputs(X, open_network(Parts(), site="turned"))


def test_of_tokens_alone_the_site_is_asked_for(module, tokens):
    with pytest.raises(ValueError, match=r"those of real numbers are \[\].*site="):
        Inputs(tokens, open_network(module))
    with pytest.raises(ValueError, match="neither an input nor a part"):
        Inputs(tokens, open_network(module, site="pooler"))


def test_named_inputs_that_do_not_fit_together(module, tokens):
    lacking = {**tokens, "attention_mask": tokens["attention_mask"][:5]}
    with pytest.raises(ValueError, match=r"attention_mask of shape \(5, 8\)"):
        TorchLogits(module).fit(lacking)
    unknown = {**tokens, "token_type_ids": tokens["attention_mask"]}
    with pytest.raises(
        ValueError, match=r"token_type_ids of shape.*unexpected keyword"
    ):
        TorchLogits(module).fit(unknown)


def test_a_mapping_without_names_is_refused(module):
    with pytest.raises(TypeError, match="a dict whose keys are no names"):
        TorchLogits(module).fit({0: [1.0], 1: [2.0]})


def test_rows_padded_batch_by_batch_are_told_from_rows_of_one_length(module):
    X = [
        {"input_ids": torch.ones(n, dtype=torch.int64), "attention_mask": torch.ones(n)}
        for n in (LENGTH, LENGTH - 1)
    ]
    with pytest.raises(ValueError, match="padding='max_length'"):
        Inputs(DataLoader(X, batch_size=1), open_network(module, site="embedding"), 1)


def test_a_mask_beside_tokens_is_never_dropped(module, tokens):
    parts = (torch.from_numpy(part) for part in tokens.values())
    data = TensorDataset(*parts, torch.zeros(20))
    with pytest.raises(ValueError, match=r"3 tensors.*Yield a dict"):
        TorchLogits(module).fit(DataLoader(data))


def test_named_rows_take_the_same_rows_of_all():
    rows = NamedRows({"a": np.arange(6).reshape(3, 2), "b": [7, 8, 9]})
    assert rows.shape == (3,)
    assert [*rows] == ["a", "b"]
    assert len(rows) == 2
    assert_array_equal(rows[1:]["b"], [8, 9])
    assert_array_equal(rows[np.array([2, 0])]["a"], [[4, 5], [0, 1]])
    with pytest.raises(ValueError, match="not equally many"):
        NamedRows({"a": [1], "b": [1, 2]})


# --- ONNX ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return export(make_module())


@pytest.mark.onnx
def test_onnx_and_torch_agree_at_the_embedding(module, exported, tokens):
    assert_allclose(
        OnnxLogits(exported).fit_transform(tokens), expected(module, tokens), atol=1e-5
    )
    with pytest.raises(NotDifferentiableError, match=r"'input_ids'.*site=") as error:
        open_network(exported)
    site = str(error.value).rsplit("site='", 1)[1].split("'")[0]
    y = labels_of(module, tokens)
    delta = 0.3 * np.random.default_rng(2).normal(size=(LENGTH, WIDTH))
    results = []
    for model, name in ((module, "embedding"), (exported, site)):
        network = open_network(model, site=name)
        inputs = Inputs({**tokens, "labels": y}, network, 6)
        assert network.probe(inputs) == 3
        results.append(evaluate(Objective(network, inputs, y), delta, 0.2))
    for ours, theirs in zip(*results, strict=True):
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# --- where it runs ------------------------------------------------------------------


def test_a_device_of_torch_is_as_good_as_its_name():
    X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    y = X.argmax(axis=1)
    cpu, module = torch.device("cpu"), torch.nn.Linear(3, 3)
    assert TorchLogits(module, device=cpu).fit_transform(X).shape == (30, 3)
    clamping = NeuralClamping(module, device=cpu, solver="fixed_delta").fit(X, y)
    assert clamping.predict_proba(X).shape == (30, 3)
    with pytest.raises(ValueError, match="not a device that torch knows"):
        TorchLogits(module, device="gpu").fit(X)
    with pytest.raises(ValueError, match="not a device that torch knows"):
        NeuralClamping(module, device=None).fit(X, y)


def test_a_callable_runs_where_the_module_behind_it_lies():
    module = torch.nn.Linear(3, 3, device="meta").eval()
    assert open_network(lambda x: module(x)).device.type == "meta"
    assert open_network(lambda x: module(x), device="cpu").device.type == "cpu"
    assert open_network(torch.nn.functional.relu).device.type == "cpu"


def test_a_series_is_read_by_position():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(np.arange(6), index=[5, 3, 1, 0, 2, 4])
    rows = _inputs.ArrayRows(NamedRows({"x": series}))
    assert rows.take(np.array([0, 1, 2]))["x"].tolist() == [0, 1, 2]


def test_a_served_site_is_safe_in_threads():
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3)
    )
    X = np.random.default_rng(0).random((100, 6), dtype="f")
    clamping = NeuralClamping(
        module, gamma=0, solver="fixed_delta", site="0", start=np.full(64, 0.3)
    ).fit(X, np.arange(100) % 3)
    served, rows = to_torch(clamping), torch.from_numpy(X)
    alone = served(rows)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(served, [rows] * 200))
    finally:
        sys.setswitchinterval(before)
    for proba in (*together, copy.deepcopy(served)(rows)):
        assert torch.equal(proba, alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_site_of_half_precision_is_perturbed(dtype):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 3)

        def forward(self, tokens):
            return self.out(torch.tanh(self.emb(tokens)).mean(1))

    torch.manual_seed(0)
    tokens, y = torch.randint(0, 20, (80, 6)), torch.arange(80) % 3
    module, delta = Tokens().to(dtype), np.full((6, 8), 0.5)
    clamping = NeuralClamping(
        module, gamma=0, site="emb", solver="fixed_delta", start=delta
    )
    logits = clamping.fit(tokens, y).logits(tokens)
    wide = copy.deepcopy(module).float()
    with torch.no_grad():
        expected = wide.out(torch.tanh(wide.emb(tokens) + 0.5).mean(1))
    assert_allclose(logits, expected, atol=1e-2)
