"""What docstrings say of signatures is so."""

import ast
import inspect
import re

import pytest
from public_names import MODULES, import_public, signatures

from skcalib import calibrators

# "name : type, default=value", as numpydoc writes the head of a parameter.
PARAMETER = re.compile(r"^(\w+(?:, \w+)*) : .*?default=(.+)$", flags=re.MULTILINE)


def parameters_section(doc):
    return doc.partition("Parameters\n----------\n")[2].partition("\n\nReturns\n")[0]


def shown(default):
    if inspect.isclass(default):
        return f"{default.__module__}.{default.__name__}"
    return repr(default)


def value_of(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


@pytest.mark.parametrize("module_name", MODULES)
def test_documented_defaults_are_the_defaults(module_name):
    module = import_public(module_name)
    n_compared, wrong = 0, []
    for public_name in module.__all__:
        public = getattr(module, public_name)
        for name, doc, signature in signatures(public_name, public):
            documented = PARAMETER.findall(parameters_section(doc or ""))
            said = {
                one: text for names, text in documented for one in names.split(", ")
            }
            for parameter, text in said.items():
                default = signature.parameters[parameter].default
                n_compared += 1
                if value_of(text) != value_of(shown(default)):
                    wrong.append(
                        f"{name}({parameter}={default!r}) is said to be {text}"
                    )
    assert n_compared or module_name == "skcalib.testing"
    assert wrong == []


@pytest.mark.parametrize("module_name", MODULES)
def test_every_default_is_documented(module_name):
    module = import_public(module_name)
    silent = []
    for public_name in module.__all__:
        for name, doc, signature in signatures(
            public_name, getattr(module, public_name)
        ):
            section = parameters_section(doc or "")
            heads = PARAMETER.findall(section)
            said = {one for names, _ in heads for one in names.split(", ")}
            silent += [
                f"{name}({parameter.name}={parameter.default!r})"
                for parameter in signature.parameters.values()
                if parameter.default is not parameter.empty
                and parameter.name not in said
            ]
    assert silent == []


def described(estimator):
    """Return what the docstring says of each parameter, citations apart."""
    section = parameters_section(inspect.getdoc(estimator))
    section = re.sub(r"\[\d\]_", "[]_", section.partition("\n\nAttributes\n")[0])
    heads = list(re.finditer(r"^(\w+) : ", section, flags=re.MULTILINE))
    ends = [*(head.start() for head in heads[1:]), len(section)]
    return {
        head[1]: " ".join(section[head.start() : end].split())
        for head, end in zip(heads, ends, strict=True)
    }


@pytest.mark.parametrize("name", calibrators.__all__)
def test_every_calibrator_says_the_same_of_the_classes(name):
    expected = described(calibrators.TemperatureScaling)["classes"]
    assert described(getattr(calibrators, name))["classes"] == expected


def test_matrix_and_dirichlet_calibration_say_the_same_of_their_parameters():
    of_dirichlet = described(calibrators.DirichletCalibration)
    assert len(of_dirichlet) == 10
    assert of_dirichlet == described(calibrators.MatrixScaling)
