r"""The confidence head: how often a network is right that is this sure of itself.

With :math:`p` the largest softmax probability, the head is a logistic regression of
"the prediction is right" on :math:`\ln p` and :math:`-\ln(1 - p)`:

.. math:: \operatorname{logit} c = a \ln p - b \ln(1 - p) + d

The identity is :math:`a = b = 1, d = 0`.
"""

import numpy as np
import torch
from scipy.special import expit
from torch.nn import functional

_IDENTITY = np.array([1.0, 1.0, 0.0])
# Penalty on the squared distance from the identity, in samples: a dozen samples are
# enough to leave it, and a head that is always right stays finite.
_PENALTY = 1.0
_MAX_ITER = 50
# The predicted class stays ahead of the second one by this much.
_MARGIN = 1e-6


def outer_losses(logits, codes, head):
    """Return each row's negative log-likelihood under the confident probabilities.

    The head gives the predicted class its confidence; the others share the rest in
    proportion to their softmax.
    """
    log_proba, top, log_top, log_rest = _parts(logits)
    score = _score(log_top, log_rest, head)
    hit = top == codes
    share = log_proba.gather(1, codes[:, None])[:, 0] - log_rest
    return functional.softplus(torch.where(hit, -score, score)) - share * ~hit


def confident_proba(logits, head):
    """Return the probabilities, float64, in which the predicted class has the most."""
    log_proba, top, log_top, log_rest = _parts(logits.double())
    confidence = torch.sigmoid(_score(log_top, log_rest, head))
    shares = (log_proba - log_rest[:, None]).exp().scatter(1, top[:, None], 0.0)
    second = shares.amax(dim=1)
    least = second / (1 + second) + _MARGIN
    confidence = torch.maximum(confidence, least)
    proba = (1 - confidence)[:, None] * shares
    return proba.scatter(1, top[:, None], confidence[:, None])


def fit_head(logits, codes, weight):
    """Return a, b, d of least penalised log-loss, by damped Newton steps."""
    _, top, log_top, log_rest = (part.cpu() for part in _parts(logits.double()))
    hit = (top == codes.cpu()).numpy()
    features = np.column_stack([log_top, -log_rest, np.ones(hit.shape[0])])
    weight = weight.cpu().numpy().astype(np.float64)

    def loss(head):
        score = features @ head
        away = head - _IDENTITY
        rows = np.logaddexp(0, np.where(hit, -score, score))
        return weight @ rows + _PENALTY / 2 * away @ away

    head, value = _IDENTITY, loss(_IDENTITY)
    for _ in range(_MAX_ITER):
        proba = expit(features @ head)
        gradient = features.T @ (weight * (proba - hit)) + _PENALTY * (head - _IDENTITY)
        curvature = weight * proba * (1 - proba)
        hessian = (features.T * curvature) @ features + _PENALTY * np.eye(3)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while length > 1e-10 and (new := loss(head - length * step)) > value:
            length /= 2
        if length <= 1e-10 or gradient @ step <= 1e-12 * weight.sum():
            break
        head, value = head - length * step, new
    return head


def _score(log_top, log_rest, head):
    a, b, d = map(float, head)
    return a * log_top - b * log_rest + d


def _parts(logits):
    """Return log p of all classes, the predicted one, its ln p and ln(1 - p)."""
    log_proba = torch.log_softmax(logits, dim=1)
    top = logits.argmax(dim=1)
    log_top = log_proba.gather(1, top[:, None])[:, 0]
    others = log_proba.scatter(1, top[:, None], -torch.inf)
    # A probability that rounds to 1 leaves the others what float32 can hold.
    log_rest = torch.logsumexp(others, dim=1)
    return log_proba, top, log_top, log_rest
