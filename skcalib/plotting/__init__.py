"""Displays: reliability diagrams, comparisons, and the perturbation of a network."""

from skcalib.plotting._classwise import ClasswiseReliabilityDisplay
from skcalib.plotting._comparison import CalibratorComparisonDisplay
from skcalib.plotting._perturbation import PerturbationDisplay, plot_perturbation
from skcalib.plotting._proximity import ProximityDisplay
from skcalib.plotting._reliability import ReliabilityDisplay
from skcalib.plotting._simplex import SimplexDisplay
from skcalib.plotting._smooth import SmoothReliabilityDisplay

__all__ = [
    "CalibratorComparisonDisplay",
    "ClasswiseReliabilityDisplay",
    "PerturbationDisplay",
    "ProximityDisplay",
    "ReliabilityDisplay",
    "SimplexDisplay",
    "SmoothReliabilityDisplay",
    "plot_perturbation",
]
