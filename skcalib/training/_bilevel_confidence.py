r"""The confidence: how often a network is right that is this sure of itself.

It is a second output of the network, its log-odds, beside the logits of the classes; or
a head on the softmax, which three numbers describe for all networks together. With
:math:`p` the largest softmax probability, the head is a logistic regression of "the
prediction is right" on :math:`\ln p` and :math:`-\ln(1 - p)`:

.. math:: \operatorname{logit} c = a \ln p - b \ln(1 - p) + d

The identity is :math:`a = b = 1, d = 0`.
"""

from functools import partial

import numpy as np
import torch
from scipy.special import expit
from torch.nn import functional

from skcalib._solvers._newton_cg import Expansion, minimize
from skcalib.training._uncertainty import two_columns

_IDENTITY = np.array([1.0, 1.0, 0.0])
# Penalty on the squared distance from the identity, in samples: a dozen samples are
# enough to leave it, and a head that is always right stays finite. A round number;
# `benchmarks/bilevel.py` measures what the head is worth with it.
_PENALTY = 1.0
_TOL, _MAX_ITER = 1e-12, 50
# By so much more, in log-odds, is the predicted class more probable than the second.
_MARGIN = 1e-6


def two_outputs(module, x):
    """Return the logits of all classes and, in one more column, of the confidence."""
    logits, confidence = module(x)
    logits = two_columns(logits.unsqueeze(0)).squeeze(0)
    return torch.cat([logits, confidence.reshape(-1, 1)], dim=1)


def own_parameters(module, x):
    """Return the parameters of a network that its class logits do not depend on."""
    used = [p for p in module.parameters() if p.requires_grad]
    logits, _ = module(x)
    if not logits.requires_grad:
        raise ValueError(
            "The class logits of the network depend on nothing that can be trained. "
            "Let some of its parameters have requires_grad=True; a frozen network is "
            "calibrated by NeuralClamping or by a calibrator of its logits."
        )
    gradients = torch.autograd.grad(logits.sum(), used, allow_unused=True)
    return [p for p, gradient in zip(used, gradients, strict=True) if gradient is None]


def outer_losses(outputs, codes, head):
    """Return each row's negative log-likelihood under the confident probabilities.

    `outputs` are logits for a head, and have the confidence in a last column for None.
    """
    parts, score = _read(outputs, head)
    log_proba = parts.log_proba_with(score)
    return -log_proba.gather(1, codes[:, None])[:, 0]


def confident_log_proba(outputs, head):
    """Return logarithms, float64, of probabilities that keep the predicted class."""
    parts, score = _read(outputs.double(), head)
    second = parts.log_shares.amax(dim=1)
    return parts.log_proba_with(torch.maximum(score, second + _MARGIN))


def _read(outputs, head):
    """Return the parts of the softmax, and the log-odds of the confidence."""
    if head is None:
        return _Parts(outputs[:, :-1]), outputs[:, -1]
    parts = _Parts(outputs)
    return parts, parts.score(head)


def fit_head(logits, codes, weight):
    """Return a, b, d of least penalised log-loss, by Newton's method."""
    parts = _Parts(logits.double().cpu())
    hit = (parts.top == codes.cpu()).numpy()
    features = np.column_stack([parts.log_top, -parts.log_rest, np.ones(hit.shape[0])])
    weight = weight.cpu().numpy().astype(np.float64)
    penalty, weight = _PENALTY / weight.sum(), weight / weight.sum()

    def loss(head):
        score = features @ head
        away = head - _IDENTITY
        rows = np.logaddexp(0, np.where(hit, -score, score))
        return weight @ rows + penalty / 2 * away @ away

    def expand(head, _):
        proba = expit(features @ head)
        gradient = features.T @ (weight * (proba - hit)) + penalty * (head - _IDENTITY)
        curvature = weight * proba * (1 - proba)
        hessian = (features.T * curvature) @ features + penalty * np.eye(3)
        return Expansion(loss(head), gradient, None, partial(np.linalg.solve, hessian))

    return minimize(expand, loss, _IDENTITY, tol=_TOL, max_iter=_MAX_ITER).x


class _Parts:
    """What the head sees of logits: the predicted class, ln p and ln(1 - p).

    The other classes share what the head leaves them in proportion to their softmax.
    """

    def __init__(self, logits):
        log_proba = torch.log_softmax(logits, dim=1)
        self.top = logits.argmax(dim=1)
        self.log_top = log_proba.gather(1, self.top[:, None])[:, 0]
        others = log_proba.scatter(1, self.top[:, None], -torch.inf)
        self.log_rest = torch.logsumexp(others, dim=1)
        self.log_shares = others - self.log_rest[:, None]

    def score(self, head):
        """Return the log-odds of the confidence."""
        a, b, d = map(float, head)
        return a * self.log_top - b * self.log_rest + d

    def log_proba_with(self, score):
        """Return log-probabilities of all classes for a score of the predicted one."""
        others = functional.logsigmoid(-score)[:, None] + self.log_shares
        own = functional.logsigmoid(score)[:, None]
        return others.scatter(1, self.top[:, None], own)
