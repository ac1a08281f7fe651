"""All methods on real networks: the table of a calibration paper.

For each of `--splits` seeds, one stratified half is fitted on and the other judged;
mean and standard deviation over the splits. Accuracy, ECE, AECE and SCE are in percent
with 15 bins, entropy and NLL in nats. The best mean of a column is bold, which does not
make it significant: compare it with the standard deviations, and remember that all
methods see the same halves. Searching the ODIR penalties of a hundred classes is by far
the slowest row; pairs of that many classes are left out.

Needs data.
"""

from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks._data import SETS, load_set
from benchmarks._tables import Table
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
    SmoothingSplineCalibration,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
)
from skcalib.model_selection import CalibratorSearch, compare_calibrators

METHODS = {
    "temperature": TemperatureScaling(),
    "temperature, ECE on a grid": TemperatureScaling(objective="ece"),
    "temperature, focal loss": TemperatureScaling(objective="focal"),
    "temperature, Brier score": TemperatureScaling(objective="brier"),
    "temperature, top versus all": TemperatureScaling(objective="top"),
    "ensemble temperature": EnsembleTemperatureScaling(),
    "vector": VectorScaling(),
    "vector, top versus all": VectorScaling(objective="top"),
    "matrix, ODIR": MatrixScaling(),
    "Dirichlet, ODIR": DirichletCalibration(),
    "structured vector": StructuredMatrixScaling(structure="vector"),
    "structured matrix": StructuredMatrixScaling(),
    "order-preserving": OrderPreservingScaling(),
    "structured matrix, order-preserving": OrderPreservingScaling(
        StructuredMatrixScaling()
    ),
    "Platt": PlattScaling(),
    "beta": BetaCalibration(),
    "smoothing spline": SmoothingSplineCalibration(),
    "isotonic": IsotonicCalibration(),
    "isotonic, strict": IsotonicCalibration(method="strict"),
    "isotonic, strict, after temperature": IsotonicCalibration(
        method="strict_temperature"
    ),
    "isotonic, shared": IsotonicCalibration(method="shared"),
    "isotonic, top label": IsotonicCalibration(method="top_label"),
    "histogram, equal width": HistogramBinning(),
    "histogram, equal mass": HistogramBinning(strategy="quantile"),
    "Bayesian binning (BBQ)": BayesianBinning(),
    "BBQ, top label": BayesianBinning(method="top_label"),
    "scaling-binning": ScalingBinning(),
    "scaling-binning, every class": ScalingBinning(method="one_vs_rest"),
    "spline, top label": SplineCalibration(),
    "spline, every class": SplineCalibration(method="one_vs_rest"),
    "Venn-Abers": VennAbersCalibration(),
    "Venn-Abers, five folds": VennAbersCalibration(cv=5),
    "Venn-Abers, pairs": VennAbersCalibration(method="one_vs_one"),
    "the default search": CalibratorSearch(),
}
# Those of the shortest table.
COMMON = [
    *("uncalibrated", "temperature", "ensemble temperature", "vector"),
    *("matrix, ODIR", "Dirichlet, ODIR", "structured vector", "structured matrix"),
    *("Platt", "beta", "isotonic, strict, after temperature"),
]
# What fits beside each other on a page.
CIFAR10 = ("cifar10-resnet8d", "cifar10-resnet20", "cifar10-resnet32", "cifar10-wrn")
# Of so many classes on, the table is that of many, and pairs take too long.
MANY = 100
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
CHOICES = {"sets": SETS, "methods": METHODS}
TINY = {
    "sets": ("orientation",),
    "methods": ("temperature", "structured vector"),
    "splits": 2,
}


def run(*, sets=tuple(SETS), methods=tuple(METHODS), splits=5):
    for name in sets:
        X, y = load_set(name)
        halves = StratifiedShuffleSplit(splits, test_size=0.5, random_state=0)
        case = {"set": name, "classes": X.shape[1], "samples": X.shape[0]}
        for method in methods:
            if method == "Venn-Abers, pairs" and X.shape[1] >= MANY:
                continue
            found = compare_calibrators({method: METHODS[method]}, X, y, cv=halves)
            found = found.to_dict()
            for title in ("uncalibrated", method) if method == methods[0] else [method]:
                of = {c: found[title][c.lower()] for c in COLUMNS}
                means = {c: of[c]["mean"] for c in COLUMNS}
                deviations = {f"{c} std": of[c]["std"] for c in COLUMNS}
                yield {**case, "method": title, **means, **deviations}


def by_set(rows):
    """Return ``{set: {method: row}}``."""
    sets = {}
    for row in rows:
        sets.setdefault(row["set"], {})[row["method"]] = row
    return sets


def text(row, column):
    """One mean and standard deviation; seconds without the latter."""
    factor, digits, _ = COLUMNS[column]
    mean = f"{factor * row[column]:.{digits}f}"
    if column == "fit seconds":
        return mean
    return f"{mean} ± {factor * row[f'{column} std']:.{digits}f}"


def summary(rows):
    """A table a network, the best means bold."""
    for name, table in by_set(rows).items():
        heads = [
            "method",
            *(f"{c} %" if f == 100 else c for c, (f, *_) in COLUMNS.items()),
        ]
        lines = [[method] for method in table]
        for column, (_, _, choose) in COLUMNS.items():
            best = choose(row[column] for row in table.values()) if choose else None
            for line, row in zip(lines, table.values(), strict=True):
                cell = text(row, column)
                line.append(f"**{cell}**" if row[column] == best else cell)
        n_samples = next(iter(table.values()))["samples"]
        yield Table(heads, lines, f"{SETS[name][0]} (n = {n_samples:,})")


def three_networks(rows):
    """Log-loss and ECE with their deviations, of common methods on three networks."""
    names = ["cifar10-resnet20", "cifar100-resnet20", "fashion-mnist"]
    sets = by_set(rows)
    lines = [
        [
            method,
            *(
                f"{text(sets[n][method], 'NLL')}; {text(sets[n][method], 'ECE')} %"
                for n in names
            ),
        ]
        for method in COMMON
    ]
    return Table(["method", *(SETS[name][0] for name in names)], lines)


def all_methods(rows):
    """Log-loss, the lowest bold, and ECE of all methods; nothing where not run."""
    sets = by_set(rows)
    lines = []
    for method in ["uncalibrated", *METHODS]:
        cells = []
        for table in sets.values():
            if method not in table:
                cells.append("")
                continue
            lowest = min(row["NLL"] for row in table.values())
            loss = f"{table[method]['NLL']:.4f}"
            bold = "**" * (loss == f"{lowest:.4f}")
            cells.append(f"{bold}{loss}{bold}; {100 * table[method]['ECE']:.2f}")
        lines.append([method, *cells])
    lines = [line for line in lines if any(line[1:])]
    return Table(["method", *(SETS[name][0] for name in sets)], lines)


TABLES = {
    "three_networks": three_networks,
    "cifar10": lambda rows: all_methods([r for r in rows if r["set"] in CIFAR10]),
    "few_classes": lambda rows: all_methods(
        [r for r in rows if r["classes"] < MANY and r["set"] not in CIFAR10]
    ),
    "many_classes": lambda rows: all_methods([r for r in rows if r["classes"] >= MANY]),
}
