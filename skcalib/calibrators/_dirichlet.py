"""Dirichlet calibration: matrix scaling of the log-probabilities."""

from skcalib._maps import LogSoftmax
from skcalib._numerics import log_softmax_
from skcalib._solvers._matrix import is_large
from skcalib.calibrators._matrix import MatrixScaling


class DirichletCalibration(MatrixScaling):
    r"""Map the log-probabilities by a matrix and an offset, kept near the identity.

    Finds :math:`W` and :math:`b` that minimise the negative log-likelihood of
    :math:`\operatorname{softmax}(W \ln p + b)` with :math:`p` the softmax of the
    logits [1]_, plus the penalty of `MatrixScaling`. Unlike matrix scaling it does not
    depend on the constant that may be added to all logits of a row.

    Parameters
    ----------
    penalty : {"odir", "l2"} or None, default="odir"
        "odir" penalises the off-diagonal entries of :math:`W` and the offsets; "l2"
        also the distance of the diagonal entries to 1, so that the identity map costs
        nothing, as a mean over all :math:`K^2` entries; None nothing.

    off_diagonal_penalty : float or "cv", default="cv"
        Strength :math:`\lambda` of the mean squared off-diagonal entry of :math:`W`, or
        with "l2" entry of :math:`W - I`. "cv" chooses among 0.01, 0.1, ..., 10,000 by
        cross-validated log-loss; with K > 10 classes the largest is the first power of
        10 from :math:`100 K^2` on.

    intercept_penalty : float or "cv", default="cv"
        Strength :math:`\mu` of the mean squared offset, chosen likewise.

    cv : int, cross-validation generator or iterable, default=5
        How to split for "cv" and for `average_folds`: anything that scikit-learn
        takes. An integer gives that many stratified folds of shuffled rows, None 5.

    average_folds : bool, default=False
        Predict with the mean of the probabilities of the models fitted on the folds,
        as [1]_ do, instead of one model fitted on all samples.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature, where the search
        starts, towards 1, as in `TemperatureScaling`, and with "odir", which leaves
        them free, of the diagonal entries towards those of the temperature; None is the
        penalty as published.

    tol : float, default=1e-9
        How far above its minimum, in nats, the penalised mean log-loss may end.

    max_iter : int, default=100
        Largest number of Newton steps.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling for an integer `cv`.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of logits. By default columns of a data frame that are
        named after labels are theirs; else integer labels in ``range(n_columns)`` are
        column numbers, and other labels are matched to the columns in sorted order.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_classes)
        The matrix :math:`W`; row k makes the calibrated logit of class k.

    intercept_ : ndarray of shape (n_classes,)
        The offsets :math:`b`.

    off_diagonal_penalty_, intercept_penalty_ : float
        The strengths used.

    cv_losses_ : dict
        Held-out log-loss of each pair of strengths tried; empty without
        "cv" and `average_folds`.

    fold_coefs_ : ndarray of shape (n_splits, n_classes, n_classes)
        Matrices of the fold models; only with `average_folds`.

    fold_intercepts_ : ndarray of shape (n_splits, n_classes)
        Offsets of the fold models; only with `average_folds`.

    logit_range_ : tuple of two floats
        Logits are cut to this range first. It lies far beyond the logits that carry
        probability; networks mask classes with values such as -1e9, which an affine
        map must not multiply.

    loss_ : float
        Mean log-loss on the calibration set plus the penalty.

    n_iter_ : int
        Newton steps used.

    gradient_norm_ : float
        Euclidean norm of the gradient at the solution.

    classes_ : ndarray of shape (n_classes,)
        Label of each column.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If no bound shows that the loss is within the tolerance after `max_iter` steps,
        or where rounding ends the search.

    See Also
    --------
    MatrixScaling : The same on the logits themselves; its Notes hold here too.

    References
    ----------
    .. [1] Kull, Perello-Nieto, Kangsepp, Silva Filho, Song & Flach. "Beyond temperature
       scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet
       calibration", NeurIPS 2019. https://arxiv.org/abs/1910.12656

    Examples
    --------
    >>> from skcalib import DirichletCalibration
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> DirichletCalibration(off_diagonal_penalty=1.0).fit(X, y).coef_.shape
    (3, 3)
    """

    _front = (LogSoftmax(),)

    def _features(self, data):
        # Among many numbers, those of a float32 need not be kept twice as precisely.
        return data.mapped(log_softmax_, keep_type=is_large(data))
