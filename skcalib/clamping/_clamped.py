"""What the estimators of neural clamping share: input checks, prediction, cloning."""

import copy
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from skcalib._blocks import ArraySource
from skcalib._maps import CalibrationMap, Scale, Softmax, evaluate
from skcalib._networks._given import Brief, Given, SharedByCopies
from skcalib._networks._inputs import Inputs, network_rows
from skcalib._networks._network import open_network
from skcalib._networks._sharing import portable
from skcalib._numerics import hash_rows
from skcalib._progress import Progress
from skcalib._sklearn_compat import HasMethods, Interval, StrOptions
from skcalib._solvers._result import CONVERGED, INTERRUPTED
from skcalib._solvers._temperature import PRIOR
from skcalib._solvers._temperature_search import best_temperature
from skcalib._validation import (
    as_repetitions,
    check_two_classes,
    check_weight,
    classes_of_model,
    column_on_host,
    encode_labels,
    refuse_dask,
    takes_groups,
)
from skcalib._warnings import warn
from skcalib.clamping._change import Change
from skcalib.clamping._objective import Objective
from skcalib.clamping._perturbation import channel_axis
from skcalib.clamping._problem import Problem, Settings
from skcalib.clamping._space import scale_of
from skcalib.clamping._starts import check_range
from skcalib.exceptions import InterruptedWarning, NotDifferentiableError
from skcalib.metrics import CalibrationReport, calibration_report

# Of the parameters that all of them have.
SHARED_CONSTRAINTS = {
    "model": "no_validation",
    "objective": [StrOptions({"focal", "brier"})],
    "perturbation": [
        StrOptions({"auto", "full", "channel", "low_frequency", "filter", "gain"}),
        Interval(Integral, 1, None, closed="left"),
        tuple,
        list,
    ],
    "feasible_range": [tuple, list, None],
    "output_calibrator": [HasMethods(["fit", "predict_proba"]), None],
    "space": [
        StrOptions({"raw", "standardised"}),
        Interval(Real, 0, None, closed="neither"),
        "array-like",
    ],
    "temperature_objective": [StrOptions({"auto", "log_loss", "joint"})],
    "max_iter": [Interval(Integral, 1, None, closed="left"), None],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "cv": ["cv_object"],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "device": "no_validation",
    "precision": [StrOptions({"bf16", "fp16"}), None],
    "channels_last": ["boolean"],
    "compile": ["boolean"],
    "distributed": ["boolean"],
    "output": [str, Integral, None],
    "site": [str, None],
    "classes": ["array-like", None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def _has_calibrated_logits(estimator):
    calibrator = getattr(estimator, "output_calibrator_", estimator.output_calibrator)
    return calibrator is None or hasattr(calibrator, "decision_function")


class ClampedClassifier(SharedByCopies, ClassifierMixin, BaseEstimator):
    """Base of the estimators that put a perturbation before a frozen network."""

    delta_: NDArray[np.float32]
    filter_: NDArray[np.float32] | None
    temperature_: float
    classes_: NDArray[Any]

    # Read by `perturbs_inputs`: fitted on inputs, and exported with the network.
    _perturbs_inputs = True

    def __sklearn_clone__(self):
        """Make an equal estimator that shares the network."""
        params = self.get_params(deep=False)
        twin = type(self)(
            **{
                name: value if name == "model" else clone(value, safe=False)
                for name, value in params.items()
            }
        )
        for name in ("_metadata_request", "_sklearn_output_config"):
            if name in vars(self):
                setattr(twin, name, copy.deepcopy(vars(self)[name]))
        return twin

    def __getstate__(self):
        """Return the state, with a module's weights as arrays that joblib can map."""
        state = super().__getstate__()
        return {**state, "model": portable(state["model"])}

    def __sklearn_tags__(self):
        """Tags: inputs of any number of dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        return tags

    def __repr__(self, N_CHAR_MAX=700):
        """Show the parameters, without megabytes of weights."""
        brief = type(self)(**self.get_params(deep=False))
        brief.model = Brief(self.model)
        return super(ClampedClassifier, brief).__repr__(N_CHAR_MAX)

    def logits(self, X: Any) -> Any:
        """Return the network's logits of the perturbed inputs, not yet calibrated.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes)
            What `output_calibrator_` or the temperature maps.
        """
        check_is_fitted(self)
        return self._run_network(X, [self.input_change()])[0]

    def _run_network(self, X, changes):
        """Return the logits of inputs changed in each of several ways."""
        network = self._open_network()
        rows = self._take_rows(X, reset=False)
        inputs = Inputs(rows, network, self.batch_size)
        if inputs.shape != self.delta_.shape:
            raise ValueError(
                f"X holds inputs of shape {inputs.shape}, but {type(self).__name__} "
                f"was fitted on inputs of shape {self.delta_.shape}."
            )
        if inputs.names and set(inputs.names) != set(self.input_names_ or ()):
            raise ValueError(
                f"X has the inputs {inputs.names}, but {type(self).__name__} was "
                f"fitted on {self.input_names_ or 'a single one without a name'}."
            )
        codes = np.zeros(inputs.n_samples, dtype=np.intp)
        objective = Objective(
            network, inputs, codes, feasible_range=self.feasible_range
        )
        return [objective.logits(change) for change in changes]

    def predict_proba(self, X: Any) -> Any:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`, of the type of the network's
            logits.
        """
        source = ArraySource(self.logits(X))
        return evaluate(self.calibration_map(), source)

    def predict(self, X: Any) -> Any:
        """Return the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        logits = self.logits(X)
        if self.output_calibrator_ is not None:
            return self.output_calibrator_.predict(logits)
        # Straight from the logits: rounding must not make new ties.
        return self.classes_[logits.argmax(axis=1)]

    @available_if(_has_calibrated_logits)
    def decision_function(self, X: Any) -> Any:
        """Return calibrated logits, whose softmax `predict_proba` gives.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Calibrated logits; for two classes the log-odds of the second.
        """
        source = ArraySource(self.logits(X))
        logits = evaluate(self.calibration_map().logits, source)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def ablation(
        self, X: Any, y: Any, sample_weight: Any = None, metrics: Any = None
    ) -> dict[str, CalibrationReport]:
        """Judge what each part of the fit does alone.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), Dataset or DataLoader
            Inputs of the network, best of samples that `fit` has not seen.

        y : array-like of shape (n_samples,)
            True classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights.

        metrics : list of str, default=None
            Which metrics; see `skcalib.metrics.calibration_report`.

        Returns
        -------
        reports : dict of str to CalibrationReport
            Without intervals: of the network as it is ("uncalibrated"), of the
            perturbation without the temperature ("perturbation only"), of the
            temperature or output calibrator without the perturbation ("output only"),
            of "both", and of temperature scaling as it would have been learned from the
            same logits, by log-loss ("temperature scaling") and by the perturbation's
            own loss ("temperature scaling, same loss").

        Examples
        --------
        >>> import torch
        >>> from skcalib import NeuralClamping
        >>> from skcalib.datasets import make_logits
        >>> logits, y = make_logits(random_state=0)
        >>> nc = NeuralClamping(torch.nn.Identity(), gamma=1).fit(logits, y)
        >>> for part, report in nc.ablation(logits, y, metrics=["nll"]).items():
        ...     print(f"{part}: {report['nll'].value:.2f}")
        uncalibrated: 0.67
        perturbation only: 0.67
        output only: 0.59
        both: 0.59
        temperature scaling: 0.57
        temperature scaling, same loss: 0.59
        """
        check_is_fitted(self)
        plain, moved = self._run_network(X, [None, self.input_change()])
        by_log_loss, by_own_loss = (
            CalibrationMap(Scale(1 / temperature), Softmax())
            for temperature in self.plain_temperatures_
        )
        nothing, own = CalibrationMap(Softmax()), self.calibration_map()
        parts = {
            "uncalibrated": (nothing, plain),
            "perturbation only": (nothing, moved),
            "output only": (own, plain),
            "both": (own, moved),
            "temperature scaling": (by_log_loss, plain),
            "temperature scaling, same loss": (by_own_loss, plain),
        }
        return {
            name: calibration_report(
                y,
                evaluate(part, ArraySource(logits)),
                labels=self.classes_,
                sample_weight=sample_weight,
                metrics=metrics,
                n_bootstrap=0,
            )
            for name, (part, logits) in parts.items()
        }

    def input_change(self) -> Any:
        """Return the input side: what is added to inputs before the network.

        Returns
        -------
        change : object
            Its `delta` is `delta_`, its `kernel` is `filter_`, and its `axis` is that
            of the channels, without the batch axis.
        """
        check_is_fitted(self)
        return Change(self.delta_, self.filter_, channel_axis(self.delta_.shape))

    def calibration_map(self) -> Any:
        """Return the output side: from logits to probabilities."""
        if self.output_calibrator_ is not None:
            return self.output_calibrator_.calibration_map()
        return CalibrationMap(Scale(1 / self.temperature_), Softmax())

    def _open_network(self, *, distributed=False):
        return open_network(
            self.model,
            device=self.device,
            output=self.output,
            site=self.site,
            precision=self.precision,
            channels_last=self.channels_last,
            compile=self.compile,
            distributed=distributed,
        )

    def _open_problem(
        self, X, y, sample_weight, gamma, joint, space, needs_gradient=True
    ):
        """Validate everything `fit` is given; return the problem."""
        self._new_output_calibrator()
        network = self._open_network(distributed=self.distributed)
        if needs_gradient:
            check_differentiable(network)
        rows = self._take_rows(X, reset=True)
        inputs = Inputs(rows, network, self.batch_size)
        self.input_names_, self.input_types_ = inputs.names, inputs.types
        y = inputs.labels() if y is None else y
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None. Pass the true class of each row, or a Dataset of pairs."
            )
        y = np.asarray(column_on_host(y))
        check_consistent_length(np.empty(inputs.n_samples), y)
        n_classes = None if self.classes is None else len(self.classes)
        n_columns = network.probe(inputs, n_classes, gradient=needs_gradient)
        classes = self.classes
        if classes is None:
            classes = classes_of_model(y, Given.of(self.model, self.output).labels)
        self.classes_, codes = encode_labels(self, y, n_columns, classes)
        weight = as_repetitions(check_weight(sample_weight, codes))
        check_two_classes(self, codes, weight, self.classes_)
        check_range(self.feasible_range, inputs)
        if network.processes is not None:
            self._check_processes(network.processes, inputs, codes, weight)
        objective = Objective(
            network, inputs, codes, weight, self.objective, gamma, self.feasible_range
        )
        problem = Problem(
            objective, objective.logits(), "joint" if joint else "log_loss"
        )
        problem.scale = scale_of(
            space, problem.shape, lambda: problem.channel_moments[1]
        )
        return problem

    def _check_processes(self, processes, inputs, codes, weight):
        """Refuse what would lead the processes of a fit apart."""
        if not isinstance(self.random_state, Integral):
            raise ValueError(
                f"random_state={self.random_state!r} may differ from process to "
                "process. With distributed=True it has to be an integer."
            )
        rows = inputs.hashes()
        hashes = [hash_rows(part).sum() for part in (codes[:, None], weight[:, None])]
        hashes += [] if rows is None else [hash_rows(rows[:, None]).sum()]
        processes.refuse_differences(inputs.n_samples, *map(int, hashes))

    def _take_rows(self, X, *, reset):
        """Return X as a network takes it; n_features_in_ is of rows of features."""
        refuse_dask(type(self).__name__, X, "A mapped file is read batch by batch.")
        rows = network_rows(self, X)
        if getattr(rows, "ndim", None) == 2:
            named = X if hasattr(X, "columns") else rows
            validate_data(self, named, reset=reset, skip_check_array=True)
        elif reset:
            for of_features in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(of_features, None)
        return rows

    def _settings(self, problem, random_state, groups, **choice):
        """Return the settings of a solver; `choice` are those that differ."""
        return Settings(
            splits=problem.splits(self.cv, random_state, groups),
            max_iter=self.max_iter,
            tol=self.tol,
            progress=Progress(type(self).__name__, shown=self.verbose > 0),
            random_state=random_state,
            groups=groups,
            **choice,
        )

    def _finish(self, problem, outcome, groups):
        """Keep what a solver found, and learn what stands behind the network."""
        if outcome.message != CONVERGED:
            self._warn_early(outcome.message)
        self.penalty_ = float(outcome.penalty)
        self.perturbation_ = outcome.name
        self.loss_curve_ = outcome.loss_curve
        self.n_iter_ = outcome.n_iter
        self.selection_ = outcome.selection
        self._fit_output(problem, outcome, groups)
        if outcome.temperature is None:
            self.loss_ = problem.joint_loss(outcome.logits)
        else:
            self.loss_ = problem.mean_loss(outcome.logits, outcome.temperature)
        self.loss_ += outcome.cost

    def _fit_output(self, problem, outcome, groups):
        """Learn a temperature, or a calibrator, on the perturbed inputs' logits."""
        delta, *kernel = outcome.perturbation.change.parts
        self.delta_ = np.asarray(delta, dtype=np.float32)
        self.filter_ = np.asarray(kernel[0], dtype=np.float32) if kernel else None
        self.output_calibrator_ = None
        self.temperature_ = outcome.temperature
        by_log_loss = best_temperature(
            problem.logits, problem.codes, problem.weight, prior=PRIOR
        )
        own = problem.joint_temperature(problem.logits, prior=PRIOR)
        self.plain_temperatures_ = float(by_log_loss.x[0]), float(own.x[0])
        if self.temperature_ is None:
            # The published objective has no prior.
            prior = None if self.temperature_objective == "joint" else PRIOR
            result = problem.served_temperature(outcome.logits, prior=prior)
            self.temperature_ = float(result.x[0])
            if not result.converged:
                self._warn_early(result.message)
        if self.output_calibrator is not None:
            calibrator = self._new_output_calibrator()
            calibrator.set_params(classes=self.classes_)
            y = self.classes_[problem.codes]
            known = {"groups": groups} if takes_groups(calibrator) else {}
            self.output_calibrator_ = calibrator.fit(
                outcome.logits, y, sample_weight=problem.weight, **known
            )

    def _new_output_calibrator(self):
        """Return a calibrator to fit, after a look at its parameters; None for none."""
        if self.output_calibrator is None:
            return None
        calibrator = clone(self.output_calibrator)
        has_classes = "classes" in calibrator.get_params(deep=False)
        if not (has_classes and hasattr(calibrator, "calibration_map")):
            raise TypeError(
                f"output_calibrator={calibrator!r} is not a map of logits. Pass a "
                "calibrator of skcalib that is one, such as VectorScaling()."
            )
        calibrator._validate_params()
        return calibrator

    def _warn_early(self, message):
        early = InterruptedWarning if message == INTERRUPTED else ConvergenceWarning
        warn(f"{type(self).__name__} stopped early: {message}.", early)


def check_differentiable(network):
    """Refuse a network without gradients before anything is computed."""
    if not network.differentiable:
        raise NotDifferentiableError(
            f"The network has no gradient by its inputs: {network.reason}"
        )
