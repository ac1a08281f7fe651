"""What the frozen networks share: they are shared by clones and never fitted."""

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import validate_data

from skcalib._networks._given import Brief
from skcalib._onnx._outputs import refuse_nan
from skcalib._sklearn_compat import as_table, fit_context, output_container
from skcalib._validation import (
    column_on_host,
    encode_labels,
    is_shares,
    preview,
    refuse_dask,
)
from skcalib._validation._column_classes import as_text
from skcalib._warnings import warn

# The way for collections: their own axes and types are not known here.
BY_CHUNKS = (
    "Or let the workers that hold the chunks run it: X.map_blocks(estimator.transform, "
    "dtype=..., chunks=...)."
)
_OF_FEATURES = ("n_features_in_", "feature_names_in_")


class FrozenLogits(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of the transformers from inputs to the logits of a trained network.

    A subclass has `_check(X)` and `_compute(X)`, which return the logits of the first
    batch and of all rows, and names the parameter that holds its network in `_network`.
    If that knows the classes of its columns, `_classes()` returns them.
    """

    _network = ""

    def __sklearn_clone__(self):
        """Make an equal estimator that shares the network."""
        twin = type(self)(**self.get_params(deep=False))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if name in vars(self):
                setattr(twin, name, copy.deepcopy(vars(self)[name]))
        return twin

    def __sklearn_is_fitted__(self):
        """Whether `transform` works: always, the network has been trained."""
        return True

    def __sklearn_tags__(self):
        """Tags: nothing to fit, inputs of any number of dimensions."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        return tags

    def set_params(self, **params: Any) -> Self:
        """Set parameters; what was seen of another network or output is forgotten.

        Parameters
        ----------
        **params : dict
            Names and values of parameters.

        Returns
        -------
        self : object
            This transformer.
        """
        super().set_params(**params)
        if not params.keys().isdisjoint((self._network, "output", "method")):
            for seen in ("_n_features_out", "readout_", *_OF_FEATURES):
                self.__dict__.pop(seen, None)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check that the network takes `X`; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Inputs of the network. Only the first batch is looked at.

        y : array-like of shape (n_samples,), default=None
            True classes, compared with those that the network names, if it does.

        Returns
        -------
        self : object
            This transformer.
        """
        refuse_dask(type(self).__name__, X, BY_CHUNKS)
        self._n_features_out = self._check(X).shape[1]
        self._note_features(X)
        if y is not None and not self._gives_names():
            self._warn_of_classes(y)
        return self

    def transform(self, X: Any) -> Any:
        """Return the network's logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Inputs of the network. A `numpy.memmap` is read batch by batch, a Dask
            collection is refused.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples, 1)
            Logits; a single column is the log-odds of the second class.
        """
        self._validate_params()
        refuse_dask(type(self).__name__, X, BY_CHUNKS)
        self._check_names(X)
        logits = self._compute(X)
        refuse_nan(column_on_host(logits))
        if not hasattr(self, "_n_features_out"):  # By it columns of a frame are named.
            self._n_features_out = logits.shape[1]
        return logits

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the columns: the classes, if the network names them.

        Parameters
        ----------
        input_features : None, default=None
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_columns,)
            Names as text; that of this class, in small letters, with the number of the
            column where the network names no classes.
        """
        names = super().get_feature_names_out(input_features)
        labels = [*map(as_text, self._classes() or ())]
        are_names = len(labels) == len(names) == len(set(labels))
        return np.array(labels, dtype=object) if are_names else names

    def _classes(self):
        """Return the class of each column; None where the network names none."""

    def _gives_names(self):
        """Whether the columns of what `transform` returns are named after classes."""
        is_frame = output_container(self) != "default"
        return is_frame and self._n_features_out > 1

    def _warn_of_classes(self, y):
        """Warn where a calibrator would take the columns for others than they are."""
        labels = self._classes()
        if labels is None or is_shares(y):
            return
        try:
            taken, codes = encode_labels(self, y, max(2, self._n_features_out), None)
        except (TypeError, ValueError):  # Which the calibrator will say itself.
            return
        known, found = (list(map(as_text, part)) for part in (labels, taken.tolist()))
        present = {found[code] for code in np.unique(codes)}
        if known == found or len(known) != len(found) or not present <= set(known):
            return
        lacking = [label for label in labels if as_text(label) not in present]
        warn(
            f"The model names the classes of its columns {preview(labels)}"
            f"{f', and y lacks {preview(lacking)}' if lacking else ''}. A calibrator "
            f"takes them for {preview(taken)} unless it is told: give it classes=[...] "
            f"in the order of the model, or use {type(self).__name__}(...)."
            'set_output(transform="pandas"), whose columns bear their names, and which '
            "silences this."
        )

    def _note_features(self, X):
        """Keep the number of columns of a table, and their names."""
        for name in _OF_FEATURES:
            self.__dict__.pop(name, None)
        if _is_table(X):
            validate_data(self, as_table(X), reset=True, skip_check_array=True)

    def _check_names(self, X):
        """Refuse names of columns that are not those of `fit`, in the same order.

        Of their number the network decides: rows of tokens are of any length.
        """
        if _is_table(X) and hasattr(self, "n_features_in_"):
            told = {"skip_check_array": True, "ensure_2d": False}
            validate_data(self, as_table(X), reset=False, **told)

    def __repr__(self, N_CHAR_MAX=700):
        """Show the parameters, without megabytes of weights."""
        brief = type(self)(**self.get_params(deep=False))
        setattr(brief, self._network, Brief(getattr(self, self._network)))
        return super(FrozenLogits, brief).__repr__(N_CHAR_MAX)


def _is_table(X):
    """Whether it has rows and columns; images, dicts, loaders and lists have none."""
    return len(getattr(X, "shape", ())) == 2
