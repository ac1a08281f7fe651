"""CLUERegressor: a network trained so that its variance equals its squared error."""

from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)

from skcalib._onnx._outputs import refuse_nan
from skcalib._sklearn_compat import fit_context
from skcalib._validation import check_weight, column_on_host
from skcalib.training._clue_base import BaseCLUE
from skcalib.training._modules import weighted_moments
from skcalib.training._uncertainty import predictive_moments, widen


class CLUERegressor(RegressorMixin, BaseCLUE):
    """Train a network whose variance equals the squared error it makes.

    A network with dropout is trained with `CLUELoss` on several random passes; the
    passes at prediction give means and their standard deviations. For a training loop
    of your own take `CLUELoss` and `mc_dropout`.

    Parameters
    ----------
    module : torch.nn.Module or callable, default=None
        The network: a module, of which a copy is trained, or a callable without
        arguments that builds one. It returns means of the standardised target, or in
        two columns means and logarithms of variances. None is a perceptron that
        standardises its features by itself.

    hidden_layer_sizes : array-like of int, default=(100,)
        Units of the hidden layers of the perceptron.

    dropout : float, default=0.2
        Share of the hidden units of the perceptron that each pass drops.

    variance_output : bool, default=True
        Whether the perceptron has a second output, for the variance. Dropout alone
        knows nothing of the noise in the target.

    alpha : float, default=0.5
        Weight of the error in the loss, from 0 to 1.

    reduction : {"batch", "group", "sample"}, default="group"
        Where error and uncertainty are compared; see `CLUELoss`.

    detach_uncertainty : bool, default=False
        Whether to keep the gradient from flowing through the uncertainty.

    n_passes : int, default=5
        Passes of Monte-Carlo dropout in each step of the training.

    n_predict_passes : int, default=50
        Passes for predictions.

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
    y_mean_, y_scale_ : float
        Mean and standard deviation of the target, which is standardised for training.

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
    CLUEClassifier : The same for classification.
    CLUELoss : The loss, with its formula.

    Notes
    -----
    See `CLUEClassifier`. With ``alpha=1`` nothing trains the variance output. The
    default of `alpha` differs from that of classification: it did best in the benchmark
    of the guide.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skcalib.training import CLUERegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = CLUERegressor(max_epochs=20, random_state=0).fit(X, y)
    >>> y_mean, y_std = regressor.predict(X[:2], return_std=True)
    >>> y_mean.shape, y_std.shape
    ((2,), (2,))
    """

    _task = "regression"
    _parameter_constraints: dict = {
        **BaseCLUE._parameter_constraints,
        "variance_output": ["boolean"],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        hidden_layer_sizes: Any = (100,),
        dropout: float = 0.2,
        variance_output: bool = True,
        alpha: float = 0.5,
        reduction: Literal["batch", "group", "sample"] = "group",
        detach_uncertainty: bool = False,
        n_passes: int = 5,
        n_predict_passes: int = 50,
        sites: Any = None,
        max_epochs: int = 100,
        batch_size: int = 128,
        optimizer: Any = None,
        lr: float = 1e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Any = None,
        device: Any = "auto",
        net_params: Any = None,
        verbose: int = 0,
        random_state: Any = 0,
    ) -> None:
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.variance_output = variance_output
        self.alpha = alpha
        self.reduction = reduction
        self.detach_uncertainty = detach_uncertainty
        self.n_passes = n_passes
        self.n_predict_passes = n_predict_passes
        self.sites = sites
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.device = device
        self.net_params = net_params
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # with gradients, whatever the caller runs in
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,)
            True values.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the samples in the loss.

        Returns
        -------
        self : CLUERegressor
            The fitted estimator.
        """
        if y is None:
            raise ValueError(
                "CLUERegressor requires y to be passed, but the target y is None."
            )
        X = self._check_inputs(X, reset=True)
        y = column_or_1d(column_on_host(y), dtype=np.float64, warn=True)
        assert_all_finite(y, input_name="y")
        check_consistent_length(X, y)
        weight = check_weight(sample_weight, y)
        used = weight > 0
        X, y, weight = X[used], y[used], weight[used]
        n_outputs = 2 if self.variance_output else 1
        module, x, shape, rng = self._start(X, weight, n_outputs)
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] > 2):
            raise ValueError(
                f"The module returned shape {shape}; CLUERegressor needs means of "
                "shape (n_samples,) or (n_samples, 1), or (n_samples, 2) with the "
                "logarithms of variances in the second column."
            )
        self.y_mean_, self.y_scale_ = map(float, weighted_moments(y, weight))
        standardised = ((y - self.y_mean_) / self.y_scale_).astype(np.float32)
        self._train(module, x, standardised, weight, rng)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean of the passes, and its standard deviation if asked for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        return_std : bool, default=False
            Whether to return the standard deviation as well.

        Returns
        -------
        y_mean : ndarray of shape (n_samples,)
            Predicted values.

        y_std : ndarray of shape (n_samples,)
            Square root of `predict_uncertainty`, only if `return_std`.
        """
        mean, variance = self._moments(X)
        return (mean, np.sqrt(variance)) if return_std else mean

    def predict_uncertainty(self, X: Any) -> Any:
        """Return the variance of the passes, plus the mean predicted one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        uncertainty : ndarray of shape (n_samples,)
            In the unit of y squared: the squared error that the network expects of
            itself.
        """
        return self._moments(X)[1]

    def _moments(self, X):
        n_passes = self.n_predict_passes
        parts = self._map_batches(
            X, lambda x: predictive_moments(widen(self._passes(x, n_passes)))
        )
        mean, variance = (
            np.concatenate([values.cpu().numpy() for values in part]).astype(np.float64)
            for part in zip(*parts, strict=True)
        )
        refuse_nan(np.column_stack([mean, variance]))
        return self.y_mean_ + self.y_scale_ * mean, self.y_scale_**2 * variance
