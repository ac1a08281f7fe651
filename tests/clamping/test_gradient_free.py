"""Forward passes alone: trees, and networks whose gradient is hidden."""

import numpy as np
import pytest
from lacking_offset import draw
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping  # noqa: E402
from skcalib.exceptions import NotDifferentiableError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Without gradients:UserWarning"),
]


def detached(x):
    return 1 * x.detach()


def test_a_lacking_offset_is_found():
    X, y = draw(1000)
    nc = NeuralClamping(detached, solver="gradient_free").fit(X, y)
    by_gradient = NeuralClamping(lambda x: 1 * x).fit(X, y)
    assert nc.perturbation_ == "full"
    assert_allclose(nc.delta_, by_gradient.delta_, atol=0.02)
    assert nc.loss_ == pytest.approx(by_gradient.loss_, abs=1e-4)
    # Four offsets, and four gains with offsets of their own.
    assert nc.n_iter_ == 2 * (4 + 8) + 3


def test_without_anything_to_find_nothing_is_moved():
    X, y = draw(1000, offset=0)
    nc = NeuralClamping(detached, solver="gradient_free").fit(X, y)
    assert nc.perturbation_ == "none"


@pytest.mark.parametrize(("passes", "size"), [(200, 4), (60, 3), (7, 1), (1, 0)])
def test_the_passes_allow_so_many_cosines(passes, size):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2, 6, 6))

    def network(x):
        brightness = x.detach()[:, 0].mean(dim=(1, 2))
        return 20 * torch.stack([brightness, -brightness], dim=1)

    y = (X[:, 0].mean(axis=(1, 2)) + 0.5 < 0.1 * rng.logistic(size=300)).astype(int)
    nc = NeuralClamping(network, solver="gradient_free", max_iter=passes).fit(X, y)
    tried = set() if nc.selection_ is None else set(nc.selection_["perturbation"])
    assert [name for name in tried if isinstance(name, int)] == ([size] if size else [])
    assert (nc.perturbation_ == "none") == (size == 0)


def forest(onnx, thresholds=10):
    """Write a forest whose first class gains votes as the first feature grows."""
    nodes = {k: [] for k in NODE_KEYS}
    votes = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for tree, threshold in enumerate(np.linspace(-2, 2, thresholds)):
        rows = [(0, "BRANCH_LEQ", threshold, 1, 2), (1, "LEAF", 0, 0, 0)]
        for node, mode, value, yes, no in [*rows, (2, "LEAF", 0, 0, 0)]:
            row = (tree, node, 0, mode, float(value), yes, no)
            for key, entry in zip(NODE_KEYS, row, strict=True):
                nodes[key].append(entry)
        for node, share in ((1, 0.1), (2, 0.9)):
            for k, weight in enumerate((share, 1 - share)):
                entries = (tree, node, k, weight / thresholds)
                for key, entry in zip(votes, entries, strict=True):
                    votes[key].append(entry)
    helper = onnx.helper
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="NONE",
        **{f"nodes_{key}": value for key, value in nodes.items()},
        **{f"class_{key}": value for key, value in votes.items()},
    )
    graph = helper.make_graph(
        [trees],
        "forest",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ["n", 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


NODE_KEYS = (
    "treeids",
    "nodeids",
    "featureids",
    "modes",
    "values",
    "truenodeids",
    "falsenodeids",
)


@pytest.mark.onnx
def test_a_forest_is_refused_by_gradients_and_fitted_without():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = forest(onnx)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    # The forest splits around 0, the classes around 1.
    y = (X[:, 0] - 1 < 0.3 * rng.logistic(size=400)).astype(int)
    with pytest.raises(NotDifferentiableError, match="TreeEnsemble") as error:
        NeuralClamping(model).fit(X, y)
    assert str(error.value).count("NeuralClamping(solver='gradient_free')") == 1
    nc = NeuralClamping(model, solver="gradient_free").fit(X, y)
    assert nc.perturbation_ == "full"
    assert -1.5 < nc.delta_[0] < -0.5
    plain = NeuralClamping(model, solver="fixed_delta").fit(X, y)
    assert nc.score(X, y) > plain.score(X, y) + 0.05
