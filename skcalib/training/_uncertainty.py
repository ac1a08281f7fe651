"""Means and uncertainties of stacked Monte-Carlo passes."""

import math

import torch

# The logarithm of probability 0, which a logit of minus infinity gives: it stays
# finite in single precision, so that 0 ln 0 = 0 and its gradient are numbers.
_LOG_ZERO = -1e30


def widen(values):
    """Return half precision as float32; float32 and float64 stay what they are."""
    if values.dtype in (torch.float16, torch.bfloat16):
        return values.float()
    return values


def two_columns(results):
    """Return logits of all classes; one column is the second class's log-odds.

    `results` are stacked passes: (n_passes, n_samples[, n_columns]).
    """
    if results.ndim == 2:
        results = results.unsqueeze(-1)
    if results.shape[-1] > 1:
        return results
    return torch.cat([torch.zeros_like(results), results], dim=-1)


def log_mean_proba(logits):
    """Return the logarithm of the mean of the softmaxes: (S, ..., K) to (..., K)."""
    log_proba = torch.log_softmax(logits, dim=-1).clamp_min(_LOG_ZERO)
    return torch.logsumexp(log_proba, dim=0) - math.log(logits.shape[0])


def entropy(log_proba):
    """Return the entropy, in nats, over the last axis."""
    return -(log_proba.exp() * log_proba).sum(dim=-1)


def split_moments(outputs):
    """Return means and log-variances, None without a head: (S, n[, 1 or 2])."""
    if outputs.ndim == 2:
        return outputs, None
    if outputs.shape[-1] == 1:
        return outputs[..., 0], None
    return outputs[..., 0], outputs[..., 1]


def predictive_moments(outputs):
    """Return the mean of the passes, and their variance plus the mean predicted one."""
    means, log_variances = split_moments(outputs)
    variance = means.var(dim=0, correction=0)
    if log_variances is not None:
        variance = variance + log_variances.exp().mean(dim=0)
    return means.mean(dim=0), variance
