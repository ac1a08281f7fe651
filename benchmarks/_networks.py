"""Real networks, the images they read, and halves to calibrate on and to judge by."""

import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks._data import DATA

NETWORKS = {
    "cifar10-resnet8d": ("CIFAR-10, ResNet-8d", "cifar10/resnet8d"),
    "cifar10-resnet20": ("CIFAR-10, ResNet-20", "cifar10/resnet20"),
    "cifar10-resnet32": ("CIFAR-10, ResNet-32", "cifar10/resnet32"),
    "cifar100-resnet8": ("CIFAR-100, ResNet-8", "cifar100/resnet8"),
    "cifar100-resnet20": ("CIFAR-100, ResNet-20", "cifar100/resnet20"),
}
# A small one beside them, and all by name.
FASHION = {"fashion-cnn": ("Fashion-MNIST, CNN", "fashion_mnist/cnn")}
EVERY = NETWORKS | FASHION
_BATCH = 250


def load_module(name, device="cpu"):
    """Return the named network in eval mode."""
    path = DATA / "networks.py"
    spec = importlib.util.spec_from_file_location("data_networks", path)
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    return networks.load(EVERY[name][1]).to(device)


@cache
def load_images(dataset, jpeg=False):
    """Return images in bytes, channels last, as they are or after compression."""
    if dataset == "fashion_mnist":
        with np.load(DATA / dataset / "images_cal10k_test10k.npz") as arrays:
            return arrays["test_x"][..., np.newaxis]
    if not jpeg:
        with np.load(DATA / dataset / f"{dataset}_test.npz") as arrays:
            return arrays["x"]
    with np.load(_compressed(dataset)) as arrays:
        stream, offsets = arrays["jpeg"], arrays["offsets"]
    files = (stream[a:b].tobytes() for a, b in pairwise(offsets))
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def are_compressed(name):
    """Whether a network's images are there after compression, too."""
    return _compressed(EVERY[name][1].split("/")[0]).exists()


def _compressed(dataset):
    return DATA / dataset / f"{dataset}_test_jpegbytes.npz"


@cache
def load_logits(name, jpeg=False):
    """Return the logits of a network and the labels: stored ones, if there are any."""
    dataset, network = EVERY[name][1].split("/")
    if dataset == "fashion_mnist":
        with np.load(DATA / dataset / "logits.npz") as arrays:
            return arrays["test_logits"], arrays["test_y"].astype(int)
    kind = "jpeg_" if jpeg else ""
    with np.load(DATA / dataset / f"{dataset}_{kind}logits.npz") as arrays:
        y = arrays["y"].astype(int)
        if network in arrays:
            return arrays[network], y
    return run_network(load_module(name), as_input(load_images(dataset, jpeg))), y


def as_input(images):
    """Turn bytes of shape (n, height, width, channels) into what networks read."""
    return (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)


def run_network(module, X):
    """Return the logits of inputs, in batches."""
    device = next(module.parameters()).device
    with torch.no_grad():
        parts = [
            module(torch.from_numpy(X[start : start + _BATCH]).to(device)).cpu()
            for start in range(0, len(X), _BATCH)
        ]
    return torch.cat(parts).numpy()


def last_features(module, X):
    """Return what the last layer of a network reads."""
    *_, last = (part for part in module.modules() if isinstance(part, torch.nn.Linear))
    kept = []
    hook = last.register_forward_hook(lambda part, inputs, output: kept.append(inputs))
    try:
        run_network(module, X)
    finally:
        hook.remove()
    parts = [part.flatten(1).cpu() for (part,) in kept]
    return torch.cat(parts).numpy().astype(np.float64)


@dataclass(eq=False)
class Half:
    """Some rows of a data set: their numbers, inputs, labels and logits."""

    rows: np.ndarray
    X: np.ndarray
    y: np.ndarray
    logits: np.ndarray


@dataclass(eq=False)
class Task:
    """One network and one split."""

    name: str
    data: str
    module: torch.nn.Module
    seed: int
    cal: Half
    test: Half


def make_tasks(name, n_splits, n_samples, device="cpu", jpeg=False, n_judged=None):
    """Yield the splits: images to fit on and `n_judged` others, by default as many."""
    module = load_module(name, device)
    images = load_images(EVERY[name][1].split("/")[0], jpeg)
    logits, y = load_logits(name, jpeg)
    splits = StratifiedShuffleSplit(
        n_splits,
        train_size=n_samples,
        test_size=n_judged or n_samples,
        random_state=0,
    )
    for seed, halves in enumerate(splits.split(y, y)):
        cal, test = (
            Half(rows, as_input(images[rows]), y[rows], logits[rows]) for rows in halves
        )
        yield Task(name, "jpeg" if jpeg else "clean", module, seed, cal, test)
