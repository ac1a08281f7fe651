"""Density-ratio calibration with the features of real networks.

All methods are fitted on one half of clean test images and judged on the other, as the
images are and after JPEG compression. Proximity is that to the calibration half, by the
input of the network's last layer. Mean and standard deviation over the splits; ECE,
PIECE and accuracy in percent.

Usage: SKCALIB_DATA=<folder> python benchmarks/density_ratio.py
       [--networks cifar10-resnet8d cifar10-resnet20] [--splits 5]
"""

import argparse

import numpy as np
import torch
from _networks import NETWORKS, as_input, load_images, load_logits, load_module
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedShuffleSplit

from skcalib import DensityRatioCalibration, TemperatureScaling
from skcalib.metrics import (
    expected_calibration_error,
    neighbor_proximity,
    proximity_calibration_error,
)

MEASURES = ["NLL", "ECE", "PIECE", "accuracy"]
BATCH = 500
IMAGES = {"clean": False, "jpeg": True}


def network_outputs(name, jpeg):
    """Return the inputs of the network's last layer, and its logits."""
    module = load_module(name)
    *_, last = (part for part in module.modules() if isinstance(part, torch.nn.Linear))
    kept = []
    last.register_forward_hook(lambda part, inputs, output: kept.append(inputs[0]))
    images = load_images(NETWORKS[name][1].split("/")[0], jpeg)
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
    """Return the four measures."""
    return [
        log_loss(y, proba, labels=np.arange(proba.shape[1])),
        100 * expected_calibration_error(y, proba),
        100 * proximity_calibration_error(y, proba, proximity=proximity),
        100 * accuracy_score(y, proba.argmax(axis=1)),
    ]


def compare(name, n_splits):
    """Return {(images, method): measures of every split}."""
    y = load_logits(name)[1]
    outputs = {kind: network_outputs(name, jpeg) for kind, jpeg in IMAGES.items()}
    # PIECE's proximity is exp(-distance), so distances need a unit.
    unit = np.median(np.linalg.norm(outputs["clean"][0], axis=1))
    results = {}
    splits = StratifiedShuffleSplit(n_splits, test_size=0.5, random_state=0)
    for rows, test_rows in splits.split(y, y):
        F, Z = outputs["clean"]
        cal = {"X": Z[rows], "y": y[rows], "features": F[rows]}
        for kind, (F, Z) in outputs.items():
            test = {"X": Z[test_rows], "features": F[test_rows]}
            proximity = neighbor_proximity(
                test["features"] / unit, cal["features"] / unit
            )
            for title, proba in predictions(cal, test):
                measures = judge(proba, y[test_rows], proximity)
                results.setdefault((kind, title), []).append(measures)
    return results


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["cifar10-resnet8d", "cifar10-resnet20"]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=default)
    parser.add_argument("--splits", type=int, default=5)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    for name in arguments.networks:
        print(f"\n{NETWORKS[name][0]:40}" + "".join(f"{m:>18}" for m in MEASURES))
        for (kind, title), runs in compare(name, arguments.splits).items():
            mean, deviation = np.mean(runs, axis=0), np.std(runs, axis=0)
            cells = (
                f"{m:10.{d}f} ± {s:.{d}f}"
                for m, s, d in zip(mean, deviation, (4, 2, 2, 2), strict=True)
            )
            print(f"  {kind:6} {title:31}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
