"""Matrix scaling: an affine map of the logits, plain or with ridge penalties."""

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from skcalib._base import FoldingCalibrator
from skcalib._maps import Affine, CalibrationMap, Clip, Operation, Softmax, WeightedSum
from skcalib._numerics import LARGEST_LOGIT
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._solvers._centre import fit_centre
from skcalib._solvers._matrix import Ridge, fit_matrix, identity_map
from skcalib._solvers._temperature import (
    PRIOR,
    prior_strength,
    subsample,
    typical_gap,
)
from skcalib._validation import splits_of
from skcalib.calibrators._absent import fill_absent
from skcalib.calibrators._penalty_search import PenaltySearch
from skcalib.calibrators._seen_range import clip_masked

# Held-out losses are only compared, so the fits behind them may be rougher.
FOLD_TOLERANCE = 1e-4
# Share of the typical distance of the two top logits that a temperature above 1 may be
# as the unit of the prior. A larger one, which leaves the two top classes of most rows
# nearer than e^4 to 1, comes of many errors of a network that was sure, and says little
# of what a matrix finds that mends them. A round number, tried on the demonstration
# network under another light (docs/neural_clamping.rst), with what it costs elsewhere
# by `benchmarks/never_harm.py`.
LARGEST_UNIT = 0.25


class MatrixScaling(FoldingCalibrator):
    r"""Map the logits by a matrix and an offset, kept near the identity.

    Finds :math:`W` and :math:`b` that minimise the negative log-likelihood of
    :math:`\operatorname{softmax}(W z + b)` [1]_ plus a penalty. The default penalty,
    ODIR (off-diagonal and intercept regularisation) [2]_, is

    .. math::
        \lambda \frac{1}{K(K-1)} \sum_{i \neq j} w_{ij}^2
        + \mu \frac{1}{K} \sum_j b_j^2 .

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
        as [2]_ do, instead of one model fitted on all samples.

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

    Notes
    -----
    The problem is convex and is solved to its optimum from the temperature solution by
    Newton's method with conjugate gradients, so no learning rate and no random start
    are involved. It ends when the Newton decrement bounds the loss that is left by
    `tol`, whatever the units of the logits. Without a penalty, and with more parameters
    than the samples can support, the training loss goes to 0 while the test loss grows:
    with a hundred classes and a few thousand samples ``penalty=None`` is worse than no
    calibration.

    With a `prior` of :math:`c`, :math:`\frac{c}{n} \sum_j (T w_{jj} - 1)^2` is added to
    the mean log-loss of :math:`n` samples, with :math:`T` the temperature. Where it is
    above 1 and leaves the two most likely classes nearer than :math:`e^4` to 1 in most
    rows, the largest that does neither stands for it as the unit: a network that was
    sure and wrong as often as that needs a matrix more than a temperature.

    A class that does not occur in the calibration set is left out of the fit. It has
    the mean of the others' diagonal entries, off-diagonal entries and offsets.

    The search for the strengths departs from the full grid of [2]_: it takes
    :math:`\lambda` from the strongest to the weakest with :math:`\mu = \lambda`, until
    the held-out loss rises, and then :math:`\mu` likewise; before it has clearly
    fallen, a rise within one standard error of the difference does not count. Both
    strengths multiply means of squares. A weight counts as a repetition. Equal rows of
    a class share a fold of an integer `cv`, whose folds depend on the order of rows;
    given splits do not. Rows that are nearly equal, such as frames of one video, are
    kept together by ``fit(X, y, groups=video)``.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger. "On Calibration of Modern Neural Networks",
       ICML 2017. https://arxiv.org/abs/1706.04599
    .. [2] Kull, Perello-Nieto, Kangsepp, Silva Filho, Song & Flach. "Beyond temperature
       scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet
       calibration", NeurIPS 2019. https://arxiv.org/abs/1910.12656

    Examples
    --------
    >>> from skcalib import MatrixScaling
    >>> from skcalib.datasets import make_logits
    >>> X, y = make_logits(1000, 3, random_state=0)
    >>> MatrixScaling(off_diagonal_penalty=1.0).fit(X, y).coef_.shape
    (3, 3)
    """

    _strength = [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})]
    by_sums = True
    _parameter_constraints: dict = {
        "penalty": [StrOptions({"odir", "l2"}), None],
        "off_diagonal_penalty": _strength,
        "intercept_penalty": _strength,
        "cv": ["cv_object"],
        "average_folds": ["boolean"],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "classes": ["array-like", None],
    }

    takes_unused = True
    learns_by_class = True
    # What the clipped logits go through before the affine map.
    _front: tuple[Operation, ...] = ()

    def __init__(
        self,
        *,
        penalty: Literal["odir", "l2"] | None = "odir",
        off_diagonal_penalty: Literal["cv"] | float = "cv",
        intercept_penalty: Literal["cv"] | float = "cv",
        cv: Any = 5,
        average_folds: bool = False,
        prior: float | None = PRIOR,
        tol: float = 1e-9,
        max_iter: int = 100,
        random_state: Any = 0,
        classes: Any = None,
    ) -> None:
        self.penalty = penalty
        self.off_diagonal_penalty = off_diagonal_penalty
        self.intercept_penalty = intercept_penalty
        self.cv = cv
        self.average_folds = average_folds
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.classes = classes

    @property
    def draws_folds(self) -> Any:
        strengths = self.off_diagonal_penalty, self.intercept_penalty
        return self.average_folds or "cv" in strengths

    def _features(self, data):
        return data

    def fit_calibration(self, data: Any) -> None:
        """Choose the penalties where they are searched, then fit matrix and offset."""
        splits = self._split(data) if self.draws_folds else []
        data = data.used()
        temperature = fit_centre(data, self.prior).temperature
        data, self.logit_range_ = clip_masked(data, temperature)
        centre = 1 / temperature, _unit(data, temperature)
        features = self._features(data)
        start = identity_map(data.n_classes, 1 / temperature)
        strengths, models = self._choose_strengths(features, splits, start, centre)
        off_diagonal, intercept = strengths
        self.off_diagonal_penalty_, self.intercept_penalty_ = off_diagonal, intercept
        result = self._fit_affine(features, strengths, start, centre, self.tol)
        self._record(result)
        self.coef_, self.intercept_ = result.x[:, :-1], result.x[:, -1]
        for of_folds in ("fold_coefs_", "fold_intercepts_"):
            self.__dict__.pop(of_folds, None)
        if self.average_folds:
            self.fold_coefs_ = np.stack([x[:, :-1] for x in models])
            self.fold_intercepts_ = np.stack([x[:, -1] for x in models])

    def _given_strengths(self):
        """Return the two strengths, None where they are to be chosen."""
        if self.penalty is None:
            return 0.0, 0.0
        given = (self.off_diagonal_penalty, self.intercept_penalty)
        return tuple(None if value == "cv" else float(value) for value in given)

    def _split(self, data):
        """Return pairs of row numbers, counted without the rows of weight 0.

        Rows that lie elsewhere have no numbers; what stands for them is a fold.
        """
        if data.source.is_remote:
            return data.hashed_splits(self.cv, self.random_state)
        splits = splits_of(self.cv, data, self.random_state)
        number = np.cumsum(data.weight > 0) - 1
        return [(number[train], number[test]) for train, test in splits]

    def _choose_strengths(self, data, splits, start, centre):
        """Return the two strengths, and the models of the folds if there are any."""
        self.cv_losses_ = {}
        if not splits:
            return self._given_strengths(), []

        tol = self.tol if self.average_folds else max(self.tol, FOLD_TOLERANCE)

        def fit(train, off_diagonal, intercept, x):
            strengths = off_diagonal, intercept
            return self._fit_affine(train, strengths, x, centre, tol).x

        folds = [tuple(data.subset(rows) for rows in split) for split in splits]
        search = PenaltySearch(fit, folds)
        off_diagonal, intercept = self._given_strengths()
        strengths, models = search.run(off_diagonal, intercept, start)
        self.cv_losses_ = search.losses
        return strengths, models

    def _fit_affine(self, data, strengths, start, centre, tol):
        """Fit matrix and offset, `centre` being that of the prior, and its unit."""
        off_diagonal, intercept = strengths
        n_classes = data.n_classes
        if self.penalty == "l2":
            factor = off_diagonal / n_classes**2
            ridge = Ridge(factor, factor, intercept / n_classes)
        else:
            factor = off_diagonal / (n_classes * (n_classes - 1))
            prior = None if self.penalty is None else self.prior
            middle, unit = centre
            own = prior_strength(prior, data) * unit**2
            ridge = Ridge(factor, own, intercept / n_classes, middle)
        present = data.present
        if present.shape[0] < n_classes:
            data = data.columns(present)
        part = np.ix_(present, np.append(present, n_classes))
        result = fit_matrix(
            data, start[part], ridge=ridge, tol=tol, max_iter=self.max_iter
        )
        if present.shape[0] == n_classes:
            return result
        x = result.x
        offsets = x[:, -1] - x[:, -1].mean()
        whole = fill_absent(x[:, :-1], offsets, present, n_classes)
        return result.at(np.column_stack(whole))

    def calibration_map(self) -> Any:
        """Return the affine map, or the mean of those of the folds."""
        if self.has_logits:
            return self._affine_map(self.coef_, self.intercept_)
        folds = zip(self.fold_coefs_, self.fold_intercepts_, strict=True)
        parts = tuple(self._affine_map(coef, intercept) for coef, intercept in folds)
        return CalibrationMap(WeightedSum((1 / len(parts),) * len(parts), parts))

    def _affine_map(self, coef, intercept):
        affine = Affine(coef, intercept)
        return CalibrationMap(Clip(*self.logit_range_), *self._front, affine, Softmax())

    @property
    def has_logits(self) -> Any:
        if not hasattr(self, "coef_"):
            return not self.average_folds
        return not hasattr(self, "fold_coefs_")


def _unit(data, temperature):
    """Return the temperature in whose inverse the prior measures the diagonal."""
    gap = typical_gap(subsample(data))
    return min(temperature, max(LARGEST_UNIT * gap, 1.0), LARGEST_LOGIT)
