"""Base rates that moved, on real networks: corrected by unlabelled rows, or not.

Half of the labelled rows calibrates. From the other half, rows are drawn by shares of
the classes from a Dirichlet distribution: alpha 0.1 leaves a few classes, 10 moves
little. As many unlabelled rows as `rows` says are there to estimate by, and as many
others judge. Mean over the draws of log-loss, accuracy, ECE in percent, and the sum of
the absolute errors of the shares.

- none: the calibrator of `PriorShift`, for the shares of the calibration half;
- em, bbse: `PriorShift().update_priors`; known: the true shares as `priors`;
- abstention: its EM after bias-corrected temperature scaling;
- QuaPy: its EMQ on the probabilities as they came.

Needs data, rivals: abstention, quapy.
"""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from benchmarks._data import load_set
from benchmarks._measure import normalise, say
from benchmarks._tables import Table
from skcalib import PriorShift
from skcalib.metrics import expected_calibration_error

NETWORKS = ("cifar10-resnet20", "cifar100-resnet20", "fashion-mnist", "orientation")
SETS = (*NETWORKS, "langid")
CHOICES = {"sets": SETS}
TINY = {"sets": ("orientation",), "draws": 1, "rows": 200}
ALPHAS = (0.1, 1.0, 10.0)
MEASURES = {"log-loss": 4, "accuracy": 2, "ECE": 2, "shares": 3}


def run(*, sets=SETS, draws=10, rows=1000):
    for name in sets:
        X, y = load_set(name)
        X = X.astype(np.float64)
        cal, rest = train_test_split(
            np.arange(len(y)), test_size=0.5, stratify=y, random_state=0
        )
        fitted = PriorShift(n_bootstrap=0).fit(X[cal], y[cal])
        rivals = load_rivals(X[cal], y[cal])
        for alpha in ALPHAS:
            for seed in range(draws):
                rng = np.random.default_rng(seed)
                shares = draw_shares(rng, alpha, y[rest], X.shape[1])
                seen, test = (draw_rows(rng, shares, y[rest], rows) for _ in range(2))
                case = {"set": name, "alpha": alpha, "draw": seed, "rows": rows}
                given = X[rest][seen], X[rest][test]
                for method, (found, proba) in answers(
                    fitted, rivals, shares, *given
                ).items():
                    measured = judge(proba, y[rest][test])
                    error = float(np.abs(found - shares).sum())
                    yield case | {"method": method, **measured, "shares": error}


def draw_shares(rng, alpha, y, n_classes):
    """Shares of the classes, none of those that the rows lack."""
    there = np.bincount(y, minlength=n_classes) > 0
    shares = rng.dirichlet(np.full(there.sum(), alpha))
    found = np.zeros(n_classes)
    found[there] = shares
    return found


def draw_rows(rng, shares, y, n_rows):
    """Rows of classes in these shares, with replacement."""
    rows = [np.flatnonzero(y == k) for k in range(len(shares))]
    counts = rng.multinomial(n_rows, shares)
    return np.concatenate(
        [rng.choice(rows[k], counts[k]) for k in np.flatnonzero(counts)]
    )


def answers(fitted, rivals, shares, X, X_test):
    """The shares each method finds, and its probabilities."""
    fitted.set_params(method="em", priors="estimate")
    fitted.priors_ = fitted.fit_priors_
    found = {"none": (fitted.fit_priors_, fitted.predict_proba(X_test))}
    for method in ("em", "bbse"):
        fitted.set_params(method=method).update_priors(X)
        found[method] = fitted.priors_, fitted.predict_proba(X_test)
    fitted.priors_ = shares
    found["known"] = shares, fitted.predict_proba(X_test)
    for name, rival in rivals.items():
        found[name] = rival(X, X_test)
    return found


def load_rivals(X, y):
    """Functions from unlabelled and test logits to shares and probabilities."""
    found = {}
    proba, hot = softmax(X, axis=1), np.eye(X.shape[1])[y]
    try:
        from abstention.calibration import TempScaling
        from abstention.label_shift import EMImbalanceAdapter

        def abstention(seen, test):
            adapter = EMImbalanceAdapter(
                calibrator_factory=TempScaling(bias_positions="all")
            )
            adapt = adapter(softmax(seen, axis=1), proba, hot)
            ratio = adapt.multipliers
            shares = ratio * adapt.calibrator_func(proba).mean(axis=0)
            return shares / shares.sum(), normalise(adapt(softmax(test, axis=1)))

        found["abstention"] = abstention
    except ImportError as error:
        say(f"abstention is left out: {error}")
    try:
        from quapy.method.aggregative import EMQ

        def quapy(seen, test):
            old = hot.mean(axis=0)
            shares, _ = EMQ.EM(old.copy(), softmax(seen, axis=1))
            old = np.maximum(old, 1e-6)
            return shares, normalise(softmax(test, axis=1) * shares / old)

        found["QuaPy"] = quapy
    except ImportError as error:
        say(f"QuaPy is left out: {error}")
    return found


def judge(proba, y):
    return {
        "log-loss": log_loss(y, normalise(proba), labels=np.arange(proba.shape[1])),
        "accuracy": 100 * float((proba.argmax(axis=1) == y).mean()),
        "ECE": 100 * expected_calibration_error(y, proba),
    }


def shifts(rows):
    """A line a set, alpha and method; means over the draws."""
    cases = {}
    for row in rows:
        case = row["set"], row["alpha"], row["method"]
        cases.setdefault(case, []).append(row)
    lines = [
        [
            *case,
            *(f"{np.mean([r[m] for r in runs]):.{d}f}" for m, d in MEASURES.items()),
        ]
        for case, runs in cases.items()
    ]
    columns = ["set", "alpha", "method", *MEASURES]
    return Table(columns, lines, f"Means over the draws, {rows[0]['rows']:,} rows")


def by_method(rows):
    """Log-loss: a line a set and alpha, a column a method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases = {}
    for row in rows:
        case = cases.setdefault((row["set"], row["alpha"]), {})
        case.setdefault(row["method"], []).append(row["log-loss"])
    lines = [
        [*case, *(f"{np.mean(found[m]):.4f}" for m in methods)]
        for case, found in cases.items()
    ]
    n_draws = 1 + max(row["draw"] for row in rows)
    title = f"Log-loss after {rows[0]['rows']:,} unlabelled rows, {n_draws} draws"
    return Table(["set", "alpha", *methods], lines, title)


def summary(rows):
    return [shifts(rows), by_method(rows)]


TABLES = {"shifts": shifts, "by_method": by_method}
