"""The private scikit-learn names that skcalib uses, gathered in one place."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from sklearn.base import _fit_context
from sklearn.metrics._scorer import _Scorer
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import _safe_indexing
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_params,
)
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.validation import _check_method_params, _check_sample_weight

check_method_params = _check_method_params
check_sample_weight = _check_sample_weight


def fit_context(*, prefer_skip_nested_validation: bool) -> Any:
    """Return a decorator of `fit` and `partial_fit` that validates the parameters.

    An estimator whose fit is refused or interrupted stays as it was.
    """
    validated = _fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )

    def whole(fit: Callable[..., Any]) -> Callable[..., Any]:
        inner = validated(fit)

        @wraps(inner)
        def wrapper(estimator: Any, *args: Any, **kwargs: Any) -> Any:
            before = dict(vars(estimator))
            try:
                return inner(estimator, *args, **kwargs)
            except BaseException:
                # At once, for whoever predicts in another thread.
                estimator.__dict__ = before
                raise

        return wrapper

    return whole


def safe_indexing(X: Any, indices: Any) -> Any:
    """Return some rows, those of a batch of Arrow as a table."""
    return _safe_indexing(as_table(X), indices)


def as_table(X: Any) -> Any:
    """Return a batch of Arrow as a table, anything else as it is.

    scikit-learn does not know the columns and rows of batches.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is None or not isinstance(X, arrow.RecordBatch):
        return X
    return arrow.Table.from_batches([X])


class Scorer(_Scorer):
    """A scorer that tells its metric, and the sign that this is given."""

    @property
    def metric(self) -> Any:
        return self._score_func

    @property
    def sign(self) -> Any:
        return self._sign


def what_is_scored(scorer: Any) -> Any:
    """Return what tells scorers of a metric apart; None of other callables."""
    if not isinstance(scorer, _Scorer):
        return None
    method = scorer._response_method
    return scorer._score_func, scorer._sign, scorer._kwargs, method


def like_frame(values, frame):
    """Return `values` with the columns of `frame`, of pandas, polars or pyarrow.

    Anything else, or another number of columns, leaves them an array.
    """
    library = type(frame).__module__.partition(".")[0]
    if library == "pyarrow" and getattr(frame, "shape", None) == values.shape:
        return type(frame).from_arrays([*values.T], names=frame.column_names)
    adapter = ADAPTERS_MANAGER.adapters.get(library)
    is_frame = adapter is not None and adapter.is_supported_container(frame)
    if not is_frame or frame.shape != values.shape:
        return values
    return adapter.create_container(values, frame, columns=frame.columns)


def output_container(estimator: Any) -> str:
    """Return what `transform` is to return: "default", "pandas" or "polars"."""
    return str(_get_output_config("transform", estimator)["dense"])


def points_of(neighbors: NearestNeighbors) -> Any:
    """Return the points among which a fitted search looks for neighbors."""
    return neighbors._fit_X


def n_threads() -> int:
    """Count the threads that scikit-learn's own parallel loops would use here.

    Follows ``OMP_NUM_THREADS``, the processors granted to a container, and the
    limits that joblib sets in its worker processes.
    """
    return int(_openmp_effective_n_threads())


__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "Options",
    "Scorer",
    "StrOptions",
    "as_table",
    "check_method_params",
    "check_sample_weight",
    "fit_context",
    "like_frame",
    "n_threads",
    "output_container",
    "points_of",
    "safe_indexing",
    "validate_params",
    "what_is_scored",
]
