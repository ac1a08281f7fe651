"""The rows of the tables of neural_clamping.py: from a split to test probabilities."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skcalib import (
    DirichletCalibration,
    MatrixScaling,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.clamping import NeuralClamping, NeuralClampingCV
from skcalib.clamping._change import Change
from skcalib.metrics import ece_scorer

# Neither changes a result; on processors this is the quickest.
ENGINE = {"batch_size": 64, "channels_last": True}
GAMMAS = [0.0, 0.25, 0.5, 0.75, 1.0]


def paper_penalty(logits, y, gamma):
    """A tenth of the mean focal loss before any calibration."""
    own = softmax(logits.astype(np.float64), axis=1)[np.arange(len(y)), y]
    own = np.maximum(own, np.finfo(np.float64).tiny)
    return 0.1 * float(np.mean(-((1 - own) ** gamma) * np.log(own)))


def paper_objective(task, gamma, max_iter=3):
    """The published objective, of every pixel.

    Three epochs of L-BFGS end where the paper's recipe does, or below (part speed).
    """
    return NeuralClamping(
        task.module,
        gamma=gamma,
        perturbation="full",
        penalty=paper_penalty(task.cal.logits, task.cal.y, gamma),
        solver="lbfgs",
        max_iter=max_iter,
        temperature_objective="joint",
        random_state=task.seed,
        **ENGINE,
    )


def temperature_by_gamma(task):
    """Temperature by focal loss, its exponent chosen by cross-fitted ECE."""
    folds = StratifiedKFold(5, shuffle=True, random_state=task.seed)
    temperature = TemperatureScaling(objective="focal")
    return GridSearchCV(temperature, {"gamma": GAMMAS}, scoring=ece_scorer, cv=folds)


def ours(estimator, **options):
    """The defaults but for `options`."""

    def make(task):
        return estimator(task.module, random_state=task.seed, **ENGINE, **options)

    return make


POST_HOC = {
    "TS": lambda task: TemperatureScaling(),
    "TS-grid": lambda task: TemperatureScaling(objective="ece"),
    "TS (FL)": lambda task: TemperatureScaling(objective="focal"),
    "TS (gamma by ECE)": temperature_by_gamma,
    "VS": lambda task: VectorScaling(),
    "MS-ODIR": lambda task: MatrixScaling(),
    "Dir-ODIR": lambda task: DirichletCalibration(),
    "SVS": lambda task: StructuredMatrixScaling(structure="vector"),
    "SMS": lambda task: StructuredMatrixScaling(),
}
CLAMPED = {
    "NC": ours(NeuralClamping),
    "NC (gamma by NLL)": ours(NeuralClampingCV),
    "NC (gamma by ECE)": ours(
        NeuralClampingCV, scoring=ece_scorer, temperature_objective="joint"
    ),
    "NC (CE)": lambda task: paper_objective(task, 0.0),
    "NC (FL)": lambda task: paper_objective(task, 1.0),
    "NC (FL, optimum)": lambda task: paper_objective(task, 1.0, max_iter=20),
}
METHODS = ["uncalibrated", *POST_HOC, *CLAMPED]


@dataclass(eq=False)
class Clamped:
    """A fitted perturbation and temperature, and the logits of perturbed inputs."""

    delta: np.ndarray
    kernel: np.ndarray
    temperature: float
    cal_logits: np.ndarray
    test_logits: np.ndarray

    def proba(self, logits):
        """The temperature's probabilities."""
        return softmax(logits.astype(np.float64) / self.temperature, axis=1)

    @property
    def change(self):
        """What happens to inputs, in tensors."""
        kernel = torch.from_numpy(self.kernel) if self.kernel.size else None
        return Change(torch.from_numpy(self.delta), kernel)


def changed(X, change):
    """Return what a network sees of inputs."""
    x = torch.from_numpy(X)
    return (x + change(x)).numpy()


def make_clamped(task, method):
    """Return the unfitted estimator of one of `CLAMPED`."""
    return CLAMPED[method](task)


def fit_clamped(task, estimator, keep, title):
    """Fit, or take up what was kept of an earlier run."""

    def fit():
        estimator.fit(task.cal.X, task.cal.y)
        kernel = estimator.filter_
        cal_logits, test_logits = task.cal.logits, task.test.logits
        if estimator.perturbation_ != "none":
            cal_logits = estimator.logits(task.cal.X)
            test_logits = estimator.logits(task.test.X)
        return {
            "delta": estimator.delta_,
            "kernel": np.empty(0, np.float32) if kernel is None else kernel,
            "temperature": np.array(estimator.temperature_),
            "cal_logits": cal_logits,
            "test_logits": test_logits,
        }

    kept = keep(task, title, fit)
    return Clamped(**{**kept, "temperature": float(kept["temperature"])})


def rows_of(task, method, keep):
    """Return ``{row: test probabilities}`` of one method; controls are rows too."""
    if method == "uncalibrated":
        return {method: softmax(task.test.logits.astype(np.float64), axis=1)}
    if method in POST_HOC:

        def fit():
            calibrator = POST_HOC[method](task).fit(task.cal.logits, task.cal.y)
            return {"proba": calibrator.predict_proba(task.test.logits)}

        return {method: keep(task, method, fit)["proba"]}
    clamped = fit_clamped(task, make_clamped(task, method), keep, method)
    rows = {method: clamped.proba(clamped.test_logits)}
    if method.startswith(("NC (CE", "NC (FL")):
        plain = task.test.logits
        rows[f"{method}, T only"] = clamped.proba(plain)
        delta_only = clamped.test_logits.astype(np.float64)
        rows[f"{method}, delta only"] = softmax(delta_only, axis=1)
    else:
        # The same as output_calibrator=StructuredMatrixScaling(), without fitting
        # the perturbation twice.
        structured = StructuredMatrixScaling().fit(clamped.cal_logits, task.cal.y)
        rows[f"{method} + SMS"] = structured.predict_proba(clamped.test_logits)
    return rows
