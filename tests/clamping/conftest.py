"""What the tests of neural clamping share."""

import pytest


@pytest.fixture
def device_reads(monkeypatch):
    """Names of the calls that wait for the device, as they are made."""
    torch = pytest.importorskip("torch")
    reads = []
    for name in ("item", "tolist", "cpu", "__float__", "__bool__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *rest, name=name, real=real: (
                reads.append(name) or real(self, *rest)
            ),
        )
    return reads
