r"""Mini-batch training: stochastic gradient descent, as it was published, and ours.

Minimises equation (9) of Tang, Chen & Ho ("Neural Clamping", TMLR 2024) over the
perturbation's coordinates theta and the temperature T: the loss of the rows plus a
penalty times the norm of theta, squared or not. Recipes are those of the paper and of
its code, by gradient descent with momentum, and one of ours, by Adam (Kingma & Ba,
"Adam", ICLR 2015) with rows drawn by importance (`_draws.py`) and early stopping on
held-out rows.

The paper writes the sum of the losses over samples, its code takes the mean over each
batch. Both are the mean objective here; with the sum a step is as many times longer as
the batch has rows, and the penalty, a tenth of the initial loss, is shared among the
batches by their rows.

Deviations from the published ones. The scale of the paper's random start is not given;
it is that of the code. The code's augmentation (random crops, flips, cut-outs) is left
out: it asks what kind of inputs the network takes, and calibrates for inputs that it
will not see.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skcalib._progress import Progress
from skcalib._solvers._result import INTERRUPTED
from skcalib._warnings import warn
from skcalib.clamping._change import Change
from skcalib.clamping._draws import Draws
from skcalib.clamping._objective import Objective, Rows
from skcalib.clamping._perturbation import AllCosines, Basis, Perturbation
from skcalib.clamping._problem import Outcome, Problem, Settings
from skcalib.clamping._space import in_space
from skcalib.clamping._spans import canonical, open_basis
from skcalib.exceptions import InterruptedWarning

# Epochs of training that follows no published recipe.
MAX_ITER = 4
# T never reaches 0, however large a step is.
SMALLEST_TEMPERATURE = 1e-3
# How much Adam remembers of the gradients and of their squares, and what keeps it from
# dividing by 0. The first is 0.9 as a rule: a shorter memory turns sooner, where the
# whole descent is a few epochs. What the recipe earns prints
# python -m benchmarks run neural_clamping --parts speed.
BETAS = 0.8, 0.999
SLIGHT = 1e-8

FINISHED = "all epochs were run"
STALLED = "the loss of the held-out rows falls no more"
DIVERGED = "the loss became infinite; a smaller learning rate may help"


@dataclass(frozen=True)
class Recipe:
    """Settings of the descent.

    With an `input_scale` the steps are those of Adam; the learning rate is in units of
    that scale for theta and of T for T, and falls to 0 with the last step. Else it is
    that of gradient descent with momentum.

    `penalty` times `norm(theta)`, squared or not, is added to the mean loss; None is a
    tenth of the mean loss at the start. `summed` says that the steps of gradient
    descent follow the sum over a batch, not its mean.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    batch_size: int = 512
    max_iter: int = 100
    penalty: float | None = None
    squared: bool = True
    summed: bool = False
    input_scale: float | None = None


def our_recipe(n_samples: int, input_scale: float, max_iter: int) -> Recipe:
    """Return the settings of training that follows no published recipe.

    Many small steps do more than few long ones; with enough rows they can be of twice
    as many, which pass the network faster. More epochs bear longer steps.
    """
    return Recipe(
        learning_rate=0.01 * min(1.4, max_iter**0.5),
        batch_size=16 if n_samples < 1000 else 32,
        max_iter=max_iter,
        input_scale=input_scale,
    )


RECIPES = {
    "paper": Recipe(learning_rate=0.001, momentum=0.0, batch_size=512, summed=True),
    "reference": Recipe(batch_size=1000, penalty=0.01, squared=False),
}


def solve_sgd(problem: Problem, settings: Settings) -> Outcome:
    """Train perturbation and temperature; return the outcome.

    A preset runs all its epochs on all rows, from T = 1 unless it goes on where the
    last fit ended. Without one, a share of the rows, if any, is held out and ends the
    training, and the temperature that is served is the exact one.
    """
    preset, temperature = settings.preset, settings.temperature
    if temperature is None:
        plain = preset is None
        temperature = float(problem.plain_temperature.x[0]) if plain else 1.0
    recipe = _recipe(problem, settings)
    name = canonical(settings.perturbation, problem.shape)
    basis = open_basis(name, problem)
    pull = held_out = None
    if preset is None:
        pull = problem.pull(temperature)
        held_out = _hold_out(problem, settings)
        if name == "full" and len(problem.shape) > 1:
            basis = in_space(AllCosines(problem.shape), problem.scale)
    descent = train(
        problem.objective,
        basis,
        recipe,
        theta=basis.coordinates(settings.start),
        temperature=temperature,
        pull=pull,
        held_out=held_out,
        random_state=settings.random_state,
        progress=settings.progress,
    )
    found = descent.perturbation
    return Outcome(
        found,
        problem.perturbed_logits(found),
        descent.penalty,
        name,
        descent.loss_curve,
        len(descent.loss_curve),
        temperature=None if preset is None else descent.temperature.item(),
        squared=recipe.squared,
    )


def _recipe(problem: Problem, settings: Settings) -> Recipe:
    """Return ours, or a published one, with what was asked for or fitted last."""
    max_iter = settings.max_iter
    if settings.preset is None:
        input_scale = float(np.sqrt(problem.input_variance))
        recipe = our_recipe(problem.codes.shape[0], input_scale, max_iter or MAX_ITER)
    else:
        recipe = RECIPES[settings.preset]
        recipe = replace(recipe, max_iter=max_iter or recipe.max_iter)
        if settings.reduction is not None:
            recipe = replace(recipe, summed=settings.reduction == "sum")
    if settings.penalty == "auto":
        return recipe
    return replace(recipe, penalty=float(settings.penalty))


def _hold_out(problem: Problem, settings: Settings) -> Rows:
    if settings.validation_fraction is None:
        return None
    n_folds = max(2, round(1 / settings.validation_fraction))
    splits = problem.splits(n_folds, settings.random_state, settings.groups)
    return splits[0][1]


def train(
    objective: Objective,
    basis: Basis,
    recipe: Recipe = RECIPES["paper"],
    *,
    theta: ArrayLike | None = None,
    temperature: float = 1.0,
    pull: ArrayLike | None = None,
    held_out: Rows = None,
    patience: int = 10,
    tol: float = 1e-4,
    random_state: Any = None,
    progress: Progress | None = None,
) -> "Descent":
    """Descend from `theta` and `temperature`, epoch by epoch.

    Parameters
    ----------
    objective : Objective
        Loss of the calibration inputs.

    basis : Basis
        What the coordinates `theta` stand for.

    recipe : Recipe, default=RECIPES["paper"]
        Settings of the descent.

    theta : array of shape (dim,), default=None
        Where to start; None is 0. With the result of an earlier descent and its
        `temperature` this goes on where that ended.

    temperature : float, default=1.0
        Temperature to start from.

    pull : array of shape (n_samples,), default=None
        Norm of each row's gradient by the scores at the start: rows are drawn by it and
        by what it becomes. None visits every row once an epoch.

    held_out : array of row numbers, default=None
        Rows that are not learned from but judge the epochs: the point of the least loss
        on them is kept, and the descent ends when it has not fallen by `tol` for
        `patience` epochs. None runs all epochs and keeps the last point.

    random_state : numpy.random.RandomState or int, default=None
        For the order of the rows.

    progress : Progress, default=None
        Told of every epoch.

    Returns
    -------
    descent : Descent
        It stands at the point that is kept.

    Warns
    -----
    ConvergenceWarning
        If an infinite loss ended the descent, and if Ctrl-C did, as the
        InterruptedWarning that is one; the best point is kept.
    """
    rng = check_random_state(random_state)
    rows = np.arange(objective.inputs.n_samples)
    rows = rows if held_out is None else np.setdiff1d(rows, held_out)
    theta = np.zeros(basis.dim) if theta is None else theta
    draws = None
    if pull is not None:
        draws = Draws(objective.weight_of_mean_one, rows, pull)
    descent = Descent(
        objective, basis, recipe, np.array(theta), temperature, rows, draws
    )
    keeper = _Keeper(descent, held_out, tol, patience)
    progress = progress or Progress("train", shown=False)
    message, start = FINISHED, time.monotonic()
    try:
        for _ in range(recipe.max_iter):
            message = keeper.judge(descent.epoch(rng))
            if progress.shown:
                seconds = time.monotonic() - start
                progress.note(f"{descent.describe()}  {seconds:.1f} s", passing=True)
            if message != FINISHED:
                break
    except KeyboardInterrupt:
        message = INTERRUPTED
    finally:
        progress.close()
    if message in (DIVERGED, INTERRUPTED):
        warn(
            f"The descent ended in epoch {len(descent.loss_curve) + 1} because "
            f"{message}. The best point so far is kept.",
            InterruptedWarning if message == INTERRUPTED else ConvergenceWarning,
        )
    if message != FINISHED or held_out is not None:
        keeper.restore_best()
    return descent


class Descent:
    """A moving point on the device, coordinates and temperature, and its way.

    Attributes
    ----------
    theta, temperature : tensors
        The point.

    penalty : float
        What the norm of theta costs.

    loss_curve : list of float
        The mean penalised loss during each epoch.

    held_out_curve : list of float
        The mean loss of the held-out rows after each epoch, if there are any.
    """

    def __init__(
        self,
        objective: Objective,
        basis: Basis,
        recipe: Recipe,
        theta: NDArray[np.float64],
        temperature: float,
        rows: NDArray[np.intp],
        draws: Draws | None,
    ) -> None:
        self._objective = objective
        self._rows, self._draws = rows, draws
        self._mean_weight = objective.total_weight(rows) / len(rows)
        self._basis = basis
        self._recipe = recipe
        options: dict[str, Any] = {
            "device": objective.network.device,
            "dtype": objective.sum_dtype,
        }
        self.theta = torch.as_tensor(theta, **options).clone()
        self.temperature = torch.as_tensor(float(temperature), **options).clone()
        self._move: Momentum | Adam
        points = [self.theta, self.temperature]
        if recipe.input_scale is None:
            self._move = Momentum(recipe, points)
        else:
            n_steps = recipe.max_iter * -(-len(rows) // recipe.batch_size)
            unit = recipe.input_scale * basis.unit
            self._move = Adam(recipe, unit, points, n_steps)
        penalty = recipe.penalty
        if penalty is None:
            change = basis.at(theta).change
            penalty = 0.1 * objective.value(change, np.log(temperature), rows)
        self.penalty = penalty
        self.loss_curve: list[float] = []
        self.held_out_curve: list[float] = []

    @property
    def perturbation(self) -> Perturbation:
        """The perturbation, in arrays."""
        return self._basis.at(self.theta.cpu().numpy())

    def loss_of(self, rows: Rows) -> float:
        """Return the mean loss of some rows, without the penalty."""
        change = self._basis.at(self.theta).change
        return self._objective.value(change, self.temperature.log(), rows)

    def describe(self) -> str:
        """Say in a line where the descent stands."""
        text = f"epoch {len(self.loss_curve)}/{self._recipe.max_iter}"
        if self.loss_curve:
            text += f"  loss {self.loss_curve[-1]:.5f}"
        if self.held_out_curve:
            text += f"  held out {self.held_out_curve[-1]:.5f}"
        return text + f"  T {self.temperature.item():.4f}"

    def epoch(self, rng: np.random.RandomState) -> float:
        """Run through as many rows as there are; return the mean penalised loss."""
        objective, size = self._objective, self._recipe.batch_size
        draws = self._draws
        order = draws.order(rng) if draws else rng.permutation(self._rows)
        order = objective.inputs.as_order(order)
        total = torch.zeros_like(self.temperature)
        point = self._point()
        sums, n_rows = objective.no_sums(point[0]), 0
        for done, (index, x) in _counted(objective.inputs.batches(order, size)):
            objective.add(sums, x, index, *point, draws=draws)
            n_rows += x.shape[0]
            if done % size and done < len(order):
                continue
            total += self._step(sums, n_rows * self._mean_weight) * n_rows
            point = self._point()
            sums, n_rows = objective.no_sums(point[0]), 0
        # A last step to infinity shows in no loss: it makes the total NaN.
        total += 0 * (self.theta.sum() + self.temperature)
        return float(total) / len(order)

    def _point(self) -> tuple[Change, torch.Tensor]:
        change = self._basis.at(self.theta).change
        dtype = self._objective.network.dtype
        return change.map(lambda part: part.to(dtype)), self.temperature.log()

    def _step(self, sums: list[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
        """Move by the gradient of one batch; return its penalised mean loss."""
        *by_parts, totals = (part / weight for part in sums)
        penalty, slope = self._penalty()
        gradients = [
            self._basis.gather(by_parts) + slope,
            totals[1] / self.temperature,
        ]
        if self._recipe.summed:
            rows = weight * self._objective.weight.mean()
            gradients = [rows * gradient for gradient in gradients]
        self._move([self.theta, self.temperature], gradients)
        self.temperature.clamp_(min=SMALLEST_TEMPERATURE)
        return totals[0] + penalty

    def _penalty(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the penalty and its gradient by theta."""
        norm = torch.linalg.vector_norm(self.theta)
        if self._recipe.squared:
            return self.penalty * norm**2, 2 * self.penalty * self.theta
        # At 0, where the norm has a kink, any slope up to 1 is one: take 0.
        tiny = torch.finfo(norm.dtype).tiny
        return self.penalty * norm, self.penalty * self.theta / norm.clamp(min=tiny)


class Momentum:
    """Gradient descent with momentum (Polyak's heavy ball)."""

    def __init__(self, recipe: Recipe, points: list[torch.Tensor]) -> None:
        self._recipe = recipe
        self._velocity = [torch.zeros_like(point) for point in points]

    def __call__(
        self, points: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Move the points in place."""
        for point, gradient, velocity in zip(
            points, gradients, self._velocity, strict=True
        ):
            velocity.mul_(self._recipe.momentum).add_(gradient)
            point.sub_(self._recipe.learning_rate * velocity)


class Adam:
    """Adam, each parameter in a unit of its own, with a rate that falls to 0.

    That of torch would spend seconds on importing its compiler first.
    """

    def __init__(
        self,
        recipe: Recipe,
        input_scale: float,
        points: list[torch.Tensor],
        n_steps: int,
    ) -> None:
        units = input_scale, points[1].item()
        self._rates = [recipe.learning_rate * unit for unit in units]
        self._done, self._n_steps = 0, n_steps
        self._means = [torch.zeros_like(point) for point in points]
        self._squares = [torch.zeros_like(point) for point in points]

    def __call__(
        self, points: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> None:
        """Move the points in place."""
        share = max(self._n_steps - self._done, 1) / self._n_steps
        self._done += 1
        parts = points, gradients, self._means, self._squares, self._rates
        for point, gradient, mean, square, rate in zip(*parts, strict=True):
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient**2, 1 - BETAS[1])
            size = (square / (1 - BETAS[1] ** self._done)).sqrt_().add_(SLIGHT)
            point.sub_(share * rate / (1 - BETAS[0] ** self._done) * mean / size)


class _Keeper:
    """Early stopping: the best point, by held-out loss or else by the training's."""

    def __init__(
        self,
        descent: Descent,
        held_out: Rows,
        tol: float,
        patience: int,
    ) -> None:
        self._descent = descent
        self._held_out = held_out
        self._tol = tol
        self._patience = patience
        self._waited = 0
        self._best_score = np.inf if held_out is None else descent.loss_of(held_out)
        self._keep()

    def judge(self, loss: float) -> str:
        """Take note of an epoch; return `FINISHED`, or why the descent should end."""
        if not np.isfinite(loss):
            return DIVERGED
        descent, score = self._descent, loss
        descent.loss_curve.append(loss)
        if self._held_out is not None:
            score = descent.loss_of(self._held_out)
            descent.held_out_curve.append(score)
        self._waited += 1
        if score < self._best_score - self._tol:
            self._waited = 0
        if score < self._best_score:
            self._best_score = score
            self._keep()
        stalled = self._held_out is not None and self._waited >= self._patience
        return STALLED if stalled else FINISHED

    def _keep(self) -> None:
        self._best = self._descent.theta.clone(), self._descent.temperature.clone()

    def restore_best(self) -> None:
        """Put the descent back to the best point."""
        self._descent.theta, self._descent.temperature = self._best


def _counted(batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the number of rows up to the end of each batch, and the batch."""
    done = 0
    for batch in batches:
        done += batch[1].shape[0]
        yield done, batch
