"""What an epoch of neural clamping costs: against the bare network's own passes.

The bare epoch is one forward pass and one backward pass to the inputs of the network
alone, batch by batch, without a loss. Against it stand one epoch of value and gradient
(`Objective.value_and_gradient`) and one epoch of the published stochastic descent, on
full-size and on low-frequency perturbations. All take turns in one process, so that
what else the machine does hits them alike; the figure is the ratio of the least times.
An ONNX network is compared with the bare pass of its own translation to torch; how that
compares with the torch module stands in the last column. Networks and images are those
of the folder named by SKCALIB_DATA (default ../shared/data).

    python benchmarks/clamping_speed.py [--device cuda] [--images 512] [--repeats 5]
"""

import argparse
import importlib.util
import time
from functools import partial

import numpy as np
import torch
from _common import DATA

from skcalib._networks._inputs import Inputs
from skcalib._networks._open import open_network
from skcalib.clamping._objective import Objective
from skcalib.clamping._perturbation import Full, LowFrequency
from skcalib.clamping._train import Recipe, train

NETWORKS = ["cifar10/resnet8d", "cifar10/resnet20"]


def load_module(name):
    spec = importlib.util.spec_from_file_location("networks", DATA / "networks.py")
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    return networks.load(name)


def load_images(n_images):
    with np.load(DATA / "cifar10/cifar10_test.npz") as arrays:
        rows = arrays["cal_idx"][:n_images]
        X = np.float32(arrays["x"][rows] / 255).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(X), arrays["y"][rows].astype(int)


def bare_epoch(module, X, batch_size):
    """One forward and one backward pass to the inputs, in batches."""
    for start in range(0, X.shape[0], batch_size):
        x = X[start : start + batch_size].clone().requires_grad_()
        logits = module(x)
        torch.autograd.grad(logits, x, torch.ones_like(logits))


def sgd_epoch(objective, basis, batch_size):
    recipe = Recipe(max_iter=1, penalty=0.01, batch_size=batch_size)
    theta = np.zeros(basis.dim)
    train(objective, basis, recipe, theta=theta, random_state=0)


def least_seconds(functions, repeats, device):
    """Time the functions in turns; return the least time of each.

    On the CPU that is processor time, which others on the machine do not add to.
    """
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = np.full((repeats + 1, len(functions)), np.inf)
    for i in range(repeats + 1):
        for k, function in enumerate(functions):
            start = clock()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            times[i, k] = clock() - start
    return times[1:].min(axis=0)


def compare(name, options):
    X, y = load_images(options.images)
    size, device = options.batch_size, options.device
    on_device = torch.from_numpy(X).to(device)
    module = load_module(name).to(device).requires_grad_(False)
    functions, labels = [partial(bare_epoch, module, on_device, size)], []
    for kind, model in {"torch": module, "ONNX": DATA / f"{name}.onnx"}.items():
        network = open_network(model, device=device)
        inputs = Inputs(X, network, size)
        network.probe(inputs)  # which also folds BatchNorm, as in a fit
        objective = Objective(network, inputs, y)
        shape = objective.inputs.shape
        functions += [
            partial(bare_epoch, network, on_device, size),
            partial(objective.value_and_gradient, np.zeros(shape), 0.0),
            partial(sgd_epoch, objective, Full(shape), 2 * size),
            partial(sgd_epoch, objective, LowFrequency(shape, 8), 2 * size),
        ]
        labels.append(kind)
    seconds = least_seconds(functions, options.repeats, device)
    for kind, part in zip(labels, np.split(seconds[1:], len(labels)), strict=True):
        base = seconds[0] if kind == "torch" else part[0]
        print(
            f"{name:18s} {kind:6s} {1e3 * base:10.1f} ms"
            + "".join(f"{value / base:14.3f}" for value in part[1:])
            + f"{part[0] / seconds[0]:14.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    options = parser.parse_args()
    titles = ["value+grad", "SGD full", "SGD 8x8", "network/torch"]
    print(
        f"{'network':18s} {'as':6s} {'bare epoch':>13s}"
        + "".join(f"{t:>14s}" for t in titles)
    )
    for name in options.networks:
        compare(name, options)


if __name__ == "__main__":
    main()
