"""Maps with drawn numbers that between them use every operation, and one made here."""

from dataclasses import dataclass

import numpy as np

from skcalib import _maps as ops
from skcalib._maps import CalibrationMap

K = 7


@dataclass(frozen=True, eq=False)
class GapPower(ops.Operation):
    """``-(coef * (max(x) - x)) ** exponent``: what a package might bring along."""

    coef: np.ndarray
    exponent: float

    def in_numpy(self, x):
        return -((self.coef * (x.max(axis=1, keepdims=True) - x)) ** self.exponent)

    def in_onnx(self, build, x, n_columns):
        gap = build.op("Sub", build.reduce("ReduceMax", x), x)
        base = build.op("Mul", gap, build.constant(self.coef))
        power = build.op("Pow", base, build.constant(self.exponent))
        return build.op("Neg", power)

    def in_torch(self, x, numbers):
        gap = x.amax(dim=1, keepdim=True) - x
        return -((numbers.coef * gap) ** numbers.exponent)


def ascending(rng, n):
    return np.cumsum(rng.uniform(0.05, 1.0, n)) - n / 4


def linear_table(rng, n):
    return ops.Table(ascending(rng, n), np.sort(rng.uniform(0.01, 1, n)), "linear")


def constant_table(rng, n):
    values = np.sort(rng.uniform(0.01, 1, n + 1))
    return ops.Table(ascending(rng, n), values, "constant")


def binary_map(rng, k):
    """Return a map of two classes, every other one without logits."""
    if k % 2:
        tables = linear_table(rng, 5), constant_table(rng, 7)
        return CalibrationMap(ops.Lookup(tables), ops.Renormalise())
    affine = ops.Affine(rng.uniform(0.5, 2, 2), rng.normal(size=2))
    return CalibrationMap(ops.LogOdds(), affine, ops.LogSigmoid(), ops.Softmax())


def drawn_maps(rng):
    """Return the operations of each map by its name."""
    lengths = rng.integers(2, 40, K)
    mixed = [
        (linear_table if k % 2 else constant_table)(rng, n)
        for k, n in enumerate(lengths)
    ]
    matrix = ops.Affine(np.eye(K) + rng.normal(0, 0.3, (K, K)), rng.normal(size=K))
    vector = ops.Affine(rng.uniform(0.5, 2, K), rng.normal(size=K))
    scale = ops.Scale(float(rng.uniform(0.2, 3)))
    beta = ops.BetaLink(rng.uniform(0, 2, K), rng.uniform(0, 2, K), rng.normal(size=K))
    parts = (CalibrationMap(scale, ops.Softmax()), CalibrationMap(ops.Softmax()))
    return {
        "scale": [scale, ops.Softmax()],
        "vector": [vector, ops.Softmax()],
        "matrix": [matrix, ops.Softmax()],
        "clip": [ops.LogOdds(), ops.Clip(-3.0, 2.0), vector, ops.Softmax()],
        "log_softmax": [ops.LogSoftmax(), matrix, ops.Softmax()],
        "log_of_mixture": [
            ops.WeightedSum((0.9,), (CalibrationMap(scale, ops.Softmax()),), 0.1 / K),
            ops.Log(),
            matrix,
            ops.Softmax(),
        ],
        "mixture": [ops.WeightedSum((0.5, 0.3), parts, 0.2 / K)],
        "log_odds": [ops.LogOdds(), vector, ops.LogSigmoid(), ops.Softmax()],
        "beta": [ops.LogOdds(), beta, ops.LogSigmoid(), ops.Softmax()],
        "linear": [
            ops.LogOdds(),
            ops.Lookup(tuple(linear_table(rng, n) for n in lengths)),
            ops.Renormalise(),
        ],
        "constant": [
            ops.Lookup(tuple(constant_table(rng, n) for n in lengths)),
            ops.Renormalise(),
        ],
        "mixed_tables": [ops.Lookup(tuple(mixed)), ops.Renormalise()],
        "shared_table": [ops.Lookup((linear_table(rng, 1000),)), ops.Renormalise()],
        "one_knot": [
            ops.Lookup((ops.Table(np.zeros(1), np.array([0.2, 0.7]), "constant"),)),
            ops.Renormalise(),
        ],
        "no_knot": [
            ops.Lookup((ops.Table(np.empty(0), np.array([0.2]), "constant"),)),
            ops.Renormalise(),
        ],
        "one_point": [
            ops.Lookup((ops.Table(np.zeros(1), np.array([0.2]), "linear"),)),
            ops.Renormalise(),
        ],
        "entropy_scale": [
            ops.LogSoftmax(),
            ops.EntropyScale(linear_table(rng, 20)),
            ops.Softmax(),
        ],
        "replace_top": [ops.ReplaceTop(linear_table(rng, 20))],
        "gap_power": [
            ops.LogSoftmax(),
            GapPower(rng.uniform(0.5, 2, K), float(rng.uniform(1.1, 1.5))),
            ops.Softmax(),
        ],
        "per_column": [
            ops.PerColumn(tuple(binary_map(rng, k) for k in range(K))),
            ops.Sigmoid(),
        ],
        "shared_column": [ops.PerColumn((binary_map(rng, 1),)), ops.Sigmoid()],
        "replace_top_pieces": [ops.ReplaceTop(constant_table(rng, 20))],
    }
