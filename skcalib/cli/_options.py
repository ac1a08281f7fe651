"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

_DATA = "Data"
_REPORTING = "Judging"

Model = Annotated[
    Path | None,
    typer.Argument(help="ONNX file of the classifier.", show_default=False),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        help="Inputs of the model, .npy or .npz, also with the labels.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Logits = Annotated[
    Path | None,
    typer.Option(
        help="Logits instead of inputs: .npy, .npz, .csv or .parquet.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Probabilities = Annotated[
    Path | None,
    typer.Option(
        help="Probabilities instead of logits. The two are never told apart by "
        "their values.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Floor = Annotated[
    float,
    typer.Option(
        help="Smaller --probabilities are raised to this.", rich_help_panel=_DATA
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Labels, where they are not in the same file.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help="Name of the array in an .npz file, or of the columns of a table, "
        "separated by commas. Usual names are found.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
LabelsKey = Annotated[
    str | None,
    typer.Option(
        help="Name of the array or column of labels.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Labels in the order of the model's outputs, separated by commas. By "
        "default columns of a table that are named after the labels are theirs; else "
        "integer labels are column numbers, and others are sorted.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
ModelOutput = Annotated[
    str | None,
    typer.Option(
        help="Output of the model that holds the scores, where it has several.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
Folds = Annotated[
    int,
    typer.Option(min=2, help="Folds of the cross-fitting.", rich_help_panel=_REPORTING),
]
Bins = Annotated[
    int,
    typer.Option(
        "--n-bins", min=1, help="Bins of ECE and the like.", rich_help_panel=_REPORTING
    ),
]
Bootstrap = Annotated[
    int,
    typer.Option(
        "--n-bootstrap",
        min=0,
        help="Bootstrap samples of the 95 % intervals; 0 leaves them out.",
        rich_help_panel=_REPORTING,
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, help="Seed of all that is random.", rich_help_panel=_REPORTING),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")
]
