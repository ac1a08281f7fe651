"""The HTML report: one file, with its figures inside and nothing to load."""

import base64
import io
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skcalib._judging import HeldOut
from skcalib._optional import import_optional
from skcalib.cli._export import MEANINGS, Served
from skcalib.cli._options import Judging
from skcalib.cli._outcome import TITLES, Outcome, as_text, measure
from skcalib.cli._report_data import (
    class_errors,
    drawn_data,
    narrow_sums,
    worst_classes,
)
from skcalib.cli._words import against_rival, fitted_words, verdict
from skcalib.metrics._bins import BinStats
from skcalib.metrics._registry import METRICS
from skcalib.plotting import PerturbationDisplay, ReliabilityDisplay

_TEMPLATES = Path(__file__).parent / "templates"
# Perturbations of more axes are no picture.
_MOST_AXES = 3
# What the code needs, and what follows an output of something else than probabilities,
# as it did behind the original one.
_TO_PROBABILITIES = {
    "probabilities": ("import onnxruntime", ""),
    "log_probabilities": (
        "import numpy\nimport onnxruntime",
        "\nprobabilities = numpy.exp(log_probabilities)",
    ),
    "logits": (
        "import onnxruntime\nimport scipy.special",
        "\nprobabilities = scipy.special.softmax(logits, axis=1)",
    ),
    "log_odds": (
        "import onnxruntime\nimport scipy.special",
        "\nprobabilities = scipy.special.expit(log_odds)",
    ),
}
_PACKAGES = ("skcalib", "scikit-learn", "numpy", "onnx", "onnxruntime")


def render_report(outcome: Outcome, served: Served) -> str:
    """Return the report as HTML; the same outcome gives the same text on a day."""
    held_out, n_bins = outcome.held_out, outcome.before.n_bins
    sums = [
        narrow_sums(held_out, proba, n_bins)
        for proba in (held_out.before, held_out.after)
    ]
    shown = worst_classes(sums[1], n_bins)
    text: str = template("report.html").render(
        outcome=outcome,
        served=served,
        date=today(),
        verdict=verdict(held_out),
        against_rival=against_rival(held_out, outcome.rival),
        fitted_words=fitted_words(outcome.calibrator),
        level=f"{100 * outcome.before.confidence_level:g}",
        metrics=_metric_rows(outcome),
        diagrams=[
            (name, _diagram(held_out, proba, name, n_bins))
            for name, proba in (("before", held_out.before), ("after", held_out.after))
        ],
        perturbation=_perturbation(outcome.calibrator),
        classes=_class_rows(held_out, sums, shown, n_bins),
        drawn=drawn_data(held_out, sums, shown, n_bins),
        snippet=_snippet(served),
        versions=[(package, version(package)) for package in _PACKAGES],
    )
    return text


def today() -> str:
    """Return the day, or that of SOURCE_DATE_EPOCH, which builds that repeat set."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    now = (
        datetime.now(UTC) if fixed is None else datetime.fromtimestamp(int(fixed), UTC)
    )
    return f"{now:%Y-%m-%d}"


def _metric_rows(outcome: Outcome) -> dict[str, list[tuple[str, str]]]:
    """Return the rows of the table: before, after and the rival, with intervals."""
    reports = {"Before": outcome.before, "After": outcome.after}
    if outcome.rival is not None:
        held_out = outcome.held_out
        judging = Judging(n_bins=outcome.before.n_bins, n_bootstrap=0)
        reports["Temperature alone"] = measure(
            held_out.labels, outcome.rival, held_out.classes, judging
        )
    return {
        title: [as_text(report, name) for report in reports.values()]
        for name, title in TITLES.items()
    }


def template(name: str) -> Any:
    """Return a template that escapes what is put into it."""
    jinja2 = import_optional("jinja2", "The HTML report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def _snippet(served: Served) -> str:
    """Return Python code that runs the written model."""
    feeds = ", ".join(f"{name!r}: ..." for name in served.inputs)
    name = served.probabilities or served.output
    is_proba = served.probabilities is not None or served.meaning == "proba"
    held = "probabilities" if is_proba else MEANINGS[served.meaning].replace("-", "_")
    if served.event is not None and not is_proba:
        held = "log_odds"
    imported, computed = _TO_PROBABILITIES[held]
    return (
        f"{imported}\n\n"
        f"session = onnxruntime.InferenceSession({served.path.name!r})\n"
        f"{held} = session.run([{name!r}], {{{feeds}}})[0]"
        f"{computed}"
    )


def _class_rows(
    held_out: HeldOut, sums: list[BinStats], shown: list[int], n_bins: int
) -> list[tuple[str, ...]]:
    """How often each class occurs, its mean probability and its calibration error."""
    before, after = (class_errors(of_class, n_bins) for of_class in sums)
    return [
        (
            str(held_out.classes[k]),
            f"{(held_out.codes == k).sum():,}",
            _percent((held_out.codes == k).mean()),
            _percent(held_out.before[:, k].mean()),
            _percent(held_out.after[:, k].mean()),
            _percent(before[k], METRICS["sce"].percent_decimals),
            _percent(after[k], METRICS["sce"].percent_decimals),
        )
        for k in shown
    ]


def _percent(share: float, decimals: int | None = 1) -> str:
    return f"{100 * share:.{decimals}f}"


def _diagram(held_out: HeldOut, proba: NDArray[Any], name: str, n_bins: int) -> str:
    """Return a reliability diagram as the address of an SVG image."""
    figure = new_figure(4.6, 5.2)
    ReliabilityDisplay.from_predictions(
        held_out.labels,
        proba,
        labels=held_out.classes,
        n_bins=n_bins,
        name=name,
        ax=figure.subplots(),
    )
    return as_address(figure)


def _perturbation(calibrator: Any) -> str | None:
    """Return the picture of a perturbation, if the calibrator has one to show."""
    if not hasattr(calibrator, "input_change"):
        return None
    change = calibrator.input_change()
    if not change.any() or change.delta.ndim > _MOST_AXES:
        return None
    figure = new_figure(9.2, 3.2 if change.kernel is None else 6.4)
    PerturbationDisplay.from_estimator(calibrator, ax=figure.subplots())
    return as_address(figure)


def new_figure(width: float, height: float) -> Any:
    """Return a figure of its own, in inches."""
    figures = import_optional("matplotlib.figure", "The HTML report")
    # A figure of its own, so that no global state of pyplot is touched.
    return figures.Figure(figsize=(width, height), layout="constrained")


def as_address(figure: Any) -> str:
    """Return a figure as the address of an SVG image."""
    matplotlib = import_optional("matplotlib", "The HTML report")
    image = io.BytesIO()
    # The salt makes the identifiers in the file the same each time.
    with matplotlib.rc_context({"svg.hashsalt": "skcalib", "svg.fonttype": "path"}):
        figure.savefig(image, format="svg", metadata={"Date": None})
    content = base64.b64encode(image.getvalue()).decode("ascii")
    return f"data:image/svg+xml;base64,{content}"
