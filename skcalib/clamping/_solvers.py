"""All solvers of `NeuralClamping` behind one name."""

from skcalib.clamping._gradient_free import solve_gradient_free
from skcalib.clamping._sgd import solve_sgd
from skcalib.clamping._solve import solve_fixed, solve_lbfgs, solve_linearised


def solve(solver, problem, settings, start, **training):
    """Return the outcome of a solver; `training` is for "sgd" alone."""
    if solver == "sgd":
        return solve_sgd(problem, settings, start, **training)
    if solver == "gradient_free":
        return solve_gradient_free(problem, settings)
    optimise = {
        "auto": solve_linearised,
        "lbfgs": solve_lbfgs,
        "fixed_delta": solve_fixed,
    }
    return optimise[solver](problem, settings, start)


def needs_gradient(solver, start):
    """Whether a solver, or the start it is given, asks for input gradients."""
    if solver in ("auto", "lbfgs", "sgd"):
        return True
    return isinstance(start, str) and start == "data_driven"
