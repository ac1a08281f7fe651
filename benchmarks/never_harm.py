"""What calibration costs where it could harm: few samples, no errors, gaps, zeros.

Log-losses in nats on rows that no fit has seen, means over `--seeds` draws.

"strengths" compares strengths of the prior, of which the default is one. "few" draws
`--samples` rows of a network or tabular classifier to fit on, as they are and without
those that are misclassified (few rows of an accurate network may well be so), and puts
the default beside the published form, ``prior=None``; "harm" is the log-loss less that
of the untouched probabilities. "plenty" is the same with half of all rows. "absent"
leaves three of ten, or thirty of a hundred, classes out of the fit, not of the test,
and puts methods beside temperature scaling. "floors" compares the floors that may be
put under probabilities, with one temperature; "deep" has the structured scalings on raw
log-probabilities of naive Bayes, beside those of probmetrics if it is installed.
Matrices with a free diagonal are left out where there are a hundred classes.

Needs data, rivals for one part.
"""

import warnings

import numpy as np
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB

from benchmarks._data import CLASSIFIERS, DATA, TABULAR, load_set, load_tabular
from benchmarks._data import TABLES as TABULAR_SETS
from benchmarks._tables import Table, mean_of
from skcalib import (
    BetaCalibration,
    DirichletCalibration,
    EnsembleTemperatureScaling,
    MatrixScaling,
    OrderPreservingScaling,
    PlattScaling,
    ProbabilityFloor,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
    VennAbersCalibration,
    logits_from_proba,
)
from skcalib.exceptions import AbsentClassWarning

SCALINGS = {
    "temperature": TemperatureScaling,
    "ensemble temperature": EnsembleTemperatureScaling,
    "order-preserving": OrderPreservingScaling,
    "structured vector": lambda **prior: StructuredMatrixScaling(
        structure="vector", **prior
    ),
    "structured matrix": StructuredMatrixScaling,
    "vector": VectorScaling,
    "matrix, ODIR": lambda **prior: MatrixScaling(
        off_diagonal_penalty=1.0, intercept_penalty=1.0, **prior
    ),
    "Dirichlet, ODIR": lambda **prior: DirichletCalibration(
        off_diagonal_penalty=1.0, intercept_penalty=1.0, **prior
    ),
    "Platt": PlattScaling,
    "beta": BetaCalibration,
}
# What the paper of a method has besides no prior.
PUBLISHED = {"Platt": {"smooth_targets": True}}
SETS = {
    "cifar10-resnet20": ("set", "cifar10-resnet20"),
    "cifar100-resnet20": ("set", "cifar100-resnet20"),
    "fashion-mnist": ("set", "fashion-mnist"),
    "orientation": ("set", "orientation"),
    "penbased, MLP": ("table", "penbased", "mlp"),
    "magic, MLP": ("table", "magic", "mlp"),
    "magic, naive Bayes": ("table", "magic", "gnb"),
}
SAMPLES = ("10", "20", "50", "200", "1000")
# So accurate that fifty rows without an error are no wonder.
SURE = ("cifar10-resnet20", "fashion-mnist", "orientation", "penbased, MLP")
# Matrices of a hundred classes take as long as all else together.
MANY, DENSE = 100, ("matrix, ODIR", "Dirichlet, ODIR")
# Those of the table of strengths.
STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
PARTS = ("strengths", "few", "plenty", "absent", "floors", "deep")
CHOICES = {
    "parts": PARTS,
    "sets": SETS,
    "methods": SCALINGS,
    "samples": SAMPLES,
}
TINY = {
    "parts": ("few", "deep"),
    "sets": ("orientation",),
    "methods": ("temperature", "vector"),
    "samples": ("20",),
    "seeds": 2,
}
# Rows that a fit is judged by, where there are more.
JUDGED = 3000
FLOORS = {
    "1.2e-38": float(np.finfo(np.float32).tiny),
    "1e-12": 1e-12,
    "1e-4": 1e-4,
    "1e-3": 1e-3,
}


def run(
    *,
    parts=PARTS,
    sets=tuple(SETS),
    methods=tuple(SCALINGS),
    samples=SAMPLES,
    seeds=5,
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", AbsentClassWarning)
        for part in parts:
            if part == "strengths":
                yield from strengths(sets, samples, seeds)
            elif part == "few":
                yield from few(sets, methods, samples, seeds)
            elif part == "plenty":
                yield from plenty(sets, methods)
            elif part == "absent":
                yield from absent(methods, seeds)
            elif part == "floors":
                yield from floors()
            else:
                yield from deep(seeds)


def load(name):
    """Return all logits and labels of a set."""
    kind, *names = SETS[name]
    if kind == "set":
        X, y = load_set(*names)
        return X.astype(np.float64), y
    X, y, X_test, y_test = load_tabular(*names)
    return np.concatenate([X, X_test]), np.concatenate([y, y_test])


def loss_of(calibrator, X, y, test, y_test):
    return loss(y_test, calibrator.fit(X, y).predict_proba(test))


def loss(y, proba):
    """Return the log-loss; as in scikit-learn, a sample costs no more than 36 nats."""
    proba = np.asarray(proba, dtype=np.float64)
    own = proba[np.arange(y.size), y] / proba.sum(axis=1)
    return float(-np.log(np.maximum(own, np.finfo(float).eps)).mean())


def few(sets, methods, samples, seeds):
    for name in sets:
        X, y = load(name)
        tried = affordable(methods, X)
        for n in map(int, samples):
            if n > y.size // 2:
                continue
            for errors in ("as they are", "left out"):
                losses = {m: [] for m in tried}
                untouched = []
                for seed in range(seeds):
                    drawn = draw(X, y, n, errors, seed)
                    if drawn is None:
                        continue
                    untouched.append(loss(drawn[3], softmax(drawn[2], axis=1)))
                    for m in tried:
                        losses[m].append(pair(m, *drawn))
                for m in tried:
                    yield {
                        **{"part": "few", "set": name, "classes": X.shape[1]},
                        **{"samples": n, "errors": errors, "method": m},
                        **harm_of(losses[m], untouched),
                    }


def affordable(methods, X):
    return [m for m in methods if X.shape[1] < MANY or m not in DENSE]


def strengths(sets, samples, seeds):
    for name in sets:
        X, y = load(name)
        for n in map(int, samples):
            if n > y.size // 2:
                continue
            drawn = [draw(X, y, n, "as they are", seed) for seed in range(seeds)]
            drawn = [halves for halves in drawn if halves is not None]
            for m in ("temperature", "vector"):
                means = {
                    f"{prior:g}": float(
                        np.mean([loss_of(SCALINGS[m](prior=prior), *d) for d in drawn])
                    )
                    for prior in STRENGTHS
                }
                row = {"part": "strengths", "set": name, "samples": n, "method": m}
                yield {**row, **means}


def draw(X, y, n, errors, seed):
    """Return rows to fit on and to judge by; None without two classes."""
    order = np.random.default_rng(seed).permutation(y.size)
    test, rows = order[-JUDGED:], order[: max(n, y.size - JUDGED)]
    if errors == "left out":
        rows = rows[X[rows].argmax(axis=1) == y[rows]]
    rows = rows[:n]
    if np.unique(y[rows]).size < 2:
        return None
    return X[rows], y[rows], X[test], y[test]


def pair(method, *halves):
    """Return the log-losses of the default and of the published form."""
    default = SCALINGS[method]()
    published = SCALINGS[method](prior=None)
    published.set_params(**PUBLISHED.get(method, {}))
    return loss_of(default, *halves), loss_of(published, *halves)


def harm_of(losses, untouched):
    harm = np.array(losses) - np.array(untouched)[:, np.newaxis]
    default, published = harm.mean(axis=0)
    return {
        **{"untouched": float(np.mean(untouched)), "draws": len(untouched)},
        **{"harm": float(default), "harm published": float(published)},
        "worst": float(harm[:, 0].max()),
        "worst published": float(harm[:, 1].max()),
    }


def plenty(sets, methods):
    for name in sets:
        X, y = load(name)
        halves = train_test_split(X, y, test_size=0.5, random_state=0, stratify=y)
        X, test, y, y_test = halves
        for m in affordable(methods, X):
            default, published = pair(m, X, y, test, y_test)
            yield {
                **{"part": "plenty", "set": name, "classes": X.shape[1]},
                **{"samples": y.size, "method": m},
                **{"default": default, "published": published},
            }


def absent(methods, seeds):
    for name, n_absent in (("cifar10-resnet20", 3), ("cifar100-resnet20", 30)):
        X, y = load(name)
        n_classes = X.shape[1]
        tried = {m: SCALINGS[m]() for m in affordable(methods, X)}
        tried["Venn-Abers"] = VennAbersCalibration()
        losses = {m: [] for m in ("untouched", *tried)}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(y.size)
            missing = rng.permutation(n_classes)[:n_absent]
            rows, test = order[:5000], order[-JUDGED:]
            rows = rows[~np.isin(y[rows], missing)]
            losses["untouched"].append(loss(y[test], softmax(X[test], axis=1)))
            for m, calibrator in tried.items():
                halves = X[rows], y[rows], X[test], y[test]
                losses[m].append(loss_of(calibrator, *halves))
        for m, values in losses.items():
            yield {
                **{"part": "absent", "set": name, "classes": n_classes},
                **{"absent": n_absent, "method": m, "NLL": float(np.mean(values))},
            }


def floors():
    with np.load(DATA / TABULAR) as arrays:
        for table in TABULAR_SETS:
            for classifier in CLASSIFIERS:
                p, test = (
                    arrays[f"{table}__{classifier}__{part}_p"].astype(np.float64)
                    for part in ("cal", "test")
                )
                y, y_test = (
                    arrays[f"{table}__{part}_y"].astype(int) for part in ("cal", "test")
                )
                row = {"part": "floors", "set": table, "classifier": classifier}
                row["zeros"] = float((p == 0).mean())
                yield {**row, **floor_losses(p, y, test, y_test)}


def floor_losses(p, y, test, y_test):
    def floored(floor):
        return (
            *(logits_from_proba(p, floor=floor), y),
            *(logits_from_proba(test, floor=floor), y_test),
        )

    found = {
        title: loss_of(TemperatureScaling(), *floored(floor))
        for title, floor in FLOORS.items()
    }
    found["auto"] = loss_of(TemperatureScaling(), *floored("auto"))
    learned = ProbabilityFloor()
    found["learned"] = loss_of(learned, *floored(FLOORS["1.2e-38"]))
    found["floor"] = learned.floor_ or 0.0
    return found


def deep(seeds):
    loaders = {
        "digits": load_digits,
        "breast cancer": load_breast_cancer,
        "wine": load_wine,
    }
    for name, loader in loaders.items():
        X, y = loader(return_X_y=True)
        for smoothing in (1e-9, 1e-3):
            losses = [deep_losses(X, y, smoothing, seed) for seed in range(seeds)]
            means = {key: float(np.mean([x[key] for x in losses])) for key in losses[0]}
            yield {"part": "deep", "set": name, "var_smoothing": smoothing, **means}


def deep_losses(X, y, smoothing, seed):
    rest, train, y_rest, y_train = train_test_split(
        X, y, test_size=0.3, random_state=seed, stratify=y
    )
    halves = train_test_split(
        rest, y_rest, test_size=0.5, random_state=seed, stratify=y_rest
    )
    bayes = GaussianNB(var_smoothing=smoothing).fit(train, y_train)
    fit_on, test = (bayes.predict_log_proba(part) for part in halves[:2])
    y, y_test = halves[2:]
    tried = {
        "temperature": TemperatureScaling(),
        "floor, temperature": ProbabilityFloor(),
        "structured vector": StructuredMatrixScaling(structure="vector"),
        "structured matrix": StructuredMatrixScaling(),
    }
    found = {m: loss_of(c, fit_on, y, test, y_test) for m, c in tried.items()}
    try:
        from probmetrics.calibrators import get_calibrator
    except ModuleNotFoundError:
        return found
    for title, name in (("probmetrics SVS", "svs"), ("probmetrics SMS", "sms")):
        rival = get_calibrator(name)
        rival.fit(np.exp(fit_on), y)
        found[title] = loss(y_test, np.asarray(rival.predict_proba(np.exp(test))))
    return found


def of_part(rows, part):
    return [row for row in rows if row["part"] == part]


def methods_of(rows):
    return list(dict.fromkeys(row["method"] for row in rows))


def table_few(rows):
    """Mean harm by method and number of samples: default, and published form."""
    rows = [row for row in of_part(rows, "few") if row["errors"] == "as they are"]
    samples = sorted({row["samples"] for row in rows})
    body = []
    for method in methods_of(rows):
        line = [method]
        for n in samples:
            some = [r for r in rows if r["method"] == method and r["samples"] == n]
            default, published = mean_of(some, "harm"), mean_of(some, "harm published")
            line.append(f"{default:+.3f} ({published:+.3f})")
        body.append(line)
    return Table(["method", *(f"{n:,}" for n in samples)], body)


def table_sure(rows):
    """The same without the rows in error, where there are few, and the worst draw."""
    rows = [
        row
        for row in of_part(rows, "few")
        if row["errors"] == "left out" and row["set"] in SURE and row["samples"] <= 50
    ]
    body = []
    for method in methods_of(rows):
        some = [row for row in rows if row["method"] == method]
        harms = [f"{mean_of(some, key):+.3f}" for key in ("harm", "harm published")]
        worst = [
            f"{max(row[key] for row in some):.2f}"
            for key in ("worst", "worst published")
        ]
        body.append([method, *harms, *worst])
    columns = ["mean harm", "published", "worst draw", "published"]
    return Table(["method", *columns], body)


def table_strengths(rows):
    """Mean log-loss of each strength, by method and number of samples."""
    rows = of_part(rows, "strengths")
    columns = [f"{prior:g}" for prior in STRENGTHS]
    body = []
    for method in methods_of(rows):
        for n in sorted({row["samples"] for row in rows}):
            some = [r for r in rows if r["method"] == method and r["samples"] == n]
            means = [mean_of(some, column) for column in columns]
            cells = [f"**{m:.4f}**" if m == min(means) else f"{m:.4f}" for m in means]
            body.append([method, f"{n:,}", *cells])
    return Table(["method", "samples", *columns], body)


def table_plenty(rows):
    """How much the default is above the published form, at most and on average."""
    rows = of_part(rows, "plenty")
    body = []
    for method in methods_of(rows):
        some = [r["default"] - r["published"] for r in rows if r["method"] == method]
        body.append([method, f"{np.mean(some):+.5f}", f"{max(some):+.5f}"])
    return Table(["method", "mean", "largest"], body)


def table_absent(rows):
    rows = of_part(rows, "absent")
    sets = list(dict.fromkeys(row["set"] for row in rows))
    body = []
    for method in methods_of(rows):
        values = {row["set"]: row["NLL"] for row in rows if row["method"] == method}
        cells = (f"{values[n]:.4f}" if n in values else "" for n in sets)
        body.append([method, *cells])
    titles = {"cifar10-resnet20": "3 of 10 absent", "cifar100-resnet20": "30 of 100"}
    return Table(["method", *(titles[name] for name in sets)], body)


def table_floors(rows):
    rows = of_part(rows, "floors")
    columns = [*FLOORS, "auto", "learned"]
    body = []
    for row in rows:
        best = min(row[column] for column in columns)
        cells = [
            f"**{row[c]:.4f}**" if row[c] <= best + 5e-5 else f"{row[c]:.4f}"
            for c in columns
        ]
        zeros = f"{100 * row['zeros']:.0f} %"
        body.append([row["set"], row["classifier"], zeros, *cells])
    means = [f"{mean_of(rows, column):.4f}" for column in columns]
    body.append(["mean", "", "", *means])
    return Table(["set", "classifier", "zeros", *columns], body)


def table_deep(rows):
    rows = of_part(rows, "deep")
    skipped = ("part", "set", "var_smoothing")
    columns = [key for key in rows[0] if key not in skipped]
    body = [
        [row["set"], f"{row['var_smoothing']:.0e}", *(f"{row[c]:.4f}" for c in columns)]
        for row in rows
    ]
    return Table(["set", "var_smoothing", *columns], body)


TABLES = {
    "strengths": table_strengths,
    "few": table_few,
    "sure": table_sure,
    "plenty": table_plenty,
    "absent": table_absent,
    "floors": table_floors,
    "deep": table_deep,
}
