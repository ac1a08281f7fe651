"""Displays: reliability diagrams, and the perturbation of NeuralClamping."""

from skcalib.plotting._perturbation import PerturbationDisplay, plot_perturbation
from skcalib.plotting._reliability import ReliabilityDisplay

__all__ = ["PerturbationDisplay", "ReliabilityDisplay", "plot_perturbation"]
