"""The public names, module by module: those that docs/api.rst lists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

# What the names of a module need.
NEEDS = {
    "skcalib.frozen": ("torch", "onnxruntime"),
    "skcalib.model_selection": ("pandas",),
    "skcalib.plotting": ("matplotlib", "torch"),
    "skcalib.export": ("onnx", "torch"),
    "skcalib.training": ("torch", "skorch"),
}
API = Path(__file__).resolve().parents[2] / "docs" / "api.rst"


def read_names(text):
    """Return the names that follow each ``currentmodule``, in lists and in tables."""
    names = {}
    for line in text.splitlines():
        if module := re.match(r"\.\. currentmodule:: (\S+)$", line):
            listed = names.setdefault(module[1], [])
        elif name := re.match(r"   (\w+)$|``(\w+)`` ", line):
            listed.append(name[1] or name[2])
    return names


NAMES = read_names(API.read_text(encoding="utf-8"))
# Exceptions take what they like.
MODULES = [name for name in NAMES if name != "skcalib.exceptions"]


def import_public(module_name):
    """Return a public module; skip the test where what its names need is missing."""
    for package in NEEDS.get(module_name, ()):
        pytest.importorskip(package)
    return importlib.import_module(module_name)


def signatures(name, public):
    """Yield a function, or a class and its public methods, by their full names."""
    if inspect.isclass(public):
        yield name, inspect.getdoc(public), inspect.signature(public)
        for method_name in dir(public):
            if not method_name.startswith("_"):
                method = inspect.getattr_static(public, method_name)
                method = getattr(method, "__func__", method)
                of_skcalib = getattr(method, "__module__", "").startswith("skcalib.")
                if inspect.isfunction(method) and of_skcalib:
                    doc, signature = inspect.getdoc(method), inspect.signature(method)
                    yield f"{name}.{method_name}", doc, signature
    elif inspect.isfunction(public):
        yield name, inspect.getdoc(public), inspect.signature(public)
