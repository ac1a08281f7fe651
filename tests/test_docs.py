"""The snippets of the documentation and of the README do what they say."""

import doctest
import re
from pathlib import Path

import pytest

from skcalib._maps import OPERATIONS

ROOT = Path(__file__).parent.parent

PAGES = sorted(
    path.name
    for path in (ROOT / "docs").glob("*.rst")
    if ">>>" in path.read_text(encoding="utf-8")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _extras_without_windows():
    for name in ("torch", "skorch", "onnx", "onnxruntime", "pandas", "dask"):
        pytest.importorskip(name)
    pytest.importorskip("matplotlib").use("Agg")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.onnx
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_python_prints(page):
    failed, _ = doctest.testfile(
        str(ROOT / "docs" / page), module_relative=False, optionflags=OPTIONS
    )
    assert failed == 0


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.onnx
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    text = read("README.md")
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert snippets
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_list_of_operations_is_complete(operation):
    page = read("docs/how_it_works.rst")
    assert f"``{operation.__name__}``" in page
