"""The most probable tokens that an interface tells, as logits of answer options."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skcalib._numerics import PROBA_FLOOR
from skcalib._validation._containers import SUM_TOLERANCE
from skcalib._validation._options import ABSENT
from skcalib._validation._whole import check_whole
from skcalib._warnings import warn

# So many tokens are named.
SHOWN = 5
# An option is a token, or the tokens that all say it.
Option = str | tuple[str, ...]


def logits_from_top_logprobs(
    top_logprobs: Sequence[Mapping[str, float]],
    options: Sequence[Any],
    *,
    rest: Literal["spread", "lump"] = "spread",
    vocabulary_size: int | None = None,
) -> Any:
    r"""Turn the log-probabilities of the most probable tokens into logits of options.

    Interfaces of language models tell the 5 or 20 most probable next tokens. Options
    that are not among them have no log-probability, only a bound: together they have at
    most the rest, and each has at most the least that was told.

    Parameters
    ----------
    top_logprobs : sequence of mappings
        For each question, token to natural logarithm of its probability.

    options : sequence
        The tokens that stand for the options, such as ``["A", "B", "C", "D"]``, the
        same for each question; or a list of such lists, one a question. A tuple in the
        place of a token, ``("A", " A")``, holds those that all say the option, whose
        probabilities are added.

    rest : {"spread", "lump"}, default="spread"
        What becomes of the probability that is not told:

        - "spread": an option that is not told has an equal share of the rest. Among the
          `vocabulary_size` less those told, if that is known; otherwise among such
          options alone, and no more than the least that was told, which is the bound.
        - "lump": a last column holds all that is of no option told, and an option that
          is not told is absent (as of `pad_options`): its probability is in
          the last column, and so is the answer if it is the right one.

    vocabulary_size : int, default=None
        How many tokens the model has. Only for ``rest="spread"``.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_options), or list of ndarray
        Log-probabilities of the options; one column more with "lump". A list where each
        question has options of its own.

    Raises
    ------
    ValueError
        If a logarithm is above 0 or NaN, the probabilities of a question sum to more
        than 1, an option occurs twice, or there are more tokens than
        `vocabulary_size`; the question is named.

    Warns
    -----
    UserWarning
        If no option of any question is among its tokens.

    See Also
    --------
    OptionCalibration : Takes the result.

    Examples
    --------
    >>> from skcalib import logits_from_top_logprobs
    >>> told = [{"A": -0.2, "B": -2.0, " A": -4.0}]
    >>> logits_from_top_logprobs(told, [("A", " A"), "B", "C"]).round(2)
    array([[-0.18, -2.  , -4.  ]])
    >>> logits_from_top_logprobs(told, [("A", " A"), "B"], rest="lump").round(2)
    array([[-0.18, -2.  , -3.59]])
    """
    if rest not in ("spread", "lump"):
        raise ValueError(f'rest={rest!r} is neither "spread" nor "lump".')
    if vocabulary_size is not None:
        check_whole("vocabulary_size", vocabulary_size)
    of_each = len(options) > 0 and isinstance(options[0], list)
    if of_each and len(options) != len(top_logprobs):
        raise ValueError(
            f"There are {len(options)} lists of options and {len(top_logprobs)} "
            "questions. One list for all, or one for each, is needed."
        )
    rows, missed = [], []
    for number, told in enumerate(top_logprobs):
        own = options[number] if of_each else options
        try:
            rows.append(logits_of_options(told, own, rest, vocabulary_size))
        except ValueError as error:
            raise ValueError(f"Question {number}: {error}") from error
        missed.append(tokens_instead(told, own))
    warn_of_untold(missed)
    return rows if of_each else np.array(rows)


def logits_of_options(
    told: Any,
    options: Sequence[Option],
    rest: str = "spread",
    vocabulary_size: int | None = None,
) -> NDArray[np.float64]:
    """Return the logits of the options of one question."""
    proba = _proba_told(told)
    groups = [*map(_tokens, options)]
    named = [token for group in groups for token in group]
    if len(groups) < 2 or len(set(named)) < len(named):
        raise ValueError(
            f"The options are {list(options)!r}; at least two are needed, and no token "
            "in two of them."
        )
    own = np.array([sum(proba.get(token, 0.0) for token in group) for group in groups])
    is_told = np.array([any(token in proba for token in group) for group in groups])
    if rest == "lump":
        other = max(1 - float(own.sum()), PROBA_FLOOR)
        logits = np.where(is_told, np.log(np.maximum(own, PROBA_FLOOR)), ABSENT)
        return np.append(logits, np.log(other))
    left = max(1 - sum(proba.values()), 0.0)
    n_missing = int((~is_told).sum())
    if vocabulary_size is None:
        own[~is_told] = min(left / max(n_missing, 1), *proba.values())
    else:
        _check_vocabulary(vocabulary_size, {*proba, *named})
        own[~is_told] = left / max(vocabulary_size - len(proba), 1)
    return np.log(np.maximum(own, PROBA_FLOOR))


def _tokens(option: Any) -> Sequence[str]:
    return option if isinstance(option, tuple | list) else (option,)


def tokens_instead(told: Mapping[str, float], options: Sequence[Any]) -> list[str]:
    """Return a few of the tokens told of a question, none if an option is told."""
    is_told = any(token in told for option in options for token in _tokens(option))
    return [] if is_told else list(told)[:SHOWN]


def warn_of_untold(missed: Sequence[list[str]]) -> None:
    """Warn if no question tells an option, given `tokens_instead` of each."""
    if missed and all(missed):
        warn(
            "No question tells any of its options; the first tells "
            f"{', '.join(map(repr, missed[0]))}. Name options by tokens as the model "
            'writes them, often with a space before, or by several: ("A", " A").'
        )


def _check_vocabulary(size: int, tokens: set[str]) -> None:
    if size < len(tokens):
        raise ValueError(
            f"vocabulary_size={size}, but {len(tokens)} tokens are told and named. "
            "Pass how many tokens the model has."
        )


def _proba_told(told: Any) -> dict[str, float]:
    if not isinstance(told, Mapping) or not told:
        raise ValueError(
            f"The top tokens are {told!r:.60}; a mapping of at least one token to the "
            "logarithm of its probability is needed."
        )
    for token, value in told.items():
        if not (isinstance(value, Real) and value <= SUM_TOLERANCE):
            raise ValueError(
                f"The token {token!r} has the log-probability {value}; it is a number "
                "of at most 0."
            )
    proba = {token: float(np.exp(value)) for token, value in told.items()}
    total = sum(proba.values())
    if total > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"The probabilities of the top tokens sum to {total:.4g}, more than 1. "
            "Natural logarithms are needed."
        )
    return proba
