"""Fixtures that tests share: drawn calibration sets, logits of real networks."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings

# A run says the same each time. HYPOTHESIS_PROFILE=default draws new examples.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


class Split(NamedTuple):
    """Logits and labels of one network: a calibration half and a test half."""

    X_cal: np.ndarray
    y_cal: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@pytest.fixture(scope="session")
def data_dir():
    """Folder with real networks and their logits; the test is skipped without it."""
    beside_repository = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKCALIB_DATA", beside_repository))
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set SKCALIB_DATA to the real one")
    return folder


@pytest.fixture
def dask_in_this_process():
    """Threads compute what is lazy, two at a time."""
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="session")
def cifar(cifar_images):
    """ResNet-8d with 48 test images of CIFAR-10 and their labels."""
    module, X, y = cifar_images
    return module, X[:48], y[:48]


@pytest.fixture(scope="session")
def cifar_images(data_dir):
    """ResNet-8d with 512 test images of CIFAR-10 and their labels."""
    path = data_dir / "networks.py"
    spec = importlib.util.spec_from_file_location("shared_networks", path)
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    with np.load(data_dir / "cifar10" / "cifar10_test.npz") as arrays:
        rows = np.random.default_rng(0).permutation(arrays["cal_idx"])[:512]
        X = np.float32(arrays["x"][rows] / 255).transpose(0, 3, 1, 2)
        y = arrays["y"][rows].astype(int)
    return networks.load("cifar10/resnet8d"), np.ascontiguousarray(X), y


@pytest.fixture(scope="session")
def load_split(data_dir):
    """Load the split of one network: ``load_split("cifar10", "resnet20")``."""

    def load(dataset, network):
        path = data_dir / dataset / f"{dataset}_logits.npz"
        if not path.is_file():
            pytest.skip(f"no logits at {path}; set SKCALIB_DATA to a folder with them")
        with np.load(path) as arrays:
            logits, y = arrays[network], arrays["y"].astype(np.int64)
            cal, test = arrays["cal_idx"], arrays["test_idx"]
        return Split(logits[cal], y[cal], logits[test], y[test])

    return load


@pytest.fixture(scope="session")
def cifar10(load_split):
    """Float32 logits of ResNet-20 on CIFAR-10, 5,000 + 5,000 rows."""
    return load_split("cifar10", "resnet20")


@pytest.fixture(scope="session")
def cifar100(load_split):
    """Float32 logits of ResNet-20 on CIFAR-100, 5,000 + 5,000 rows."""
    return load_split("cifar100", "resnet20")


@pytest.fixture
def draw_calibration_set():
    """Draw ``(logits, y)`` whose true probabilities are softmax(logits / T)."""

    def draw(n_samples=600, n_classes=4, temperature=2.0, seed=0):
        rng = np.random.default_rng(seed)
        logits = temperature * rng.normal(scale=1.5, size=(n_samples, n_classes))
        noise = rng.gumbel(size=logits.shape)
        return logits, (logits / temperature + noise).argmax(axis=1)

    return draw


@pytest.fixture
def calibration_set(draw_calibration_set):
    """600 rows of over-confident logits of 4 classes; the true temperature is 2."""
    return draw_calibration_set()


@pytest.fixture
def binary_calibration_set(draw_calibration_set):
    """Log-odds of shape (n,) and labels 0 and 1; the true temperature is 2."""
    logits, y = draw_calibration_set(n_classes=2)
    return logits[:, 1] - logits[:, 0], y
