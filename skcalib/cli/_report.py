"""The HTML report: one file, with its figures inside and nothing to load."""

import base64
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skcalib._judging import HeldOut
from skcalib._optional import import_optional
from skcalib.cli._export import MEANINGS, Served
from skcalib.cli._outcome import TITLES, Outcome, as_text
from skcalib.plotting import PerturbationDisplay, ReliabilityDisplay

_TEMPLATES = Path(__file__).parent / "templates"
# More classes than this make a table by class hard to read.
_FEW_CLASSES = 12
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
}
_PACKAGES = ("skcalib", "scikit-learn", "numpy", "onnx", "onnxruntime")


def render_report(outcome: Outcome, served: Served) -> str:
    """Return the report as HTML; the same outcome gives the same text."""
    n_bins = outcome.before.n_bins
    text: str = template("report.html").render(
        outcome=outcome,
        served=served,
        level=f"{100 * outcome.before.confidence_level:g}",
        metrics=[
            (title, as_text(outcome.before, name), as_text(outcome.after, name))
            for name, title in TITLES.items()
        ],
        diagrams=[
            (name, _diagram(outcome.held_out, proba, name, n_bins))
            for name, proba in (
                ("before", outcome.held_out.before),
                ("after", outcome.held_out.after),
            )
        ],
        perturbation=_perturbation(outcome.calibrator),
        classes=_class_rows(outcome.held_out),
        snippet=_snippet(served),
        versions=[(package, version(package)) for package in _PACKAGES],
    )
    return text


def render_lab() -> str:
    """Return the laboratory as one page of HTML, which loads nothing."""
    text: str = template("lab.html").render()
    return text


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
    imported, computed = _TO_PROBABILITIES[held]
    return (
        f"{imported}\n\n"
        f"session = onnxruntime.InferenceSession({served.path.name!r})\n"
        f"{held} = session.run([{name!r}], {{{feeds}}})[0]"
        f"{computed}"
    )


def _class_rows(held_out: HeldOut) -> list[tuple[str, ...]]:
    """For each of few classes its share, and its mean probability before and after."""
    if len(held_out.classes) > _FEW_CLASSES:
        return []
    columns = held_out.codes
    return [
        (
            str(label),
            f"{(columns == k).sum():,}",
            _percent((columns == k).mean()),
            _percent(held_out.before[:, k].mean()),
            _percent(held_out.after[:, k].mean()),
        )
        for k, label in enumerate(held_out.classes)
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


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
