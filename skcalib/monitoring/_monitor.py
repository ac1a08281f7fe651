"""A monitor of served probabilities that seldom cries wolf, however often one looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from skcalib._base import BaseCalibrator
from skcalib._sklearn_compat import Interval
from skcalib.calibrators import StructuredMatrixScaling
from skcalib.meta._chain import fit_next
from skcalib.monitoring import _bets, _state
from skcalib.monitoring._alarm import HasAlarm
from skcalib.monitoring._evidence import over_groups, over_streams
from skcalib.monitoring._input import (
    as_batch,
    check_begun,
    check_map,
    check_position,
    check_rows,
    group_names,
    is_column,
    is_empty,
    known_classes,
    number_watched,
)
from skcalib.monitoring._recent import Recent
from skcalib.monitoring._report import MonitorReport, make_report
from skcalib.monitoring._wealth import BLOCK, Wealth

# Points of the evidence over time that are kept.
_MOST_POINTS = 128


class CalibrationMonitor(HasAlarm, BaseEstimator):
    r"""Watch whether served probabilities are still calibrated, row by row.

    The monitor bets against the probabilities with recalibrators that are fixed before
    the true class is seen. If the probabilities are calibrated given all that came
    before, no bet is expected to win, and the chance that the wealth *ever* reaches
    :math:`1 / \alpha` is at most :math:`\alpha`: one may look after every row, for
    ever, and stop when one likes. If they are not, the logarithm of the wealth grows by
    what the log-loss would gain by recalibrating.

    Parameters
    ----------
    calibrator : estimator, default=None
        The fitted calibrator whose probabilities are served. It is not needed to watch;
        with it, `recalibrate` returns a calibrator of the same logits. It has to map
        logits alone: one that takes groups or features is left out.

    alpha : float, default=0.05
        Largest probability of an alarm, ever, while the probabilities are calibrated.

    tolerance : float, default=0.0
        How far the true probability of any event of a row may be off without that being
        held against the model: 0.01 forgives one percentage point.

    groups : array-like of shape (n_groups,), default=None
        Names of groups, such as markets or devices. Half of the capital is then wagered
        on the groups, each with rows of its own; `update` needs the group of each row.

    delay : int, default=0
        How many rows late labels come, where rows closer to each other than that may
        depend on one another, as in forecasts of overlapping horizons. Independent rows
        need no delay, whenever their labels come.

    memory : int, default=1000
        How many of the last rows are kept, as probabilities and classes in half
        precision, to recalibrate and to draw by. 0 keeps none; the test needs none.

    classes : array-like of shape (n_classes,), default=None
        Label of each column of the probabilities. By default those of `calibrator`;
        else integer labels are column numbers, bool labels beside a single column are
        of both classes, and other labels of the first batch, if they are as many as the
        columns, stand for them in sorted order.

    Attributes
    ----------
    alarm_ : bool
        Whether the wealth has ever reached ``1 / alpha``.

    alarm_row_ : int or None
        How many rows had been seen by then.

    evidence_ : float
        Logarithm of the wealth now, 0 at the start.

    threshold_ : float
        The evidence at which there is an alarm, ``log(1 / alpha)``.

    change_point_ : int or None
        Number of the row since which the most successful bet gains, once there is an
        alarm.

    n_rows_ : int
        Rows seen.

    classes_ : ndarray of shape (n_classes,)
        The class of each column, once rows were seen.

    See Also
    --------
    skcalib.metrics.calibration_test : For a sample of fixed size, looked at once.

    Notes
    -----
    The bets are on temperatures, on one class being more or less frequent than stated,
    and on the frequencies of all classes as the past shows them; part of the capital is
    held back for changes to come. Nothing is fitted that could fail. A state has a few
    numbers for each class, whatever the number of rows, and the remembered rows.

    A row that was said to have probability 0 and occurs counts as one of 1e-12, and no
    row multiplies the wealth of a bet by more than 10.

    The guarantee is about the probabilities as they are stated. A model whose held-out
    error was never zero will be found out in the end; `tolerance` says from where on
    one wants to know. `delay` costs power, since each of the interleaved streams has to
    show the change by itself. The evidence is looked at after every 32 rows, with
    groups after as many times more, and at the end of each `update`. Parameters that
    are set once rows were seen have no effect.

    References
    ----------
    .. [1] Arnold, Henzi & Ziegel. "Sequentially valid tests for forecast calibration",
       Annals of Applied Statistics 2023. https://arxiv.org/abs/2109.11761
    .. [2] Ramdas, Grunwald, Vovk & Shafer. "Game-theoretic statistics and safe
       anytime-valid inference", Statistical Science 2023.
       https://arxiv.org/abs/2210.01948

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.special import softmax
    >>> from skcalib.monitoring import CalibrationMonitor
    >>> rng = np.random.default_rng(0)
    >>> logits = 2 * rng.normal(size=(4000, 3))
    >>> y = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((4000, 1))).argmax(1)
    >>> monitor = CalibrationMonitor()
    >>> monitor.update(y[:2000], softmax(logits[:2000], axis=1)).alarm_
    False
    >>> monitor.update(y[2000:], softmax(1.5 * logits[2000:], axis=1)).alarm_
    True
    >>> 1800 < monitor.change_point_ < 2200
    True
    """

    _parameter_constraints: dict = {
        "calibrator": [BaseCalibrator, None],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
        "groups": ["array-like", None],
        "delay": [Interval(Integral, 0, None, closed="left")],
        "memory": [Interval(Integral, 0, None, closed="left")],
        "classes": ["array-like", None],
    }

    # Before the first rows.
    n_rows_ = 0

    def __init__(
        self,
        calibrator: Any = None,
        *,
        alpha: float = 0.05,
        tolerance: float = 0.0,
        groups: ArrayLike | None = None,
        delay: int = 0,
        memory: int = 1000,
        classes: ArrayLike | None = None,
    ) -> None:
        self.calibrator = calibrator
        self.alpha = alpha
        self.tolerance = tolerance
        self.groups = groups
        self.delay = delay
        self.memory = memory
        self.classes = classes

    @_state.all_or_nothing
    def update(
        self,
        y: ArrayLike,
        proba: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        position: int | None = None,
    ) -> CalibrationMonitor:
        """Add rows whose true class is known, in the order in which they were served.

        Parameters
        ----------
        y : array-like of shape (n_samples,), or a single label
            True classes.

        proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Probabilities as they were served, before `y` was known. A single column is
            that of the second class. For a single label, the probabilities of its row.

        groups : array-like of shape (n_samples,), default=None
            The group of each row, for a monitor of groups.

        position : int, default=None
            Number of the first row among all that `update` was given. If it is not how
            many there were, the rows come twice, or too early, and are refused.

        Returns
        -------
        self : object
            The monitor.
        """
        self._validate_params()
        check_position(self, position)
        if is_empty(y, proba):
            return self
        y, proba, groups = as_batch(y, proba, groups)
        codes, rows, classes = check_rows(self, y, proba)
        index = number_watched(self, groups, codes.size)
        if not hasattr(self, "classes_"):
            self._begin(classes)
        p = _bets.floored(rows)
        # Each look costs a step for each group, so that groups are looked at less.
        between = BLOCK * len(self._streams[0])
        start = 0
        while start < codes.size:
            part = slice(start, start + between - self.n_rows_ % between)
            self._add(p[part], codes[part], index[part])
            start = part.stop
        self._recent.add(np.log(p), codes, self.n_rows_ + np.arange(-codes.size, 0))
        self._is_single &= is_column(proba)
        top = p.argmax(axis=1)
        every = np.arange(codes.size)
        self._sums += [
            p[every, top].sum(),
            (top == codes).sum(),
            -np.log(p[every, codes]).sum(),
        ]
        return self

    @_state.all_or_nothing
    def merge(self, other: CalibrationMonitor) -> CalibrationMonitor:
        """Add what another monitor saw: of another server, another hour.

        The evidence is that of the rows of both. An alarm of `other` alone is not
        taken over: if each of many monitors may raise one, the chance that any does is
        larger than `alpha`. To have one guarantee for all, look at the merged one.

        Parameters
        ----------
        other : CalibrationMonitor
            A monitor with the same parameters and classes. It is left as it is.

        Returns
        -------
        self : object
            The monitor.

        Raises
        ------
        ValueError
            If `other` watches something else, or was merged before: its rows would
            count twice. Let each shard have a monitor of its own, and merge it when it
            is complete.
        """
        if not isinstance(other, CalibrationMonitor):
            raise TypeError(
                f"merge takes a CalibrationMonitor, not a {type(other).__name__}."
            )
        if not hasattr(other, "classes_"):
            return self
        if not hasattr(self, "classes_"):
            self._validate_params()
            self._begin(known_classes(self, other.classes_))
        _state.check_alike(self, other)
        _state.check_unseen(self, other)
        for own, others in zip(self._streams, other._streams, strict=True):
            for wealth, more in zip(own, others, strict=True):
                if more.n_rows:
                    wealth.merge(more, self.n_rows_)
        self._recent.merge(other._recent, self.n_rows_)
        self._is_single &= other._is_single
        self.n_rows_ += other.n_rows_
        self._sums += other._sums
        self._merged += [other._id, *other._merged]
        self._look()
        return self

    def recalibrate(self, calibrator: Any = None) -> Any:
        """Fit the next calibrator on the rows since the change.

        Without an alarm these are all remembered rows; in any case at most `memory`.

        Parameters
        ----------
        calibrator : estimator, default=None
            What to fit, from the logarithms of the served probabilities, or a search of
            scikit-learn among such; ``StructuredMatrixScaling(structure="vector")`` by
            default, which shrinks to a temperature where rows are few.

        Returns
        -------
        calibrator : estimator
            Fitted, for `skcalib.save`, `skcalib.export.to_onnx` and
            `skcalib.export.calibrate_onnx_model`. It takes the logits that the served
            calibrator takes, if the monitor was given that; else the logarithms of the
            served probabilities, or logits that give them: log-odds, if the served
            probabilities came as a single column. Where it would notice a constant
            added to a row, it comes with a log-softmax in front, which takes that away.

        Raises
        ------
        ValueError
            If too few rows are remembered, or of one class only, or if the served
            calibrator was fitted anew since the first rows came.
        TypeError
            If it is to follow a served calibrator, and does not map logits alone.
        """
        check_begun(self)
        if self._recent.memory < 2:
            raise ValueError(
                f"With memory={self._recent.memory} a monitor remembers too few rows "
                "to learn from. recalibrate needs one begun with memory=1000 or so."
            )
        log_proba, codes = self._recent.since(self.change_point_ or 0)
        if np.unique(codes).size < 2:
            raise ValueError(
                f"{codes.size} rows are remembered since the change, of "
                f"{np.unique(codes).size} classes, and nothing can be learned from "
                f"them. Wait for more; at most memory={self._recent.memory} are kept."
            )
        if calibrator is None:
            calibrator = StructuredMatrixScaling(structure="vector")
        _state.check_same_calibrator(self)
        served = self._settings["calibrator"]
        if served is None and self._is_single:
            log_proba = log_proba[:, 1] - log_proba[:, 0]
        labels = self.classes_[codes]
        return fit_next(calibrator, served, log_proba, labels, self.classes_)

    def report(self) -> MonitorReport:
        """Return what is known, as numbers and as text.

        Returns
        -------
        report : MonitorReport
            Printed, a summary; its attributes are plain numbers.
        """
        check_begun(self)
        return make_report(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw the evidence over time, and reliability before and since the change.

        Parameters
        ----------
        axes : sequence of three matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        axes : ndarray of matplotlib Axes
            The axes.
        """
        from skcalib.monitoring._plot import draw

        check_begun(self)
        return draw(self, axes)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as what JSON knows: numbers, text, lists and dicts.

        Returns
        -------
        state : dict
            For `from_dict`. It holds no calibrator, but how to know it again.
        """
        check_begun(self)
        return _state.to_dict(self)

    @classmethod
    def from_dict(
        cls, state: Mapping[str, Any], calibrator: Any = None
    ) -> CalibrationMonitor:
        """Return the monitor of a state.

        Parameters
        ----------
        state : dict
            What `to_dict` returned.

        calibrator : estimator, default=None
            The served calibrator, if the monitor was given one.

        Returns
        -------
        monitor : CalibrationMonitor
            Which goes on as that one would.

        Raises
        ------
        ValueError
            If the state is damaged, of a later version of skcalib, or of another
            calibrator.
        """
        return _state.from_dict(cls, state, calibrator)

    @property
    def evidence_(self) -> float:
        """Logarithm of the wealth."""
        if not hasattr(self, "_streams"):
            return 0.0
        if self._settings["delay"]:
            return over_streams(self._log_suprema)
        return self._log_wealths()[0]

    @property
    def change_point_(self) -> int | None:
        """Number of the row since which the most successful bet gains."""
        return int(self._suspect()[1]) if self.alarm_ else None

    @property
    def threshold_(self) -> float:
        """Evidence at which there is an alarm."""
        return math.log(1 / self._settings["alpha"])

    def _begin(self, classes: NDArray[Any]) -> None:
        check_map(self.calibrator)
        self._used = self._settings
        self.classes_ = np.asarray(classes)
        self._calibrator_marks = _state.marks(self)
        n_classes = self.classes_.shape[0]
        n_subjects = 1 + (0 if self.groups is None else len(group_names(self)))
        self._streams = [
            [Wealth(n_classes, self.tolerance) for _ in range(n_subjects)]
            for _ in range(max(self.delay, 1))
        ]
        self._log_suprema = np.zeros(len(self._streams))
        self._recent = Recent(n_classes, self.memory)
        # Whether all probabilities came as one column.
        self._is_single = True
        # Of confidences, hits and log-losses.
        self._sums = np.zeros(3)
        self._id = uuid4().hex[:16]
        self._merged: list[str] = []
        self._history: list[tuple[int, float]] = []
        self._alarm_row: int | None = None
        self.n_rows_ = 0
        # Those that came by `update`: rows of a stream stay as far apart as they were.
        self._own_rows = 0

    def _add(
        self, p: NDArray[Any], codes: NDArray[np.intp], index: NDArray[np.intp]
    ) -> None:
        """Add rows of one block, and look at the evidence."""
        fixed = _bets.fixed_bets(p, codes, self._settings["tolerance"])
        stream = (self._own_rows + np.arange(codes.size)) % len(self._streams)
        for number in np.unique(stream):
            for subject in np.unique(np.append(index, 0)):
                rows = stream == number
                if subject:
                    rows &= index == subject
                wealth = self._streams[number][subject]
                wealth.update(fixed[rows], p[rows], codes[rows], self.n_rows_)
        self.n_rows_ += codes.size
        self._own_rows += codes.size
        self._look()

    def _log_wealths(self) -> list[float]:
        return [
            over_groups([wealth.evidence for wealth in stream])
            for stream in self._streams
        ]

    def _look(self) -> None:
        """Judge the evidence, and remember it."""
        if self._settings["delay"]:
            self._log_suprema = np.maximum(self._log_suprema, self._log_wealths())
        evidence = self.evidence_
        if evidence >= self.threshold_ and self._alarm_row is None:
            self._alarm_row = self.n_rows_
        self._history.append((self.n_rows_, evidence))
        if len(self._history) > 2 * _MOST_POINTS:
            self._history = self._history[::2]

    def _suspect(self) -> tuple[int, int, int]:
        """Return the leading bet, the row from which it gains, and its subject."""
        leaders = []
        for stream in self._streams:
            for subject, wealth in enumerate(stream):
                leaders.append((*wealth.leader, subject))
        _, bet, row, subject = max(leaders)
        return bet, row, subject
