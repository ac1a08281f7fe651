"""Speed and memory of the metrics beside other libraries.

Part pairs has 5,000 x 10 probabilities for metrics whose time grows with the square of
the rows, part large 25,000 x 1,000 and part huge 1,000,000 x 100 of single precision;
input checks are included on both sides. "ratio" is how often our time the other library
takes, "passes" are seconds in units of one `max` over the probabilities, and
"difference" is by how much its value differs: other code may cut bins elsewhere, or
draw folds of its own. "extra %" is the most extra memory that our metric holds, in
percent of the probabilities.

For the KDE-ECE and the ECE sweep the rivals are the authors' own files, which no
registry has: put `ece_kde.py` of github.com/tpopordanoska/ece-kde and the folder
`caltrain` of github.com/google-research/google-research on `PYTHONPATH`.

Needs rivals.
"""

import importlib
import tracemalloc
from functools import partial

import numpy as np
from scipy.special import softmax

from benchmarks._measure import in_turns, say
from benchmarks._tables import Table
from skcalib import metrics
from skcalib.datasets import make_logits

N_BINS = 15


def ours(function):
    return lambda y, proba: function(y, proba, n_bins=N_BINS)


def relplot_ece(relplot):
    def measure(y, proba):
        pairs = relplot.multiclass_logits_to_confidences(proba, y, probs=True)
        return relplot.metrics.binnedECE(*pairs, nbins=N_BINS)

    return measure


def relplot_smooth(relplot):
    def measure(y, proba):
        pairs = relplot.multiclass_logits_to_confidences(proba, y, probs=True)
        return relplot.smECE(*pairs)

    return measure


def netcal_ece(netcal):
    return lambda y, proba: netcal.ECE(N_BINS).measure(proba, y)


def pycalib_sce(pycalib):
    return lambda y, proba: pycalib.classwise_ECE(y, proba, bins=N_BINS)


def torch_metric(name, **options):
    """Adapt a torchmetrics-style metric, updated once with all rows."""

    def adapt(module):
        import torch

        def measure(y, proba):
            metric = getattr(module, name)(num_classes=proba.shape[1], **options)
            metric.update(torch.from_numpy(proba), torch.from_numpy(y))
            return float(metric.compute())

        return measure

    return adapt


def authors_kde(kind):
    """Adapt the KDE-ECE of its authors, which takes single precision only."""

    def adapt(module):
        import torch

        def measure(y, proba):
            rows, labels = torch.from_numpy(proba).float(), torch.from_numpy(y)
            return module.get_ece_kde(rows, labels, BANDWIDTH, 1, kind, "cpu")

        return measure

    return adapt


def authors_sweep(module):
    metric = module.CalibrationMetric("em_ece_sweep", norm=1)
    return lambda y, proba: metric.compute_error(proba, np.eye(proba.shape[1])[y])


def probmetrics_refinement(module):
    """Adapt the refinement part of the log-loss, with folds of its own."""
    import torch
    from probmetrics.distributions import CategoricalDirac, CategoricalProbs

    name = "refinement_logloss_ts-mix_cv-5"

    def measure(y, proba):
        metric = module.Metrics.from_names([name])
        truth = CategoricalDirac(torch.from_numpy(y), proba.shape[1])
        values = metric.compute_all(truth, CategoricalProbs(torch.from_numpy(proba)))
        return values[name]

    return measure


def all_pairs(_):
    """SKCE with all pairs in memory at once, as a formula is written in NumPy."""

    def measure(y, proba):
        residual = np.eye(proba.shape[1])[y] - proba
        square = (proba**2).sum(axis=1)
        squares = square[:, np.newaxis] + square - 2 * proba @ proba.T
        distance = np.sqrt(np.maximum(squares, 0))
        np.fill_diagonal(distance, 0)
        h = np.exp(-distance / BANDWIDTH) * (residual @ residual.T)
        n = len(y)
        return (h.sum() - np.trace(h)) / (n * (n - 1))

    return measure


TORCH = {"task": "multiclass", "num_bins": N_BINS}
TORCHMETRICS = torch_metric("MulticlassCalibrationError", n_bins=N_BINS)
CLASSIFICATION = "torchmetrics.classification"
UNCERTAINTY = "torch_uncertainty.metrics"

# Metric: our function, and (library, module, adapter) of each rival.
METRICS = {
    "ECE": (
        ours(metrics.expected_calibration_error),
        [
            ("relplot", "relplot", relplot_ece),
            ("torchmetrics", CLASSIFICATION, TORCHMETRICS),
            (
                "torch-uncertainty",
                UNCERTAINTY,
                torch_metric("CalibrationError", **TORCH),
            ),
            ("netcal", "netcal.metrics", netcal_ece),
        ],
    ),
    "AECE": (
        ours(metrics.adaptive_expected_calibration_error),
        [
            (
                "torch-uncertainty",
                UNCERTAINTY,
                torch_metric("AdaptiveCalibrationError", **TORCH),
            )
        ],
    ),
    "SCE": (
        ours(metrics.static_calibration_error),
        [
            ("pycalib", "pycalib.metrics", pycalib_sce),
            (
                "torch-uncertainty",
                UNCERTAINTY,
                torch_metric("ClasswiseCalibrationError", num_bins=N_BINS),
            ),
        ],
    ),
    "smooth ECE": (
        metrics.smooth_calibration_error,
        [("relplot", "relplot", relplot_smooth)],
    ),
}


# Width of the kernels below.
BANDWIDTH = 0.1


def kde(kind):
    return partial(metrics.kde_calibration_error, kind=kind, bandwidth=BANDWIDTH)


# The same for methods that are too slow for the large shapes.
PAIRS = {
    "ECE sweep": (
        metrics.sweep_calibration_error,
        [("authors", "caltrain.calibration_metrics", authors_sweep)],
    ),
    "refinement of the log-loss": (
        metrics.refinement_loss,
        [("probmetrics", "probmetrics.metrics", probmetrics_refinement)],
    ),
    "KDE-ECE, top label": (
        kde("top_label"),
        [("authors", "ece_kde", authors_kde("top_label"))],
    ),
    "KDE-ECE, whole vector": (
        kde("canonical"),
        [("authors", "ece_kde", authors_kde("canonical"))],
    ),
    "SKCE": (
        partial(metrics.squared_kernel_calibration_error, bandwidth=BANDWIDTH),
        [("plain NumPy", "numpy", all_pairs)],
    ),
}


# Part: rows, classes, type and metrics.
SHAPES = {
    "pairs": (5_000, 10, np.float64, PAIRS),
    "large": (25_000, 1_000, np.float32, METRICS),
    "huge": (1_000_000, 100, np.float32, METRICS),
}
CHOICES = {"parts": SHAPES}
TINY = {"parts": ("pairs", "large"), "repeats": 1, "most": 400}


def run(*, parts=tuple(SHAPES), repeats=5, most=1_000_000):
    """Yield one row a metric and library; `most` limits the rows and classes."""
    for part in parts:
        n_samples, n_classes, dtype, contenders = SHAPES[part]
        shape = min(n_samples, most), min(n_classes, most)
        logits, y = make_logits(*shape, dtype=dtype, random_state=0)
        proba = softmax(logits, axis=1)
        del logits
        yield from compare(y, proba, contenders, repeats, part)
        if part == "large":
            report = partial(metrics.calibration_report, y, proba, random_state=0)
            (seconds,), _ = in_turns([report], 1)
            yield {"report with 1,000 replicates": part, "seconds": seconds[0]}


def load(module, adapter):
    try:
        return adapter(importlib.import_module(module)), None
    except (ImportError, RuntimeError) as error:
        return None, f"not usable: {str(error).splitlines()[0]}"


def compare(y, proba, contenders, repeats, part):
    (one_pass,), _ = in_turns([proba.max], repeats)
    for metric, (measure, rivals) in contenders.items():
        names, functions = ["skcalib"], [partial(measure, y, proba)]
        for library, module, adapter in rivals:
            rival, why_not = load(module, adapter)
            if rival is None:
                say(f"{library} {why_not}")
            else:
                names.append(library)
                functions.append(partial(rival, y, proba))
        times, values = in_turns(functions, repeats)
        extra = extra_memory(functions[0])
        for name, seconds, value in zip(names, times, values, strict=True):
            yield {
                "part": part,
                "metric": metric,
                "library": name,
                "seconds": seconds.min(),
                "passes": seconds.min() / one_pass.min(),
                "ratio": seconds.min() / times[0].min(),
                "value": float(value),
                "difference": float(value) - float(values[0]),
                "extra %": 100 * extra / proba.nbytes if name == names[0] else np.nan,
            }


def extra_memory(function):
    """Bytes that a call holds at the most."""
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def pairs(rows):
    """Seconds of the metrics of part pairs, and the time of the other code."""
    lines = {}
    for row in rows:
        if row.get("part") == "pairs":
            line = lines.setdefault(row["metric"], [row["metric"], "", ""])
            if row["library"] == "skcalib":
                line[1] = f"{row['seconds']:.2g}"
            else:
                line[2] = f"{row['ratio']:.2g} times ({row['library']})"
    return Table(["metric", "seconds", "time of the other code"], [*lines.values()])


TABLES = {"pairs": pairs}
