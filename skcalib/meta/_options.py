"""Answer options of language models: a different number of them in each question."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skcalib._base import BaseCalibrator
from skcalib._maps import Affine, CalibrationMap, Softmax
from skcalib._sklearn_compat import Interval, fit_context
from skcalib._solvers._position import fit_position
from skcalib._solvers._temperature import PRIOR, TOL, fit_temperature
from skcalib._validation import (
    check_answers,
    check_calibration_set,
    like_options,
    pad_options,
)
from skcalib.calibrators._scaling import divisions


class OptionCalibration(BaseCalibrator):
    r"""Calibrate the options of questions, of which each may have another number.

    Learns one temperature for all questions, and an offset for each position: language
    models prefer some letters whatever they stand for. An option in position
    :math:`j` of logit :math:`z_j` has the probability
    :math:`\operatorname{softmax}(z / T + b)_j` among the options that its question has.

    Parameters
    ----------
    position_offset : bool, default=True
        Whether there are offsets. Without, this is `TemperatureScaling` of such rows.

    offset_penalty : float, default=1.0
        Factor of the ridge penalty :math:`\frac{K}{n} \lVert b \rVert^2` of :math:`K`
        positions and :math:`n` questions, which keeps the offsets near 0 where
        questions are few. Because of it they sum to 0.

    prior : float or None, default=8.0
        Strength, in samples, of a weak pull of the temperature towards 1, as in
        `TemperatureScaling`.

    tol : float, default=1e-10
        Without offsets the absolute tolerance on :math:`\log T`, with them how far
        above its minimum, in nats, the penalised mean log-loss may end.

    max_iter : int, default=100
        Largest number of Newton steps.

    classes : array-like of shape (n_options,), default=None
        What `y` calls the positions, such as ``["A", "B", "C", "D"]``, as many as the
        longest question has. By default `y` counts them from 0.

    Attributes
    ----------
    temperature_ : float
        The temperature; above 1 when the model is over-confident.

    offset_ : ndarray of shape (n_options,)
        The offset of each position, in nats; zeros without `position_offset`.

    loss_ : float
        Mean log-loss on the calibration set plus penalty and prior.

    n_iter_ : int
        Newton steps of the last search.

    gradient_norm_ : float
        Euclidean norm of the gradient at the solution.

    classes_ : ndarray of shape (n_options,)
        What the positions are called.

    n_features_in_ : int
        Number of options of the longest question.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of `X`, where all are strings.

    Warns
    -----
    ConvergenceWarning
        If no temperature is best, as of `TemperatureScaling`, or the search for the
        offsets ended early. The best point found is kept.

    See Also
    --------
    pad_options : The rows by themselves, which metrics and other calibrators take.
    logits_from_top_logprobs : Logits of options from the most probable tokens.
    GroupCalibration : Pools tasks: ``GroupCalibration(OptionCalibration())`` takes
        padded rows and ``groups=``.

    Notes
    -----
    A missing option is told by the length of the rows of a list, the mask of a
    `numpy.ma.MaskedArray`, or -inf in an array. NaN stays an error, as of any
    calibrator: it is what a broken model gives; where it pads, pass
    ``numpy.ma.masked_invalid(X)``. What is read from a file or a cluster is padded by
    -2**100, the number that `pad_options` writes.

    Examples
    --------
    Questions of two to four options, whose first is preferred and all stated too
    surely:

    >>> import numpy as np
    >>> from scipy.special import softmax
    >>> from skcalib import OptionCalibration
    >>> rng = np.random.default_rng(0)
    >>> truth = [rng.normal(0, 2, rng.integers(2, 5)) for _ in range(4000)]
    >>> y = [rng.choice(len(z), p=softmax(z)) for z in truth]
    >>> logits = [2 * z + 2 * (np.arange(len(z)) == 0) for z in truth]
    >>> options = OptionCalibration().fit(logits, y)
    >>> round(options.temperature_, 1)
    2.0
    >>> options.offset_.round(1)
    array([-0.7,  0.3,  0.2,  0.2])
    >>> [row.round(2) for row in options.predict_proba(logits[:2])]
    [array([0.13, 0.63, 0.2 , 0.05]), array([0.09, 0.63, 0.28])]
    """

    by_sums = True
    takes_absent = True
    _parameter_constraints: dict = {
        "position_offset": ["boolean"],
        "offset_penalty": [Interval(Real, 0, None, closed="neither")],
        "prior": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
    }

    def __init__(
        self,
        *,
        position_offset: bool = True,
        offset_penalty: float = 1.0,
        prior: float | None = PRIOR,
        tol: float = 1e-10,
        max_iter: int = 100,
        classes: Any = None,
    ) -> None:
        self.position_offset = position_offset
        self.offset_penalty = offset_penalty
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    @property
    def keeps_class(self) -> Any:
        return not np.any(getattr(self, "offset_", self.position_offset))

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn temperature and offsets from logits and right answers.

        Parameters
        ----------
        X : list of array-like, or array-like of shape (n_samples, n_options)
            Logits of the options of each question; see Notes.

        y : array-like of shape (n_samples,)
            Position of the right answer, from 0; see the parameter `classes`.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        Returns
        -------
        self : object
            The fitted calibrator.
        """
        longest = None if self.classes is None else len(self.classes)
        rows = pad_options(X, n_options=longest)
        data = check_calibration_set(self, rows, y, sample_weight, self.classes)
        check_answers(data)
        return self._learn(data)

    def fit_calibration(self, data: Any) -> None:
        """Find the temperature, then the offsets along with it."""
        options: dict[str, Any] = {"prior": self.prior, "max_iter": self.max_iter}
        # Before offsets it is only a start, and need not be found to their tolerance.
        tol = TOL if self.position_offset else self.tol
        result = fit_temperature(data, tol=tol, **options)
        self._record(result)
        self.temperature_ = float(result.x[0])
        self.offset_ = np.zeros(data.n_classes)
        if self.position_offset:
            result = fit_position(
                data,
                self.temperature_,
                penalty=self.offset_penalty,
                tol=self.tol,
                **options,
            )
            self.temperature_ = float(np.exp(-result.x[0]))
            self.offset_ = result.x[1:]
            self._record(result)

    def calibration_map(self) -> Any:
        """Return the division by the temperature, and the offsets."""
        front = divisions(self.temperature_)
        if self.offset_.any():
            front += (Affine(np.ones_like(self.offset_), self.offset_),)
        return CalibrationMap(*front, Softmax())

    def predict_proba(self, X: Any, *, out: Any = None) -> Any:
        """Return calibrated probabilities in the layout of the logits.

        Parameters
        ----------
        X : list of array-like, or array-like of shape (n_samples, n_options)
            Logits of the options of each question.

        out : ndarray of shape (n_samples, n_options), default=None
            Where to put the probabilities, block by block; new memory by default.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_options), or list of ndarray
            Probabilities of the options of each question, 0 where an array says that
            there is none; a list for a list, and a masked array for one. `out`, if
            that is given.
        """
        X = self._questions(X)
        proba = super().predict_proba(self._padded(X), out=out)
        return proba if out is not None else like_options(proba, X)

    def predict(self, X: Any) -> Any:
        """Return the option of the largest calibrated probability.

        Parameters
        ----------
        X : list of array-like, or array-like of shape (n_samples, n_options)
            Logits of the options of each question.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Positions, or what `classes_` calls them.
        """
        return super().predict(self._padded(self._questions(X)))

    def decision_function(self, X: Any) -> Any:
        """Return calibrated logits in the layout of the logits.

        Parameters
        ----------
        X : list of array-like, or array-like of shape (n_samples, n_options)
            Logits of the options of each question.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_options), or list of ndarray
            Calibrated logits, far below all others where an array says that there is no
            option. If no question has more than two options, an array of the log-odds
            of the second.
        """
        X = self._questions(X)
        logits = super().decision_function(self._padded(X))
        return logits if logits.ndim == 1 else like_options(logits, X)

    def _padded(self, X):
        return pad_options(X, n_options=self.n_features_in_)

    def _questions(self, X):
        """Return lists as arrays where all are shorter than the longest question."""
        check_is_fitted(self)
        kinds = (list, tuple)
        are_lists = isinstance(X, kinds) and all(isinstance(row, kinds) for row in X)
        if are_lists and 0 < max(map(len, X), default=0) < self.n_features_in_:
            return [np.asarray(row) for row in X]
        return X
