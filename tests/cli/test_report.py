"""The report: what it says, and what its pictures in a real browser say."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from skcalib import TemperatureScaling
from skcalib.datasets import make_logits
from skcalib.metrics import expected_calibration_error, static_calibration_error

pytest.importorskip("typer")
pytest.importorskip("jinja2")
pytest.importorskip("onnxruntime")

QUICK = ("--n-bootstrap", 0)
ECE = '(id) => element(id).querySelector("svg text").textContent.match(/[0-9.]+/)[0]'


def make_held_out(n_classes=5, n_samples=2000, **changed):
    """Rows that a temperature was fitted for on others."""
    from skcalib._judging import HeldOut

    X, y = make_logits(2 * n_samples, n_classes, random_state=0)
    fitted = TemperatureScaling().fit(X[::2], y[::2])
    before, after = softmax(X[1::2], axis=1), fitted.predict_proba(X[1::2])
    parts = {"before": before, "after": after} | changed
    classes = np.array([f"class {k}" for k in range(n_classes)])
    return HeldOut(y[1::2], classes, **parts, how="held out")


@pytest.fixture
def written(skcalib, tmp_path):
    """Write a report by the command line, and return its text."""

    def write(method, names, *more):
        X, y = make_logits(1500, len(names), random_state=1)
        np.savez(tmp_path / "val.npz", logits=X, y=np.array(names)[y])
        run = skcalib(
            "calibrate", "--logits", "val.npz", "--method", method, "-o", "c.onnx",
            "--report", "r.html", "--test-fraction", 0.5,
            "--classes", ",".join(names), *QUICK, *more,
        )  # fmt: skip
        assert run.code == 0, run.err
        return (tmp_path / "r.html").read_text(encoding="utf-8")

    return write


def drawn_from(held_out, n_bins=15):
    from skcalib.cli._report_data import drawn_data, narrow_sums, worst_classes

    sums = [narrow_sums(held_out, p, n_bins) for p in (held_out.before, held_out.after)]
    shown = worst_classes(sums[1], n_bins)
    return drawn_data(held_out, sums, shown, n_bins), shown


@pytest.mark.parametrize("n_bins", [1, 7, 15, 25, 200])
def test_narrow_bins_add_up_to_the_number_that_is_asked_for(n_bins):
    drawn, _ = drawn_from(make_held_out(), n_bins)
    assert n_bins in drawn["choices"]
    assert drawn["narrow"] % n_bins == 0
    for tables in drawn["views"].values():
        assert [sum(n for _, n, *_ in table) for table in tables] == [2000] * 6


@pytest.mark.slow
def test_of_many_classes_the_worst_are_drawn_and_the_page_stays_small():
    held_out = make_held_out(1000, 3000)
    drawn, shown = drawn_from(held_out)
    assert len(shown) == len(drawn["classes"]) == 12
    assert drawn["sample"] is None
    assert len(str(drawn)) < 100_000
    errors = [
        static_calibration_error(held_out.codes == k, held_out.after[:, k])
        for k in shown
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("n_bins", [1, 15])
def test_a_report_is_written_where_one_class_is_held_out(skcalib, tmp_path, n_bins):
    z = np.random.default_rng(0).normal(size=300)
    y = (np.arange(300) < 5).astype(int)
    np.savez(tmp_path / "rare.npz", logits=z, y=y)
    run = skcalib(
        "calibrate", "--logits", "rare.npz", "--method", "platt", "-o", "c.onnx",
        "--report", "r.html", "--test-fraction", 0.03, "--n-bins", n_bins, *QUICK,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert (tmp_path / "c.onnx").exists()
    assert "Drag it. On" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_verdict_names_help_harm_and_neither():
    from skcalib.cli._words import verdict

    held_out = make_held_out()
    assert verdict(held_out).startswith("Calibration helps: of every 100 predictions")
    turned = make_held_out(before=held_out.after, after=held_out.before)
    assert verdict(turned).startswith("Calibration does harm here")
    same = make_held_out(before=held_out.after, after=held_out.after)
    assert verdict(same).startswith("No clear effect can be seen")


def test_a_mended_mean_helps_where_the_loss_cannot_tell():
    from skcalib.cli._judging import HeldOut
    from skcalib.cli._words import loss_gain, verdict

    # Right nine times in ten, by chance between .867 and .926 of 400 rows.
    codes = np.arange(400) % 10 // 9
    before, after = (np.tile([p, 1 - p], (400, 1)) for p in (0.93, 0.9))
    held_out = HeldOut(codes, np.arange(2), before, after, "held out")
    gain, error = loss_gain(held_out, before)
    assert abs(gain) < error
    assert verdict(held_out).startswith("Calibration helps: ")


@pytest.mark.slow
def test_bars_of_many_bins_have_a_width(browser, written):
    page = written("temperature", ["cat", "dog", "fox"], "--n-bins", 1000)
    least = browser(
        page,
        """async () => Math.min(
      ...[...document.querySelectorAll("rect")].map((r) => r.getAttribute("width")))""",
    )
    assert 0 < least < 1


def test_a_temperature_and_a_mixture_are_told_in_words():
    from skcalib.cli._words import fitted_words

    X, y = make_logits(500, 3, random_state=0)
    said = fitted_words(TemperatureScaling().fit(X, y))
    assert said[0] == "Divide the logits by one learned temperature."
    assert "above 1: the model was too sure of itself" in said[1]
    assert "below 1" in fitted_words(TemperatureScaling().fit(X / 9, y))[1]
    mixture = SimpleNamespace(final_weights_={"Small": 0.25, "Large": 0.75})
    assert fitted_words(mixture)[1] == "It mixes 75 % Large, 25 % Small."


@pytest.mark.slow
def test_the_rival_is_judged_on_the_same_samples(written):
    text = written("histogram", ["cat", "dog", "fox"])
    assert "Temperature alone" in text
    assert "The simpler temperature scaling is better: prefer it" in text
    assert "Temperature alone" not in written(
        "temperature", ["cat", "dog", "fox"], "--overwrite"
    )


def test_the_report_names_data_classes_and_the_day(written, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    text = written("temperature", ["cat", "dog", "fox"])
    facts = dict(re.findall(r"<dt>(\w+)</dt><dd>(.*?)</dd>", text))
    assert facts["Data"] == "val.npz"
    assert facts["Classes"] == "3: cat, dog, fox"
    assert facts["Date"] == "1970-01-02"


@pytest.mark.slow
def test_the_pictures_say_what_the_library_says(browser, written, tmp_path):
    names = ["<img src=x onerror='document.title=1'>", "a & b", "c"]
    page = written("temperature", names, "--seed", 3)
    told = browser(page, f"""async () => {{
      const ece = {ECE};
      const all = () => ["before", "after", "alone"].map(ece);
      const first = all();
      element("bins").value = data.choices.indexOf(5);
      element("bins").oninput({{ target: element("bins") }});
      const five = all();
      document.querySelectorAll(".small")[1].click();
      const second = all();
      element("temperature").oninput({{ target: {{ value: 0 }} }});
      return {{ first, five, second, one: ece("alone"),
        images: document.images.length, hidden: element("class").parentNode.hidden }};
    }}""")  # fmt: skip
    from skcalib.cli._judging import split_rows
    from skcalib.cli._scores import Scores

    with np.load(tmp_path / "val.npz") as arrays:
        X, codes = arrays["logits"], (arrays["y"][:, None] == names).argmax(axis=1)
    train, test = split_rows(Scores(X, codes, np.array(names)), 0.5, 3)
    fitted = TemperatureScaling().fit(X[train], codes[train])
    probas = [softmax(X[test], axis=1), fitted.predict_proba(X[test])]
    for n_bins, found in ((15, told["first"]), (5, told["five"])):
        expected = [
            100 * expected_calibration_error(codes[test], p, n_bins=n_bins)
            for p in probas
        ]
        assert [float(ece) for ece in found[:2]] == pytest.approx(expected, abs=0.006)
    of_class = [
        100 * static_calibration_error(codes[test] == 1, p[:, 1], n_bins=5)
        for p in probas
    ]
    found = [float(ece) for ece in told["second"][:2]]
    assert found == pytest.approx(of_class, abs=0.006)
    # At temperature 1 the third is the first, up to the rounding of its log-odds.
    assert float(told["one"]) == pytest.approx(of_class[0], abs=0.05)
    assert told["images"] == 0
    assert told["hidden"] is False
