"""Fits that several processes share."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from skcalib import NeuralClamping  # noqa: E402

pytestmark = pytest.mark.torch

FIT = """
import sys
from datetime import timedelta
import numpy as np
import torch
from skcalib import NeuralClamping, NeuralClampingCV

folder, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if size > 1:
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
torch.manual_seed(0)
convolution = torch.nn.Conv2d(3, 6, 3)
norm, head = torch.nn.BatchNorm2d(6), torch.nn.Linear(6 * 16, 4)
network = torch.nn.Sequential(
    convolution, norm, torch.nn.Tanh(), torch.nn.Flatten(), head
).eval()
rng = np.random.default_rng(0)
X = rng.normal(size=(151, 3, 6, 6)).astype(np.float32)
with torch.no_grad():
    logits = 4 * network(torch.from_numpy(X)).numpy()
y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
X = X * np.float32(1.3) + np.float32(0.8)  # a new camera
learned = {}
for name, estimator in {
    "auto": NeuralClamping(network),
    "lbfgs": NeuralClamping(network, solver="lbfgs", penalty=0.01, max_iter=5),
    "filter": NeuralClamping(
        network, solver="lbfgs", perturbation="filter", penalty=0.01, max_iter=5
    ),
    "sgd": NeuralClamping(network, solver="sgd", max_iter=2),
    "paper": NeuralClamping(network, preset="paper", max_iter=2),
    "site": NeuralClamping(network, site="2", solver="lbfgs", penalty=0.01, max_iter=5),
    "gradient-free": NeuralClamping(network, solver="gradient_free", max_iter=20),
    "cv": NeuralClampingCV(network, gammas=[0.0, 1.0], perturbation="channel"),
}.items():
    estimator.set_params(distributed=size > 1, batch_size=32).fit(X, y)
    learned[name] = np.append(estimator.delta_.ravel(), estimator.temperature_)
    learned[f"{name}, loss"] = np.array(estimator.loss_)
np.savez(f"{folder}/{size}-{rank}.npz", **learned)
if size > 1:
    for data in ((X[rank:], y[rank:]), (X + rank, y), (X, (y + rank) % 4)):
        try:
            NeuralClamping(network, distributed=True).fit(*data)
        except ValueError as error:
            assert "were given different data" in str(error), error
        else:
            raise AssertionError("different data were not noticed")
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without processes"
)
@pytest.mark.filterwarnings("ignore")
def test_two_processes_end_where_one_does(tmp_path, monkeypatch):
    script = tmp_path / "fit.py"
    script.write_text(FIT)
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    other = subprocess.Popen(  # noqa: S603
        [sys.executable, script, tmp_path, "1", "2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for size in ("2", "1"):
            monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "0", size])
            with torch.random.fork_rng():
                runpy.run_path(str(script))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    _, error = other.communicate(timeout=300)
    assert other.returncode == 0, error
    alone, *both = (np.load(tmp_path / f"{n}.npz") for n in ("1-0", "2-0", "2-1"))
    for name in ("lbfgs", "auto", "cv"):
        assert np.abs(alone[name][:-1]).max() > 0.01
    for name in alone.files:
        assert_array_equal(both[0][name], both[1][name], err_msg=name)
        assert_allclose(both[0][name], alone[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_processes_that_were_not_started_are_asked_for():
    X, y = np.eye(4, dtype=np.float32), np.arange(4)
    with pytest.raises(ValueError, match=r"torchrun.*init_process_group"):
        NeuralClamping(torch.nn.Identity(), distributed=True).fit(X, y)
