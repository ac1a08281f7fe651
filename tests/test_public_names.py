"""What the package shows to the world, and what importing it costs."""

import ast
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from public_names import NAMES

import skcalib

ROOT = Path(__file__).parent.parent

HEAVY = [
    "torch",
    "skorch",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "pandas",
    "typer",
    "rich",
]


# What the names of a module need, where it takes no more than the core to import it.
NEEDS = {"skcalib.training": ["torch", "skorch"]}


def needs_torch(name):
    return name.startswith("NeuralClamping") and find_spec("torch") is None


def import_with_needs(module):
    for package in NEEDS.get(module, []):
        pytest.importorskip(package)
    return importlib.import_module(module)


# Their names are those of skcalib itself, or nobody imports them.
ROOMS = {"calibrators", "clamping", "cli", "meta"}


def test_every_public_module_is_in_the_reference():
    modules = {module.name for module in pkgutil.iter_modules(skcalib.__path__)}
    public = {name for name in modules if not name.startswith("_")} - ROOMS
    assert {"skcalib", *(f"skcalib.{name}" for name in public)} == NAMES.keys()


@pytest.mark.parametrize("module", NAMES)
def test_a_module_lists_the_names_of_the_reference_and_no_others(module):
    listed = import_with_needs(module).__all__
    documented = [name for name in NAMES[module] if not needs_torch(name)]
    if module == "skcalib":
        documented.append("__version__")
    assert sorted(listed) == sorted(documented)


@pytest.mark.parametrize("module", NAMES)
def test_public_names_are_documented(module):
    home = import_with_needs(module)
    for name in home.__all__:
        assert getattr(home, name).__doc__


def test_type_checkers_see_what_is_imported_on_first_use():
    (seen,) = [
        node.body
        for node in ast.parse(Path(skcalib.__file__).read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    found = {name.asname: node.module for node in seen for name in node.names}
    modules = dict.fromkeys(skcalib._MODULES, "skcalib")
    assert found == modules | skcalib._HOME


@pytest.fixture(scope="module")
def first_import():
    """What a fresh process says of the package, before and after torch is there."""
    code = (
        f"import importlib.util, json, numpy, sys, warnings\n"
        f"import sklearn.calibration, sklearn.model_selection\n"
        f"def state():\n"
        f"    return numpy.geterr(), list(warnings.filters)\n"
        f"before, loaded = state(), set(sys.modules)\n"
        f"import skcalib\n"
        f"scorer = skcalib.metrics.get_scorer_names()[0]\n"
        f"told = {{'listed': dir(skcalib), 'scorer': scorer}}\n"
        f"X, y = [[4.0, 0], [4, 0], [0, 4]], [0, 1, 1]\n"
        f"skcalib.TemperatureScaling().fit(X, y)\n"
        f"told['dask'] = 'dask' in sys.modules\n"
        f"import {', '.join(NAMES)}\n"
        f"told['loaded'] = [m for m in {HEAVY} if m in set(sys.modules) - loaded]\n"
        f"told['touched'] = [state() != before]\n"
        # torch, which some names need, has filters of its own.
        f"if importlib.util.find_spec('torch'): import torch\n"
        f"before = state()\n"
        f"from skcalib import *\n"
        f"told['touched'] += [state() != before]\n"
        f"print(json.dumps(told))"
    )
    return json.loads(run_python(code))


@pytest.mark.slow
def test_the_public_modules_are_there_without_an_import_of_their_own(first_import):
    assert first_import["scorer"]
    assert set(first_import["listed"]) >= {"metrics", "plotting", "load"}


@pytest.mark.parametrize("room", ["calibrators", "clamping", "meta"])
def test_skcalib_offers_every_estimator_of(room):
    if room == "clamping":
        pytest.importorskip("torch")
    home = importlib.import_module(f"skcalib.{room}")
    assert set(home.__all__) <= set(skcalib.__all__)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["NeuralClamping", "NeuralClampingCV"])
def test_names_that_need_torch_exist_with_it(name):
    pytest.importorskip("torch")
    assert getattr(skcalib, name).__doc__
    assert name in skcalib.__all__


@pytest.mark.parametrize("name", ["NeuralClamping", "NeuralClampingCV"])
def test_names_that_need_torch_say_so_without_it(name):
    code = (
        f"import importlib.util, sys\n"
        f"sys.modules['torch'] = None\n"
        f"import skcalib\n"
        f"try:\n"
        f"    skcalib.{name}\n"
        f"except ImportError as error:\n"
        f"    print(error)"
    )
    assert 'pip install "skcalib[torch]"' in run_python(code)


CALLS = {
    "onnxruntime": ["frozen.OnnxLogits(demo.model).fit(X)"],
    "onnx": [
        "frozen.OnnxLogits(demo.model).fit(X)",
        "export.to_onnx(fitted)",
        "export.calibrate_onnx_model(demo.model, fitted)",
    ],
    "torch": ["export.to_torch(fitted)", "frozen.TorchLogits(len).fit(X)"],
    "matplotlib": ["plotting.ReliabilityDisplay.from_estimator(fitted, X, y)"],
}
EXTRAS = {
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "torch": "torch",
    "matplotlib": "plot",
}


@pytest.fixture(scope="module")
def errors_without():
    """What each call says where its package is missing, by package."""

    def ask(*packages):
        code = (
            f"import json, sys\n"
            f"from importlib.machinery import PathFinder\n"
            f"class Without:\n"
            f"    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] not in {packages}:\n"
            f"            return PathFinder.find_spec(name, path, target)\n"
            f"sys.meta_path[sys.meta_path.index(PathFinder)] = Without()\n"
            f"from skcalib import TemperatureScaling, datasets, export\n"
            f"from skcalib import frozen, plotting\n"
            f"X, y = datasets.make_logits(random_state=0)\n"
            f"fitted = TemperatureScaling().fit(X, y)\n"
            f"demo = datasets.load_demo()\n"
            f"told = {{package: [] for package in {packages}}}\n"
        )
        for package in packages:
            for call in CALLS[package]:
                code += (
                    f"try:\n    {call}\n"
                    f"except ImportError as error:\n"
                    f"    told[{package!r}].append(str(error))\n"
                )
        return json.loads(run_python(code + "print(json.dumps(told))"))

    # Both are of one extra: each is missed where the other is there.
    return ask("onnxruntime") | ask("onnx", "torch", "matplotlib")


@pytest.mark.slow
@pytest.mark.parametrize("package", CALLS)
def test_a_call_without_its_package_names_the_extra(package, errors_without):
    told = errors_without[package]
    assert len(told) == len(CALLS[package])
    assert all(f'pip install "skcalib[{EXTRAS[package]}]"' in line for line in told)


PLANTED = {
    "_numerics.py": "import torch",
    "exceptions.py": "import onnxruntime",
    "frozen/_base.py": "import onnx",
    "metrics/_report.py": "import pandas",
    "calibrators/_beta.py": "from matplotlib import pyplot",
    "new_room.py": "import skorch",
    "meta/_scores.py": "import skcalib.cli",
}


@pytest.fixture(scope="module")
def broken_contracts(tmp_path_factory):
    """What the import contracts say of a copy with an import planted in each file."""
    pytest.importorskip("importlinter")
    copy = tmp_path_factory.mktemp("planted")
    shutil.copytree(ROOT / "skcalib", copy / "skcalib")
    for file, line in PLANTED.items():
        with (copy / "skcalib" / file).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")
    code = (
        f"from importlinter.cli import lint_imports\n"
        f"lint_imports({str(ROOT / 'setup.cfg')!r}, no_cache=True)"
    )
    return run_python(code, cwd=copy)


@pytest.mark.parametrize("file", PLANTED)
def test_the_import_contracts_see_what_is_planted_in(file, broken_contracts):
    module = "skcalib." + file.removesuffix(".py").replace("/", ".")
    imported = PLANTED[file].split()[1]
    assert f"{module} -> {imported}" in broken_contracts


def test_the_import_contracts_ask_for_the_floor_of_a_new_room(broken_contracts):
    assert "not listed as layers:\n\n- skcalib.new_room" in broken_contracts


def run_python(code, cwd=None):
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_importing_loads_no_optional_package_that_scikit_learn_does_not(first_import):
    assert first_import["loaded"] == []


@pytest.mark.slow
def test_importing_touches_no_global_state(first_import):
    assert first_import["touched"] == [False, False]


@pytest.mark.slow
def test_the_core_does_not_import_dask(first_import):
    assert not first_import["dask"]
