r"""Stochastic gradient descent on perturbation and temperature, as it was published.

Tang, Chen & Ho ("Neural Clamping", TMLR 2024) write the objective with the sum of the
losses over samples; their code takes the mean over each batch. Both recipes take the
mean here: a step of the published size belongs to it, and the paper's penalty, a tenth
of the initial loss, is measured in mean losses: beside a sum it would be nothing. The
scale of the paper's random start is not given; it is that of the code. The code's
augmentation (random crops, flips, cut-outs) is left out: it asks what kind of inputs
the network takes, and calibrates for inputs that it will not see.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skcalib._warnings import warn
from skcalib.clamping._draws import Draws
from skcalib.clamping._steps import Adam, Momentum

# T never reaches 0, however large a step is.
SMALLEST_TEMPERATURE = 1e-3

FINISHED = "all epochs were run"
STALLED = "the loss of the held-out rows falls no more"
DIVERGED = "the loss became infinite; a smaller learning rate may help"
INTERRUPTED = "it was interrupted"


@dataclass(frozen=True)
class Recipe:
    """Settings of the descent.

    With an `input_scale` the steps are those of Adam (Kingma & Ba, ICLR 2015); the
    learning rate is in units of that scale for theta and of T for T, and falls to 0
    with the last step. Else it is that of gradient descent with momentum.

    `penalty` times `norm(theta)`, squared or not, is added to the mean loss; None is a
    tenth of the mean loss at the start. `start_scale` is the standard deviation of the
    random start of the preset.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    batch_size: int = 512
    max_iter: int = 100
    penalty: float | None = None
    squared: bool = True
    start_scale: float = 1e-3
    input_scale: float | None = None


def our_recipe(n_samples, input_scale, max_iter):
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
    "paper": Recipe(learning_rate=0.001, momentum=0.0, batch_size=512),
    "reference": Recipe(batch_size=1000, penalty=0.01, squared=False),
}


@dataclass(frozen=True)
class Training:
    """Where a descent ended.

    `loss_curve` holds the mean penalised loss during each epoch, `held_out_curve` the
    mean loss of the held-out rows after it; `n_iter` counts epochs.
    """

    theta: np.ndarray
    delta: np.ndarray
    temperature: float
    penalty: float
    loss_curve: list[float]
    held_out_curve: list[float]
    n_iter: int
    message: str


def train(
    objective,
    basis,
    recipe=RECIPES["paper"],
    *,
    theta=None,
    temperature=1.0,
    rows=None,
    pull=None,
    held_out=None,
    patience=10,
    tol=1e-4,
    random_state=None,
    verbose=0,
):
    """Descend from `theta` and `temperature`, epoch by epoch.

    Parameters
    ----------
    objective : Objective
        Loss of the calibration inputs.

    basis : Full, Channel or LowFrequency
        What the coordinates `theta` stand for.

    recipe : Recipe, default=RECIPES["paper"]
        Settings of the descent.

    theta : array of shape (dim,), default=None
        Where to start; None draws it with the recipe's scale. With the result of an
        earlier descent and its `temperature` this goes on where that ended.

    temperature : float, default=1.0
        Temperature to start from.

    rows : array of row numbers, default=None
        Rows to learn from; None takes all that are not held out.

    pull : array of shape (n_samples,), default=None
        Norm of each row's gradient by the scores at the start: rows are drawn by it and
        by what it becomes. None visits every row once an epoch.

    held_out : array of row numbers, default=None
        Rows that judge the epochs: the point of the least loss on them is kept, and
        the descent ends when it has not fallen by `tol` for `patience` epochs. None
        runs all epochs and keeps the last point.

    random_state : numpy.random.RandomState or int, default=None
        For the start and the order of the rows.

    verbose : int, default=0
        Above 0 shows the progress on standard error.

    Returns
    -------
    training : Training
        The point that was kept and the curves.

    Warns
    -----
    ConvergenceWarning
        If Ctrl-C or an infinite loss ended the descent; the best point is kept.
    """
    rng = check_random_state(random_state)
    if rows is None:
        rows = np.arange(objective.inputs.n_samples)
        rows = rows if held_out is None else np.setdiff1d(rows, held_out)
    if theta is None:
        theta = recipe.start_scale * rng.standard_normal(basis.dim)
    draws = None if pull is None else Draws(objective, rows, pull)
    descent = _Descent(
        objective, basis, recipe, np.array(theta), temperature, rows, draws
    )
    keeper = _Keeper(objective, descent, held_out, tol, patience)
    message = FINISHED
    progress = _Progress(recipe.max_iter, verbose)
    try:
        for _ in range(recipe.max_iter):
            message = keeper.judge(descent.epoch(rng))
            progress.show(keeper, descent)
            if message != FINISHED:
                break
    except KeyboardInterrupt:
        message = INTERRUPTED
    finally:
        progress.close()
    if message in (DIVERGED, INTERRUPTED):
        warn(
            f"The descent ended in epoch {len(keeper.losses) + 1} because {message}. "
            "The best point so far is kept.",
            ConvergenceWarning,
        )
    if message != FINISHED or held_out is not None:
        keeper.restore_best()
    return keeper.result(message)


class _Descent:
    """A moving point, coordinates and temperature, and its velocity, on the device."""

    def __init__(self, objective, basis, recipe, theta, temperature, rows, draws):
        self._objective = objective
        self._rows, self._draws = rows, draws
        self._mean_weight = objective.total_weight(rows) / len(rows)
        self.basis = basis
        self._recipe = recipe
        options = {"device": objective.network.device, "dtype": objective.sum_dtype}
        self.theta = torch.as_tensor(theta, **options).clone()
        self.temperature = torch.as_tensor(float(temperature), **options).clone()
        points = [self.theta, self.temperature]
        if recipe.input_scale is None:
            self._move = Momentum(recipe, points)
        else:
            n_steps = recipe.max_iter * -(-len(rows) // recipe.batch_size)
            self._move = Adam(recipe, points, n_steps)
        self.penalty = recipe.penalty
        if self.penalty is None:
            delta = basis.expand(np.asarray(theta))
            self.penalty = 0.1 * objective.value(delta, np.log(temperature), rows)

    def epoch(self, rng):
        """Run through as many rows as there are; return the mean penalised loss."""
        objective, size = self._objective, self._recipe.batch_size
        by_pull = self._draws is not None
        order = self._draws.order(rng) if by_pull else rng.permutation(self._rows)
        order = objective.inputs.as_order(order)
        total = torch.zeros_like(self.temperature)
        sums, n_rows = objective.no_sums(), 0
        point = self._point()
        for done, (index, x) in _counted(objective.inputs.batches(order, size)):
            objective.add(sums, x, index, *point, draws=self._draws)
            n_rows += x.shape[0]
            if done % size and done < len(order):
                continue
            total += self._step(sums, n_rows * self._mean_weight) * n_rows
            sums, n_rows = objective.no_sums(), 0
            point = self._point()
        # A last step to infinity shows in no loss: it makes the total NaN.
        total += 0 * (self.theta.sum() + self.temperature)
        return float(total) / len(order)

    def _point(self):
        delta = self.basis.expand(self.theta).to(self._objective.network.dtype)
        return delta, self.temperature.log()

    def _step(self, sums, weight):
        """Move by the gradient of one batch; return its penalised mean loss."""
        by_delta, totals = sums[0] / weight, sums[1] / weight
        penalty, slope = self._penalty()
        gradients = [
            self.basis.reduce(by_delta) + slope,
            totals[1] / self.temperature,
        ]
        self._move([self.theta, self.temperature], gradients)
        self.temperature.clamp_(min=SMALLEST_TEMPERATURE)
        return totals[0] + penalty

    def _penalty(self):
        """Return the penalty and its gradient by theta."""
        norm = torch.linalg.vector_norm(self.theta)
        if self._recipe.squared:
            return self.penalty * norm**2, 2 * self.penalty * self.theta
        # At 0, where the norm has a kink, any slope up to 1 is one: take 0.
        tiny = torch.finfo(norm.dtype).tiny
        return self.penalty * norm, self.penalty * self.theta / norm.clamp(min=tiny)


class _Keeper:
    """The curves, and the best point, by held-out loss or else by the training's."""

    def __init__(self, objective, descent, held_out, tol, patience):
        self._objective = objective
        self._descent = descent
        self._held_out = held_out
        self._tol = tol
        self._patience = patience
        self._waited = 0
        self.losses = []
        self.held_out_losses = []
        self._best_score = np.inf if held_out is None else self._held_out_loss()
        self._keep()

    def judge(self, loss):
        """Take note of an epoch; return `FINISHED`, or why the descent should end."""
        if not np.isfinite(loss):
            return DIVERGED
        self.losses.append(loss)
        score = loss
        if self._held_out is not None:
            score = self._held_out_loss()
            self.held_out_losses.append(score)
        self._waited += 1
        if score < self._best_score - self._tol:
            self._waited = 0
        if score < self._best_score:
            self._best_score = score
            self._keep()
        stalled = self._held_out is not None and self._waited >= self._patience
        return STALLED if stalled else FINISHED

    def _held_out_loss(self):
        descent = self._descent
        delta = descent.basis.expand(descent.theta)
        return self._objective.value(delta, descent.temperature.log(), self._held_out)

    def _keep(self):
        descent = self._descent
        self._best = descent.theta.clone(), descent.temperature.clone()

    def restore_best(self):
        """Put the descent back to the best point."""
        self._descent.theta, self._descent.temperature = self._best

    def result(self, message):
        """Return where the descent stands."""
        theta = self._descent.theta.cpu().numpy()
        return Training(
            theta=theta,
            delta=self._descent.basis.expand(theta),
            temperature=self._descent.temperature.item(),
            penalty=self._descent.penalty,
            loss_curve=self.losses,
            held_out_curve=self.held_out_losses,
            n_iter=len(self.losses),
            message=message,
        )


class _Progress:
    """One line on standard error: rewritten on a terminal, else one for each epoch."""

    def __init__(self, n_epochs, verbose):
        self._n_epochs = n_epochs
        self._shown = verbose > 0
        self._end = "\r" if sys.stderr.isatty() else "\n"
        self._start = time.monotonic()

    def show(self, keeper, descent):
        """Show the state after an epoch."""
        if not self._shown:
            return
        text = f"epoch {len(keeper.losses)}/{self._n_epochs}"
        if keeper.losses:
            text += f"  loss {keeper.losses[-1]:.5f}"
        if keeper.held_out_losses:
            text += f"  held out {keeper.held_out_losses[-1]:.5f}"
        text += f"  T {descent.temperature.item():.4f}"
        text += f"  {time.monotonic() - self._start:.1f} s"
        sys.stderr.write(text + self._end)
        sys.stderr.flush()

    def close(self):
        """End the line."""
        if self._shown and self._end == "\r":
            sys.stderr.write("\n")


def _counted(batches):
    """Yield the number of rows up to the end of each batch, and the batch."""
    done = 0
    for batch in batches:
        done += batch[1].shape[0]
        yield done, batch
