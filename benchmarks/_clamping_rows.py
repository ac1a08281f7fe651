"""The rows of the tables of neural_clamping.py: from a split to test probabilities."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import softmax
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from benchmarks._networks import last_features
from skcalib import (
    DensityRatioCalibration,
    DirichletCalibration,
    MatrixScaling,
    SplineCalibration,
    StructuredMatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from skcalib.clamping import NeuralClamping
from skcalib.metrics import ece_scorer

# Neither changes a result; on processors this is the quickest.
ENGINE = {"batch_size": 64, "channels_last": True}
GAMMAS = [0.0, 0.25, 0.5, 0.75, 1.0]


def paper_penalty(logits, y, gamma):
    """A tenth of the mean focal loss before any calibration."""
    own = softmax(logits.astype(np.float64), axis=1)[np.arange(len(y)), y]
    own = np.maximum(own, np.finfo(np.float64).tiny)
    return 0.1 * float(np.mean(-((1 - own) ** gamma) * np.log(own)))


def paper_objective(task, gamma, **options):
    """The published objective, of every pixel of normalised images, by L-BFGS.

    Ten epochs end within 0.001 of the recipe's hundred on a small network (part speed).
    """
    return NeuralClamping(
        task.module,
        gamma=gamma,
        perturbation="full",
        space="standardised",
        penalty=paper_penalty(task.cal.logits, task.cal.y, gamma),
        solver="lbfgs",
        max_iter=10,
        temperature_objective="joint",
        random_state=task.seed,
        **ENGINE,
        **options,
    )


def paper_recipe(task, gamma, start="zeros", **options):
    """The published recipe: a hundred epochs."""
    return NeuralClamping(
        task.module,
        gamma=gamma,
        preset="paper",
        start=start,
        random_state=task.seed,
        **ENGINE,
        **options,
    )


def temperature_by_gamma(task):
    """Temperature by focal loss, its exponent chosen by cross-fitted ECE."""
    folds = StratifiedKFold(5, shuffle=True, random_state=task.seed)
    temperature = TemperatureScaling(objective="focal")
    return GridSearchCV(temperature, {"gamma": GAMMAS}, scoring=ece_scorer, cv=folds)


POST_HOC = {
    "TS": lambda task: TemperatureScaling(),
    "TS-grid": lambda task: TemperatureScaling(objective="ece"),
    "TS (FL)": lambda task: TemperatureScaling(objective="focal"),
    "TS (gamma by ECE)": temperature_by_gamma,
    "VS": lambda task: VectorScaling(),
    "MS": lambda task: MatrixScaling(off_diagonal_penalty=0.0, intercept_penalty=0.0),
    "MS-ODIR": lambda task: MatrixScaling(),
    "Dir-ODIR": lambda task: DirichletCalibration(),
    "spline": lambda task: SplineCalibration(),
    "SMS": lambda task: StructuredMatrixScaling(),
}
CLAMPED = {
    "NC": lambda task: NeuralClamping(task.module, random_state=task.seed, **ENGINE),
    "NC (CE)": lambda task: paper_objective(task, 0.0),
    "NC (FL)": lambda task: paper_objective(task, 1.0),
    "NC (CE), recipe": lambda task: paper_recipe(task, 0.0),
    "NC (FL), recipe": lambda task: paper_recipe(task, 1.0),
}
DENSITY = "density ratio"
METHODS = ["uncalibrated", *POST_HOC, DENSITY, *CLAMPED]


@dataclass(eq=False)
class Clamped:
    """A fitted perturbation and temperature, and the logits of perturbed inputs."""

    temperature: float
    cal_logits: np.ndarray
    test_logits: np.ndarray

    def proba(self, logits):
        """The temperature's probabilities."""
        return softmax(logits.astype(np.float64) / self.temperature, axis=1)


def fit_clamped(task, estimator, keep, title):
    """Fit, or take up what was kept of an earlier run."""

    def fit():
        estimator.fit(task.cal.X, task.cal.y)
        cal_logits, test_logits = task.cal.logits, task.test.logits
        if estimator.perturbation_ != "none":
            cal_logits = estimator.logits(task.cal.X)
            test_logits = estimator.logits(task.test.X)
        return {
            "temperature": np.array(estimator.temperature_),
            "cal_logits": cal_logits,
            "test_logits": test_logits,
        }

    kept = keep(task, title, fit)
    return Clamped(**{**kept, "temperature": float(kept["temperature"])})


def density_ratio(task):
    """Density ratios with the inputs of the network's last layer."""
    fitted = DensityRatioCalibration().fit(
        task.cal.logits, task.cal.y, features=last_features(task.module, task.cal.X)
    )
    features = last_features(task.module, task.test.X)
    return {"proba": fitted.predict_proba(task.test.logits, features=features)}


def rows_of(task, method, options):
    """Return ``{row: test probabilities}`` of one method."""
    keep = options.keep
    if method == "uncalibrated":
        return {method: softmax(task.test.logits.astype(np.float64), axis=1)}
    if method == DENSITY:
        return {method: keep(task, method, partial(density_ratio, task))["proba"]}
    if method in POST_HOC:

        def fit():
            calibrator = POST_HOC[method](task).fit(task.cal.logits, task.cal.y)
            return {"proba": calibrator.predict_proba(task.test.logits)}

        return {method: keep(task, method, fit)["proba"]}
    estimator = CLAMPED[method](task)
    if estimator.preset is not None:
        estimator.set_params(**options.epochs)
    clamped = fit_clamped(task, estimator, keep, method)
    rows = {method: clamped.proba(clamped.test_logits)}
    if method == "NC":
        # The same as output_calibrator=StructuredMatrixScaling(), without fitting
        # the perturbation twice.
        structured = StructuredMatrixScaling().fit(clamped.cal_logits, task.cal.y)
        rows[f"{method} + SMS"] = structured.predict_proba(clamped.test_logits)
    return rows
