"""The options that commands share, alone and in groups."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from skcalib._numerics import PROBA_FLOOR
from skcalib.cli._errors import UsageError
from skcalib.cli._rows import Role


def _data(text: str, *, show_default: bool = False) -> Any:
    return typer.Option(help=text, rich_help_panel="Data", show_default=show_default)


def _judging(*names: str, text: str, **more: Any) -> Any:
    """Return an option that says how figures are made."""
    return typer.Option(*names, help=text, rich_help_panel="Judging", **more)


Key = Annotated[
    str | None,
    _data(
        "Name of the array in the file, or of the columns of a table, separated by "
        "commas. Usual names are found."
    ),
]
Normalise = Annotated[
    bool,
    typer.Option(
        "--normalise",
        help="Divide each row of --probabilities by its sum, as rounded ones need.",
        rich_help_panel="Data",
    ),
]
Folds = Annotated[int, _judging(min=2, text="Folds of the cross-fitting.")]
Bins = Annotated[int, _judging("--n-bins", min=1, text="Bins of ECE and the like.")]
Bootstrap = Annotated[
    int,
    _judging(
        "--n-bootstrap",
        min=0,
        text="Bootstrap samples of the 95 % intervals; 0 leaves them out.",
    ),
]
Seed = Annotated[int, _judging(min=0, text="Seed of all that is random.")]
Calibrator = Annotated[
    Path | None,
    typer.Option(
        help="Calibrator to apply, a .json file of calibrate --save. It is not fitted.",
        show_default=False,
    ),
]
Report = Annotated[
    Path | None, typer.Option(help="HTML report to write.", show_default=False)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.")
]
Format = Annotated[
    Literal["text", "markdown", "latex", "csv"],
    typer.Option("--format", help="How to write the table, the lowest NLL first."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")
]


@dataclass(frozen=True)
class Source:
    """The files named on the command line, and where to look in them."""

    model: Annotated[
        Path | None,
        typer.Argument(help="ONNX file of the classifier.", show_default=False),
    ] = None
    inputs: Annotated[
        Path | None,
        _data(
            "Inputs of the model, .npy or .npz, also with the labels. Several inputs "
            "are arrays, or columns, of their names. A folder of images has a folder "
            "for each class."
        ),
    ] = None
    inputs_key: Key = None
    preprocess: Annotated[
        str | None,
        _data(
            "What the model was trained on instead of whole images in [0, 1], such as "
            "'resize=256 crop=224 mean=0.5,0.5,0.5 std=0.5,0.5,0.5', or imagenet."
        ),
    ] = None
    logits: Annotated[
        Path | None,
        _data(
            "Logits instead of inputs: .npy, .npz, .csv, .jsonl, .parquet, .feather, "
            ".h5, .zarr, .pt, .safetensors, the folder of a Hugging Face data set, or "
            "- for a .csv or .jsonl on standard input."
        ),
    ] = None
    logits_key: Key = None
    probabilities: Annotated[
        Path | None,
        _data(
            "Probabilities instead of logits. The two are never told apart by their "
            "values."
        ),
    ] = None
    probabilities_key: Key = None
    floor: Annotated[
        float,
        _data("Smaller --probabilities are raised to this.", show_default=True),
    ] = PROBA_FLOOR
    normalise: Normalise = False
    labels_key: Annotated[
        str | None, _data("Name of the array or column of labels.")
    ] = None
    model_output: Annotated[
        str | None,
        _data("Output of the model that holds the scores, where it has several."),
    ] = None

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        named = (self.model, self.inputs, self.logits, self.probabilities)
        return [path for path in named if path is not None]

    @property
    def has_values(self) -> bool:
        """Whether a file of inputs, logits or probabilities is named."""
        return any((self.inputs, self.logits, self.probabilities))

    @property
    def values(self) -> tuple[Role, Path, str | None]:
        """The one file of inputs, logits or probabilities, and the key in it."""
        named: list[tuple[Role, Path | None, str | None]] = [
            ("inputs", self.inputs, self.inputs_key),
            ("logits", self.logits, self.logits_key),
            ("probabilities", self.probabilities, self.probabilities_key),
        ]
        given = [(role, path, key) for role, path, key in named if path is not None]
        if len(given) != 1:
            raise UsageError(
                "Pass exactly one of --inputs (for a model), --logits and "
                f"--probabilities; got {len(given)} of them."
            )
        if given[0][0] == "inputs" and self.model is None:
            raise UsageError(
                "--inputs are the inputs of a model; name its ONNX file too, or pass "
                "what the model said of them: --logits or --probabilities."
            )
        return given[0]


@dataclass(frozen=True)
class Labelled(Source):
    """The same with labels, for commands that fit or judge."""

    labels: Annotated[
        Path | None, _data("Labels, where they are not in the same file.")
    ] = None
    groups: Annotated[
        Path | None,
        _data("Groups, where they are not in the file of the scores or inputs."),
    ] = None
    groups_key: Annotated[
        str | None,
        _data(
            "Name of the array or column that tells which rows belong together, such "
            "as copies of an image, frames of a video or rows of a patient. A group is "
            "on one side of each fold, and intervals draw it as a whole."
        ),
    ] = None
    classes: Annotated[
        str | None,
        _data(
            "Labels in the order of the model's outputs, separated by commas, or names "
            "for labels that are column numbers. By default columns of a table that "
            "are named after the labels are theirs; else integer labels are column "
            "numbers, and others are sorted."
        ),
    ] = None

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        beside = (self.labels, self.groups)
        return super().files + [path for path in beside if path is not None]


@dataclass(frozen=True)
class Judging:
    """How the figures of the report are made.

    Without `test_fraction` they come from cross-fitting in so many `folds`.
    """

    test_fraction: Annotated[
        float | None,
        _judging(
            min=0.01,
            max=0.99,
            text="Hold out this part of the samples to judge by, and fit on the rest "
            "only. By default the figures come from cross-fitting, and the calibrator "
            "that is written is fitted on all samples.",
            show_default=False,
        ),
    ] = None
    folds: Folds = 5
    n_bins: Bins = 15
    n_bootstrap: Bootstrap = 1000
    seed: Seed = 0


@dataclass(frozen=True)
class Serving:
    """Which outputs the calibrated model has."""

    keep_outputs: Annotated[
        bool,
        typer.Option(
            "--keep-outputs",
            help="Leave the model's outputs as they are; add the calibrated ones.",
        ),
    ] = False
    add_probabilities: Annotated[
        bool,
        typer.Option(
            "--add-probabilities",
            help="Serve the calibrated probabilities as an output more. Without it "
            "outputs keep their meaning: logits stay logits.",
        ),
    ] = False

    @property
    def given(self) -> list[str]:
        """The options that are set."""
        return [
            f"--{k.replace('_', '-')}" for k, is_set in vars(self).items() if is_set
        ]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its groups, in the place where a group stands.

    A group is a parameter annotated with a dataclass: its fields become parameters,
    and the command gets the dataclass made of them. A name that two groups share is
    refused here, when the command is defined.
    """
    parameters = inspect.signature(command).parameters
    groups = {p.name: p.annotation for p in parameters.values() if _is_group(p)}
    shown: list[inspect.Parameter] = []
    for parameter in parameters.values():
        shown += _options_of(parameter) if parameter.name in groups else [parameter]

    @wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(
                **{field.name: values.pop(field.name) for field in fields(group)}
            )
            for name, group in groups.items()
        }
        command(**made, **values)

    signature = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in shown]
    )
    vars(run)["__signature__"] = signature
    return run


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def _options_of(group: inspect.Parameter) -> list[inspect.Parameter]:
    return [
        group.replace(name=field.name, annotation=field.type, default=field.default)
        for field in fields(group.annotation)
    ]
