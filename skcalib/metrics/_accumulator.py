"""Metrics of rows that come in batches: what is kept is a fixed number of sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from skcalib._files import opened, sealed
from skcalib._optional import import_optional
from skcalib._validation import (
    Batch,
    check_batch,
    check_whole,
    is_dask,
    plain_names,
    preview,
    readable_proba,
)
from skcalib.metrics._bins import BinStats, check_strategy
from skcalib.metrics._registry import ACCUMULATED, check_names
from skcalib.metrics._sums import (
    RowSums,
    cells_as_rows,
    chunk_sums,
    metric_values,
    no_rows,
    read_bins,
    row_sums,
    write_bins,
)

FORMAT = "skcalib accumulator"
# Counts up when what was written can no longer be read by what came before.
VERSION = 1
# Fewer rows wait for others: to add so many takes little more time than to add one.
ROWS_AT_ONCE = 256
_STATE = ("_classes", "_used", "_summed", "_waiting", "_n_waiting")


class CalibrationAccumulator(BaseEstimator):
    """Metrics of probabilities that come batch by batch, and are not kept.

    The rows of a stream, of a validation loop or of several machines: each batch is
    added to a fixed number of sums, from which `compute` has the values of all rows so
    far. Accumulators of parts merge into that of the whole.

    Parameters
    ----------
    n_bins : int, default=15
        Number of bins of the binned metrics.

    metrics : sequence of str, default=None
        Which metrics, by their names in `calibration_report`; by default the same as
        there. All but "sweep_ece" are known.

    labels : array-like of shape (n_classes,), default=None
        Class of each column of the probabilities. By default columns of a data frame
        that are named after labels are theirs; else labels are column numbers.

    pos_label : int, float, bool or str, default=None
        Class of a single column of probabilities; see `expected_calibration_error`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class of each column, set by the first `update`.

    n_classes_ : int
        Number of classes, set by the first `update`.

    n_samples_ : int
        Number of rows so far, those of weight 0 left out.

    See Also
    --------
    calibration_report : The same metrics with intervals, of rows that are all there.

    Notes
    -----
    "accuracy", "nll", "brier", "entropy", "ece", "sce", "mce", "rmsce" and the halves
    of the ECE are those of all rows, whatever the batches, but for rounding. Where rows
    have to be sorted, confidences are rounded to the mean of their cell, of more than
    4,096 cells. "ks" is then never above the value of all rows, and below it by the
    weight of one cell at most, and "kuiper" by twice that; "aece" is off by twice the
    weight of each cell that an edge between its bins cuts at most; all of this is
    usually less than 0.001, see the guide to the metrics. "smooth_ece" moves
    confidences by 0.0003 at most.

    A tensor of torch may have gradients. On the CPU it is read where it lies; from
    another device each batch is copied, which waits for what is being computed there.
    Batches of few rows are copied and wait until there are some hundred rows to add.

    Examples
    --------
    >>> from skcalib.metrics import CalibrationAccumulator
    >>> accumulator = CalibrationAccumulator(metrics=["accuracy", "ece"])
    >>> for y_true, y_proba in [
    ...     ([0, 1], [[0.9, 0.1], [0.9, 0.1]]),
    ...     ([1, 1], [[0.2, 0.8], [0.4, 0.6]]),
    ... ]:
    ...     accumulator = accumulator.update(y_true, y_proba)
    >>> values = accumulator.compute()
    >>> {name: round(value, 3) for name, value in values.items()}
    {'accuracy': 0.75, 'ece': 0.35}
    """

    _used: tuple[int, list[str]]
    _classes: list[Any]
    _summed: RowSums
    _waiting: list[Batch]
    _n_waiting: int

    def __init__(
        self,
        *,
        n_bins: int = 15,
        metrics: Sequence[str] | None = None,
        labels: ArrayLike | None = None,
        pos_label: object = None,
    ) -> None:
        self.n_bins = n_bins
        self.metrics = metrics
        self.labels = labels
        self.pos_label = pos_label

    def update(
        self, y: ArrayLike, proba: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> CalibrationAccumulator:
        """Add rows. If they are refused, nothing has changed.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True classes.

        proba : array-like of shape (n_samples, n_classes), (n_samples,) or \
                (n_samples, 1)
            Predicted probabilities; a single column is that of `pos_label`. May be
            empty, or in a file, which is read block by block. A Dask array or data
            frame is summed chunk by chunk where it lies. Names of its columns, and the
            class of a single column, ask for a pass over `y`, unless `labels` tells.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; integer weights equal repeated rows.

        Returns
        -------
        self : object
            The accumulator itself.

        Raises
        ------
        ValueError
            If a row is no probability distribution, a label is unknown, or the number
            of classes is not that of the rows before.
        """
        n_bins, names = self._settings()
        if is_dask(proba):
            sums, classes = chunk_sums(
                y, proba, sample_weight, self.labels, self.pos_label, n_bins, names
            )
            if sums is not None:
                self._check_classes(classes)
                self._summed = self._summed + sums
            return self
        rows, labels, weight = map(_on_the_host, (proba, y, sample_weight))
        if _is_empty(rows) and _is_empty(labels):
            return self
        batch, classes = check_batch(labels, rows, self.labels, weight, self.pos_label)
        self._check_classes(classes)
        if batch.codes.shape[0] < ROWS_AT_ONCE:
            self._wait(batch)
        else:
            self._summed = self._summed + row_sums(batch, n_bins, names)
        return self

    def _check_classes(self, classes: list[Any]) -> None:
        """Learn the classes of the columns, or refuse others than before."""
        if not self._has_rows:
            n_bins, names = self._settings()
            self._start(classes, no_rows(n_bins, len(classes), names))
        elif _as_list(classes) != _as_list(self._classes):
            raise ValueError(
                f"The {len(classes)} columns of proba stand for {preview(classes)}, "
                f"but those of the rows before were {len(self._classes)} and stood for "
                f"{preview(self._classes)}. Pass the same columns in every update, or "
                "begin anew with reset."
            )

    def _wait(self, batch: Batch) -> None:
        """Let few rows wait for others, copied: the caller may fill the arrays anew."""
        # A new list: a shallow copy of the accumulator keeps the one there was.
        self._waiting = [*self._waiting, batch.joined([batch])]
        self._n_waiting += batch.codes.shape[0]
        if self._n_waiting >= ROWS_AT_ONCE:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if self._waiting:
            batch = Batch.joined(self._waiting)
            self._summed = self._summed + row_sums(batch, *self._used)
        self._waiting, self._n_waiting = [], 0

    @property
    def _sums(self) -> RowSums:
        """The sums over all rows, those that wait for others too."""
        self._add_waiting()
        return self._summed

    def merge(self, other: CalibrationAccumulator) -> CalibrationAccumulator:
        """Add the rows of another accumulator, which does not change.

        Parameters
        ----------
        other : CalibrationAccumulator
            One of the same settings and classes.

        Returns
        -------
        self : object
            The accumulator itself.

        Raises
        ------
        ValueError
            If settings or classes differ.
        """
        if not isinstance(other, CalibrationAccumulator):
            raise TypeError(
                f"merge takes a CalibrationAccumulator, not a {type(other).__name__}."
            )
        for name, ours, theirs in self._differences(other):
            raise ValueError(
                f"Accumulators of different {name} cannot be merged: this one has "
                f"{ours}, the other {theirs}."
            )
        if not other._has_rows:
            return self
        if not self._has_rows:
            self._start(other._classes, other._sums)
        else:
            self._summed = self._sums + other._sums
        return self

    def _differences(self, other: Any) -> Iterable[tuple[str, Any, Any]]:
        settings = zip(
            ("n_bins", "metrics"), self._settings(), other._settings(), strict=True
        )
        labels = "labels", _as_list(self.labels), _as_list(other.labels)
        pairs = [*settings, labels, ("pos_label", self.pos_label, other.pos_label)]
        if self._has_rows and other._has_rows:
            own, others = map(_as_list, (self._classes, other._classes))
            pairs.append(("classes", own, others))
        return [(name, a, b) for name, a, b in pairs if a != b]

    def compute(self) -> dict[str, float]:
        """Return the metrics of all rows so far; more may follow.

        Returns
        -------
        values : dict of str to float
            By the names of `metrics`, in order.

        Raises
        ------
        NotFittedError
            If there are no rows yet.
        """
        return metric_values(self._checked_sums(), *self._settings())

    def reliability(
        self, strategy: Literal["uniform", "quantile"] = "uniform"
    ) -> dict[str, NDArray[np.float64]]:
        """Return what a reliability diagram of the rows so far shows.

        Parameters
        ----------
        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of equal width, exact, or of equal mass, near those of the rows.

        Returns
        -------
        bins : dict of str to ndarray of shape (n_bins,)
            "confidence" and "accuracy", the means in each bin, NaN where it is empty;
            "share" of the weight.

        See Also
        --------
        skcalib.plotting.ReliabilityDisplay.from_accumulator : Draws them.
        """
        stats = bins_of(self, check_strategy(strategy))
        filled = stats.weight > 0
        return {
            "confidence": np.where(filled, stats.mean_confidence, np.nan),
            "accuracy": np.where(filled, stats.accuracy, np.nan),
            "share": stats.share,
        }

    def reset(self) -> CalibrationAccumulator:
        """Forget all rows, and what they have told of the classes.

        Returns
        -------
        self : object
            The accumulator itself, as new.
        """
        for name in ("classes_", "n_classes_", *_STATE):
            self.__dict__.pop(name, None)
        return self

    def all_reduce(self, group: Any = None) -> CalibrationAccumulator:
        """Merge the accumulators of all processes of `torch.distributed`.

        All processes of the group have to call it. None of their accumulators changes,
        so that it may be called after every epoch or batch.

        Parameters
        ----------
        group : ProcessGroup, default=None
            The processes; all of them by default.

        Returns
        -------
        merged : CalibrationAccumulator
            A new one of the rows of all, the same to the last bit everywhere.

        Raises
        ------
        ImportError
            If torch is not installed.
        ValueError
            If settings or classes differ, in every process.
        """
        distributed = import_optional("torch.distributed", "all_reduce")
        parts: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(parts, self, group=group)
        n_bins, metrics = self._settings()
        given = {"n_bins": n_bins, "metrics": metrics}
        merged = CalibrationAccumulator(**self.get_params() | given)
        for part in parts:
            merged.merge(part)
        return merged

    def to_dict(self) -> dict[str, Any]:
        """Return settings and sums as plain numbers and strings, ready for JSON.

        Returns
        -------
        content : dict
            What `from_dict` reads. Sums that are zero are left out. Labels that JSON
            does not know, such as dates, are written as text.
        """
        n_bins, names = self._settings()
        event: Any = None if self.pos_label is None else [self.pos_label]
        content: dict[str, Any] = {
            "n_bins": n_bins,
            "metrics": names,
            "labels": _as_list(self.labels),
            "pos_label": (_as_list(event) or [None])[0],
        }
        if self._has_rows:
            sums = self._sums
            content |= {
                "classes": _as_list(self._classes),
                "n_samples": sums.n_rows,
                "cells": write_bins(sums.cells),
                "class_bins": write_bins(sums.class_bins),
                "totals": sums.totals.tolist(),
            }
        return sealed(content, FORMAT, VERSION)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CalibrationAccumulator:
        """Return the accumulator that `to_dict` has written.

        Parameters
        ----------
        content : mapping
            What `to_dict` returned, perhaps by way of JSON.

        Returns
        -------
        accumulator : CalibrationAccumulator
            One with the same sums, to the last bit.

        Raises
        ------
        ValueError
            If `content` is something else, is damaged, or of a version that is not
            known.

        Examples
        --------
        >>> import json
        >>> from skcalib.metrics import CalibrationAccumulator
        >>> accumulator = CalibrationAccumulator().update([0, 1], [0.2, 0.9])
        >>> text = json.dumps(accumulator.to_dict())
        >>> again = CalibrationAccumulator.from_dict(json.loads(text))
        >>> again.compute() == accumulator.compute()
        True
        """
        known = opened(content, FORMAT, VERSION, "accumulator")
        try:
            return cls._read(known)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"The accumulator is damaged: {error}.") from error

    @classmethod
    def _read(cls, content: Mapping[str, Any]) -> CalibrationAccumulator:
        names = ("n_bins", "metrics", "labels", "pos_label")
        accumulator = cls(**{name: content[name] for name in names})
        n_bins, metrics = accumulator._settings()
        if "classes" in content:
            empty = no_rows(n_bins, len(content["classes"]), metrics)
            sums = RowSums(
                int(content["n_samples"]),
                read_bins(content["cells"], empty.cells),
                read_bins(content["class_bins"], empty.class_bins),
                np.reshape(content["totals"], empty.totals.shape).astype(np.float64),
            )
            accumulator._start(list(content["classes"]), sums)
        return accumulator

    @property
    def n_samples_(self) -> int:
        """Number of rows so far, those of weight 0 left out."""
        return self._sums.n_rows if self._has_rows else 0

    @property
    def _has_rows(self) -> bool:
        return hasattr(self, "_summed")

    def __sklearn_is_fitted__(self) -> bool:
        return self._has_rows

    def _settings(self) -> tuple[int, list[str]]:
        """Return `n_bins` and `metrics`, as they were when the first rows came."""
        if self._has_rows:
            return self._used
        n_bins = check_whole("n_bins", self.n_bins)
        return n_bins, check_names(self.metrics, ACCUMULATED)

    def _start(self, classes: list[Any], sums: RowSums) -> None:
        self._used = self._settings()
        self._classes, self._summed = classes, sums
        self._waiting, self._n_waiting = [], 0
        self.classes_ = np.array(classes)
        self.n_classes_ = len(classes)

    def _checked_sums(self) -> RowSums:
        if not self.n_samples_:
            raise NotFittedError(
                "This CalibrationAccumulator has no rows yet, or all have weight 0: "
                "call update first."
            )
        return self._sums


def bins_of(accumulator: CalibrationAccumulator, strategy: str) -> BinStats:
    """Return the bins of all rows of an accumulator so far."""
    n_bins, _ = accumulator._settings()
    rows = cells_as_rows(accumulator._checked_sums().cells, n_bins)
    return rows.bins if strategy == "uniform" else rows.mass_bins


def _on_the_host(values: Any) -> Any:
    """Copy a tensor of another device; make rows of what an array is not."""
    return readable_proba(values.cpu() if hasattr(values, "cpu") else values)


def _is_empty(rows: Any) -> bool:
    return rows.shape[0] == 0 if hasattr(rows, "shape") else len(rows) == 0


def _as_list(labels: ArrayLike | None) -> list[Any] | None:
    return None if labels is None else plain_names(np.asarray(labels).tolist())
