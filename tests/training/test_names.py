"""Without torch or skorch the names say what to install."""

import sys

import pytest

import skcalib.training


@pytest.mark.parametrize("name", ["CLUELoss", "mc_dropout"])
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.delitem(vars(skcalib.training), name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=rf'{name} needs .* "skcalib\[torch\]"'):
        getattr(skcalib.training, name)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'CLU'"):
        skcalib.training.CLU  # noqa: B018
