"""A module whose loss explodes in training."""

from torch import nn


class Exploding(nn.Module):
    """Gives infinity from a certain run in train mode on."""

    def __init__(self, inner, good_runs):
        super().__init__()
        self.inner = inner
        self.good_runs = good_runs
        self.runs = 0

    def forward(self, x):
        self.runs += self.training
        result = self.inner(x)
        return result * float("inf") if self.runs > self.good_runs else result
