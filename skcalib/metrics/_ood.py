"""Does the uncertainty tell inputs from another distribution apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from skcalib._validation import check_weight
from skcalib.metrics._uncertainty import check_vector


def ood_auroc(
    uncertainty_in: ArrayLike,
    uncertainty_out: ArrayLike,
    *,
    sample_weight_in: ArrayLike | None = None,
    sample_weight_out: ArrayLike | None = None,
) -> float:
    """Compute how well an uncertainty ranks out-of-distribution (OOD) inputs higher.

    The area under the ROC curve (AUROC): the probability that an input from another
    distribution has a higher uncertainty than one from the distribution trained on.

    Parameters
    ----------
    uncertainty_in : array-like of shape (n_in,)
        Uncertainty, of any kind and unit, of inputs from the distribution trained on.

    uncertainty_out : array-like of shape (n_out,)
        Uncertainty of inputs from another distribution.

    sample_weight_in, sample_weight_out : array-like, default=None
        Non-negative weights of both; integer weights equal repeated rows.

    Returns
    -------
    area : float
        1 if all the others are more uncertain, 0.5 if the uncertainty says nothing.

    Raises
    ------
    ValueError
        If a value is not finite or one of the sets is empty.

    See Also
    --------
    ood_fpr : The share that one threshold lets through.

    Examples
    --------
    >>> from skcalib.metrics import ood_auroc
    >>> ood_auroc([0.1, 0.2, 0.5], [0.4, 0.6])
    0.833...
    """
    inside = check_vector(uncertainty_in, "uncertainty_in")
    outside = check_vector(uncertainty_out, "uncertainty_out")
    weights = [
        check_weight(sample_weight_in, inside),
        check_weight(sample_weight_out, outside),
    ]
    is_outside = np.repeat([0, 1], [inside.shape[0], outside.shape[0]])
    return float(
        roc_auc_score(
            is_outside,
            np.concatenate([inside, outside]),
            sample_weight=np.concatenate(weights),
        )
    )


def ood_fpr(
    uncertainty_in: ArrayLike,
    uncertainty_out: ArrayLike,
    *,
    tpr: float = 0.95,
    sample_weight_in: ArrayLike | None = None,
    sample_weight_out: ArrayLike | None = None,
) -> float:
    """Compute the share of out-of-distribution inputs that a threshold accepts.

    The threshold accepts at least a share `tpr` of the inputs from the distribution
    trained on, as few as that allows. With the default this is known as FPR95 [1]_.

    Parameters
    ----------
    uncertainty_in : array-like of shape (n_in,)
        Uncertainty, of any kind and unit, of inputs from the distribution trained on.

    uncertainty_out : array-like of shape (n_out,)
        Uncertainty of inputs from another distribution.

    tpr : float, default=0.95
        Share of `uncertainty_in` to accept, above 0 and at most 1.

    sample_weight_in, sample_weight_out : array-like, default=None
        Non-negative weights of both; integer weights equal repeated rows.

    Returns
    -------
    share : float
        Between 0 (all others are refused) and 1.

    Raises
    ------
    ValueError
        If a value is not finite, one of the sets is empty, or `tpr` is outside (0, 1].

    See Also
    --------
    ood_auroc : All thresholds at once.

    Notes
    -----
    The inputs trained on are the positives here. Some authors take the others as the
    positives, which gives another number. An uncertainty equal to the threshold is
    accepted.

    References
    ----------
    .. [1] Liang, Li & Srikant. "Enhancing the Reliability of Out-of-distribution Image
       Detection in Neural Networks", ICLR 2018. https://arxiv.org/abs/1706.02690

    Examples
    --------
    >>> from skcalib.metrics import ood_fpr
    >>> ood_fpr([0.1, 0.2, 0.5], [0.4, 0.6])
    0.5
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr!r} is not a share above 0 and at most 1.")
    inside = check_vector(uncertainty_in, "uncertainty_in")
    outside = check_vector(uncertainty_out, "uncertainty_out")
    weight_in = check_weight(sample_weight_in, inside)
    weight_out = check_weight(sample_weight_out, outside)
    order = np.argsort(inside)
    accepted = np.cumsum(weight_in[order])
    # Less a rounding error, so that 19 of 20 are 95 %.
    enough = tpr * accepted[-1] * (1 - 1e-12)
    threshold = inside[order[np.searchsorted(accepted, enough)]]
    return float(np.average(outside <= threshold, weights=weight_out))
