"""Neural clamping: one perturbation of the inputs and one temperature."""

from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state

from skcalib._sklearn_compat import Interval, StrOptions, fit_context
from skcalib.clamping._change import Change
from skcalib.clamping._clamped import SHARED_CONSTRAINTS, ClampedClassifier
from skcalib.clamping._solve import SOLVERS, needs_gradient
from skcalib.clamping._starts import first_perturbation

# What a preset sets by itself: the default, and what says the same as the preset.
OF_PRESETS = {
    "solver": ("auto", "sgd"),
    "penalty": ("auto",),
    "temperature_objective": ("auto", "joint"),
    "validation_fraction": (0.1, None),
}
# The exponent that shapes a perturbation where none is given: that of the paper.
GAMMA = 1.0


class NeuralClamping(ClampedClassifier):
    r"""Shift a frozen network's inputs by one learned tensor and scale its logits.

    Predicts :math:`\operatorname{softmax}(f(x + \delta) / T)` [1]_: the same
    perturbation :math:`\delta` for all inputs, one temperature :math:`T`, and a network
    :math:`f` that is never changed. The perturbation may also be a small filter
    :math:`w` of the inputs, :math:`f(x + w * x + \delta)`, which undoes what a camera,
    a lens or a codec has done to all of them alike. It minimises

    .. math::
        \frac{1}{n} \sum_i -(1 - p_{i y_i})^\gamma \ln p_{i y_i}
        + \lambda \lVert \delta \rVert_2^2

    together with a temperature of its own; of a filter the norm is that of the change
    that it makes. Whether there is any perturbation, which and how strong, is chosen by
    cross-fitting; where the data do not support one there is none and what is left is
    temperature scaling.

    Parameters
    ----------
    model : torch.nn.Module, TorchLogits, OnnxLogits, ONNX model or callable
        The network: a module, one of the transformers of `skcalib.frozen`, the path,
        bytes or message of an ONNX model, or any function from a tensor to logits. A
        module is run in eval mode and not compiled (see `compile`), whatever it is
        itself. A function is run as it is: put what it calls in eval mode. It is
        refused where it runs dropout or batch normalisation as in training.

    gamma : float, default=None
        Exponent :math:`\gamma` of the focal loss; 0 is cross-entropy. None is 1 for the
        perturbation and leaves the temperature to the log-loss. An exponent that is
        given is that of both, so that a search over it chooses among different models
        (see `temperature_objective`).

    objective : {"focal", "brier"}, default="focal"
        What the perturbation minimises: the focal loss, or the squared distance of the
        probabilities to the one-hot label.

    perturbation : str, int or tuple, default="auto"
        Which perturbations are tried. A tensor that is added has one number for each
        entry of an input ("full"), for each channel, or is of the slowest so many
        cosines along every axis but that of the channels; "low_frequency" is 8 of them.
        "gain" multiplies each channel, or each column of features, and adds an offset.
        "filter" convolves each channel with 3 taps along every other axis, borders
        reflected, and adds an offset; ``("filter", size, kind, offset)`` says how many
        taps, "depthwise" or "full" (every channel sees all), and what is added:
        "channel", "full", "low_frequency" or a number of cosines. "auto" chooses with
        ``solver="auto"`` among none, gain, filters of 3 and of 5 taps, with few
        channels also a full one of 3, 4 and 8 cosines (none, "full" and "gain" where
        an input is one row of features); the gradient-free solver takes what its passes
        allow, the others "full".

    penalty : float or "auto", default="auto"
        Strength :math:`\lambda`. "auto" chooses among 0.01, 0.001, 0.0001 and 0.00001
        over the variance of the inputs (about 0.1 to 0.0001 for images in [0, 1]), and
        no perturbation at all; for "sgd" it is a tenth of the loss at the start.

    solver : {"auto", "lbfgs", "sgd", "gradient_free", "fixed_delta"}, default="auto"
        "auto" linearises the network once in the coordinates of the perturbation,
        chooses on the linear model and on forward passes, and mends the rest by a few
        steps on the network; "lbfgs" descends on the network from the start; "sgd" is
        mini-batch training, each epoch as many draws as there are samples, in which
        those of a large gradient come often and count less; "gradient_free" needs
        forward passes only; "fixed_delta" leaves the perturbation where it starts.
        Settings that leave nothing to choose, or another start than zeros, turn "auto"
        into "lbfgs".

    preset : {"paper", "reference"}, default=None
        Train as [1]_ describes or as the published code does, for comparison: sets
        `solver` ("sgd"), `penalty`, `temperature_objective` ("joint") and
        `validation_fraction` (None); none of these may be set to anything else beside
        it. Unless they are given, `space` is "standardised", `start` is "random" and
        `reduction` is "sum" for "paper". The penalty of "reference" times the norm, not
        its square, is added.

    space : {"raw", "standardised"}, float or array-like, default=None
        The units in which the perturbation is measured, starts and is penalised: those
        of the inputs ("raw"), the standard deviation of each channel of `X`, or those
        given, one for all channels or one for each: what the network's inputs are
        divided by where it normalises them itself. None is "raw", and "standardised"
        with a preset. `delta_`, predictions and exports stay in units of the inputs.

    reduction : {"mean", "sum"}, default=None
        Whether a number given as `penalty` is added to the mean loss or, as in [1]_, to
        the sum over samples; and which of them the steps of a preset follow. None is
        "mean", and "sum" with ``preset="paper"``.

    start : {"zeros", "random", "data_driven", "theorem"} or array, default="zeros"
        Where the perturbation starts. "theorem" is Theorem 3.2 of [1]_ to the letter;
        "data_driven" takes the 1 % quantiles in the place of the extremes and at most
        1 % of the range. "gradient_free" begins at zeros.

    feasible_range : tuple (low, high), default=None
        Numbers or arrays between which the perturbed inputs are cut, in `fit` and in
        all predictions. Calibration inputs outside are refused.

    output_calibrator : calibrator, default=None
        Calibrator fitted on the logits of the perturbed inputs; None is the
        temperature.

    temperature_objective : {"auto", "log_loss", "joint"}, default="auto"
        What the served temperature minimises: the log-loss, or as in [1]_ the same
        loss as the perturbation ("joint"). "auto" is the latter where a positive
        `gamma` of the focal loss is given, else the log-loss. But for "joint", which is
        the published objective, with the weak prior of `TemperatureScaling`.

    max_iter : int, default=None
        Largest number of epochs: 4 steps on the network for "auto", 20 for a filter
        and for "lbfgs", 4 for "sgd", 100 for presets, and 200 forward passes for
        "gradient_free".

    tol : float, default=1e-6
        The fall of the loss, in nats, below which "auto" and "lbfgs" stop; "auto" stops
        the steps of a filter at 0.0005 already.

    validation_fraction : float or None, default=0.1
        Share of the samples by which "sgd" stops early: one of 2, 3, 4, ... equal parts
        of them. None for none, as presets do.

    cv : int, cross-validation generator or iterable, default=5
        Splits by which perturbation and penalty are chosen. An integer gives that many
        stratified folds. Descents on the network use the first split only.

    batch_size : int, default=256
        Rows a run of the network.

    device : str or torch.device, default="auto"
        Where to run; "auto" is where the module lies.

    precision : {"bf16", "fp16"}, default=None
        Run the network in mixed precision.

    channels_last : bool, default=False
        Give images to the network in the channels-last memory format.

    compile : bool, default=False
        Run the network through ``torch.compile``.

    distributed : bool, default=False
        Share the passes of `fit` out among the processes of ``torch.distributed``. Each
        of them calls `fit` with all of the data and ends with the same result. What
        follows, such as a prediction, each does by itself.

    output : str or int, default=None
        Which part of the network's result holds the logits.

    site : str, default=None
        What to perturb in the place of the input: an inner tensor of an ONNX model, the
        result of a part of a torch module, such as an embedding, or one of several
        inputs, such as "inputs_embeds". Of several inputs None is the only one that
        holds real numbers.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default the labels by which the model names
        its columns, if `y` holds them; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    warm_start : bool, default=False
        Start where the last fit ended, with its perturbation and penalty.

    random_state : int, RandomState instance or None, default=0
        Seed of folds, random starts and mini-batches.

    verbose : int, default=0
        Whether to report progress.

    Attributes
    ----------
    delta_ : ndarray
        What is added, float32 of the shape of one input; zeros for nothing.

    filter_ : ndarray of shape (n_channels, 1 or n_channels, ...) or None
        The weights w of the filter, float32, as those of a convolution with the taps on
        the last axes: the network sees x + w * x + `delta_`. None for no filter.

    temperature_ : float
        The temperature.

    output_calibrator_ : calibrator or None
        The fitted output calibrator; None where the temperature is served.

    penalty_ : float
        The strength used, beside the mean loss; infinite where a search chose no
        perturbation.

    perturbation_ : str, int or tuple
        The kind of perturbation used: "none", "full", "channel", a number of cosines,
        "gain" or ``("filter", size, kind)`` and, unless it is "channel", the offset.

    loss_ : float
        The penalised loss of the perturbation, at the temperature best for that loss,
        or at that with which "sgd" or a preset ends.

    loss_curve_ : list of float
        The penalised loss after each epoch.

    n_iter_ : int
        Epochs, or forward passes of the gradient-free solver.

    selection_ : dict of lists and arrays or None
        One entry a candidate: `gamma`, `perturbation`, `penalty`, `mean_test_score`
        (minus the held-out log-loss), `gain` over the first candidate, its
        `standard_error`, `rank_test_score`, `by_network` (judged by the network and
        not only by its linearisation) and `chosen`.

    plain_temperatures_ : tuple of float
        What temperature scaling learns without the perturbation, by log-loss and by the
        perturbation's own loss.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    input_names_ : list of str or None
        Names of the network's inputs, None of a single one.

    input_types_ : list of tuple (str, tuple of int)
        Data type and shape of a row of each input; empty if it is a single one that is
        perturbed itself.

    n_features_in_ : int
        Number of features, where an input is one row of them.

    Warns
    -----
    ConvergenceWarning
        If no temperature is best or the solver ran out of epochs, and as the
        `InterruptedWarning` that is one if Ctrl-C ended it. The best point found is
        kept.

    See Also
    --------
    NeuralClampingCV : Chooses the exponent as well.
    TemperatureScaling : What is left without a perturbation.

    Notes
    -----
    The standard error is that of the mean difference between two candidates' log-losses
    on the same held-out rows. None at all wins unless another is better by more than
    two; of those the simplest that the best does not beat by more than one. Scores in
    `selection_` are a little optimistic for the winner.

    Do not expect much of a perturbation on clean data: on CIFAR networks, calibrated
    and tested on images like those of training, published recipes are as good as
    temperature scaling once T is solved exactly, and an exponent above 0.25 that is
    given moves T away from calibration. It earns much where all
    inputs have been blurred or made noisy alike: there a filter does more than
    calibrators of the outputs; see the user guide.

    References
    ----------
    .. [1] Tang, Chen & Ho. "Neural Clamping: Joint Input Perturbation and Temperature
       Scaling for Neural Network Calibration", TMLR 2024.
       https://arxiv.org/abs/2209.11604

    Examples
    --------
    >>> import torch
    >>> from skcalib import NeuralClamping
    >>> from skcalib.datasets import make_logits
    >>> logits, y = make_logits(random_state=0)
    >>> network = torch.nn.Identity()  # its inputs are logits already
    >>> nc = NeuralClamping(network, gamma=0).fit(logits, y)
    >>> nc.delta_.shape
    (10,)
    >>> nc.predict_proba(logits).shape == logits.shape
    True
    """

    _parameter_constraints: dict = {
        **SHARED_CONSTRAINTS,
        "gamma": [Interval(Real, 0, None, closed="left"), None],
        "penalty": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions(set(SOLVERS))],
        "preset": [StrOptions({"paper", "reference"}), None],
        "space": [*SHARED_CONSTRAINTS["space"], None],
        "reduction": [StrOptions({"mean", "sum"}), None],
        "start": [
            StrOptions({"zeros", "random", "data_driven", "theorem"}),
            "array-like",
        ],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        model: Any,
        *,
        gamma: float | None = None,
        objective: Literal["focal", "brier"] = "focal",
        perturbation: Any = "auto",
        penalty: Literal["auto"] | float = "auto",
        solver: Literal[
            "auto", "lbfgs", "sgd", "gradient_free", "fixed_delta"
        ] = "auto",
        preset: Literal["paper", "reference"] | None = None,
        space: Any = None,
        reduction: Literal["mean", "sum"] | None = None,
        start: Any = "zeros",
        feasible_range: Any = None,
        output_calibrator: Any = None,
        temperature_objective: Literal["auto", "log_loss", "joint"] = "auto",
        max_iter: int | None = None,
        tol: float = 1e-6,
        validation_fraction: float | None = 0.1,
        cv: Any = 5,
        batch_size: int = 256,
        device: Any = "auto",
        precision: Literal["bf16", "fp16"] | None = None,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002
        distributed: bool = False,
        output: str | int | None = None,
        site: str | None = None,
        classes: Any = None,
        warm_start: bool = False,
        random_state: Any = 0,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.gamma = gamma
        self.objective = objective
        self.perturbation = perturbation
        self.penalty = penalty
        self.solver = solver
        self.preset = preset
        self.space = space
        self.reduction = reduction
        self.start = start
        self.feasible_range = feasible_range
        self.output_calibrator = output_calibrator
        self.temperature_objective = temperature_objective
        self.max_iter = max_iter
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.cv = cv
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.channels_last = channels_last
        self.compile = compile
        self.distributed = distributed
        self.output = output
        self.site = site
        self.classes = classes
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # The output calibrator validates its own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    @torch.inference_mode(False)  # with gradients, whatever the caller runs in
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Learn perturbation and temperature.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network, of held-out samples. May be a `numpy.memmap` larger
            than memory. Several inputs come by name, in a dict of arrays or in the
            items of a Dataset; a module gets them by keyword.

        y : array-like of shape (n_samples,), default=None
            True classes; see the parameter `classes`. None takes them from a Dataset of
            pairs, or from the entry "labels" or "label" beside named inputs.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video: a group stays on one
            side of each split. None keeps equal inputs of a class together. A splitter
            given as `cv` decides for itself; `GroupKFold` and its like need them.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._check_preset()
        published = self.preset is not None
        solver = "sgd" if published else self.solver
        is_zeros = isinstance(self.start, str) and self.start == "zeros"
        if solver == "gradient_free" and not is_zeros:
            raise ValueError(
                f"start={self.start!r} is not known to solver='gradient_free', which "
                "begins with no perturbation. Leave start at 'zeros', or set another "
                "solver."
            )
        space = self.space
        if space is None:
            space = "standardised" if published else "raw"
        problem = self._open_problem(
            X,
            y,
            sample_weight,
            GAMMA if self.gamma is None else self.gamma,
            published or self._serves_joint_temperature(),
            space,
            needs_gradient=needs_gradient(solver, self.start),
        )
        settings = self._choose_settings(solver, problem, groups)
        self._finish(problem, SOLVERS[solver](problem, settings), groups)
        return self

    def _serves_joint_temperature(self):
        """Whether the temperature is that of the perturbation's own loss."""
        if self.temperature_objective == "auto":
            # Without an exponent it is the log-loss, which has a prior.
            return bool(self.gamma) and self.objective == "focal"
        return self.temperature_objective == "joint"

    def _check_preset(self):
        """Refuse a parameter that the preset would override."""
        if self.preset is None:
            return
        for name, (default, *same) in OF_PRESETS.items():
            value = getattr(self, name)
            known = isinstance(value, str | float | None) and value in (default, *same)
            if not known:
                raise ValueError(
                    f"{name}={value!r} was passed with preset={self.preset!r}, which "
                    f"sets it by itself. Leave {name} at {default!r}, or leave the "
                    "preset out and set what you need."
                )

    def _choose_settings(self, solver, problem, groups):
        """Return what the parameters say, or where a warm start goes on."""
        random_state = check_random_state(self.random_state)
        start, penalty = self.start, self.penalty
        if self.preset is not None and isinstance(start, str) and start == "zeros":
            start = "random"
        if self.reduction == "sum" and penalty != "auto":
            penalty = penalty / problem.weight.sum()
        if self._resumes(problem):
            start = self.input_change().map(np.float64)
            perturbation, penalty = self.perturbation_, self.penalty_
            temperature = self.temperature_
        else:
            start = Change(
                first_perturbation(start, problem, self.feasible_range, random_state)
            )
            perturbation, temperature = self.perturbation, None
        if perturbation == "auto" and solver not in ("auto", "gradient_free"):
            perturbation = "full"
        return self._settings(
            problem,
            random_state,
            groups,
            perturbation=perturbation,
            penalty=penalty,
            start=start,
            temperature=temperature,
            preset=self.preset,
            reduction=self.reduction,
            validation_fraction=self.validation_fraction,
        )

    def _resumes(self, problem):
        """Whether to go on where the last fit ended: it has moved the inputs."""
        if not self.warm_start or not hasattr(self, "delta_"):
            return False
        if self.delta_.shape != problem.shape:
            raise ValueError(
                f"warm_start=True needs inputs of the shape {self.delta_.shape} of the "
                f"last fit, not {problem.shape}."
            )
        return self.perturbation_ != "none"
