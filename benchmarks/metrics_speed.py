"""Speed of the metrics against other libraries, as ratios within one run.

Prints seconds and values for 25,000 x 1,000 and 1,000,000 x 100 single-precision
probabilities, and for 5,000 x 10 of double precision those whose time grows with the
square of the rows, all on one thread, input checks included on both sides. Rivals that
are not installed are named and left out:
pip install netcal pycalib relplot torch-uncertainty torchmetrics probmetrics
and, as files on PYTHONPATH, the authors' ece_kde.py of github.com/tpopordanoska/ece-kde
and the folder caltrain of github.com/google-research/google-research.

Usage: OMP_NUM_THREADS=1 python benchmarks/metrics_speed.py [--small] [--repeats 5]
       python benchmarks/metrics_speed.py --pairs
"""

import argparse
import importlib
import resource
import time
import tracemalloc
from functools import partial

import numpy as np
from scipy.special import softmax

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

        torch.set_num_threads(1)

        def measure(y, proba):
            metric = getattr(module, name)(num_classes=proba.shape[1], **options)
            metric.update(torch.from_numpy(proba), torch.from_numpy(y))
            return float(metric.compute())

        return measure

    return adapt


def authors_kde(kind):
    """Adapt the KDE-ECE of its authors."""

    def adapt(module):
        import torch

        torch.set_num_threads(1)

        def measure(y, proba):
            rows, labels = torch.from_numpy(proba), torch.from_numpy(y)
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

    torch.set_num_threads(1)
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
    "sweep": (
        metrics.sweep_calibration_error,
        [("authors", "caltrain.calibration_metrics", authors_sweep)],
    ),
    "refinement": (
        metrics.refinement_loss,
        [("probmetrics", "probmetrics.metrics", probmetrics_refinement)],
    ),
    "KDE top": (
        kde("top_label"),
        [("authors", "ece_kde", authors_kde("top_label"))],
    ),
    "KDE all": (
        kde("canonical"),
        [("authors", "ece_kde", authors_kde("canonical"))],
    ),
    "SKCE": (
        partial(metrics.squared_kernel_calibration_error, bandwidth=BANDWIDTH),
        [("NumPy", "numpy", all_pairs)],
    ),
}


def best_time(measure, y, proba, repeats):
    """Smallest wall time over `repeats` runs; one run where a run takes seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        value = measure(y, proba)
        best = min(best, time.perf_counter() - start)
        if best > 3:
            break
    return best, float(value)


def load(module, adapter):
    try:
        return adapter(importlib.import_module(module)), None
    except (ImportError, RuntimeError) as error:
        return None, f"not usable: {str(error).splitlines()[0]}"


def compare(y, proba, repeats, contenders=METRICS):
    one_pass, _ = best_time(lambda _, p: p.max(), y, proba, repeats)
    print(f"\n{proba.shape[0]:,} x {proba.shape[1]:,}; one pass (max) {one_pass:.4f} s")
    for metric, (measure, rivals) in contenders.items():
        seconds, value = best_time(measure, y, proba, repeats)
        passes = f"{seconds / one_pass:.1f} passes"
        print(f"{metric:<11}{'skcalib':<20}{seconds:9.4f} s  {value:.6f}  {passes}")
        for library, module, adapter in rivals:
            rival, why_not = load(module, adapter)
            if rival is None:
                print(f"{'':<11}{library:<20}{why_not}")
                continue
            theirs, other = best_time(rival, y, proba, repeats)
            ratio = f"{theirs / seconds:.1f} times ours, value {other - value:+.0e}"
            print(f"{'':<11}{library:<20}{theirs:9.4f} s  {other:.6f}  {ratio}")


def peak_memory(y, proba, contenders=METRICS):
    """Print the most extra memory that each of our metrics holds."""
    for metric, (measure, _) in contenders.items():
        tracemalloc.start()
        measure(y, proba)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        share = 100 * peak / proba.nbytes
        print(f"{metric:<11}peak {peak / 2**20:6.1f} MiB, {share:.1f} % of the input")


def report(y, proba):
    start = time.perf_counter()
    metrics.calibration_report(y, proba, random_state=0)
    seconds = time.perf_counter() - start
    print(f"report with 1,000 bootstrap replicates: {seconds:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="only 25,000 x 1,000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pairs", action="store_true", help="only 5,000 x 10")
    arguments = parser.parse_args()
    logits, y = make_logits(5_000, 10, random_state=0)
    compare(y, softmax(logits, axis=1), arguments.repeats, PAIRS)
    peak_memory(y, softmax(logits, axis=1), PAIRS)
    if arguments.pairs:
        return
    shapes = [(25_000, 1_000)] + [(1_000_000, 100)] * (not arguments.small)
    for n_samples, n_classes in shapes:
        logits, y = make_logits(n_samples, n_classes, dtype=np.float32, random_state=0)
        proba = softmax(logits, axis=1)
        del logits
        compare(y, proba, arguments.repeats)
        peak_memory(y, proba)
        if n_samples <= 25_000:
            report(y, proba)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nlargest resident size of the process, rivals included: {rss:.1f} GiB")


if __name__ == "__main__":
    main()
