"""A fitted calibrator as a torch module."""

import importlib
from typing import Any

from skcalib._maps import log_proba
from skcalib._networks._given import perturbs_inputs
from skcalib._optional import import_optional
from skcalib.export._clamping import clamped_module
from skcalib.export._emit import check_calibrator
from skcalib.export._groups import is_grouped, numbers_by_group, of_whole
from skcalib.meta import DenseCalibration


def to_torch(calibrator: Any) -> Any:
    """Turn a fitted calibrator into a torch module.

    Parameters
    ----------
    calibrator : estimator
        A fitted calibrator of skcalib, or a fitted `NeuralClamping`.

    Returns
    -------
    module : torch.nn.Module
        Maps logits of shape (n, n_columns), or log-odds of shape (n,), to probabilities
        of shape (n, n_classes): float64 for float64, float32 for every other
        floating-point type. Its numbers are float64 buffers that move between devices
        and are not trained. Gradients with respect to the logits flow where the map
        has any.

        The module of a `NeuralClamping` maps inputs of its network to probabilities,
        several of them by keyword. It holds a copy of the network, which stays in eval
        mode and is not trained.

        The module of a `DenseCalibration` takes logits of places too, such as
        (n, K, H, W), and gives probabilities of that shape.

        The module of a `GroupCalibration` takes a second argument, the place of each
        row's group in ``groups_``; any other number, such as -1, stands for groups that
        were not seen.

    See Also
    --------
    to_onnx : The same for ONNX.

    Notes
    -----
    The arithmetic runs in float64, so that the module agrees with Python; a device that
    lacks float64 (Apple's MPS) cannot hold it.

    Examples
    --------
    >>> import torch
    >>> from skcalib import TemperatureScaling
    >>> from skcalib.export import to_torch
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    >>> module = to_torch(TemperatureScaling().fit(logits, [0, 0, 1, 1]))
    >>> module(torch.tensor([[4.0, 0.0]])).numpy().round(2)
    array([[0.93, 0.07]], dtype=float32)
    """
    if perturbs_inputs(calibrator):
        return clamped_module(calibrator)
    import_optional("torch", "Exporting to torch")
    check_calibrator(calibrator)
    operations = importlib.import_module("skcalib.export._torch_operations")
    n_features = int(calibrator.n_features_in_)
    whole = of_whole(calibrator).calibration_map()
    if isinstance(calibrator, DenseCalibration):
        return operations.DenseCalibration(whole, n_features, calibrator.class_axis)
    if not is_grouped(calibrator):
        return operations.Calibration(whole, n_features)
    front = log_proba(whole, len(calibrator.classes_))
    numbers = numbers_by_group(calibrator)
    return operations.GroupedCalibration(front, n_features, *numbers)
