"""A real network and a few of its inputs."""

import importlib.util

import numpy as np
import pytest


@pytest.fixture(scope="session")
def cifar(data_dir):
    """ResNet-8d with 48 test images of CIFAR-10 and their labels."""
    path = data_dir / "networks.py"
    spec = importlib.util.spec_from_file_location("shared_networks", path)
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    with np.load(data_dir / "cifar10" / "cifar10_test.npz") as arrays:
        rows = arrays["cal_idx"][:48]
        X = np.float32(arrays["x"][rows] / 255).transpose(0, 3, 1, 2)
        y = arrays["y"][rows].astype(int)
    return networks.load("cifar10/resnet8d"), np.ascontiguousarray(X), y
