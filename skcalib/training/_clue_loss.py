"""CLUE: a loss under which a network's uncertainty comes to match its error."""

import math
from numbers import Real
from typing import Any, Literal

import torch
from torch.nn import functional

from skcalib._validation import check_whole
from skcalib.training._uncertainty import (
    entropy,
    log_mean_proba,
    predictive_moments,
    two_columns,
    widen,
)

REDUCTIONS = ("batch", "group", "sample")
_SHAPES = {
    "classification": ((3,), "(n_passes, n_samples, n_classes)"),
    "tokens": ((4,), "(n_passes, n_samples, n_tokens, n_classes)"),
    "regression": ((2, 3), "(n_passes, n_samples) or (n_passes, n_samples, 1 or 2)"),
}


class CLUELoss(torch.nn.Module):
    r"""Align the predicted uncertainty with the observed error while training.

    The principle is :math:`E[\text{error} \mid u] = u` [1]_. With the error
    :math:`L_e` and the uncertainty :math:`u` of the same Monte-Carlo passes,

    .. math:: L = \alpha L_e + (1 - \alpha) (L_e - u)^2

    For classification and tokens :math:`L_e` is the cross-entropy and :math:`u` the
    entropy, in nats, of the mean of the passes' softmaxes. For regression :math:`L_e`
    is the squared error of the mean and :math:`u` the variance of the passes, plus the
    mean predicted variance where the network has a second output for it.

    Parameters
    ----------
    alpha : float, default=0.9
        Weight of the error, in [0, 1]; 1 is plain training.

    reduction : {"batch", "group", "sample"}, default="group"
        Where error and uncertainty are compared: after averaging both over the batch,
        after averaging them in groups of samples of similar uncertainty, or sample by
        sample.

    task : {"classification", "regression", "tokens"}, default="classification"
        What the passes and targets are.

    detach_uncertainty : bool, default=False
        Whether to keep the gradient from flowing through :math:`u`.

    n_groups : int, default=10
        Number of groups for ``reduction="group"``, of equal weight by rank of
        :math:`u`; a sample at an edge is in both groups by its shares.

    ignore_index : int, default=-100
        Target of samples or tokens that do not count.

    Raises
    ------
    ValueError
        If a parameter is outside its range, or the shapes of the passes and targets do
        not fit the task.

    See Also
    --------
    mc_dropout : Makes the passes.
    CLUEClassifier, CLUERegressor : The same as scikit-learn estimators.

    Notes
    -----
    Sample by sample the loss is not proper: :math:`-\ln q_y` varies even under the true
    probabilities, and the square charges for it. Where the true probability is 0.8 the
    optimum is 0.76 with ``alpha=0.9`` and 0.63 with ``alpha=0.5``. Averages over n
    samples are charged for an n-th of that variance, so over a whole batch the truth is
    an optimum but for little, and these reductions are preferred here. The published
    text leaves the number of passes, `alpha` and the gradient through :math:`u` open;
    the defaults are ours.

    Regression compares squares, so `alpha` means the same only for targets of similar
    scale: standardise them. With ``alpha=1`` nothing trains a variance output.

    Half precision is computed in float32, under autocast too.

    References
    ----------
    .. [1] Mendes, Romano & Garlan. "CLUE: Neural Networks Calibration via Learning
       Uncertainty-Error Alignment", 2025. https://arxiv.org/abs/2505.22803

    Examples
    --------
    >>> import torch
    >>> from skcalib.training import CLUELoss, mc_dropout
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 3)
    ... )
    >>> x, y = torch.randn(8, 4), torch.randint(3, (8,))
    >>> loss = CLUELoss(alpha=0.9)(mc_dropout(network, x, 5), y)
    >>> loss.backward()
    """

    def __init__(
        self,
        alpha: Any = 0.9,
        *,
        reduction: Literal["batch", "group", "sample"] = "group",
        task: Literal["classification", "regression", "tokens"] = "classification",
        detach_uncertainty: bool = False,
        n_groups: int = 10,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if not isinstance(alpha, Real) or not 0 <= float(alpha) <= 1:
            raise ValueError(f"alpha={alpha!r} is not a number between 0 and 1.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction={reduction!r} is not one of {REDUCTIONS}.")
        if task not in _SHAPES:
            raise ValueError(f"task={task!r} is not one of {tuple(_SHAPES)}.")
        check_whole("n_groups", n_groups)
        self.alpha = alpha
        self.reduction = reduction
        self.task = task
        self.detach_uncertainty = detach_uncertainty
        self.n_groups = n_groups
        self.ignore_index = ignore_index

    def extra_repr(self) -> str:
        """Return the parameters, for the printed form."""
        return (
            f"alpha={self.alpha}, reduction={self.reduction!r}, task={self.task!r}, "
            f"detach_uncertainty={self.detach_uncertainty}"
        )

    def forward(
        self,
        passes: Any,
        target: Any,
        *,
        sample_weight: Any = None,
        padding_mask: Any = None,
    ) -> Any:
        """Return the loss of stacked passes.

        Parameters
        ----------
        passes : Tensor of shape (n_passes, n_samples, ...)
            Logits (..., n_classes) for classification, (..., n_tokens, n_classes) for
            tokens; a single column is the log-odds of the second class. For regression
            the means, (n_passes, n_samples), or in a last axis of 2 the means and the
            natural logarithms of the variances.

        target : Tensor of shape (n_samples,), or (n_samples, n_tokens) for tokens
            Column numbers of the true classes, or the true values.

        sample_weight : Tensor of the shape of `target` or (n_samples,), default=None
            Non-negative weights; whole weights equal repeated samples.

        padding_mask : Tensor of bool, of the shape of `target`, default=None
            True where a token (or sample) is padding and does not count.

        Returns
        -------
        loss : Tensor
            A scalar.
        """
        self._check_shapes(passes, target)
        passes = widen(passes)
        if self.task == "regression":
            target = target.reshape(passes.shape[1])
        else:
            passes = two_columns(passes)
            # Bytes would wrap `ignore_index` round.
            target = target if target.is_floating_point() else target.long()
        weight = _as_weight(sample_weight, target, passes.dtype)
        with torch.autocast(passes.device.type, enabled=False):
            passes, target, weight = self._select(passes, target, weight, padding_mask)
            error, uncertainty = self._error_and_uncertainty(passes, target)
            if self.detach_uncertainty:
                uncertainty = uncertainty.detach()
            return self._reduce(error, uncertainty, weight / weight.sum())

    def _check_shapes(self, passes, target):
        n_axes, wanted = _SHAPES[self.task]
        shape = tuple(passes.shape)
        too_wide = self.task == "regression" and len(shape) == 3 and shape[2] > 2
        if len(shape) not in n_axes or too_wide:
            raise ValueError(
                f"The passes have shape {shape}; task={self.task!r} needs {wanted}. "
                "mc_dropout stacks passes; a single one enters as passes[None]."
            )
        expected = shape[1:3] if self.task == "tokens" else shape[1:2]
        column = self.task == "regression" and tuple(target.shape) == (*expected, 1)
        if tuple(target.shape) != expected and not column:
            raise ValueError(
                f"The target has shape {tuple(target.shape)}; passes of shape {shape} "
                f"need {expected}."
            )

    def _select(self, passes, target, weight, padding_mask):
        """Drop what does not count; tokens become samples."""
        keep = None if padding_mask is None else ~padding_mask.bool().reshape(-1)
        axes = target.ndim
        passes, target = passes.flatten(1, axes), target.reshape(-1)
        weight = weight.reshape(-1)
        if self.task != "regression":
            named = target != self.ignore_index
            keep = named if keep is None else keep & named
        if keep is not None and not bool(keep.all()):
            passes, target, weight = passes[:, keep], target[keep], weight[keep]
        # Both are read at once: a GPU is waited for a single time.
        sums = torch.stack([weight.sum(), weight.clamp(max=0).sum()])
        total, below = sums.tolist()
        if not math.isfinite(total) or below < 0:
            bad = weight[~(weight >= 0) | weight.isinf()][:3].tolist()
            raise ValueError(
                f"sample_weight holds {bad}; weights are finite and not negative."
            )
        if total == 0:
            raise ValueError(
                "No sample of the batch counts: all are padding or of weight 0."
            )
        return passes, target, weight

    def _error_and_uncertainty(self, passes, target):
        if self.task == "regression":
            mean, variance = predictive_moments(passes)
            return (mean - target.to(mean.dtype)).square(), variance
        log_proba = log_mean_proba(passes)
        error = functional.nll_loss(log_proba, target, reduction="none")
        return error, entropy(log_proba)

    def _reduce(self, error, uncertainty, weight):
        """Combine the two terms; `weight` sums to 1."""
        mean_error = (weight * error).sum()
        gap = error - uncertainty
        if self.reduction == "sample":
            mismatch = (weight * gap.square()).sum()
        elif self.reduction == "batch":
            mismatch = (weight * gap).sum().square()
        else:
            mismatch = _grouped_mismatch(gap, uncertainty, weight, self.n_groups)
        return self.alpha * mean_error + (1 - self.alpha) * mismatch


def _as_weight(sample_weight, target, dtype):
    if sample_weight is None:
        return torch.ones(target.shape, dtype=dtype, device=target.device)
    weight = sample_weight.to(device=target.device, dtype=dtype)
    if weight.ndim < target.ndim:
        weight = weight.reshape(*weight.shape, *[1] * (target.ndim - weight.ndim))
    try:
        return weight.expand(target.shape)
    except RuntimeError as error:
        raise ValueError(
            f"sample_weight has shape {tuple(sample_weight.shape)}; a target of shape "
            f"{tuple(target.shape)} needs one weight a sample or a token."
        ) from error


def _grouped_mismatch(gap, uncertainty, weight, n_groups):
    """Return the mean over rank groups of the squared mean gap.

    A group is an n-th of the total weight. What straddles an edge is in both groups by
    its shares, and samples of equal uncertainty are one, so that neither their order
    nor a repetition in place of a weight counts.
    """
    values, order = uncertainty.detach().sort()
    # Running sums, over whose stretch of equal uncertainty both are linear.
    mass, total = (
        functional.pad(part[order].cumsum(0), (1, 0)) for part in (weight, weight * gap)
    )
    edges = torch.linspace(0, 1, n_groups + 1, dtype=mass.dtype, device=mass.device)
    edges = edges * mass[-1]
    at = values[torch.searchsorted(mass[1:-1], edges)]
    first, last = (
        torch.searchsorted(values, at),
        torch.searchsorted(values, at, right=True),
    )
    tiny = torch.finfo(mass.dtype).tiny
    share = (edges - mass[first]) / (mass[last] - mass[first]).clamp_min(tiny)
    beyond = total[first].lerp(total[last], share)
    # A group is an n-th of the mass: mass * (gaps / mass)^2.
    return n_groups * beyond.diff().square().sum()
