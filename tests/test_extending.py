"""A package of somebody else's adds a calibrator, with public names only."""

import ast
import doctest
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skcalib import _maps, extending

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "own_calibrator.rst").read_text(encoding="utf-8")
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "uniform-mixture"
version = "1.0"

[project.entry-points."skcalib.calibrators"]
UniformMixture = "uniform_mixture:UniformMixture"

[tool.setuptools]
py-modules = ["uniform_mixture"]
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
    operations = {kind.__name__ for kind in _maps.Operation.__args__}
    assert operations | {"Table"} <= set(extending.__all__)
    assert all(hasattr(extending, name) for name in extending.__all__)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The folder in which the package of the guide's calibrator is installed."""
    versions = [d.version for d in importlib.metadata.distributions(name="setuptools")]
    if not versions or int(versions[0].split(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 to build a wheel by itself, not {versions}")
    source = tmp_path_factory.mktemp("package")
    script = doctest.script_from_examples(GUIDE)
    # The class and what it needs, without what the guide tries out.
    module = script.partition("# That is all:")[0]
    (source / "uniform_mixture.py").write_text(module, encoding="utf-8")
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return site


def run(package, code, *, cwd):
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=cwd,
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_calibrator_keeps_the_contract_and_is_saved(package, tmp_path):
    code = """
import numpy as np, skcalib
from skcalib.datasets import make_logits
from skcalib.extending import installed_calibrators
from skcalib.testing import check_calibrator
from uniform_mixture import UniformMixture

assert installed_calibrators() == {"UniformMixture": UniformMixture}
check_calibrator(UniformMixture())
X, y = make_logits(500, 4, random_state=0)
fitted = UniformMixture().fit(X, y)
skcalib.save(fitted, "c.json")
loaded = skcalib.load("c.json")
assert type(loaded) is UniformMixture
assert (loaded.predict_proba(X) == fitted.predict_proba(X)).all()
print("kept")
"""
    assert run(package, code, cwd=tmp_path) == "kept\n"


@pytest.mark.onnx
@pytest.mark.torch
def test_an_installed_calibrator_is_compared_searched_and_exported(package, tmp_path):
    for name in ("torch", "onnx", "onnxruntime", "pandas"):
        pytest.importorskip(name)
    code = """
import numpy as np, onnxruntime, torch
from skcalib import TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.export import to_onnx, to_torch
from skcalib.model_selection import CalibratorSearch, compare_calibrators
from uniform_mixture import UniformMixture

X, y = make_logits(500, 4, random_state=0)
candidates = [TemperatureScaling(), UniformMixture()]
table = compare_calibrators(candidates, X, y)
assert table.names[-1] == "UniformMixture"
search = CalibratorSearch(candidates, rule="best").fit(X, y)
assert search.predict_proba(X).shape == (500, 4)
fitted = candidates[1].fit(X, y)
expected = fitted.predict_proba(X.astype(np.float32))
session = onnxruntime.InferenceSession(to_onnx(fitted).SerializeToString())
served = session.run(["probabilities"], {"logits": X.astype(np.float32)})[0]
assert np.abs(served - expected).max() < 1e-6
proba = to_torch(fitted)(torch.from_numpy(X)).numpy()
assert np.abs(proba - fitted.predict_proba(X)).max() < 1e-12
print("agree")
"""
    assert run(package, code, cwd=tmp_path) == "agree\n"


@pytest.mark.onnx
def test_the_command_knows_an_installed_calibrator(package, tmp_path):
    for name in ("typer", "rich", "jinja2", "onnxruntime"):
        pytest.importorskip(name)
    from skcalib.datasets import make_logits

    logits, y = make_logits(300, 3, random_state=0)
    np.savez(tmp_path / "val.npz", logits=logits, y=y)
    code = """
import sys
from skcalib.cli import main
sys.argv[1:] = ["calibrate", "--logits", "val.npz", "-m", "UniformMixture",
                "-o", "c.onnx", "--n-bootstrap", "0"]
main()
"""
    told = run(package, code, cwd=tmp_path)
    assert "UniformMixture(), fitted on 300 samples" in told
    assert (tmp_path / "c.onnx").exists()


@pytest.mark.parametrize("value", ["json:dumps", "skcalib:TemperatureScaling"])
def test_an_entry_point_that_is_no_calibrator_of_its_name_is_refused(
    value, monkeypatch
):
    point = importlib.metadata.EntryPoint("Other", value, extending.ENTRY_POINTS)
    monkeypatch.setattr(extending, "entry_points", lambda group: [point])
    with pytest.raises(TypeError, match=r"'Other' of 'skcalib\.calibrators' names"):
        extending.installed_calibrators()
