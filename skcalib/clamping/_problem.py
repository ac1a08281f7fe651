"""What every solver of neural clamping is given, and what it gives back."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skcalib._progress import Progress
from skcalib._solvers._focal_brier import mean_loss, row_losses
from skcalib._solvers._result import CONVERGED, Result
from skcalib._solvers._temperature_search import best_temperature
from skcalib._validation import make_splits
from skcalib.clamping._candidates import LogLossScore, Score, Splits
from skcalib.clamping._change import Change
from skcalib.clamping._objective import Loss, Objective, Rows
from skcalib.clamping._perturbation import Basis, Full, Perturbation, channel_axis
from skcalib.clamping._pools import Jacobian, Pools

# Rows from which the spread of the inputs is estimated.
SAMPLE_ROWS = 1000
SMALLEST_VARIANCE = 1e-30
# Of log T in one step of any solver: a factor of e. Where the loss is all but flat in
# log T, a Newton step would go to where the exponential overflows.
LARGEST_CHANGE = 1.0


@dataclass(eq=False)
class Problem:
    """The calibration set in front of an open network.

    Everywhere `rows` are numbers of rows of this problem, None for all.

    Attributes
    ----------
    objective : Objective
        The network's passes and the loss that the perturbation minimises: the owner of
        classes, weights, loss and exponent.

    logits : ndarray of shape (n_samples, n_classes)
        The network's logits for the inputs as they are.

    temperature_objective : {"log_loss", "joint"}
        What the served temperature minimises.

    of : ndarray of shape (n_samples,)
        Which rows of the objective these are; None for all.

    scale : ndarray of shape (n_channels,), default=None
        What is one in the space that perturbations live in (`_space.py`), in the units
        of each channel; None for those units themselves.
    """

    objective: Objective
    logits: NDArray[Any]
    temperature_objective: str = "log_loss"
    of: Rows = None
    scale: NDArray[np.float64] | None = None

    @property
    def loss(self) -> Loss:
        """Loss that the perturbation minimises."""
        return self.objective.loss

    @property
    def gamma(self) -> float:
        """Exponent of the focal loss."""
        return self.objective.gamma

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.objective.inputs.shape

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Column of each row's class."""
        codes = self.objective.codes
        return codes if self.of is None else codes[self.of]

    @cached_property
    def weight(self) -> NDArray[np.float64]:
        """Weight of each row, of any scale."""
        weight = self.objective.weight
        return weight if self.of is None else weight[self.of]

    def with_gamma(self, gamma: float) -> "Problem":
        """Return the problem of another exponent."""
        return replace(self, objective=self.objective.with_gamma(gamma))

    def within(self, rows: NDArray[np.intp]) -> "Problem":
        """Return the problem of these rows alone, numbered from 0 on."""
        return replace(self, logits=self.logits[rows], of=self._numbers(rows))

    def _numbers(self, rows: Rows = None) -> Rows:
        """Return the numbers of rows in the objective."""
        if self.of is None or rows is None:
            return self.of if rows is None else rows
        return self.of[rows]

    def perturbed_logits(
        self, perturbation: Perturbation, rows: Rows = None
    ) -> NDArray[Any]:
        """Return the logits of perturbed inputs: one forward epoch."""
        return self.objective.logits(perturbation.change, self._numbers(rows))

    def evaluate(
        self, perturbation: Perturbation, log_temperature: float, rows: Rows = None
    ) -> tuple[NDArray[Any], float, NDArray[Any], float]:
        """Return logits, loss and its gradients: one forward and backward epoch."""
        numbers = self._numbers(rows)
        return self.objective.evaluate(perturbation, log_temperature, numbers)

    @cached_property
    def pools(self) -> Pools:
        """Slots of the classes, at the temperature of the inputs as they are."""
        return self.pools_of(self.logits, self.plain_temperature.x[0])

    def pools_of(self, logits: NDArray[Any], temperature: float) -> Pools:
        """Return slots of the classes."""
        proba = softmax(logits / np.float64(temperature), axis=1)
        return Pools(proba, self.codes, self.weight)

    def jacobian(
        self,
        basis: Basis,
        perturbation: Perturbation | None = None,
        pools: Pools | None = None,
    ) -> Jacobian:
        """Return the derivatives by the coordinates of a basis, by default at 0."""
        change = None if perturbation is None else perturbation.change
        pools = self.pools if pools is None else pools
        found = self.objective.jacobian(basis, change, self._numbers(), pools)
        return Jacobian(found, pools)

    def splits(self, cv: Any, random_state: Any, groups: Any = None) -> Splits:
        """Return folds that keep equal inputs of a class together.

        Inputs that are read from a Dataset each time are compared by their logits.
        """
        hashes = self.objective.inputs.hashes()
        if hashes is None:
            # A network's rounding depends on the place of a row in its batch.
            rows = self.logits.round(3)
        else:
            rows = (hashes if self.of is None else hashes[self.of])[:, np.newaxis]
        return make_splits(cv, rows, self.codes, self.weight, random_state, groups)

    @cached_property
    def plain_temperature(self) -> Result:
        """Result of `joint_temperature` for the inputs as they are."""
        return self.joint_temperature(self.logits)

    def joint_temperature(
        self, logits: NDArray[Any], rows: Rows = None, prior: float | None = None
    ) -> Result:
        """Return the result for the temperature of the perturbation's own loss."""
        part = slice(None) if rows is None else rows
        return best_temperature(
            logits, self.codes[part], self.weight[part], self.loss, self.gamma, prior
        )

    def joint_loss(self, logits: NDArray[Any]) -> float:
        """Return the mean of the perturbation's own loss at its best temperature."""
        temperature = self.joint_temperature(logits).x[0]
        return self.mean_loss(logits, temperature)

    def mean_loss(self, logits: NDArray[Any], temperature: float) -> float:
        """Return the mean of the perturbation's own loss."""
        return mean_loss(
            logits, self.codes, self.weight, temperature, self.loss, self.gamma
        )

    def pull(self, temperature: float) -> NDArray[np.float64]:
        """Return the norm of each row's gradient by the scores, as the inputs are."""
        scores = self.logits / np.float64(temperature)
        residual = row_losses(scores, self.codes, self.loss, self.gamma)[1]
        return np.linalg.norm(residual, axis=1)

    def served_temperature(
        self,
        logits: NDArray[Any],
        rows: Rows = None,
        *,
        prior: float | None = None,
    ) -> Result:
        """Return the result for the temperature that is served.

        A choice among perturbations needs it without a prior: rows that one of them
        tells apart without error have no best temperature, which speaks against it.
        """
        if self.temperature_objective == "joint":
            return self.joint_temperature(logits, rows, prior)
        part = slice(None) if rows is None else rows
        return best_temperature(
            logits, self.codes[part], self.weight[part], prior=prior
        )

    @cached_property
    def input_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and mean square deviation of each entry of the inputs."""
        rows, share = sample_rows(self.weight, SAMPLE_ROWS)
        values = self.objective.inputs.values(self._numbers(rows))
        sample = np.concatenate([x.double().cpu().numpy() for x in values])
        mean = np.tensordot(share, sample, axes=1)
        return mean, np.tensordot(share, (sample - mean) ** 2, axes=1)

    @property
    def input_variance(self) -> float:
        """Mean square deviation of the entries, in the space; at least 1e-30."""
        variance = self.input_moments[1]
        if self.scale is not None:
            along = [1] * len(self.shape)
            along[channel_axis(self.shape)] = -1
            variance = variance / self.scale.reshape(along) ** 2
        return max(float(variance.mean()), SMALLEST_VARIANCE)

    @property
    def channel_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each channel's entries."""
        axis = channel_axis(self.shape)
        others = tuple(a for a in range(len(self.shape)) if a != axis)
        mean, variance = self.input_moments
        spread = variance.mean(axis=others) + mean.var(axis=others)
        return mean.mean(axis=others), np.sqrt(np.maximum(spread, SMALLEST_VARIANCE))


def sample_rows(
    weight: NDArray[np.float64], n_rows: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return some rows that stand for all, and their shares.

    They lie at even steps of the summed weight (systematic sampling), so that weights
    count as repetitions.
    """
    place = np.cumsum(weight) / weight.sum()
    steps = (np.arange(n_rows) + 0.5) / n_rows
    rows, counts = np.unique(np.searchsorted(place, steps), return_counts=True)
    return rows, counts / n_rows


@dataclass(frozen=True)
class Settings:
    """What the user asked for, and how candidates are compared.

    `start` is the change of the inputs to start from, and `temperature` that of the
    last fit where this one goes on from it, else None.
    """

    perturbation: Any
    penalty: Any
    start: Change
    splits: Splits
    max_iter: int | None
    tol: float
    progress: Progress
    random_state: np.random.RandomState
    groups: Any = None
    preset: str | None = None
    reduction: str | None = None
    validation_fraction: float | None = None
    temperature: float | None = None
    score: Score = field(default_factory=LogLossScore)
    rule: str = "one_standard_error"


@dataclass
class Outcome:
    """The perturbation that a solver ends with, and how it came there.

    `name` is what it is called, `logits` are those of the perturbed inputs.
    `temperature` is set only by solvers that learn it themselves, `squared` is False
    where they add the plain norm of the coordinates times the penalty.
    """

    perturbation: Perturbation
    logits: NDArray[Any]
    penalty: float
    name: Any
    loss_curve: list[float] = field(default_factory=list)
    n_iter: int = 0
    message: str = CONVERGED
    selection: dict[str, Any] | None = None
    temperature: float | None = None
    squared: bool = True

    @property
    def cost(self) -> float:
        """What the penalty adds to the loss; nothing where there is no perturbation."""
        theta = self.perturbation.theta
        if not theta.any():
            return 0.0
        norm = float(np.linalg.norm(theta))
        return float(self.penalty) * (norm**2 if self.squared else norm)


def unperturbed(
    problem: Problem,
    selection: dict[str, Any] | None = None,
    *,
    message: str = CONVERGED,
) -> Outcome:
    """Return the outcome that leaves the inputs alone."""
    basis = Full(problem.shape)
    return Outcome(
        basis.at(np.zeros(basis.dim)),
        problem.logits,
        np.inf,
        "none",
        message=message,
        selection=selection,
    )
