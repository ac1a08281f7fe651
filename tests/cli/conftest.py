"""The command run in-process, and files for it to read."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy.special import softmax

# Runs a piece of JavaScript in a page, and tells the page's title what it returns.
TOLD = """<script>
const file = (data, name) => new File(
  [Uint8Array.from(atob(data), (character) => character.charCodeAt(0))], name);
(async () => {{
  let told;
  try {{ told = await ({work})(); }}
  catch (error) {{ told = {{ error: error.message }}; }}
  document.title = "told " + JSON.stringify(told);
}})();
</script>"""


@pytest.fixture
def browser(tmp_path):
    """Open a page in Chromium and return what a function of JavaScript returns."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")

    def run(page, work):
        path = tmp_path / "page.html"
        before, _, after = page.rpartition("</body>")
        path.write_text(f"{before}{TOLD.format(work=work)}</body>{after}")
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
        ]
        command += ["--virtual-time-budget=60000", path.as_uri()]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=120, check=True
        )
        told = re.search(r"<title>told (.*?)</title>", done.stdout, re.DOTALL)
        return json.loads(html.unescape(told.group(1)))

    return run


class Run:
    """What one call of the command came to."""

    def __init__(self, result):
        self.code = result.exit_code
        self.out = result.stdout
        self.err = result.stderr
        self.exception = result.exception

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def skcalib(tmp_path, monkeypatch):
    """Run ``skcalib <arguments>`` in a folder of its own."""
    testing = pytest.importorskip("typer.testing")
    from skcalib.cli._app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments, stdin=None):
        words = [str(argument) for argument in arguments]
        result = Run(testing.CliRunner().invoke(app, words, input=stdin))
        if not isinstance(result.exception, SystemExit | type(None)):
            raise result.exception
        return result

    return run


@pytest.fixture
def refused(skcalib):
    """Run the command and check that it ends with `code` and this message."""

    def run(code, *arguments):
        result = skcalib(*arguments)
        assert result.code == code, result.err
        assert "Traceback" not in result.err + result.out
        assert result.out == ""
        return " ".join(result.err.split())

    return run


@pytest.fixture
def logits_file(tmp_path):
    """300 rows of over-confident logits of 3 classes, temperature 2, as .npz."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(300, 3))
    y = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    path = tmp_path / "val.npz"
    np.savez(path, logits=logits, y=y)
    return path


@pytest.fixture
def probabilities_file(tmp_path, logits_file):
    """The same as probabilities."""
    with np.load(logits_file) as arrays:
        proba = softmax(arrays["logits"], axis=1)
        np.savez(tmp_path / "proba.npz", proba=proba, y=arrays["y"])
    return tmp_path / "proba.npz"


@pytest.fixture(scope="session")
def demo():
    """The network that ships, and its images."""
    pytest.importorskip("onnxruntime")
    from skcalib.datasets import load_demo

    return load_demo()


@pytest.fixture
def images_file(tmp_path, demo):
    """600 images for the network that ships, with their labels."""
    path = tmp_path / "images.npz"
    np.savez(path, X=demo.X_calibration, y=demo.y_calibration)
    return path


@pytest.fixture
def hide_package(monkeypatch):
    """Make a package look as if it were not installed."""

    def hide(package):
        import importlib

        real = importlib.import_module

        def import_module(name, *arguments):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *arguments)

        monkeypatch.setattr(importlib, "import_module", import_module)

    return hide
