"""Files of tensors are read like others, and run no code."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skcalib.cli._errors import DataError
from skcalib.cli._readers import read_labels, read_rows
from skcalib.cli._rows import Request

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

LOGITS = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
Y = np.array([0, 2, 1, 1])


def as_torch(path):
    held = {"logits": torch.from_numpy(LOGITS).requires_grad_(), "epoch": 3}
    torch.save({**held, "labels": torch.from_numpy(Y)}, path)


def as_safetensors(path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({"logits": LOGITS, "labels": Y}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.pt", as_torch), ("a.pth", as_torch), ("a.safetensors", as_safetensors)],
)
def test_tensors_are_found_by_their_names(name, write, tmp_path):
    write(tmp_path / name)
    rows = read_rows(tmp_path / name, Request("logits"))
    assert_array_equal(rows.values, LOGITS)
    assert_array_equal(rows.labels, Y)
    assert_array_equal(read_labels(tmp_path / name, "labels"), Y)
    with pytest.raises(DataError, match="scores"):
        read_rows(tmp_path / name, Request("logits", "scores"))


def test_a_tensor_alone_is_read_and_half_precision_widened(tmp_path):
    torch.save(torch.from_numpy(LOGITS).bfloat16(), tmp_path / "a.pt")
    rows = read_rows(tmp_path / "a.pt", Request("logits"))
    assert rows.values.dtype == np.float32
    assert_array_equal(rows.values, LOGITS)


class Harm:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_other_objects_are_never_unpickled(tmp_path):
    torch.save({"logits": Harm(str(tmp_path / "trace"))}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt is damaged, or holds more than tens"):
        read_rows(tmp_path / "a.pt", Request("logits"))
    assert not (tmp_path / "trace").exists()
