"""Focal and Brier losses of tensors of scores: values and gradients, row by row."""

import torch


def focal(
    scores: torch.Tensor, codes: torch.Tensor, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Focal loss :math:`-(1-p_y)^\gamma \ln p_y` of each row, and its gradient.

    ``gamma=0`` is cross-entropy. Written out so that nothing overflows: where p is
    rounded to 1, autograd would multiply infinity by 0.
    """
    log_proba = torch.log_softmax(scores, dim=1)
    own = codes[:, None]
    log_p = log_proba.gather(1, own)
    proba = log_proba.exp_()
    if gamma == 0:
        slope = -torch.ones_like(log_p)
        losses = -log_p
    else:
        rest = -torch.expm1(log_p)
        # ln(p) / (1 - p) tends to -1 where p tends to 1.
        ratio = torch.where(rest > 0, log_p / rest, -1.0)
        factor = rest**gamma
        slope = factor * (gamma * log_p.exp() * ratio - 1)
        losses = -factor * log_p
    gradient = proba * -slope
    gradient.scatter_add_(1, own, slope)
    return losses[:, 0], gradient


def brier(
    scores: torch.Tensor, codes: torch.Tensor, gamma: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distance of the probabilities from the one-hot label, and its gradient.

    `gamma` is not used; it is there so that both losses are called alike.
    """
    proba = torch.softmax(scores, dim=1)
    error = proba.scatter_add(1, codes[:, None], -torch.ones_like(proba[:, :1]))
    mean = (proba * error).sum(dim=1, keepdim=True)
    return (error * error).sum(dim=1), 2 * proba * (error - mean)


LOSSES = {"focal": focal, "brier": brier}
