"""Displays: reliability diagrams."""

from skcalib.plotting._reliability import ReliabilityDisplay

__all__ = ["ReliabilityDisplay"]
