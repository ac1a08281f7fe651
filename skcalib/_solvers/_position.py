r"""One factor of all logits, and an offset of each column: softmax(beta z + b).

Minimised over t = log beta and b is, with n the sum of the weights and K columns,

    mean log-loss + pull of t towards 0 + (penalty K / n) |b|^2 ,

the pull being that of `_temperature`. The residuals p - e_y of a row sum to 0, so that
at the optimum b does, too. Gradient and Hessian in (beta, b) are sums over columns of
those of vector scaling; in t the factor's are multiplied by beta. The term that the
change of variables adds to the Hessian, beta times the slope in beta, is left out:
at the optimum it is minus the slope of the pull, at most PRIOR / n, and without it the
Hessian is positive definite wherever the search comes.
"""

from functools import partial
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import CalibrationData
from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib._solvers._result import Result
from skcalib._solvers._temperature import Pull, prior_strength
from skcalib._solvers._vector import (
    dense_hessian,
    expansion_of_block,
    inverse,
    loss_of_block,
)

Array = NDArray[np.float64]


def fit_position(
    data: CalibrationData,
    temperature: float,
    *,
    prior: float | None,
    penalty: float,
    tol: float,
    max_iter: int,
) -> Result:
    """Minimise from a temperature on; the result is (t, b_1, ..., b_K)."""
    n_columns = data.n_classes
    pull = Pull(prior_strength(prior, data), 0.0)
    ridge = penalty * n_columns / data.total_weight

    def loss(x: Array) -> float:
        mean = float(data.sum(partial(loss_of_block, _affine(x))))
        return mean + pull.at(x[0])[0] + ridge * float(x[1:] @ x[1:])

    def expand(x: Array, _: Expansion | None) -> Expansion:
        value, by_column, full = data.sum(
            partial(expansion_of_block, _affine(x), dense_hessian), heavy=True
        )
        cost, slope, bend = pull.at(x[0])
        beta = exp(x[0])
        gradient = np.append(beta * by_column[0].sum(), by_column[1])
        gradient += np.append(slope, 2 * ridge * x[1:])
        hessian = np.diag(np.append(bend, np.full(n_columns, 2 * ridge)))
        v, b = slice(0, n_columns), slice(n_columns, None)
        hessian[0, 0] += beta**2 * full[v, v].sum()
        hessian[0, 1:] += beta * full[v, b].sum(axis=0)
        hessian[1:, 0] = hessian[0, 1:]
        hessian[1:, 1:] += full[b, b]
        value += cost + ridge * float(x[1:] @ x[1:])
        return Expansion(float(value), gradient, None, inverse(hessian, (1, -1)))

    start = np.append(-log(temperature), np.zeros(n_columns))
    return minimize(expand, loss, start, tol=tol, max_iter=max_iter)


def _affine(x: Array) -> Array:
    """Return the factor and offset of each column."""
    return np.stack([np.full(x.shape[0] - 1, exp(x[0])), x[1:]])
