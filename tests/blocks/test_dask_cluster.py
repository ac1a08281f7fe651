"""Fits on a cluster of processes that the tests start."""

import os
import re
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skcalib import (
    CalibratedClassifier,
    IsotonicCalibration,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.metrics import expected_calibration_error

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    # Of distributed's own, when workers end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# Seconds that a test may take: a cluster without workers waits for them for ever.
PATIENCE = 300
# A worker that hears nothing for so long, on a machine that is busy or was asleep,
# takes the scheduler for lost and ends, and a cluster of its own accord has no other.
DEAF = {
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.comm.timeouts.connect": "60s",
    "distributed.deploy.lost-worker-timeout": "2s",
}
CALIBRATORS = [TemperatureScaling(), VectorScaling(max_iter=2), IsotonicCalibration()]


@contextmanager
def importable_here():
    """Let processes that are started import the tests, whatever pytest calls them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])
        yield


@contextmanager
def started(n_workers, **options):
    """Yield the client of a cluster of processes that replaces those it loses."""
    with (
        importable_here(),
        dask.config.set(DEAF),
        distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            **options,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.adapt(minimum=n_workers, maximum=n_workers)
        yield client


@pytest.fixture(scope="module")
def client():
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        started(2) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def not_for_ever():
    """Fail where a computation waits for ever."""

    def give_up(signum, frame):
        pytest.fail(f"{PATIENCE} seconds were not enough")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def rows_and_labels(n_samples, rows, folder=None, wait=0.0):
    """Return lazy logits of 4 classes and their labels.

    A chunk of a number is the same wherever it is computed. It leaves a file in a
    folder, if one is given.
    """
    sizes = (rows,) * (n_samples // rows)
    chunks = [
        dask.delayed(draw_chunk)(i, rows, folder, wait) for i in range(len(sizes))
    ]
    both = da.concatenate(
        [da.from_delayed(chunk, (rows, 5), dtype=np.float64) for chunk in chunks]
    )
    return both[:, :4], both[:, 4].astype(int)


def draw_chunk(number, rows, folder, wait):
    rng = np.random.default_rng(number)
    logits = rng.normal(size=(rows, 4))
    odds = logits + rng.gumbel(size=logits.shape)
    if folder is not None:
        descriptor, _ = tempfile.mkstemp(prefix=f"{number}-{os.getpid()}-", dir=folder)
        os.close(descriptor)
    time.sleep(wait)
    return np.column_stack([2 * logits, odds.argmax(axis=1)])


def learned(calibrator):
    return {
        name: value
        for name, value in vars(calibrator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def assert_bitwise_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        parts = value if isinstance(value, list) else [value]
        others = found[name] if isinstance(value, list) else [found[name]]
        for part, other in zip(parts, others, strict=True):
            assert_array_equal(other, part)


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda c: type(c).__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_bits_depend_on_the_chunks_and_not_on_the_workers(client, calibrator):
    X, y = rows_and_labels(18_000, 3000)
    two = learned(calibrator.fit(X, y))
    with dask.config.set(scheduler="threads", num_workers=2):
        threads = learned(calibrator.fit(X, y))
    workers = list(client.scheduler_info()["workers"])
    with dask.annotate(workers=workers[:1], allow_other_workers=False):
        one = learned(calibrator.fit(X, y))
    assert_bitwise_equal(threads, two)
    assert_bitwise_equal(one, two)


def test_persisted_rows_are_not_computed_again(client, tmp_path):
    X, y = dask.persist(*rows_and_labels(8000, 1000, folder=tmp_path))
    distributed.wait([X, y])
    computed = len(list(tmp_path.iterdir()))
    persisted = TemperatureScaling().fit(X, y)
    assert len(list(tmp_path.iterdir())) == computed
    lazy = TemperatureScaling().fit(*rows_and_labels(8000, 1000))
    assert persisted.temperature_ == lazy.temperature_


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(client, tmp_path):
    expected = TemperatureScaling().fit(*rows_and_labels(16_000, 2000))
    X, y = rows_and_labels(16_000, 2000, folder=tmp_path, wait=0.05)
    killed = []

    def kill():
        while len(list(tmp_path.iterdir())) < 12:  # In the second pass.
            time.sleep(0.01)
        victim = int(next(tmp_path.iterdir()).name.split("-")[1])
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    found = TemperatureScaling().fit(X, y)
    thread.join()
    assert killed
    assert found.temperature_ == expected.temperature_
    assert found.loss_ == expected.loss_
    client.wait_for_workers(2, timeout=60)
    assert killed[0] not in client.run(os.getpid).values()


def lose_connection(dask_worker):
    reason = "worker-handle-scheduler-connection-broken"
    dask_worker.loop.add_callback(dask_worker.close, reason=reason)


def test_a_cluster_that_lost_its_workers_has_new_ones(client):
    before = client.run(os.getpid)
    # Some are gone before they have answered.
    client.run(lose_connection, on_error="return")
    found = TemperatureScaling().fit(*rows_and_labels(4000, 1000))
    client.wait_for_workers(2, timeout=60)
    assert not set(before.values()) & set(client.run(os.getpid).values())
    with dask.config.set(scheduler="threads"):
        expected = TemperatureScaling().fit(*rows_and_labels(4000, 1000))
    assert found.temperature_ == expected.temperature_


def where(estimator, X, y):
    """Score by the number of the process."""
    return os.getpid()


def test_a_grid_search_runs_on_the_workers(client, draw_calibration_set):
    search = GridSearchCV(
        CalibratedClassifier(LogisticRegression(), cv=2),
        {"calibrator": [TemperatureScaling(), VectorScaling()]},
        scoring=where,
        cv=2,
    )
    with parallel_config("dask"):
        search.fit(*draw_calibration_set(n_samples=200))
    found = {
        int(value)
        for name, scores in search.cv_results_.items()
        if name.endswith("_test_score") and name.startswith("split")
        for value in scores
    }
    assert found <= set(client.run(os.getpid).values())
    search.set_params(scoring="neg_log_loss")
    X, y = draw_calibration_set(n_samples=200)
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with parallel_config("dask"):
        found = search.fit(X, y).cv_results_["mean_test_score"]
    assert_array_equal(found, expected)


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


ROWS, N_CHUNKS = 200_000, 8


def tiled_logits(block_info=None):
    block = np.random.default_rng(0).normal(size=(1000, 10))
    return np.tile(block, (ROWS // 1000, 1))


def tiled_labels(block_info=None):
    top = np.random.default_rng(0).normal(size=(1000, 10)).argmax(axis=1)
    return np.tile(np.where(np.arange(1000) % 3 == 0, 0, top), ROWS // 1000)


def fit_here():
    logits, y = 4 * np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 1]
    TemperatureScaling().fit(logits, y).predict_proba(logits)


def rises_of_memory(client, function):
    """Return by how many bytes the memory of each worker rises, at its highest."""
    client.run(forget_peak)
    before = client.run(peak)
    function()
    return [after - before[name] for name, after in client.run(peak).items()]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_worker_holds_three_blocks_at_most(client):
    chunks = ((ROWS,) * N_CHUNKS, (10,))
    options = {"dtype": float, "meta": np.empty((0, 0))}
    X = da.map_blocks(tiled_logits, chunks=chunks, **options)
    y = da.map_blocks(
        tiled_labels, chunks=chunks[:1], dtype=int, meta=np.empty(0, dtype=int)
    )
    # Each imports what it needs before it is measured.
    client.run(fit_here)
    scaling = TemperatureScaling().fit(X[: 2 * ROWS], y[: 2 * ROWS])
    block = 8 * ROWS * 10
    assert max(rises_of_memory(client, lambda: scaling.fit(X, y))) < 3 * block
    total = scaling.predict_proba(X).sum()
    assert max(rises_of_memory(client, total.compute)) < 3 * block


def wide_proba(block_info=None):
    return np.tile(np.eye(2, 1000) * 0.9 + 1e-4, (1000, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_rows_of_several_times_the_memory_of_a_worker_are_judged():
    limit = 360 * 2**20  # The worker itself takes two thirds of it.
    n_chunks = 4 * limit // (8 * 2000 * 1000) + 1
    chunks = ((2000,) * n_chunks, (1000,))
    proba = da.map_blocks(wide_proba, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    assert proba.nbytes > 4 * limit
    y = da.zeros(proba.shape[0], dtype=int, chunks=2000)
    # Near the limit a worker waits, above it is ended, too often to go on.
    with started(1, memory_limit=limit) as client:
        error = expected_calibration_error(y, proba)
        assert max(client.run(peak).values()) < limit
    # Half of the rows are right, and 0.9001 sure.
    assert error == pytest.approx(0.4001, rel=1e-9)
