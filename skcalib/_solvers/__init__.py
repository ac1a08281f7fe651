"""Solvers: from a `CalibrationData` to the parameters of a method."""
