import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """The console script, run as a newcomer runs it."""
    pytest.importorskip("typer")
    folder = tmp_path_factory.mktemp("demo")
    script = os.path.join(os.path.dirname(sys.executable), "skcalib")
    if not os.path.exists(script):
        pytest.skip("the console script is not installed")
    started = time.monotonic()
    done = subprocess.run(  # noqa: S603
        [script, "demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", "SOURCE_DATE_EPOCH": "0"},
    )
    return done, folder / "skcalib-demo", time.monotonic() - started


@pytest.mark.slow
def test_the_console_script_needs_less_than_a_minute(demonstration):
    done, folder, seconds = demonstration
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert seconds < 60
    assert sorted(os.listdir(folder)) == ["calibrated.onnx", "report.html"]


@pytest.mark.slow
def test_the_table_shows_the_improvement_with_intervals(demonstration):
    out = demonstration[0].stdout
    (row,) = re.findall(r"^ECE % .*$", out, re.MULTILINE)
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", row)]
    before, before_low, _, after, _, after_high = numbers
    assert before > 6
    assert after < 4
    assert after_high < before_low


def test_the_largest_difference_is_stated_and_true(demonstration):
    from skcalib.datasets import load_demo

    done, folder, _ = demonstration
    (stated,) = re.findall(r"any probability: (\S+)", done.stdout)
    demo = load_demo()
    (temperature,) = re.findall(r"temperature = (\S+)", done.stdout)

    def run(model):
        session = ort.InferenceSession(str(model))
        return session.run(["probabilities"], {"image": demo.X_test})[0]

    scaled = np.log(run(demo.model).astype(np.float64)) / float(temperature)
    scaled = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    # The printed temperature has four digits.
    np.testing.assert_allclose(run(folder / "calibrated.onnx"), scaled, atol=1e-3)
    assert 0 <= float(stated) < 1e-6


class Links(HTMLParser):
    """Collects what a page would load or link to."""

    def __init__(self):
        super().__init__()
        self.links = []
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_report_loads_nothing_and_holds_two_diagrams(demonstration):
    text = (demonstration[1] / "report.html").read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert page.tags.count("img") == 2
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert "1970-01-01" in text
    assert "link" not in page.tags
    assert "url(" not in text
    assert "@import" not in text


def test_the_demonstration_is_repeatable_but_never_overwrites(
    demonstration, skcalib, monkeypatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    folder = demonstration[1]
    names = ("calibrated.onnx", "report.html")
    first = [(folder / name).read_bytes() for name in names]
    again = skcalib("demo", "--output-dir", folder)
    assert again.code == 1
    assert "skcalib-demo/calibrated.onnx' exists already" in again.err
    assert "--overwrite" in again.err
    assert [(folder / name).read_bytes() for name in names] == first
    assert skcalib("demo", "--output-dir", folder, "--overwrite").code == 0
    assert [(folder / name).read_bytes() for name in names] == first


def test_a_demonstration_that_lacks_a_package_leaves_no_folder(
    refused, hide_package, tmp_path
):
    hide_package("jinja2")
    assert "jinja2" in refused(4, "demo", "--output-dir", "new")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_class_name_cannot_smuggle_html_into_the_report(skcalib, logits_file):
    with np.load(logits_file) as arrays:
        names = np.array(["<script>alert(1)</script>", "a & b", "c"])
        np.savez("named.npz", logits=arrays["logits"], y=names[arrays["y"]])
    run = skcalib(
        "calibrate", "--logits", "named.npz", "-o", "c.onnx", "--report", "r.html",
        "-m", "vector", "--n-bootstrap", 20,
    )  # fmt: skip
    assert run.code == 0, run.err
    text = Path("r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
