"""Mini-batch training as a solver: the published recipes, or one of the user's."""

from dataclasses import replace

import numpy as np

from skcalib.clamping._perturbation import AllCosines
from skcalib.clamping._problem import Outcome
from skcalib.clamping._spans import canonical, open_basis
from skcalib.clamping._train import RECIPES, our_recipe, train

# Epochs of training that follows no published recipe.
MAX_ITER = 4


def solve_sgd(problem, settings, start, *, preset, temperature, fraction, verbose):
    """Train perturbation and temperature; return the outcome.

    A preset runs all its epochs on all rows. Without one, a share `fraction` of the
    rows, if any, is held out and ends the training, and the temperature that is served
    is the exact one.
    """
    recipe = _recipe(problem, settings, preset)
    held_out = pull = None
    if preset is None:
        pull = problem.pull(temperature)
        if settings.penalty != "auto":
            recipe = replace(recipe, penalty=float(settings.penalty))
        if fraction is not None:
            held_out = _hold_out(problem, settings, fraction)
    name = canonical(settings.perturbation)
    basis = open_basis(name, problem.shape)
    if preset is None and name == "full" and len(problem.shape) > 1:
        basis = AllCosines(problem.shape)
    training = train(
        problem.objective,
        basis,
        recipe,
        theta=None if start is None else np.asarray(basis.reduce(start)),
        temperature=temperature,
        pull=pull,
        held_out=held_out,
        random_state=settings.random_state,
        verbose=verbose,
    )
    return Outcome(
        training.delta,
        problem.objective.logits(training.delta),
        training.penalty,
        name,
        training.loss_curve,
        training.n_iter,
        temperature=None if preset is None else training.temperature,
        squared=recipe.squared,
    )


def _recipe(problem, settings, preset):
    if preset is None:
        input_scale = float(np.sqrt(problem.input_variance))
        max_iter = settings.max_iter or MAX_ITER
        return our_recipe(problem.codes.shape[0], input_scale, max_iter)
    recipe = RECIPES[preset]
    if settings.max_iter is None:
        return recipe
    return replace(recipe, max_iter=settings.max_iter)


def _hold_out(problem, settings, fraction):
    n_folds = max(2, round(1 / fraction))
    splits = problem.splits(n_folds, settings.random_state, settings.groups)
    return splits[0][1]
