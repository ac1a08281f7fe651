"""Neural clamping with improbable classes that move as one, beside each by itself.

The default fit, on images that are all shifted alike: with the slots of classes it
makes, and with one for each class, which takes a backward pass a row and class.
"slots" are those of a row, in the mean; seconds are of one processor; the log-loss is
that of other images, shifted alike.

Needs the `torch` extra, Pillow, data.
"""

import time
from functools import partial
from unittest.mock import patch

import numpy as np
from scipy.special import log_softmax

from benchmarks._networks import NETWORKS, make_tasks
from benchmarks._tables import Table
from benchmarks.input_filter import KINDS, shifted
from skcalib import NeuralClamping
from skcalib.clamping._pools import Pools

CHOICES = {"networks": NETWORKS, "kinds": KINDS}
TINY = {"networks": ("cifar10-resnet8d",), "kinds": ("clean",), "samples": 40}
WAYS = {"pooled": Pools, "each class": partial(Pools, lost=0)}


def run(
    *,
    networks=("cifar10-resnet8d", "cifar100-resnet8"),
    kinds=("clean", "defocus_blur", "contrast", "impulse_noise"),
    samples=600,
    judged=2000,
):
    for name in networks:
        for kind in kinds:
            task = next(
                make_tasks(name, 1, samples, jpeg=kind == "jpeg", n_judged=judged)
            )
            task = shifted(task, kind, 3)
            for way, make in WAYS.items():
                yield {"network": name, "kind": kind, "classes": way, **fit(task, make)}


def fit(task, make):
    slots = []

    def noting(*arguments):
        pools = make(*arguments)
        slots.append(pools.n_slots / len(task.cal.y))
        return pools

    estimator = NeuralClamping(task.module, gamma=0, batch_size=64)
    start = time.process_time()
    with patch("skcalib.clamping._problem.Pools", noting):
        estimator.fit(task.cal.X, task.cal.y)
    seconds = time.process_time() - start
    scores = log_softmax(estimator.logits(task.test.X) / estimator.temperature_, axis=1)
    return {
        "slots": slots[0],
        "seconds": seconds,
        "chosen": str(estimator.perturbation_),
        "NLL": -float(scores[np.arange(len(task.test.y)), task.test.y].mean()),
    }


def fits(rows):
    columns = ["network", "images"]
    for title in ("slots", "seconds", "chosen, NLL"):
        columns += [title, f"{title}, each class"]
    lines = []
    for pooled, each in zip(rows[::2], rows[1::2], strict=True):
        own = [NETWORKS[pooled["network"]][0], pooled["kind"].replace("_", " ")]
        for key in ("slots", "seconds"):
            own += [f"{row[key]:.1f}" for row in (pooled, each)]
        own += [f"{row['chosen']}, {row['NLL']:.4f}" for row in (pooled, each)]
        lines.append([cell.replace("'", "") for cell in own])
    return Table(columns, lines)


TABLES = {"fits": fits}
