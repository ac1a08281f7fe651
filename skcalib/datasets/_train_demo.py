"""Train the network of `load_demo` and write it as an ONNX file.

Run as ``python -m skcalib.datasets._train_demo FILE``. Needs the extra "onnx".
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from skcalib._optional import import_optional
from skcalib.datasets._demo import split_digits

_LABEL_NOISE = 0.1


def train_demo():
    """Return a perceptron that has learned 400 partly mislabelled digits by heart."""
    (images, digits), _, _ = split_digits()
    rng = np.random.RandomState(1)
    wrong = rng.uniform(size=digits.shape[0]) < _LABEL_NOISE
    labels = np.where(wrong, rng.randint(10, size=digits.shape[0]), digits)
    network = MLPClassifier(
        (64, 64),
        alpha=0,
        max_iter=1500,
        tol=0,
        n_iter_no_change=1500,
        random_state=0,
    )
    with warnings.catch_warnings():
        # Running through all epochs is the plan, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(images.reshape(images.shape[0], -1), labels)


def to_onnx_model(network):
    """Write a fitted `MLPClassifier` for images down as an ONNX model."""
    onnx = import_optional("onnx", "Writing the demonstration network")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [helper.make_node("Flatten", ["image"], ["hidden_0"], axis=1)]
    weights = []
    last = len(network.coefs_) - 1
    layers = zip(network.coefs_, network.intercepts_, strict=True)
    for k, (coef, intercept) in enumerate(layers):
        for name, value in (("coef", coef), ("intercept", intercept)):
            array = value.astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"{name}_{k}"))
        result = "logits" if k == last else f"sum_{k}"
        inputs = [f"hidden_{k}", f"coef_{k}", f"intercept_{k}"]
        nodes.append(helper.make_node("Gemm", inputs, [result]))
        if k < last:
            nodes.append(helper.make_node("Relu", [result], [f"hidden_{k + 1}"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", real, ["batch", 8, 8])],
        [helper.make_tensor_value_info("probabilities", real, ["batch", 10])],
        weights,
    )
    model = helper.make_model(
        graph,
        producer_name="skcalib",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main(arguments):
    """Train the network and write it to the one path in `arguments`."""
    if len(arguments) != 1:
        sys.exit("usage: python -m skcalib.datasets._train_demo FILE")
    path = Path(arguments[0])
    path.write_bytes(to_onnx_model(train_demo()).SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1:])
