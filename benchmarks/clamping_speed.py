"""What an epoch of neural clamping costs: against the bare network's own passes.

The bare epoch is one forward pass and one backward pass to the inputs of the network
alone, batch by batch, without a loss. Against it stand one epoch of value and gradient
(`Objective.evaluate`) and one epoch of the published stochastic descent, on
full-size and on low-frequency perturbations. All take turns in one process, so that
what else the machine does hits them alike; the figures are ratios of the least times,
on the CPU of processor seconds. An ONNX network is compared with the bare pass of its
own translation to torch; how that compares with the torch module stands in the last
column.

Needs the `torch` and `onnx` extras, Pillow, data.
"""

import time
from functools import partial

import numpy as np
import torch

from benchmarks._data import DATA
from benchmarks._measure import in_turns
from benchmarks._networks import (
    NETWORKS,
    as_input,
    load_images,
    load_logits,
    load_module,
)
from skcalib._networks._inputs import Inputs
from skcalib._networks._network import open_network
from skcalib.clamping._objective import Objective
from skcalib.clamping._perturbation import Full, LowFrequency
from skcalib.clamping._sgd import Recipe, train

CHOICES = {"networks": NETWORKS, "device": ("cpu", "cuda")}
TINY = {"networks": ("cifar10-resnet8d",), "images": 32, "repeats": 1}


def run(
    *,
    networks=("cifar10-resnet8d", "cifar10-resnet20"),
    images=512,
    batch_size=256,
    repeats=5,
    device="cpu",
):
    for name in networks:
        rows = np.random.default_rng(0).permutation(10_000)[:images]
        X = as_input(load_images(NETWORKS[name][1].split("/")[0])[rows])
        y = load_logits(name)[1][rows]
        yield from compare(name, X, y, batch_size, repeats, device)


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


def synchronous(function):
    """The function, and then what it has left to a GPU."""

    def call():
        function()
        torch.cuda.synchronize()

    return call


def compare(name, X, y, size, repeats, device):
    on_device = torch.from_numpy(X).to(device)
    module = load_module(name, device).requires_grad_(False)
    functions, kinds = [partial(bare_epoch, module, on_device, size)], []
    onnx_file = DATA / f"{NETWORKS[name][1]}.onnx"
    for kind, model in {"torch": module, "ONNX": onnx_file}.items():
        network = open_network(model, device=device)
        inputs = Inputs(X, network, size)
        network.probe(inputs)  # which also folds BatchNorm, as in a fit
        objective = Objective(network, inputs, y)
        shape = objective.inputs.shape
        functions += [
            partial(bare_epoch, network, on_device, size),
            partial(objective.evaluate, Full(shape).at(np.zeros(shape)), 0.0),
            partial(sgd_epoch, objective, Full(shape), 2 * size),
            partial(sgd_epoch, objective, LowFrequency(shape, 8), 2 * size),
        ]
        kinds.append(kind)
    clock = time.process_time
    if device == "cuda":
        functions, clock = [*map(synchronous, functions)], time.perf_counter
    in_turns(functions, 1, clock)  # which warms up
    bare, *seconds = (times.min() for times in in_turns(functions, repeats, clock)[0])
    for kind, (own, value, full, low) in zip(
        kinds, np.split(np.array(seconds), len(kinds)), strict=True
    ):
        base = bare if kind == "torch" else own
        yield {
            "network": name,
            "as": kind,
            "bare epoch ms": 1e3 * base,
            "value+grad": value / base,
            "SGD full": full / base,
            "SGD 8x8": low / base,
            "network/torch": own / bare,
        }
