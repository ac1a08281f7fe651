"""Density-ratio calibration with the features of real networks.

All methods are fitted on one half of clean test images and judged on the other, as the
images are and after JPEG compression. Proximity is that to the calibration half, by the
input of the network's last layer. Mean and standard deviation over the splits; ECE,
PIECE and accuracy in percent.

Needs the `torch` extra, Pillow, data.
"""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks._networks import (
    NETWORKS,
    as_input,
    load_images,
    load_logits,
    load_module,
)
from benchmarks._tables import Table, mean_of, spread
from skcalib import DensityRatioCalibration, TemperatureScaling
from skcalib.metrics import (
    expected_calibration_error,
    neighbor_proximity,
    proximity_calibration_error,
)

MEASURES = {"NLL": 4, "ECE": 2, "PIECE": 2, "accuracy": 2}
TITLES = {
    "temperature": "temperature",
    "density_ratio": "density ratio",
    "temperature, density_ratio": "temperature, density ratio",
    "bin_mean_shift": "bin-mean shift",
    "temperature, bin_mean_shift": "temperature, bin-mean shift",
}
BATCH = 500
IMAGES = {"clean": False, "jpeg": True}
CHOICES = {"networks": NETWORKS}
TINY = {"networks": ("cifar10-resnet8d",), "splits": 1, "samples": 400}


def run(*, networks=("cifar10-resnet8d", "cifar10-resnet20"), splits=5, samples=10_000):
    for name in networks:
        yield from compare(name, splits, samples)


def network_outputs(name, jpeg, rows):
    """Return the inputs of the network's last layer, and its logits."""
    module = load_module(name)
    *_, last = (part for part in module.modules() if isinstance(part, torch.nn.Linear))
    kept = []
    last.register_forward_hook(lambda part, inputs, output: kept.append(inputs[0]))
    images = load_images(NETWORKS[name][1].split("/")[0], jpeg)[rows]
    with torch.no_grad():
        logits = [
            module(torch.from_numpy(as_input(images[start : start + BATCH])))
            for start in range(0, len(images), BATCH)
        ]
    features = torch.cat(kept).flatten(1).numpy().astype(np.float64)
    return features, torch.cat(logits).numpy().astype(np.float64)


def predictions(cal, test):
    """Yield titles and what the methods say; `cal` and `test` are dicts of arrays."""
    X, y, features = cal["X"], cal["y"], cal["features"]
    shifted = test["X"], test["features"]
    temperature = TemperatureScaling().fit(X, y)
    proba = np.exp(test["X"] - test["X"].max(axis=1, keepdims=True))
    yield "uncalibrated", proba / proba.sum(axis=1, keepdims=True)
    yield "temperature", temperature.predict_proba(shifted[0])
    for method in ("density_ratio", "bin_mean_shift"):
        alone = DensityRatioCalibration(method=method).fit(X, y, features=features)
        yield method, alone.predict_proba(shifted[0], features=shifted[1])
        T = temperature.temperature_
        after = DensityRatioCalibration(method=method).fit(X / T, y, features=features)
        proba = after.predict_proba(shifted[0] / T, features=shifted[1])
        yield f"temperature, {method}", proba


def judge(proba, y, proximity):
    labels = np.arange(proba.shape[1])
    piece = proximity_calibration_error(y, proba, proximity=proximity)
    return {
        "NLL": log_loss(y, proba, labels=labels),
        "ECE": 100 * expected_calibration_error(y, proba),
        "PIECE": 100 * piece,
        "accuracy": 100 * accuracy_score(y, proba.argmax(axis=1)),
    }


def compare(name, n_splits, n_samples):
    """Yield the measures of every split, kind of images and method."""
    y = load_logits(name)[1]
    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:n_samples])
    y = y[rows]
    outputs = {kind: network_outputs(name, jpeg, rows) for kind, jpeg in IMAGES.items()}
    # PIECE's proximity is exp(-distance), so distances need a unit.
    unit = np.median(np.linalg.norm(outputs["clean"][0], axis=1))
    splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0)
    for seed, (cal_rows, test_rows) in enumerate(splits.split(y, y)):
        F, Z = outputs["clean"]
        cal = {"X": Z[cal_rows], "y": y[cal_rows], "features": F[cal_rows]}
        for kind, (F, Z) in outputs.items():
            test = {"X": Z[test_rows], "features": F[test_rows]}
            proximity = neighbor_proximity(
                test["features"] / unit, cal["features"] / unit
            )
            for title, proba in predictions(cal, test):
                case = {"network": name, "images": kind, "method": title, "split": seed}
                yield case | judge(proba, y[test_rows], proximity)


def by_case(rows):
    """Rows of a network, kind of images and method, together."""
    cases = {}
    for row in rows:
        case = row["network"], row["images"], row["method"]
        cases.setdefault(case, []).append(row)
    return cases


def summary(rows):
    columns = ["network", "images", "method", *MEASURES]
    lines = [
        [*case, *(spread([r[m] for r in runs], d) for m, d in MEASURES.items())]
        for case, runs in by_case(rows).items()
    ]
    return [Table(columns, lines, "mean and standard deviation over the splits")]


def features(rows):
    """Log-loss and PIECE: a row a method, a column a network and kind of images."""
    cases = by_case(rows)
    heads = {
        (name, kind): NETWORKS[name][0].split(", ")[1] + ", JPEG" * (kind == "jpeg")
        for kind in IMAGES
        for name in dict.fromkeys(row["network"] for row in rows)
    }
    lines = []
    for method, title in TITLES.items():
        runs = [cases[(*head, method)] for head in heads]
        cells = [f"{mean_of(r, 'NLL'):.3f}; {mean_of(r, 'PIECE'):.1f}" for r in runs]
        lines.append([title, *cells])
    return Table(["method", *heads.values()], lines, "Log-loss; PIECE in percent")


TABLES = {"features": features}
