"""The commands: their options, and what they print."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import skcalib
from skcalib._judging import in_samples
from skcalib.cli import _commands
from skcalib.cli._answers import judge_answers
from skcalib.cli._comparison import as_csv
from skcalib.cli._console import print_json, print_text
from skcalib.cli._errors import ALARM, EXIT_CODES, UsageError, mistakes_told
from skcalib.cli._export import Served
from skcalib.cli._methods import NAMES
from skcalib.cli._monitoring import Batch, run_monitor, run_recalibrate
from skcalib.cli._options import (
    Bins,
    Bootstrap,
    Calibrator,
    Folds,
    Format,
    Json,
    Judging,
    Labelled,
    Overwrite,
    Report,
    Seed,
    Serving,
    Source,
    with_options,
)
from skcalib.cli._outcome import (
    Outcome,
    print_columns,
    print_outcome,
    print_reports,
    print_served,
)

app = typer.Typer(
    help="Probabilities that mean what they say, for classifiers that are trained.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skcalib {skcalib.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


def _command(run: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function, whose parameters are its options."""
    return app.command(epilog=EXIT_CODES)(mistakes_told()(with_options(run)))


@_command
def demo(
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write to; made if it does not exist.")
    ] = Path("skcalib-demo"),
    seed: Seed = Judging.seed,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Calibrate a small network that comes with skcalib.

    Fits temperature scaling on images that the network has not seen, judges it on
    others, and writes calibrated.onnx and report.html. Nothing is downloaded.
    """
    outcome, report = _commands.run_demo(output_dir, seed=seed, overwrite=overwrite)
    _tell(outcome, report, as_json=json)


@_command
def calibrate(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="ONNX file to write.", show_default=False),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help=f"One of {', '.join(NAMES)}.")
    ] = "auto",
    gamma: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Exponent of the focal loss, for temperature-focal and clamping.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            help="Inner tensor of the model that clamping perturbs in the place of the "
            "input, such as the embedding of tokens.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write the calibrator to, for apply, for --calibrator "
            "and for skcalib.load.",
            show_default=False,
        ),
    ] = None,
    source: Labelled,
    report: Report = None,
    judging: Judging,
    serving: Serving,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit a calibrator on held-out data and write it as ONNX, or --save it.

    As ONNX, with MODEL into a copy of the model; without, as a model from what was
    given, logits or uncalibrated_probabilities, to probabilities.
    """
    outcome = _commands.run_calibrate(
        source,
        method,
        _commands.Targets(output, save, report, overwrite),
        judging=judging,
        gamma=gamma,
        site=site,
        serving=serving,
    )
    _tell(outcome, report, as_json=json)


def _tell(outcome: Outcome, report: Path | None, *, as_json: bool) -> None:
    if as_json:
        path = None if report is None else str(report)
        print_json({**outcome.to_dict(), "report": path})
    else:
        print_outcome(outcome, report)


@_command
def apply(
    *,
    calibrator: Annotated[
        Path,
        typer.Option(
            help="Saved calibrator, a .json file of calibrate --save.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: a model (.onnx), or probabilities (.npy, .csv).",
            show_default=False,
        ),
    ],
    source: Source,
    serving: Serving,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Apply a saved calibrator to a model or to scores. Nothing is fitted.

    Writes it as ONNX, into a copy of MODEL or alone, or writes the calibrated
    probabilities of inputs, logits or probabilities. No labels are needed.
    """
    applied = _commands.run_apply(
        source, calibrator, output, serving, overwrite=overwrite
    )
    content: dict[str, Any] = {"calibrator": str(calibrator)}
    if isinstance(applied, Served):
        content |= applied.to_dict()
    else:
        n_samples, n_classes = applied
        content |= {"output": str(output), "n_samples": n_samples}
        content |= {"n_classes": n_classes}
    if json:
        print_json(content)
    elif isinstance(applied, Served):
        print_served(applied)
    else:
        print_text(f"Wrote {output}")
        print_text(f"  probabilities of {n_samples:,} samples, {n_classes:,} classes")


@_command
def evaluate(
    *,
    source: Labelled,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help="Answers of a language model instead, a JSON object a line; - reads "
            "standard input.",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None,
    calibrator: Calibrator = None,
    n_bins: Bins = Judging.n_bins,
    n_bootstrap: Bootstrap = Judging.n_bootstrap,
    seed: Seed = Judging.seed,
    json: Json = False,
) -> None:
    """Print the calibration metrics of a model, of logits or of probabilities.

    With --jsonl those of a language model's answers, by type of question.
    """
    judging = Judging(n_bins=n_bins, n_bootstrap=n_bootstrap, seed=seed)
    if jsonl is not None:
        if source.files or calibrator is not None:
            raise UsageError("--jsonl holds all that is judged; pass no other file.")
        found = judge_answers(jsonl, judging)
        if json:
            print_json(found.to_dict())
        else:
            print_text(str(found))
        return
    scores, report = _commands.run_evaluate(source, calibrator, judging)
    if json:
        content = {**report.to_dict(), "columns": scores.columns}
        if calibrator is not None:
            content["calibrator"] = str(calibrator)
        print_json(content)
        return
    print_columns(scores.columns)
    after = "" if calibrator is None else f", after {calibrator}"
    samples = in_samples(report.n_samples, scores.unit)
    print_text(f"{samples} of {report.n_classes:,} classes{after}:")
    print_reports({"value": report})


@_command
def compare(
    source: Labelled,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods to compare, separated by commas; all by default.",
            show_default=False,
        ),
    ] = None,
    calibrator: Calibrator = None,
    folds: Folds = Judging.folds,
    n_bins: Bins = Judging.n_bins,
    seed: Seed = Judging.seed,
    written: Format = "text",
    report: Report = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Print a table of all methods, each judged on folds it was not fitted on.

    In Markdown and LaTeX the best is bold, and what cannot be told from it.
    """
    judging = Judging(folds=folds, n_bins=n_bins, seed=seed)
    targets = _commands.Targets(report=report, overwrite=overwrite)
    scores, table = _commands.run_compare(source, methods, calibrator, judging, targets)
    if json:
        content: dict[str, Any] = {
            "n_samples": len(scores.codes),
            "columns": scores.columns,
            "methods": table.to_dict(),
            "report": None if report is None else str(report),
        }
        print_json(content)
        return
    table = table.sorted()
    if written != "text":  # to be written to a file, which holds nothing else
        as_text: dict[str, Callable[[], str]] = {
            "markdown": table.to_markdown,
            "latex": table.to_latex,
            "csv": partial(as_csv, table),
        }
        print_text(as_text[written]())
        return
    print_columns(scores.columns)
    print_text(str(table))
    if report is not None:
        print_text(f"Wrote {report}")


@_command
def lab(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write.")
    ] = Path("lab.html"),
    onnx_runtime: Annotated[
        Path | None,
        typer.Option(
            help="onnxruntime-web, for the page to run networks with: the archive "
            "that `npm pack onnxruntime-web` brings, or the package's folder. It "
            "makes the page 5 MB larger."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the laboratory: a page that calibrates logits inside the browser.

    Open it and drop a file of logits and labels, or, with a runtime, a network and a
    file of its inputs and labels; nothing is sent anywhere.
    """
    _commands.run_lab(output, onnx_runtime, overwrite=overwrite)
    print_text(f"Wrote {output}. Open it in a browser.")


@_command
def monitor(
    *,
    state: Annotated[
        Path,
        typer.Argument(help="JSON file of the state; made if it does not exist."),
    ],
    batch: Batch,
    merge: Annotated[
        list[Path] | None,
        typer.Option(help="Another state to add; may be repeated.", show_default=False),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Chance of ever alarming without a cause.  [new: 0.05]"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Error of a probability that is forgiven, such as 0.01.  [new: 0]"
        ),
    ] = None,
    delay: Annotated[
        int | None,
        typer.Option(
            help="How many rows late labels of overlapping rows come.  [new: 0]"
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(help="Rows that the state keeps to recalibrate.  [new: 1000]"),
    ] = None,
    report: Report = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            help="Text file of metrics to write, for the textfile collector.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Watch served probabilities: add labelled rows to a state, and judge it.

    Ends with exit code 3 if the probabilities have ever been found not to be
    calibrated. The chance of that, for calibrated ones, is --alpha at most, however
    often it is run. State, report and metrics are replaced, whole or not at all.
    """
    given = {"alpha": alpha, "tolerance": tolerance, "delay": delay, "memory": memory}
    settings = {name: value for name, value in given.items() if value is not None}
    found = run_monitor(state, batch, merge or [], settings, report, prometheus)
    if json:
        print_json(found.to_dict())
    else:
        print_text(str(found))
    if found.alarm:
        raise typer.Exit(ALARM)


@_command
def recalibrate(
    *,
    model: Annotated[
        Path, typer.Argument(help="ONNX file that is served.", show_default=False)
    ],
    state: Annotated[
        Path,
        typer.Argument(
            help="State of its monitor, of skcalib monitor.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="ONNX file to write.", show_default=False),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write the correction to, for skcalib.load.",
            show_default=False,
        ),
    ] = None,
    model_output: Annotated[
        str | None,
        typer.Option(
            help="Output of the model that holds the scores, where it has several.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the next model: the served one, corrected by what its monitor remembers."""
    calibrator, served = run_recalibrate(
        model, state, output, save, model_output=model_output, overwrite=overwrite
    )
    if json:
        content = {} if served is None else served.to_dict()
        content |= {"temperature": calibrator.temperature_}
        content |= {"saved": None if save is None else str(save)}
        print_json(content)
        return
    print_text(f"Corrected by a temperature of {calibrator.temperature_:.4g} and more")
    if served is not None:
        print_served(served)
    if save is not None:
        print_text(f"Wrote {save}")
