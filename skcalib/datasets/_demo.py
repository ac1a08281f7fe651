"""The small over-confident network of the demonstration, and images it has not seen."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

MODEL_PATH = Path(__file__).parent / "data" / "demo.onnx"

# Rows of the shuffled digits: training, calibration, and the rest to judge by.
_N_TRAIN = 400
_N_CALIBRATION = 600

_DESCRIPTION = """\
A multilayer perceptron (64-64-64-10) that reads handwritten digits, as an ONNX file.

Input ``image``: float32 of shape (batch, 8, 8), values in [0, 1].
Output ``probabilities``: float32 of shape (batch, 10), the result of a softmax.

It was trained by ``python -m skcalib.datasets._train_demo`` on 400 of the 1,797 digits
of scikit-learn, a tenth of them mislabelled at random, for 1,500 epochs without any
regularisation, until it knew its training set by heart: it is far more confident than
right. The other digits, with their true labels, are split into a calibration and a
test part.
"""


def load_demo() -> Any:
    """Load the demonstration network's path and the held-out images.

    Nothing is downloaded: the network ships with the package, and the images are
    scikit-learn's digits.

    Returns
    -------
    demo : :class:`~sklearn.utils.Bunch`
        A dictionary with these entries, also as attributes:

        model : str
            Path of the ONNX file; its input is `image`, its output `probabilities`.
        X_calibration : ndarray of shape (600, 8, 8)
            Images to calibrate on, float32 in [0, 1].
        y_calibration : ndarray of shape (600,)
            Their digits, from 0 to 9.
        X_test : ndarray of shape (797, 8, 8)
            Images to judge by.
        y_test : ndarray of shape (797,)
            Their digits.
        target_names : ndarray of shape (10,)
            The digits, in the order of the network's outputs.
        DESCR : str
            How the network was trained.

    Examples
    --------
    >>> from skcalib.datasets import load_demo
    >>> demo = load_demo()
    >>> demo.X_calibration.shape, demo.X_test.shape
    ((600, 8, 8), (797, 8, 8))
    """
    _, calibration, test = split_digits()
    return Bunch(
        model=str(MODEL_PATH),
        X_calibration=calibration[0],
        y_calibration=calibration[1],
        X_test=test[0],
        y_test=test[1],
        target_names=np.arange(10),
        DESCR=_DESCRIPTION,
    )


def split_digits():
    """Return (images, digits) of the training, calibration and test part."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    # RandomState, whose stream NumPy keeps for ever: the network must never be judged
    # on images it was trained on.
    order = np.random.RandomState(0).permutation(images.shape[0])
    parts = np.split(order, [_N_TRAIN, _N_TRAIN + _N_CALIBRATION])
    return [(images[rows], digits.target[rows]) for rows in parts]
