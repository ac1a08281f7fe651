"""The commands and their options."""

from pathlib import Path
from typing import Annotated

import typer

import skcalib
from skcalib.cli import _commands, _options
from skcalib.cli._console import mistakes_told
from skcalib.cli._errors import EXIT_CODES
from skcalib.cli._methods import NAMES
from skcalib.cli._scores import Judging, Source

app = typer.Typer(
    help="Probabilities that mean what they say, for classifiers that are trained.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skcalib {skcalib.__version__}")
        raise typer.Exit


def _source(context: typer.Context) -> Source:
    """Gather the options that name data; every command has them under these names."""
    return Source(**{name: context.params[name] for name in Source._fields})


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


@app.command(epilog=EXIT_CODES)
def demo(
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write to; made if it does not exist.")
    ] = Path("skcalib-demo"),
    seed: _options.Seed = 0,
    overwrite: _options.Overwrite = False,
    json: _options.Json = False,
) -> None:
    """Calibrate a small network that comes with skcalib.

    Fits temperature scaling on images that the network has not seen, judges it on
    others, and writes calibrated.onnx and report.html. Nothing is downloaded.
    """
    with mistakes_told():
        _commands.run_demo(output_dir, seed=seed, overwrite=overwrite, as_json=json)


@app.command(epilog=EXIT_CODES)
def calibrate(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="ONNX file to write.", show_default=False),
    ],
    model: _options.Model = None,
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
    inputs: _options.Inputs = None,
    inputs_key: _options.Key = None,
    logits: _options.Logits = None,
    logits_key: _options.Key = None,
    probabilities: _options.Probabilities = None,
    probabilities_key: _options.Key = None,
    floor: _options.Floor = 1e-12,
    labels: _options.Labels = None,
    labels_key: _options.LabelsKey = None,
    classes: _options.Classes = None,
    model_output: _options.ModelOutput = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML report to write.", show_default=False),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.99,
            help="Hold out this part of the samples to judge by, and fit on the rest "
            "only. By default the figures come from cross-fitting, and the calibrator "
            "that is written is fitted on all samples.",
            rich_help_panel="Judging",
            show_default=False,
        ),
    ] = None,
    folds: _options.Folds = 5,
    n_bins: _options.Bins = 15,
    n_bootstrap: _options.Bootstrap = 1000,
    seed: _options.Seed = 0,
    keep_outputs: Annotated[
        bool,
        typer.Option(
            "--keep-outputs",
            help="Leave the model's outputs as they are; add the calibrated ones.",
        ),
    ] = False,
    add_probabilities: Annotated[
        bool,
        typer.Option(
            "--add-probabilities",
            help="Serve the calibrated probabilities as an output more. Without it "
            "outputs keep their meaning: logits stay logits.",
        ),
    ] = False,
    overwrite: _options.Overwrite = False,
    json: _options.Json = False,
) -> None:
    """Fit a calibrator on held-out data and write it as ONNX.

    With MODEL, into a copy of the model; without, as a model from logits to
    probabilities.
    """
    with mistakes_told():
        _commands.run_calibrate(
            _source(context),
            method,
            output,
            report,
            judging=Judging(test_fraction, folds, n_bins, n_bootstrap, seed),
            gamma=gamma,
            keep_outputs=keep_outputs,
            add_probabilities=add_probabilities,
            overwrite=overwrite,
            as_json=json,
        )


@app.command(epilog=EXIT_CODES)
def evaluate(
    context: typer.Context,
    model: _options.Model = None,
    inputs: _options.Inputs = None,
    inputs_key: _options.Key = None,
    logits: _options.Logits = None,
    logits_key: _options.Key = None,
    probabilities: _options.Probabilities = None,
    probabilities_key: _options.Key = None,
    floor: _options.Floor = 1e-12,
    labels: _options.Labels = None,
    labels_key: _options.LabelsKey = None,
    classes: _options.Classes = None,
    model_output: _options.ModelOutput = None,
    n_bins: _options.Bins = 15,
    n_bootstrap: _options.Bootstrap = 1000,
    seed: _options.Seed = 0,
    json: _options.Json = False,
) -> None:
    """Print the calibration metrics of a model, of logits or of probabilities."""
    with mistakes_told():
        judging = Judging(n_bins=n_bins, n_bootstrap=n_bootstrap, seed=seed)
        _commands.run_evaluate(_source(context), judging=judging, as_json=json)


@app.command(epilog=EXIT_CODES)
def compare(
    context: typer.Context,
    model: _options.Model = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods to compare, separated by commas; all by default.",
            show_default=False,
        ),
    ] = None,
    inputs: _options.Inputs = None,
    inputs_key: _options.Key = None,
    logits: _options.Logits = None,
    logits_key: _options.Key = None,
    probabilities: _options.Probabilities = None,
    probabilities_key: _options.Key = None,
    floor: _options.Floor = 1e-12,
    labels: _options.Labels = None,
    labels_key: _options.LabelsKey = None,
    classes: _options.Classes = None,
    model_output: _options.ModelOutput = None,
    folds: _options.Folds = 5,
    n_bins: _options.Bins = 15,
    seed: _options.Seed = 0,
    json: _options.Json = False,
) -> None:
    """Print a table of all methods, each judged on folds it was not fitted on."""
    with mistakes_told():
        judging = Judging(folds=folds, n_bins=n_bins, seed=seed)
        _commands.run_compare(_source(context), methods, judging=judging, as_json=json)
