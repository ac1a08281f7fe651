"""Neural clamping whose exponent, penalty and span are chosen by cross-fitting."""

from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state

from skcalib._sklearn_compat import StrOptions, fit_context
from skcalib.clamping._candidates import LogLossScore, ScorerScore
from skcalib.clamping._change import Change
from skcalib.clamping._clamped import SHARED_CONSTRAINTS, ClampedClassifier
from skcalib.clamping._solve import search_and_refine
from skcalib.metrics import get_scorer
from skcalib.metrics._scorers import is_log_loss


class NeuralClampingCV(ClampedClassifier):
    r"""Neural clamping with exponent, penalty and span chosen by cross-fitting.

    Does what a grid search over `NeuralClamping` does, on data that the choice is not
    fitted on, at the cost of one fit: all exponents, penalties and splits share one
    Jacobian of the network, and only what seems to help is judged by the network
    itself, one forward epoch each.

    Parameters
    ----------
    model : torch.nn.Module, TorchLogits, OnnxLogits, ONNX model or callable
        The network; see `NeuralClamping`.

    gammas : array-like of shape (n_gammas,), default=(0.0, 0.5, 1.0)
        Exponents of the focal loss to try, the simplest first.

    penalties : array-like of shape (n_penalties,) or "auto", default="auto"
        Strengths :math:`\lambda` to try, beside no perturbation at all; see
        `NeuralClamping` for "auto".

    scoring : str or callable, default="neg_log_loss"
        What is maximised on held-out samples: a name known to
        `skcalib.metrics.get_scorer`, or a scorer of probabilities.

    rule : {"one_standard_error", "best"}, default="one_standard_error"
        Take the simplest candidate within one standard error of the best, or the best.

    objective : {"focal", "brier"}, default="focal"
        What the perturbation minimises. The Brier loss has no exponent.

    perturbation : str, int or tuple, default="auto"
        Which perturbations are tried; see `NeuralClamping`.

    feasible_range : tuple (low, high), default=None
        Bounds of the perturbed inputs.

    output_calibrator : calibrator, default=None
        Calibrator fitted on the logits of the perturbed inputs; None is the
        temperature. The choice is made with the temperature.

    temperature_objective : {"auto", "log_loss", "joint"}, default="auto"
        What the served temperature minimises: the log-loss or, "joint", the same loss
        as the perturbation. "auto" is the log-loss where `scoring` is, else "joint":
        other scores choose among exponents that differ in what they serve.

    space : {"raw", "standardised"}, float or array-like, default="raw"
        The units in which the perturbation is measured; see `NeuralClamping`.

    max_iter : int, default=None
        Largest number of epochs of the final steps on the network; None is 4, and 20
        for a filter.

    tol : float, default=1e-6
        The fall of the loss, in nats, below which these steps stop.

    cv : int, cross-validation generator or iterable, default=5
        Splits by which is chosen. Where a Jacobian of the network is too dear, descents
        use the first split only for the log-loss, and all of them for other scores.

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
        Label of each column of logits; see `NeuralClamping`.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds.

    verbose : int, default=0
        Whether to report progress.

    Attributes
    ----------
    gamma_, penalty_, perturbation_ : float, float, str, int or tuple
        What was chosen. The penalty is infinite where no perturbation was; then the
        exponent is the first, unless it decides about the temperature.

    cv_results_ : dict of lists and arrays
        One entry a candidate; see `selection_` of `NeuralClamping`. Candidates weaker
        than the first that clearly harms are not tried. None if the search was
        interrupted, and then there is no `best_score_`.

    best_score_ : float
        Mean held-out score of the chosen candidate.

    delta_, filter_, temperature_, output_calibrator_ : arrays, float, calibrator
        The fit with the chosen settings on all samples; None where there is no filter
        or no output calibrator.

    loss_, loss_curve_, n_iter_ : float, list of float, int
        The penalised loss, after each of the final steps, and their number.

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

    See Also
    --------
    NeuralClamping : One exponent, and other solvers.

    Notes
    -----
    The standard error is that of the mean difference between two candidates on the same
    held-out units: rows for the log-loss, splits for any other score. With few splits
    the latter is rough; with one it is unknown and infinite, so that nothing but
    ``rule="best"`` chooses a perturbation. Calibration errors of a part of the data are
    noisy scores; the log-loss chose as well or better in trials on CIFAR networks.

    The score of the winner is a little optimistic, as it was chosen for it.

    References
    ----------
    .. [1] Tang, Chen & Ho. "Neural Clamping: Joint Input Perturbation and Temperature
       Scaling for Neural Network Calibration", TMLR 2024.
       https://arxiv.org/abs/2209.11604

    Examples
    --------
    >>> import torch
    >>> from skcalib import NeuralClampingCV
    >>> from skcalib.datasets import make_logits
    >>> logits, y = make_logits(random_state=0)
    >>> network = torch.nn.Identity()  # its inputs are logits already
    >>> search = NeuralClampingCV(network).fit(logits, y)
    >>> search.gamma_ in (0.0, 0.5, 1.0)
    True
    >>> search.predict_proba(logits).shape == logits.shape
    True
    """

    _parameter_constraints: dict = {
        **SHARED_CONSTRAINTS,
        "gammas": ["array-like"],
        "penalties": ["array-like", StrOptions({"auto"})],
        "scoring": [str, callable],
        "rule": [StrOptions({"one_standard_error", "best"})],
    }

    def __init__(
        self,
        model: Any,
        *,
        gammas: Any = (0.0, 0.5, 1.0),
        penalties: Any = "auto",
        scoring: Any = "neg_log_loss",
        rule: Literal["one_standard_error", "best"] = "one_standard_error",
        objective: Literal["focal", "brier"] = "focal",
        perturbation: Any = "auto",
        feasible_range: Any = None,
        output_calibrator: Any = None,
        temperature_objective: Literal["auto", "log_loss", "joint"] = "auto",
        space: Any = "raw",
        max_iter: int | None = None,
        tol: float = 1e-6,
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
        random_state: Any = 0,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.gammas = gammas
        self.penalties = penalties
        self.scoring = scoring
        self.rule = rule
        self.objective = objective
        self.perturbation = perturbation
        self.feasible_range = feasible_range
        self.output_calibrator = output_calibrator
        self.temperature_objective = temperature_objective
        self.space = space
        self.max_iter = max_iter
        self.tol = tol
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
        self.random_state = random_state
        self.verbose = verbose

    # The output calibrator validates its own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    @torch.inference_mode(False)  # with gradients, whatever the caller runs in
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Choose exponent, penalty and span, and fit with them.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, Dataset or DataLoader
            Inputs of the network, of held-out samples; see `NeuralClamping`.

        y : array-like of shape (n_samples,), default=None
            True classes; None takes them from a Dataset of pairs, or from the entry
            "labels" beside named inputs.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows. They are used
            in the fits and in the scores.

        groups : array-like of shape (n_samples,), default=None
            Rows that belong together, such as frames of one video: a group stays on one
            side of each split. None keeps equal inputs of a class together. A splitter
            given as `cv` decides for itself; `GroupKFold` and its like need them.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        gammas, penalties = self._grid()
        joint = self.temperature_objective == "joint"
        if self.temperature_objective == "auto":
            joint = self.objective == "focal" and not is_log_loss(self.scoring)
        first = self._open_problem(X, y, sample_weight, gammas[0], joint, self.space)
        gammas = gammas if self.objective == "focal" else gammas[:1]
        problems = [first.with_gamma(gamma) for gamma in gammas]
        settings = self._settings(
            first,
            check_random_state(self.random_state),
            groups,
            perturbation=self.perturbation,
            penalty=penalties,
            start=Change(np.zeros(first.shape)),
            score=self._score(),
            rule=self.rule,
        )
        outcome, problem = search_and_refine(problems, settings)
        self._finish(problem, outcome, groups)
        self.gamma_ = float(problem.gamma)
        self.cv_results_ = self.__dict__.pop("selection_")
        self.__dict__.pop("best_score_", None)
        if self.cv_results_ is not None:
            chosen = int(self.cv_results_["chosen"].argmax())
            self.best_score_ = float(self.cv_results_["mean_test_score"][chosen])
        return self

    def _grid(self):
        """Return the exponents and the penalties, the latter from strong to weak."""
        gammas = _numbers("gammas", self.gammas)
        if isinstance(self.penalties, str):
            return gammas, self.penalties
        return gammas, sorted(_numbers("penalties", self.penalties), reverse=True)

    def _score(self):
        if is_log_loss(self.scoring):
            return LogLossScore()
        return ScorerScore(get_scorer(self.scoring), self.classes_)


def _numbers(name, values):
    """Return a list of non-negative numbers."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if (
        numbers.ndim != 1
        or not numbers.size
        or not ((numbers >= 0) & (numbers < np.inf)).all()
    ):
        raise ValueError(
            f"{name}={values!r} is not a list of finite, non-negative numbers, at "
            "least one."
        )
    return numbers.tolist()
