"""Training networks so that their uncertainty means what it says.

The names need torch, those of CLUE skorch as well; they are imported on first use.
"""

from importlib import import_module
from typing import Any

from skcalib._optional import import_optional

# Name: its module and the packages it needs.
_HOME = {
    "BilevelCalibratedClassifier": ("skcalib.training._bilevel", ["torch"]),
    "CLUEClassifier": ("skcalib.training._clue_classifier", ["torch", "skorch"]),
    "CLUELoss": ("skcalib.training._clue_loss", ["torch"]),
    "CLUERegressor": ("skcalib.training._clue_regressor", ["torch", "skorch"]),
    "hypergradient": ("skcalib.training._bilevel_hypergradient", ["torch"]),
    "mc_dropout": ("skcalib.training._mc_dropout", ["torch"]),
}

__all__ = [
    "BilevelCalibratedClassifier",
    "CLUEClassifier",
    "CLUELoss",
    "CLUERegressor",
    "hypergradient",
    "mc_dropout",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, packages = _HOME[name]
    for package in packages:
        import_optional(package, name)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
