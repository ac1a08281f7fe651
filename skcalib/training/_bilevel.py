"""Bilevel self-calibration: sample weights and a confidence learned on other rows."""

from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skcalib._networks._torch import module_device
from skcalib._onnx._outputs import refuse_nan
from skcalib._progress import Progress
from skcalib._sklearn_compat import Interval, StrOptions, fit_context
from skcalib._warnings import warn
from skcalib.training._bilevel_confidence import (
    confident_log_proba,
    own_parameters,
    two_outputs,
)
from skcalib.training._bilevel_hypergradient import METHODS
from skcalib.training._bilevel_splits import bilevel_splits
from skcalib.training._bilevel_train import BilevelTraining, DivergedError, Settings
from skcalib.training._network_estimator import (
    LARGEST_SEED,
    NetworkEstimator,
    class_logits,
    seeded,
)


class BilevelCalibratedClassifier(ClassifierMixin, NetworkEstimator):
    r"""Networks that learn on one part of the data how far to trust themselves.

    Two nested problems are solved together [1]_. The inner one trains a network on
    weighted samples,

    .. math:: \theta(w) = \arg\min_\theta \frac{1}{n} \sum_i s(w_i) \,
        L(f_\theta(x_i), y_i) + \mu \|\theta\|^2, \qquad s(w) = 2 \sigma(w)

    The outer one judges it on rows it was not trained on, where a confidence head
    learns how often the network is right, and moves the weights of the samples by
    implicit differentiation. Here this is cross-fitted: each fold is the outer part of
    one network, all share the head, and predictions are the mean of the networks.

    Parameters
    ----------
    module : torch.nn.Module or callable, default=None
        The network: a module, of which copies are trained, or a callable without
        arguments that builds one. It returns logits; a single column means the
        log-odds of the second class. None is a perceptron that standardises its
        features by itself.

    hidden_layer_sizes : array-like of int, default=(32, 32)
        Units of the hidden layers of the perceptron.

    dropout : float, default=0
        Share of the hidden units of the perceptron that a step of the training drops.

    cv : int, cross-validation generator or iterable, default=None
        Pairs of inner and outer rows, one network a pair. None is 5 stratified folds.
        A single pair ``[(inner, outer)]`` gives one network; with
        ``confidence="network"`` that is the published form.

    confidence : {"head", "network"}, default="head"
        What says how often a network is right: a head on its softmax, of three numbers
        that all networks share; or, as published, a second output of the network, which
        the outer rows train. A module of your own then returns two tensors, the logits
        of the classes and of the confidence, (n_samples, 1), and has parameters that
        only the confidence uses.

    hypergradient : {"one_step", "neumann", "cg"}, default="one_step"
        How to solve with the Hessian of the inner problem; see `hypergradient`. The
        other two are nearer to the exact derivative at a minimum and take longer; the
        benchmark of the guide finds no gain in them. Conjugate gradients have a damping
        of 0.01.

    weight_lr : float, default=0.1
        Step of the scores :math:`w`, an epoch, for a hypergradient of typical size; 0
        leaves all weights at 1.

    l2_penalty : float, default=1e-4
        The factor :math:`\mu` of the squared parameters.

    reject_threshold : float, default=None
        Confidence below which `predict` abstains; None never does.

    reject_label : int, float or str, default=None
        What `predict` returns where it abstains; none of the classes, and of their
        kind, such as -1 or "unsure".

    max_epochs : int, default=100
        Largest number of passes over the data.

    n_iter_no_change : int, default=15
        Epochs without a lower outer loss after which training stops. The networks of
        the best epoch are kept.

    batch_size : int, default=64
        Samples a step, and rows a run at prediction.

    optimizer : callable, default=None
        A class of torch.optim; None is `torch.optim.Adam`.

    lr : float, default=0.01
        Learning rate.

    classes : array-like of shape (n_classes,), default=None
        Class of each column of the module, where some may be missing in y. By default
        whole numbers inside the range of the columns are column numbers, and other
        labels have to be as many as the columns.

    device : str or torch.device, default="auto"
        Where to train and predict; "auto" is where the module lies, for the perceptron
        the processor. The data are moved there as a whole for training.

    verbose : int, default=0
        Whether to report progress: the outer loss after each epoch.

    random_state : int, RandomState instance or None, default=0
        Seed of the folds, the parameters, the order of the samples and the dropout.
        torch's own generators are left as they were.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class of each column.

    modules_ : list of torch.nn.Module
        The trained networks, in eval mode, one for each pair of `cv`.

    head_coef_ : ndarray of shape (3,)
        :math:`a, b, d` of the head
        :math:`\operatorname{logit} c = a \ln p - b \ln(1 - p) + d`, where :math:`p` is
        the largest softmax probability of a network. (1, 1, 0) leaves it as it is. None
        for ``confidence="network"``.

    sample_weights_ : ndarray of shape (n_samples,)
        The learned :math:`s(w_i)` between 0 and 2, the mean over the networks that were
        trained on the row; NaN where none was.

    outer_loss_curve_ : list of float
        Negative log-likelihood on the outer rows after each epoch, in nats.

    best_epoch_ : int
        The epoch that was kept.

    n_iter_ : int
        Epochs trained.

    n_features_in_ : int
        Second axis of `X`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    hypergradient : The derivative through the inner problem, for a loop of your own.
    skcalib.CalibratedClassifier : Any classifier with any calibrator, cross-fitted.
    skcalib.metrics.risk_coverage_curve : What abstaining gains.

    Notes
    -----
    The outer loss is the log-likelihood of `predict_proba`, which for two classes is
    the published cross-entropy of confidence and "the prediction was right". The head
    is fitted exactly after each epoch, so its derivative drops out.

    A weight moved by the outer losses of a network makes that network look better than
    it is. With three folds or more, the weights of each network are therefore moved by
    the others alone. With one pair or two there are no others: the outer loss is then
    optimistic, and so may be the confidence.

    Several networks together are right more often than each, which the mean of their
    confidences does not know: where they are accurate, it is somewhat too cautious.

    A loss that is no longer finite ends the training with a ConvergenceWarning and the
    best networks so far; in the first epoch it is an error.

    References
    ----------
    .. [1] Sanguin, Pakrashi, Viola & Rinaldi. "Exploring the Potential of Bilevel
       Optimization for Calibrating Neural Networks", AICS 2024.
       https://arxiv.org/abs/2503.13113

    Examples
    --------
    >>> from skcalib.datasets import make_overlapping_blobs
    >>> from skcalib.training import BilevelCalibratedClassifier
    >>> X, y = make_overlapping_blobs(200, random_state=0)
    >>> classifier = BilevelCalibratedClassifier(max_epochs=5, random_state=0).fit(X, y)
    >>> classifier.predict_proba([[1.5, 0.0]]).round(1)
    array([[0.9, 0. , 0. ]])
    >>> classifier.set_params(reject_threshold=0.6, reject_label=-1)
    BilevelCalibratedClassifier(...)
    >>> classifier.predict([[1.5, 0.0], [0.0, 0.0]])
    array([ 0, -1])
    """

    _parameter_constraints: dict = {
        "module": [callable, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "cv": ["cv_object"],
        "confidence": [StrOptions({"head", "network"})],
        "hypergradient": [StrOptions(set(METHODS))],
        "weight_lr": [Interval(Real, 0, None, closed="left")],
        "l2_penalty": [Interval(Real, 0, None, closed="left")],
        "reject_threshold": [Interval(Real, 0, 1, closed="both"), None],
        "reject_label": [Real, str, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [callable, None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "classes": ["array-like", None],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        hidden_layer_sizes: Any = (32, 32),
        dropout: float = 0.0,
        cv: Any = None,
        confidence: Literal["head", "network"] = "head",
        hypergradient: Literal["one_step", "neumann", "cg"] = "one_step",
        weight_lr: float = 0.1,
        l2_penalty: float = 1e-4,
        reject_threshold: float | None = None,
        reject_label: float | str | None = None,
        max_epochs: int = 100,
        n_iter_no_change: int = 15,
        batch_size: int = 64,
        optimizer: Any = None,
        lr: float = 0.01,
        classes: Any = None,
        device: Any = "auto",
        verbose: int = 0,
        random_state: Any = 0,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.cv = cv
        self.confidence = confidence
        self.hypergradient = hypergradient
        self.weight_lr = weight_lr
        self.l2_penalty = l2_penalty
        self.reject_threshold = reject_threshold
        self.reject_label = reject_label
        self.max_epochs = max_epochs
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.classes = classes
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # with gradients, whatever the caller runs in
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the networks, the weights of the samples and the confidence head.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,)
            True classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the samples in both losses, to begin with.

        Returns
        -------
        self : BilevelCalibratedClassifier
            The fitted estimator.
        """
        X = self._check_inputs(X, reset=True)
        y, weight = self._check_classes(X, y, sample_weight)
        used = weight > 0
        module, x, codes, rng = self._start_classifier(X[used], y[used], weight[used])
        self._check_reject_label()
        splits = bilevel_splits(self.cv, X, codes, self.classes_, used, rng)
        seed = int(rng.randint(LARGEST_SEED))
        with seeded(seed, self.device):
            others = [
                self._build_module(X[used], weight[used], self.classes_.shape[0])
                for _ in splits[1:]
            ]
            if len({id(part) for part in (module, *others)}) < len(splits):
                raise ValueError(
                    "module() gave the same module twice, and each split trains its "
                    "own. Build a new one in each call, or pass the module itself, of "
                    "which copies are trained."
                )
            device = module_device(module)
            modules = [part.to(device) for part in (module, *others)]
            relative = torch.as_tensor(weight[used] / weight[used].mean())
            training = BilevelTraining(
                modules,
                splits,
                x.to(device),
                torch.as_tensor(codes).to(device),
                relative.to(device, torch.float32),
                self._settings(),
                Progress(type(self).__name__, shown=self.verbose > 0),
            )
            self._run(training)
        self.modules_ = modules
        self.head_coef_ = training.kept["head"]
        self.outer_loss_curve_ = training.outer_losses
        self.best_epoch_ = training.kept["epoch"]
        self.n_iter_ = len(training.outer_losses)
        self.sample_weights_ = np.full(y.shape[0], np.nan)
        self.sample_weights_[used] = training.sample_weights()
        return self

    def _build_perceptron(self, X, weight, n_outputs):
        has_output = self.confidence == "network"
        return super()._build_perceptron(X, weight, n_outputs, confidence=has_output)

    def _run_once(self, module, x):
        if self.confidence == "head":
            return super()._run_once(module, x)
        results = module(x)
        sizes = [r.numel() for r in results if isinstance(r, torch.Tensor)]
        if not isinstance(results, tuple) or sizes[1:] != [x.shape[0]]:
            raise ValueError(
                f'confidence="network" needs a module that returns the logits of the '
                "classes and, (n_samples, 1), of the confidence; this one returned a "
                f'{type(results).__name__}. Take confidence="head" for one output.'
            )
        with torch.enable_grad():
            own = own_parameters(module, x)
        if not own:
            raise ValueError(
                'confidence="network" needs parameters that only the confidence uses, '
                "and the logits of the classes depend on all. Give it a layer of its "
                "own."
            )
        return results[0]

    def _settings(self):
        values = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return Settings(**{**values, "optimizer": self.optimizer or torch.optim.Adam})

    def _run(self, training):
        """Train, and keep the best epoch also where a later one diverges."""
        try:
            training.run()
        except DivergedError as reason:
            epoch = training.epoch
            advice = f"Lower the learning rate lr={self.lr:g}, or scale X."
            if not training.kept:
                raise ValueError(
                    f"Training failed in epoch {epoch}: {reason}, and no epoch before "
                    f"was good. {advice}"
                ) from reason
            warn(
                f"{type(self).__name__} stopped in epoch {epoch}: {reason}. The "
                f"networks of epoch {training.kept['epoch']}, the best before, are "
                f"kept. {advice}",
                ConvergenceWarning,
            )
        training.restore()

    def predict_proba(self, X: Any) -> Any:
        """Return the mean of the networks' probabilities.

        Each network gives its predicted class the confidence of the head, and shares
        the rest among the others in proportion to their softmax.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, columns in the order of `classes_`.
        """
        check_is_fitted(self)
        x = self._as_tensor(self._check_inputs(X, reset=False), self.modules_[0])
        with torch.no_grad():
            parts = [self._mean_proba(part) for part in x.split(self.batch_size)]
        proba = np.concatenate(parts)
        refuse_nan(proba)
        return proba / proba.sum(axis=1, keepdims=True)

    def _mean_proba(self, x):
        x = x.to(module_device(self.modules_[0]))
        read = two_outputs if self.head_coef_ is None else class_logits
        # A copy for each: their first layer may work in place.
        total = sum(
            confident_log_proba(read(module, x.clone()), self.head_coef_).exp()
            for module in self.modules_
        )
        return (total / len(self.modules_)).cpu().numpy()

    def predict_confidence(self, X: Any) -> Any:
        """Return the probability that the predicted class is the true one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        confidence : ndarray of shape (n_samples,)
            The largest of the probabilities of each row.
        """
        return self.predict_proba(X).max(axis=1)

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, or the label of abstention.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels from `classes_`, and `reject_label` where the confidence is below
            `reject_threshold`.
        """
        proba = self.predict_proba(X)
        labels = self.classes_[proba.argmax(axis=1)]
        self._check_reject_label()
        if self.reject_threshold is None:
            return labels
        abstain = proba.max(axis=1) < self.reject_threshold
        return np.where(abstain, np.asarray(self.reject_label), labels)

    def _check_reject_label(self):
        """Refuse a label of abstention that is missing, a class, or of another kind."""
        if self.reject_threshold is None:
            return
        label, classes = self.reject_label, self.classes_.tolist()
        if label is None or label in classes:
            raise ValueError(
                f"reject_threshold={self.reject_threshold} needs a reject_label that "
                f"is none of the classes, and it is {label!r}. Choose -1 or 'unsure'."
            )
        if isinstance(label, str) != isinstance(classes[0], str):
            raise ValueError(
                f"reject_label={label!r} is of another kind than the classes, such as "
                f"{classes[0]!r}: predict could not return both in one array."
            )
