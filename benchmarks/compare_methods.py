"""All methods on real networks: the table of a calibration paper.

One block a network, one row a method; mean and standard deviation over random
stratified halves, one to fit on and the other to judge by. Accuracy, ECE, AECE and SCE
are in percent (15 bins), entropy and NLL in nats; the best mean of a column is bold.
Tables go to the standard output, progress to the standard error.

Usage: SKCALIB_DATA=<folder> python benchmarks/compare_methods.py
       [--sets cifar10-resnet20 ...] [--methods TS SMS ...] [--splits 5]
       [--output results.md | results.json]
"""

import argparse
import json
import sys
import time
from pathlib import Path

from _common import DATA, SETS, load_set
from sklearn.model_selection import StratifiedShuffleSplit

from skcalib import (
    BayesianBinning,
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    ScalingBinning,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.model_selection import CalibratorSearch, compare_calibrators

METHODS = {
    "TS": TemperatureScaling(),
    "TS-grid": TemperatureScaling(objective="ece"),
    "TS-focal": TemperatureScaling(objective="focal"),
    "TS-Brier": TemperatureScaling(objective="brier"),
    "ETS": EnsembleTemperatureScaling(),
    "VS": VectorScaling(),
    "MS-ODIR": MatrixScaling(),
    "Dir-ODIR": DirichletCalibration(),
    "SVS": StructuredMatrixScaling(structure="vector"),
    "SMS": StructuredMatrixScaling(),
    "OP": OrderPreservingScaling(),
    "SMS-OP": OrderPreservingScaling(StructuredMatrixScaling()),
    "Platt": PlattScaling(),
    "beta": BetaCalibration(),
    "isotonic": IsotonicCalibration(),
    "IROvA": IsotonicCalibration(method="strict"),
    "IROvA-TS": IsotonicCalibration(method="strict_temperature"),
    "IRM": IsotonicCalibration(method="shared"),
    "isotonic-top": IsotonicCalibration(method="top_label"),
    "histogram-width": HistogramBinning(),
    "histogram-mass": HistogramBinning(strategy="quantile"),
    "BBQ": BayesianBinning(),
    "BBQ-top": BayesianBinning(method="top_label"),
    "scaling-binning": ScalingBinning(),
    "scaling-binning-classes": ScalingBinning(method="one_vs_rest"),
    "spline": SplineCalibration(),
    "spline-classes": SplineCalibration(method="one_vs_rest"),
    "Venn-Abers": VennAbersCalibration(),
    "Venn-Abers-cross": VennAbersCalibration(cv=5),
    "Venn-Abers-pairs": VennAbersCalibration(method="one_vs_one"),
    "default": CalibratorSearch(),
}
DEFAULT_SETS = [
    "cifar10-resnet8d",
    "cifar10-resnet20",
    "cifar10-resnet32",
    "cifar100-resnet8",
    "cifar100-resnet20",
    "cifar100-wrn",
    "fashion-mnist",
    "orientation",
]

# Column: factor and digits when printed, and which end is the best.
COLUMNS = {
    "accuracy": (100, 2, max),
    "entropy": (1, 4, None),
    "ECE": (100, 2, min),
    "AECE": (100, 2, min),
    "SCE": (100, 3, min),
    "NLL": (1, 4, min),
    "Brier": (1, 4, min),
    "fit seconds": (1, 3, None),
}


def compare(name, methods, n_splits):
    """Return ``table[method][metric]`` with "mean" and "std"."""
    X, y = load_set(name)
    splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0)
    table = {}
    for method in methods:
        start = time.perf_counter()
        comparison = compare_calibrators({method: METHODS[method]}, X, y, cv=splits)
        table.update(comparison.to_dict())
        seconds = time.perf_counter() - start
        print(f"{name}: {method}, {seconds:.1f} s", file=sys.stderr, flush=True)
    return {"n_samples": X.shape[0], "n_classes": X.shape[1], "table": table}


def cell(column, value, best):
    """One mean and standard deviation as text; seconds without the latter."""
    factor, digits, _ = COLUMNS[column]
    mean = f"{factor * value['mean']:.{digits}f}"
    if column == "fit seconds":
        return mean
    text = f"{mean} ± {factor * value['std']:.{digits}f}"
    return f"**{text}**" if value["mean"] == best else text


def markdown(name, result):
    """The block of one network as an aligned Markdown table."""
    table = result["table"]
    columns = []
    for column, (factor, _, choose) in COLUMNS.items():
        values = [row[column] for row in table.values()]
        best = choose(v["mean"] for v in values) if choose else None
        title = f"{column} %" if factor == 100 else column
        columns.append([title, *(cell(column, v, best) for v in values)])
    rows = list(zip(["method", *table], *columns, strict=True))
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    lines = []
    for method, *values in rows:
        padded = [method.ljust(widths[0]), *map(str.rjust, values, widths[1:])]
        lines.append(f"| {' | '.join(padded)} |")
    size = f"K = {result['n_classes']}, n = {result['n_samples']:,}"
    return "\n".join([f"### {SETS[name][0]} ({size})", "", *lines, ""])


def write(path, results, n_splits):
    """Write what is there, so that a long run that is stopped has something."""
    if path.suffix == ".json":
        text = json.dumps({"n_splits": n_splits, "sets": results}, indent=1) + "\n"
    else:
        text = "\n".join(markdown(*item) for item in results.items())
    path.write_text(text, encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = {"nargs": "+", "metavar": "NAME"}
    sets = f"from {', '.join(SETS)}"
    parser.add_argument(
        "--sets", default=DEFAULT_SETS, choices=SETS, help=sets, **every
    )
    parser.add_argument(
        "--methods",
        default=list(METHODS),
        choices=METHODS,
        help=f"from {', '.join(METHODS)}",
        **every,
    )
    parser.add_argument("--splits", type=int, default=5, help="at least 2")
    parser.add_argument("--output", type=Path, help="a .md or .json file")
    arguments = parser.parse_args()
    if arguments.splits < 2:
        parser.error("--splits: a standard deviation needs two")
    if arguments.output and arguments.output.suffix not in {".md", ".json"}:
        parser.error("--output: name a .md or .json file")
    return arguments


def main():
    arguments = parse_arguments()
    if not DATA.is_dir():
        sys.exit(f"no data folder {DATA}; set SKCALIB_DATA to the real one")
    results = {}
    for name in arguments.sets:
        results[name] = compare(name, arguments.methods, arguments.splits)
        print(markdown(name, results[name]), flush=True)
        if arguments.output:
            write(arguments.output, results, arguments.splits)


if __name__ == "__main__":
    main()
