"""A type checker knows every public signature: misspelt arguments are found."""

import inspect
from typing import Literal, get_args, get_origin

import pytest
from public_names import MODULES, import_public, signatures
from sklearn.utils._param_validation import StrOptions


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_signature_is_annotated(module_name):
    module = import_public(module_name)
    lacking = []
    for public_name in module.__all__:
        for name, _, signature in signatures(public_name, getattr(module, public_name)):
            parts = {p.name: p.annotation for p in signature.parameters.values()}
            if name != public_name or inspect.isfunction(getattr(module, public_name)):
                parts["return"] = signature.return_annotation
            lacking += [
                f"{name}({part})"
                for part, annotation in parts.items()
                if annotation is inspect.Parameter.empty and part not in ("self", "cls")
            ]
    assert lacking == []


def literals(annotation):
    """Return the strings that an annotation allows by name."""
    if get_origin(annotation) is Literal:
        return {value for value in get_args(annotation) if isinstance(value, str)}
    return set().union(*map(literals, get_args(annotation)))


@pytest.mark.parametrize("module_name", MODULES)
def test_the_options_of_an_annotation_are_those_that_are_taken(module_name):
    module = import_public(module_name)
    for name in module.__all__:
        constraints = getattr(getattr(module, name), "_parameter_constraints", {})
        hints = (
            inspect.signature(getattr(module, name)).parameters if constraints else {}
        )
        for parameter, hint in hints.items():
            allowed = constraints[parameter]
            options = [o.options for o in allowed if isinstance(o, StrOptions)]
            if found := literals(hint.annotation):
                assert found == set().union(*options), f"{name}({parameter})"
