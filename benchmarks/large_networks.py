"""An epoch of neural clamping before large networks, on images that no memory holds.

Networks with the layout of ResNet-50 and ViT-B/16, random weights and 1,000 classes
read a DataLoader of more images than fit into memory. `images` of them are one epoch of
value and gradient (`Objective.evaluate`), in single precision, with autocast
to bfloat16, and with this and the channels last. Against it stands the bare network: a
forward pass and a backward pass to the inputs, in the same precision and layout, on
images in memory and without a loss. They take turns; the ratio is that of the least
processor seconds, on a GPU of the least seconds. Memory is what the process, or the
GPU, holds at the most during the epoch beyond what it held before, so without weights.

Needs the `torch` extra.
"""

import contextlib
import time
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks._large_networks import NAMES, Images, make_network
from benchmarks._measure import in_turns, reset_peak_memory, resident_memory
from benchmarks._tables import Table
from skcalib._networks._inputs import Inputs
from skcalib._networks._network import open_network
from skcalib.clamping._objective import Objective
from skcalib.clamping._perturbation import Full

SETTINGS = {
    "float32": {},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
}
CHOICES = {"networks": NAMES, "settings": SETTINGS, "device": ("cpu", "cuda")}
TINY = {
    "size": 32,
    "rows": 100,
    "images": 8,
    "batch_size": 4,
    "repeats": 1,
    "classes": 10,
    "small": True,
}


def run(
    *,
    networks=NAMES,
    settings=tuple(SETTINGS),
    rows=250_000,
    images=8,
    batch_size=4,
    repeats=3,
    classes=1000,
    size=224,
    small=False,
    device="cpu",
):
    data = Images(rows, classes, size)
    loader = DataLoader(data, batch_size=batch_size)
    X = torch.stack([data[row][0] for row in range(images)])
    y = np.arange(rows) % classes
    for name in networks:
        module = make_network(name, classes, size, small).to(device)
        module.requires_grad_(False)
        for setting in settings:
            yield {
                "network": name,
                "weights, M": sum(p.numel() for p in module.parameters()) / 1e6,
                "setting": setting,
                **compare(module, SETTINGS[setting], X, loader, y, repeats, device),
            }


def compare(module, setting, X, loader, y, repeats, device):
    network = open_network(module, device=device, **setting)
    inputs = Inputs(loader, network, loader.batch_size)
    network.probe(inputs, gradient=True)
    objective = Objective(network, inputs, y)
    rows = np.arange(len(X))
    nothing = Full(inputs.shape).at(np.zeros(inputs.shape))
    functions = [
        partial(bare_epoch, module, X, loader.batch_size, setting, device),
        partial(objective.evaluate, nothing, 0.0, rows),
    ]
    memory = [peak(function, device) for function in functions]  # which warms up
    on_cpu = device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    (bare, ours), _ = in_turns(functions, repeats, clock)
    image_bytes = X[0].nbytes
    return {
        "bare ms an image": 1e3 * float(bare.min()) / len(X),
        "epoch / bare": float(ours.min() / bare.min()),
        "bare MB": memory[0] / 1e6,
        "epoch MB": memory[1] / 1e6,
        "all images GB": len(y) * image_bytes / 1e9,
        "kept in memory": inputs.resident,
    }


def bare_epoch(module, X, batch_size, setting, device):
    """One forward and one backward pass to the inputs, in batches."""
    layout = torch.preserve_format
    if setting.get("channels_last"):
        layout = torch.channels_last
        module = module.to(memory_format=layout)
    rounded = contextlib.nullcontext()
    if setting.get("precision"):
        rounded = torch.autocast(device, dtype=torch.bfloat16)
    for start in range(0, len(X), batch_size):
        x = X[start : start + batch_size].to(device, memory_format=layout, copy=True)
        x.requires_grad_()
        with rounded:
            logits = module(x)
        torch.autograd.grad(logits, x, torch.ones_like(logits))
    if device == "cuda":
        torch.cuda.synchronize()


def peak(function, device):
    """Bytes that a call takes at the most, beyond those held before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    reset_peak_memory()
    before, _ = resident_memory()
    function()
    return resident_memory()[1] - before


def cost(rows):
    lines = [
        [
            f"{row['network']}, {row['weights, M']:.0f} M weights",
            row["setting"],
            f"{row['bare ms an image']:.0f}",
            f"{row['epoch / bare']:.2f}",
            f"{row['bare MB']:.0f}",
            f"{row['epoch MB']:.0f}",
        ]
        for row in rows
    ]
    columns = [
        *("network", "setting", "bare, ms an image", "epoch / bare"),
        *("bare, MB", "epoch, MB"),
    ]
    return Table(columns, lines)


TABLES = {"cost": cost}
