"""Networks reach other processes once, and searches share them."""

import copy
import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping, NeuralClampingCV  # noqa: E402
from skcalib._networks._sharing import portable  # noqa: E402
from skcalib.frozen import TorchLogits  # noqa: E402
from skcalib.metrics import get_scorer  # noqa: E402

pytestmark = pytest.mark.torch

GAMMAS = {"gamma": [0, 0.5, 1]}
ECE = get_scorer("neg_expected_calibration_error")


def network(width=8):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, width),
        torch.nn.BatchNorm1d(width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, 3),
    ).eval()


def draw(module, n=90):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    with torch.no_grad():
        logits = module(torch.from_numpy(X)).numpy()
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def test_a_module_comes_back_whole():
    module = network().train()
    module[0].weight.requires_grad_(False)
    module[3].note = "kept"
    twin = pickle.loads(pickle.dumps(portable(module)))  # noqa: S301
    assert type(twin[1]) is torch.nn.BatchNorm1d
    assert twin.training
    assert twin[3].note == "kept"
    assert not twin[0].weight.requires_grad
    assert isinstance(twin[0].weight, torch.nn.Parameter)
    for name, tensor in module.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor)
        assert twin.state_dict()[name].data_ptr() != tensor.data_ptr()


def test_a_copy_shares_the_network():
    module = network()
    X, y = draw(module)
    nc = NeuralClamping(module, cv=2).fit(X, y)
    twin = copy.copy(nc)
    assert twin.model is module
    assert_allclose(twin.predict_proba(X), nc.predict_proba(X))


def test_tied_weights_stay_tied():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module.append(module[0])
    twin = pickle.loads(pickle.dumps(portable(module)))  # noqa: S301
    assert twin[1].weight is twin[0].weight
    assert twin[2] is twin[0]


def test_weights_that_have_changed_travel_changed():
    module = network()
    nc = NeuralClamping(module)
    pickle.dumps(nc)
    with torch.no_grad():
        module[0].weight += 1
    module[3].weight = torch.nn.Parameter(torch.zeros(3, 8))
    twin = pickle.loads(pickle.dumps(nc))  # noqa: S301
    assert torch.equal(twin.model[0].weight, module[0].weight)
    assert torch.equal(twin.model[3].weight, module[3].weight)


def test_types_that_numpy_lacks_travel_too():
    module = network().bfloat16()
    twin = pickle.loads(pickle.dumps(portable(module)))  # noqa: S301
    assert twin[0].weight.dtype == torch.bfloat16
    assert torch.equal(twin[0].weight, module[0].weight)


def test_clones_show_the_same_arrays(tmp_path):
    # joblib keeps one mapped file for one array, however many tasks hold it.
    module = network(width=200_000)
    states = [clone(NeuralClamping(module)).__getstate__()["model"] for _ in range(2)]
    first, second = (state[0]._parameters["weight"].__reduce__()[1] for state in states)
    assert first[0] is second[0]
    assert np.shares_memory(first[0], module[0].weight.detach().numpy())


@pytest.mark.slow
def test_worker_processes_map_the_weights():
    # Inside, since processes cannot import a test module.
    def mapped_file(nc):
        """Return the files that the weights of a received network are mapped from."""
        with open("/proc/self/maps") as lines:
            names = {line.split()[-1] for line in lines if "joblib_memmapping" in line}
        return sorted(name.rsplit("/", 1)[-1] for name in names)

    module = network(width=200_000)
    tasks = [NeuralClamping(module, gamma=gamma) for gamma in (0, 1, 2)]
    found = joblib.Parallel(n_jobs=2, mmap_mode="r")(
        joblib.delayed(mapped_file)(nc) for nc in tasks
    )
    assert len(found[0]) == 2  # the two large matrices
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threading", "loky"])
@pytest.mark.parametrize("wrap", [lambda m: m, TorchLogits], ids=["module", "wrapped"])
def test_a_grid_search_in_parallel(backend, wrap):
    module = network()
    X, y = draw(module)
    nc = NeuralClamping(wrap(module), cv=2)
    expected = GridSearchCV(nc, GAMMAS, scoring=ECE, cv=2).fit(X, y)
    with joblib.parallel_config(backend):
        found = GridSearchCV(nc, GAMMAS, scoring=ECE, cv=2, n_jobs=2).fit(X, y)
    assert_allclose(
        found.cv_results_["mean_test_score"],
        expected.cv_results_["mean_test_score"],
        atol=1e-6,
    )
    assert found.best_estimator_.model is nc.model


@pytest.mark.slow
@pytest.mark.onnx
def test_a_grid_search_over_an_onnx_file_in_processes(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    module = network()
    X, y = draw(module)
    path = write_onnx(onnx, module, tmp_path / "net.onnx")
    search = GridSearchCV(
        NeuralClamping(path, cv=2), GAMMAS, scoring=ECE, cv=2, n_jobs=2
    ).fit(X, y)
    expected = GridSearchCV(
        NeuralClamping(module, cv=2), GAMMAS, scoring=ECE, cv=2
    ).fit(X, y)
    assert_allclose(
        search.cv_results_["mean_test_score"],
        expected.cv_results_["mean_test_score"],
        atol=1e-4,
    )
    assert search.best_estimator_.model == path


def write_onnx(onnx, module, path):
    """Write the network as Gemm, BatchNormalization, Relu and Gemm."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    state = {k: v.numpy() for k, v in module.state_dict().items()}
    norm = [f"1.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
    nodes = [
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["a"], transB=1),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "3.weight", "3.bias"], ["z"], transB=1),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v, k) for k, v in state.items() if k in used],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


def test_a_fitted_search_travels():
    module = network()
    X, y = draw(module)
    search = NeuralClampingCV(module, cv=2).fit(X, y)
    twin = pickle.loads(pickle.dumps(search))  # noqa: S301
    assert_allclose(twin.predict_proba(X), search.predict_proba(X))
