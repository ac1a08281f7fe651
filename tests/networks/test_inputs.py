"""Rows of inputs from all sources, in batches."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

torch = pytest.importorskip("torch")

from torch.utils.data import (  # noqa: E402
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from skcalib._networks import _inputs  # noqa: E402
from skcalib._networks._inputs import Inputs  # noqa: E402
from skcalib._networks._network import open_network  # noqa: E402

pytestmark = pytest.mark.torch
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def network():
    return open_network(torch.nn.Flatten())


@pytest.fixture
def rows():
    return np.arange(10 * 6, dtype=np.float32).reshape(10, 2, 3)


class Pairs(Dataset):
    """Counts how often an item is read."""

    def __init__(self, rows, labelled=True):
        self.rows = rows
        self.labelled = labelled
        self.reads = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.reads += 1
        row = torch.from_numpy(self.rows[i])
        return (row, int(i) % 3) if self.labelled else row


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def gathered(inputs, order=None, step=None):
    batches = list(inputs.batches(order, step))
    return np.concatenate([x.numpy() for _, x in batches])


def mapped(rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


SOURCES = {
    "array": lambda rows, path: rows,
    "list": lambda rows, path: rows.tolist(),
    "memmap": mapped,
    "read-only": lambda rows, path: np.broadcast_to(rows, rows.shape),
    "reversed twice": lambda rows, path: rows[::-1].copy()[::-1],
    "big-endian": lambda rows, path: rows.astype(">f4"),
    "float64": lambda rows, path: rows.astype(np.float64),
    "uint8": lambda rows, path: rows.astype(np.uint8),
    "uint16": lambda rows, path: rows.astype(np.uint16),
    "tensor": lambda rows, path: torch.from_numpy(rows),
    "tensor with gradient": lambda rows, path: torch.tensor(rows, requires_grad=True),
    "dataset": lambda rows, path: Pairs(rows),
    "unlabelled dataset": lambda rows, path: Pairs(rows, labelled=False),
    "tensor dataset": lambda rows, path: TensorDataset(torch.from_numpy(rows)),
    "loader": lambda rows, path: DataLoader(Pairs(rows), batch_size=3),
    "loader of a subset": lambda rows, path: DataLoader(
        Subset(Pairs(np.concatenate([rows, rows])), range(10, 20)), batch_size=4
    ),
    "stream": lambda rows, path: DataLoader(Stream(rows), batch_size=4),
}


@pytest.fixture(params=SOURCES)
def source(request, rows, tmp_path):
    return SOURCES[request.param](rows, tmp_path)


def test_all_sources_give_the_same_rows_as_floats(source, rows, network):
    inputs = Inputs(source, network, 4)
    assert (inputs.n_samples, inputs.shape) == (10, (2, 3))
    batches = list(inputs.batches())
    assert [x.shape[0] for _, x in batches] == [4, 4, 2]
    assert all(x.dtype == torch.float32 for _, x in batches)
    assert not any(x.requires_grad for _, x in batches)
    assert_array_equal(gathered(inputs), rows)


def test_all_sources_can_be_read_in_any_order(source, rows, network):
    order = np.random.default_rng(0).permutation(10)[:7]
    inputs = Inputs(source, network, 4)
    assert_array_equal(gathered(inputs, order), rows[order])
    for index, x in inputs.batches(order):
        assert_array_equal(rows[index.numpy()], x.numpy())


def test_batches_do_not_reach_over_a_step(rows, network):
    inputs = Inputs(rows, network, 4)
    sizes = [x.shape[0] for _, x in inputs.batches(np.arange(10), step=6)]
    assert sizes == [4, 2, 4]


def test_arrays_and_tensors_are_read_in_place(rows, network):
    for source in (rows, torch.from_numpy(rows)):
        _, x = next(Inputs(source, network, 4).batches())
        assert x.data_ptr() == rows.ctypes.data


def test_a_mapped_file_is_read_batch_by_batch(rows, network, tmp_path, monkeypatch):
    read = []
    inputs = Inputs(mapped(rows, tmp_path), network, 4)
    take = inputs._rows.take
    monkeypatch.setattr(
        inputs._rows, "take", lambda index: read.append(index) or take(index)
    )
    next(inputs.batches())
    assert isinstance(inputs._rows.values, np.memmap)
    assert read == [slice(0, 4)]


def test_bytes_are_cast_and_not_rescaled(network):
    images = np.full((3, 1, 2, 2), 255, dtype=np.uint8)
    assert (gathered(Inputs(images, network)) == 255).all()


def test_labels_come_with_a_dataset_and_are_read_once(rows, network):
    pairs = Pairs(rows)
    inputs = Inputs(pairs, network, 4)
    once = pairs.reads
    assert_array_equal(inputs.labels(), np.arange(10) % 3)
    gathered(inputs)
    assert pairs.reads == once
    assert Inputs(rows, network).labels() is None
    assert Inputs(Pairs(rows, labelled=False), network).labels() is None


def test_a_dataset_larger_than_memory_is_streamed(rows, network, monkeypatch):
    monkeypatch.setattr(_inputs, "free_memory", lambda: 2 * rows.nbytes - 1)
    pairs = Pairs(rows)
    inputs = Inputs(pairs, network, 4)
    assert not inputs.resident
    assert pairs.reads == 1
    next(inputs.batches())
    assert pairs.reads == 5
    order = np.array([9, 0, 5, 5])
    assert_array_equal(gathered(inputs, order), rows[order])
    assert_array_equal(gathered(inputs), rows)
    assert_array_equal(inputs.labels(), np.arange(10) % 3)


def test_loaders_that_leave_rows_out_or_reorder_are_followed(rows, network):
    partial = DataLoader(Pairs(rows), batch_size=4, drop_last=True)
    assert_array_equal(gathered(Inputs(partial, network)), rows[:8])
    turned = DataLoader(Pairs(rows), sampler=range(9, -1, -1), batch_size=4)
    inputs = Inputs(turned, network, 3)
    assert_array_equal(gathered(inputs), rows[::-1])
    assert_array_equal(inputs.labels(), (np.arange(10) % 3)[::-1])


def test_the_fixed_batch_of_a_network_wins(rows, network):
    network.fixed_batch = 3
    sizes = [x.shape[0] for _, x in Inputs(rows, network, 8).batches()]
    assert sizes == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rows: DataLoader(Pairs(rows), shuffle=True), "shuffle=False"),
        (lambda rows: DataLoader(Pairs(rows[:0]), batch_size=2), "without samples"),
        (lambda rows: DataLoader(Stream(rows[:0])), "without samples"),
        (lambda rows: rows[:0], r"shape \(0, 2, 3\)"),
        (lambda rows: rows[0, 0], r"X\[np.newaxis\]"),
        (lambda rows: rows.astype(str), "needs numbers"),
        (lambda rows: rows.astype(object), "needs numbers"),
        (lambda rows: rows.astype(complex), "needs numbers"),
        (lambda rows: [{"x": row} for row in rows], "needs numbers"),
    ],
)
def test_what_cannot_be_read_is_refused(make, message, rows, network):
    with pytest.raises(ValueError, match=message):
        Inputs(make(rows), network)


@pytest.mark.gpu
@needs_gpu
def test_rows_live_on_the_gpu_where_they_fit(rows, monkeypatch):
    network = open_network(torch.nn.Flatten(), device="cuda")
    inputs = Inputs(rows, network, 4)
    assert inputs.resident
    assert_array_equal(torch.cat([x for _, x in inputs.batches()]).cpu(), rows)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 1))
    streamed = Inputs(rows, network, 4)
    assert not streamed.resident
    order = np.array([3, 1, 9])
    assert_array_equal(
        torch.cat([x for _, x in streamed.batches(order)]).cpu(), rows[order]
    )
