"""CLUEClassifier: a network trained so that its entropy equals its log-loss."""

from math import inf
from numbers import Real
from typing import Any, Literal, Self

import torch
from scipy.special import entr
from sklearn.base import ClassifierMixin

from skcalib._networks._torch import module_device
from skcalib._onnx._outputs import refuse_nan
from skcalib._sklearn_compat import Interval, fit_context
from skcalib.training._clue_base import BaseCLUE
from skcalib.training._network_estimator import seeded
from skcalib.training._uncertainty import two_columns, widen

# Fewer passes would not tell how much they differ.
_FIRST_PASSES = 10
# Training rows that tell how many half of them need.
_PILOT_ROWS = 500


class CLUEClassifier(ClassifierMixin, BaseCLUE):
    """Train a network whose entropy equals the log-loss it makes.

    A network with dropout is trained with `CLUELoss` on several random passes; the
    passes at prediction give the probabilities and their uncertainty. For a training
    loop of your own take `CLUELoss` and `mc_dropout`.

    Parameters
    ----------
    module : torch.nn.Module or callable, default=None
        The network: a module, of which a copy is trained, or a callable without
        arguments that builds one. It returns logits; a single column means the
        log-odds of the second class. None is a perceptron that standardises its
        features by itself.

    hidden_layer_sizes : array-like of int, default=(100,)
        Units of the hidden layers of the perceptron.

    dropout : float, default=0.2
        Share of the hidden units of the perceptron that each pass drops.

    alpha : float, default=0.9
        Weight of the error in the loss; 1 is plain training.

    reduction : {"batch", "group", "sample"}, default="group"
        Where error and uncertainty are compared; see `CLUELoss`.

    detach_uncertainty : bool, default=False
        Whether to keep the gradient from flowing through the uncertainty.

    n_passes : int, default=5
        Passes of Monte-Carlo dropout in each step of the training.

    n_predict_passes : int, default=50
        Largest number of passes for the prediction of a row.

    predict_tol : float, default=0.01
        Standard error of the mean over the passes, the largest of a row's classes, that
        is enough. A row has as many passes as its first ones ask for by how far they
        differ: 10, 20, 40 and so on up to `n_predict_passes`; 0 runs these for all.

    sites : list of str, default=None
        Names of the parts of the module, as ``named_modules`` has them, whose dropout
        is on, in training and at prediction; all other dropout is off. None is all of
        it. See `mc_dropout`.

    max_epochs : int, default=100
        Largest number of passes over the data.

    batch_size : int, default=128
        Samples a step, and rows a run at prediction.

    optimizer : callable, default=None
        A class of torch.optim; None is `torch.optim.Adam`.

    lr : float, default=1e-3
        Learning rate.

    early_stopping : bool, default=False
        Whether to set a part of the data aside, to stop when the loss on it no longer
        improves, and to keep the weights that were best on it.

    validation_fraction : float, default=0.1
        Share of the data set aside for `early_stopping`.

    n_iter_no_change : int, default=10
        Epochs without improvement after which `early_stopping` stops.

    classes : array-like of shape (n_classes,), default=None
        Class of each column of the module, where some may be missing in y. By default
        whole numbers inside the range of the columns are column numbers, and other
        labels have to be as many as the columns.

    callbacks : list, default=None
        Callbacks of skorch, such as ``skorch.callbacks.Checkpoint``. The instances are
        used as they are. They may monitor the losses; the net inside predicts nothing
        that ``EpochScoring`` could score.

    device : str or torch.device, default="auto"
        Where to train and predict; "auto" is where the module lies, for the perceptron
        the processor.

    net_params : dict, default=None
        Further parameters of ``skorch.NeuralNet``, such as
        ``{"optimizer__weight_decay": 1e-4}``.

    verbose : int, default=0
        Whether to report progress: the loss after each epoch.

    random_state : int, RandomState instance or None, default=0
        Seed of the weights, the order of the samples and the dropout. torch's own
        generators are left as they were.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class of each column.

    module_ : torch.nn.Module
        The trained network, in eval mode.

    net_ : skorch.NeuralNet
        The net that trained it.

    history_ : skorch.history.History
        Losses of all epochs; ``history_[:, "train_loss"]``.

    n_iter_ : int
        Epochs trained.

    n_features_in_ : int
        Second axis of `X`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    See Also
    --------
    CLUERegressor : The same for regression.
    CLUELoss : The loss, with its formula.

    Notes
    -----
    Integer `X` reaches a module of your own as int64, real `X` in the type of its
    weights; what `fit` had decides. At prediction all rows share the masks of a pass,
    so a row is mapped alike alone and in a batch, but for layers with dropout inside
    (attention, recurrent layers). Fits and predictions in several threads wait for each
    other: torch's generators belong to all. A loss that is no longer finite ends the
    training with a ConvergenceWarning and the last good weights; in the first epoch it
    is an error.

    Examples
    --------
    >>> from skcalib.datasets import make_overlapping_blobs
    >>> from skcalib.training import CLUEClassifier
    >>> X, y = make_overlapping_blobs(300, random_state=0)
    >>> classifier = CLUEClassifier(max_epochs=20, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X[:2]).shape
    (2, 3)
    >>> classifier.predict_uncertainty([[0.0, 0.0]]).round(1)
    array([1.1])
    """

    _task = "classification"
    _stratify = True
    _parameter_constraints: dict = {
        **BaseCLUE._parameter_constraints,
        "predict_tol": [Interval(Real, 0, None, closed="left")],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        hidden_layer_sizes: Any = (100,),
        dropout: float = 0.2,
        alpha: float = 0.9,
        reduction: Literal["batch", "group", "sample"] = "group",
        detach_uncertainty: bool = False,
        n_passes: int = 5,
        n_predict_passes: int = 50,
        predict_tol: float = 0.01,
        sites: Any = None,
        max_epochs: int = 100,
        batch_size: int = 128,
        optimizer: Any = None,
        lr: float = 1e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        classes: Any = None,
        callbacks: Any = None,
        device: Any = "auto",
        net_params: Any = None,
        verbose: int = 0,
        random_state: Any = 0,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.alpha = alpha
        self.reduction = reduction
        self.detach_uncertainty = detach_uncertainty
        self.n_passes = n_passes
        self.n_predict_passes = n_predict_passes
        self.predict_tol = predict_tol
        self.sites = sites
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.classes = classes
        self.callbacks = callbacks
        self.device = device
        self.net_params = net_params
        self.verbose = verbose
        self.random_state = random_state

    _as_passes = staticmethod(two_columns)

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # with gradients, whatever the caller runs in
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,)
            True classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the samples in the loss.

        Returns
        -------
        self : CLUEClassifier
            The fitted estimator.
        """
        X = self._check_inputs(X, reset=True)
        y, weight = self._check_classes(X, y, sample_weight)
        used = weight > 0
        X, y, weight = X[used], y[used], weight[used]
        module, x, codes, rng = self._start_classifier(X, y, weight)
        self._train(module, x, codes, weight, rng)
        self._n_first_passes = self._choose_first_passes(x, rng)
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return the mean of the passes' probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, columns in the order of `classes_`.
        """
        parts = self._map_batches(X, self._mean_of_passes)
        proba = torch.cat(parts).cpu().numpy()
        refuse_nan(proba)
        return proba / proba.sum(axis=1, keepdims=True)

    def _choose_first_passes(self, x, rng):
        """Return how many passes half of the training rows need."""
        rows = torch.as_tensor(rng.permutation(x.shape[0])[:_PILOT_ROWS])
        device = module_device(self.module_)
        with torch.no_grad(), seeded(self._predict_seed, device):
            mean, square = self._moments(x[rows].to(device), _FIRST_PASSES)
        needed = float(self._needed(mean, square, _FIRST_PASSES).median())
        n_passes = _FIRST_PASSES
        while n_passes < min(needed, self.n_predict_passes):
            n_passes *= 2
        return min(n_passes, self.n_predict_passes)

    def _moments(self, x, n_passes, stage=0):
        """Return the means of the passes' probabilities and of their squares."""
        passes = widen(self._passes(x, n_passes, stage))
        # Classes first: with few of them ten times quicker than along the last axis.
        proba = torch.softmax(passes.movedim(-1, 0).contiguous(), 0).double()
        return proba.mean(dim=1).T, proba.square().mean(dim=1).T

    def _needed(self, mean, square, n_passes):
        """Return how many passes bring the error of the mean to the tolerance."""
        variance = (square - mean.square()).amax(dim=1).clamp_min(0)
        variance *= n_passes / max(n_passes - 1, 1)
        needed = variance / self.predict_tol**2 if self.predict_tol else variance + inf
        return needed.clamp_max(self.n_predict_passes)

    def _mean_of_passes(self, x):
        """Return the mean probabilities of a batch; in two runs where passes differ."""
        most = self.n_predict_passes
        n_first = min(self._n_first_passes, most)
        mean, square = self._moments(x, n_first)
        needed = self._needed(mean, square, n_first)
        n_before = n_first
        while n_before < most:
            n = min(2 * n_before, most)
            rows = ((needed > n_before) & (needed <= n)).nonzero()[:, 0]
            if rows.numel():
                more, _ = self._moments(x[rows], n - n_first, stage=n)
                share = n_first / n
                whole = share * mean[rows] + (1 - share) * more
                mean = mean.index_copy(0, rows, whole)
            n_before = n
        return mean

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        columns = self.predict_proba(X).argmax(axis=1)
        return self.classes_[columns]

    def predict_uncertainty(self, X: Any) -> Any:
        """Return the entropy of the mean of the passes' probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        uncertainty : ndarray of shape (n_samples,)
            In nats, from 0 to the logarithm of the number of classes: the log-loss
            that the network expects of itself.
        """
        return entr(self.predict_proba(X)).sum(axis=1)
