"""The command run in-process, and files for it to read."""

import json
import os
import select
import shutil
import subprocess

import numpy as np
import pytest
from scipy.special import softmax

# What files are to a page.
FILES = """const file = (data, name) => new File(
  [Uint8Array.from(atob(data), (character) => character.charCodeAt(0))], name);"""

_PATIENCE = 300  # seconds


class Browser:
    """Chromium without a window, told what to do through a pair of pipes."""

    def __init__(self, chromium, profile):
        (of_child, self._to), (self._from, to_child) = os.pipe(), os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # Chromium reads from descriptor 3 and writes to 4.
        moved = f'exec "$@" 3<&{of_child} 4>&{to_child}'
        self._process = subprocess.Popen(  # noqa: S603
            ["/bin/bash", "-c", moved, "bash", chromium, *options],
            pass_fds=(of_child, to_child),
            stderr=subprocess.DEVNULL,
        )
        os.close(of_child)
        os.close(to_child)
        self._number, self._read = 0, b""

    def close(self):
        """End it."""
        os.close(self._to)  # Without its pipe it ends by itself.
        self._process.wait(timeout=60)
        os.close(self._from)

    def _next(self):
        while b"\0" not in self._read:
            if not select.select([self._from], [], [], _PATIENCE)[0]:
                raise TimeoutError(f"The page said nothing for {_PATIENCE} s.")
            more = os.read(self._from, 1 << 20)
            if not more:
                raise EOFError("Chromium ended.")
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def _call(self, method, **params):
        session = params.pop("session", None)
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        message = json.dumps(message).encode() + b"\0"
        while message:
            message = message[os.write(self._to, message) :]
        while (answer := self._next()).get("id") != self._number:
            pass
        return answer["result"]

    def run(self, url, work):
        """Return what a function of JavaScript returns in a page of this address."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        page = attached["sessionId"]
        self._call("Page.enable", session=page)
        self._call("Page.navigate", session=page, url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass
        told = self._call(
            "Runtime.evaluate",
            session=page,
            expression=f"{FILES}\n({work})()",
            awaitPromise=True,
            returnByValue=True,
        )
        self._call("Target.closeTarget", targetId=target)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"]["exception"]["description"])
        return told["result"].get("value")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Chromium, started once for the tests of a file."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    browser = Browser(path, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium, tmp_path):
    """Open a page in Chromium and return what a function of JavaScript returns."""

    def run(page, work):
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        return chromium.run(path.as_uri(), work)

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

        def import_module(name, *arguments, **options):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *arguments, **options)

        monkeypatch.setattr(importlib, "import_module", import_module)

    return hide
