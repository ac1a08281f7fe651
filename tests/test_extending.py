"""A package of somebody else's adds calibrators and an operation, by public names."""

import ast
import doctest
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skcalib
from skcalib import TemperatureScaling, _maps, extending
from skcalib.datasets import make_logits
from skcalib.export import to_onnx, to_torch
from skcalib.model_selection import CalibratorSearch
from skcalib.testing import check_calibrator

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "own_calibrator.rst").read_text(encoding="utf-8")
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "guide-calibrators"
version = "1.0"

[project.entry-points."skcalib.calibrators"]
GapScaling = "guide_calibrators:GapScaling"
UniformMixture = "guide_calibrators:UniformMixture"

[project.entry-points."skcalib.operations"]
GapPower = "guide_calibrators:GapPower"

[tool.setuptools]
py-modules = ["guide_calibrators"]
"""


def test_the_guide_imports_no_private_name():
    script = doctest.script_from_examples(GUIDE)
    private = []
    for node in ast.walk(ast.parse(script)):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        private += [n for n in names if re.search(r"(^|\.)_", n)]
    assert private == []


def test_every_operation_is_public():
    operations = {kind.__name__ for kind in _maps.OPERATIONS}
    assert operations | {"Operation", "Table"} <= set(extending.__all__)
    assert all(hasattr(extending, name) for name in extending.__all__)


def guide_module():
    """What the guide defines and imports for it, without what it tries out."""
    script = doctest.script_from_examples(GUIDE)
    calibrator, _, rest = script.partition("# That is all:")
    operation = rest.partition("# An operation of your own")[2]
    return calibrator + operation.partition("# That the three forms")[0]


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """The module of the guide, as if a package that is installed brought it."""
    (tmp_path / "guide_calibrators.py").write_text(guide_module(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    named = tomllib.loads(PYPROJECT)["project"]["entry-points"]
    points = {
        group: [importlib.metadata.EntryPoint(*item, group) for item in items.items()]
        for group, items in named.items()
    }
    monkeypatch.setattr(extending, "entry_points", lambda group: points[group])
    yield importlib.import_module("guide_calibrators")
    del sys.modules["guide_calibrators"]


@pytest.mark.parametrize("name", ["GapScaling", "UniformMixture"])
def test_the_calibrators_of_the_guide_keep_the_contract(guide, name, tmp_path):
    kind = getattr(guide, name)
    check_calibrator(kind())
    X, y = make_logits(500, 4, random_state=0)
    fitted = kind().fit(X, y)
    skcalib.save(fitted, tmp_path / "c.json")
    loaded = skcalib.load(tmp_path / "c.json")
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.onnx
@pytest.mark.torch
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("searched", [False, True])
def test_an_operation_of_a_package_is_exported(guide, dtype, atol, searched):
    ort, torch = pytest.importorskip("onnxruntime"), pytest.importorskip("torch")
    pytest.importorskip("onnx")
    X, y = make_logits(500, 4, random_state=0)
    fitted = guide.GapScaling()
    if searched:
        fitted = CalibratorSearch([TemperatureScaling(), fitted], cv=3)
    fitted.fit(X, y)
    rows = X.astype(dtype)
    expected = fitted.predict_proba(rows)
    session = ort.InferenceSession(to_onnx(fitted, dtype=dtype).SerializeToString())
    (served,) = session.run(["probabilities"], {"logits": rows})
    assert_allclose(served, expected, rtol=0, atol=atol)
    proba = to_torch(fitted)(torch.from_numpy(rows)).numpy()
    assert_allclose(proba, expected, rtol=0, atol=atol)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The folder in which the package of the guide's calibrators is installed."""
    versions = [d.version for d in importlib.metadata.distributions(name="setuptools")]
    if not versions or int(versions[0].split(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 to build a wheel by itself, not {versions}")
    source = tmp_path_factory.mktemp("package")
    (source / "guide_calibrators.py").write_text(guide_module(), encoding="utf-8")
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return site


SAVED = """
import pickle, sys
import skcalib
from skcalib.datasets import make_logits
from skcalib.extending import installed_calibrators

assert "guide_calibrators" not in sys.modules
offered = installed_calibrators()
assert sorted(offered) == ["GapScaling", "UniformMixture"]
X, y = make_logits(500, 4, random_state=0)
for name, kind in offered.items():
    fitted = kind().fit(X, y)
    fitted.map_ = fitted.calibration_map()
    skcalib.save(fitted, f"{name}.json")
    for other in (skcalib.load(f"{name}.json"), pickle.loads(pickle.dumps(fitted))):
        assert type(other) is kind
        assert (other.predict_proba(X) == fitted.predict_proba(X)).all()
operation = skcalib.load("GapScaling.json").map_.operations[0]
assert type(operation) is sys.modules["guide_calibrators"].GapPower
"""
SEARCHED = """
import numpy as np, onnxruntime, torch
from skcalib import TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.export import to_onnx, to_torch
from skcalib.model_selection import CalibratorSearch, compare_calibrators
from guide_calibrators import GapScaling, UniformMixture

X, y = make_logits(200, 3, random_state=0)
candidates = [TemperatureScaling(), GapScaling(), UniformMixture()]
table = compare_calibrators(candidates, X, y)
assert table.names[-2:] == ["GapScaling", "UniformMixture"]
search = CalibratorSearch(candidates).fit(X, y)
for fitted in (search, *(c.fit(X, y) for c in candidates[1:])):
    expected = fitted.predict_proba(X)
    model = to_onnx(fitted, dtype=np.float64).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    served = session.run(["probabilities"], {"logits": X})[0]
    assert np.abs(served - expected).max() < 1e-12
    proba = to_torch(fitted)(torch.from_numpy(X)).numpy()
    assert np.abs(proba - expected).max() < 1e-12
"""
COMMAND = """
import sys
import numpy as np
from guide_calibrators import GapScaling
from skcalib.cli import main
from skcalib.datasets import make_logits

logits, y = make_logits(300, 3, random_state=0)
np.savez("val.npz", logits=logits, y=y)
np.save("expected.npy", GapScaling().fit(logits, y).predict_proba(logits))
sys.argv[1:] = ["calibrate", "--logits", "val.npz", "-m", "GapScaling",
                "-o", "c.onnx", "--n-bootstrap", "0"]
main()
"""
# What each part does, and the packages it needs.
PARTS = {
    "saved": (SAVED, []),
    "searched": (SEARCHED, ["torch", "onnx", "onnxruntime", "pandas"]),
    "command": (COMMAND, ["typer", "rich", "jinja2", "onnx", "onnxruntime"]),
}
# A part that fails leaves the others alone.
RUN_PARTS = """
import contextlib, io, json, sys, traceback

told = {}
for name, code in json.load(sys.stdin).items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            exec(code, {})
            error = None
        except SystemExit as end:
            error = end.code
        except BaseException:
            error = traceback.format_exc()
    told[name] = [error, said.getvalue()]
print(json.dumps(told))
"""


@pytest.fixture(scope="session")
def run(package, tmp_path_factory):
    """Return what a part said, and where, in a process that has the package."""
    folder = tmp_path_factory.mktemp("run")
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    parts = {
        name: code
        for name, (code, needs) in PARTS.items()
        if all(map(find_spec, needs))
    }
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", RUN_PARTS], input=json.dumps(parts),
        capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    def of(part):
        for name in PARTS[part][1]:
            pytest.importorskip(name)
        error, said = told[part]
        assert not error, error
        return folder, said

    return of


@pytest.mark.slow
def test_installed_calibrators_are_offered_and_saved(run):
    folder, _ = run("saved")
    # Here the package is not installed.
    with pytest.raises(ValueError, match="'GapScaling' is no calibrator of skcalib"):
        skcalib.load(folder / "GapScaling.json")


@pytest.mark.slow
@pytest.mark.onnx
@pytest.mark.torch
def test_installed_calibrators_are_compared_searched_and_exported(run):
    run("searched")


@pytest.mark.slow
@pytest.mark.onnx
def test_the_command_knows_an_installed_calibrator(run):
    folder, said = run("command")
    assert "GapScaling(), fitted on 300 samples" in said
    ort = pytest.importorskip("onnxruntime")
    with np.load(folder / "val.npz") as val:
        rows = {"logits": val["logits"].astype(np.float32)}
    session = ort.InferenceSession(folder / "c.onnx")
    (served,) = session.run(["probabilities"], rows)
    assert_allclose(served, np.load(folder / "expected.npy"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", ["json:dumps", "skcalib:TemperatureScaling"])
@pytest.mark.parametrize("base", extending.ENTRY_POINTS)
def test_an_entry_point_that_is_not_of_its_name_and_base_is_refused(
    base, value, monkeypatch
):
    group = extending.ENTRY_POINTS[base]
    point = importlib.metadata.EntryPoint("Other", value, group)
    monkeypatch.setattr(extending, "entry_points", lambda group: [point])
    message = rf"'Other' of '{re.escape(group)}' names .* subclass of {base.__name__}"
    with pytest.raises(TypeError, match=message):
        extending.installed(base)
