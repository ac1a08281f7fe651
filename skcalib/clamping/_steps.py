"""Steps of a descent: how gradients move the points."""

import torch

# How much Adam remembers of the gradients and of their squares, and what keeps it from
# dividing by 0. No search is recorded; `benchmarks/neural_clamping.py --parts speed`
# counts the epochs that a descent takes with them.
BETAS = 0.8, 0.999
SLIGHT = 1e-8


class Momentum:
    """Gradient descent with momentum."""

    def __init__(self, recipe, points):
        self._recipe = recipe
        self._velocity = [torch.zeros_like(point) for point in points]

    def __call__(self, points, gradients):
        """Move the points in place."""
        for point, gradient, velocity in zip(
            points, gradients, self._velocity, strict=True
        ):
            velocity.mul_(self._recipe.momentum).add_(gradient)
            point.sub_(self._recipe.learning_rate * velocity)


class Adam:
    """Adam, each parameter in a unit of its own, with a rate that falls to 0.

    That of torch would spend seconds on importing its compiler first.
    """

    def __init__(self, recipe, points, n_steps):
        units = recipe.input_scale, points[1].item()
        self._rates = [recipe.learning_rate * unit for unit in units]
        self._done, self._n_steps = 0, n_steps
        self._means = [torch.zeros_like(point) for point in points]
        self._squares = [torch.zeros_like(point) for point in points]

    def __call__(self, points, gradients):
        """Move the points in place."""
        share = max(self._n_steps - self._done, 1) / self._n_steps
        self._done += 1
        parts = points, gradients, self._means, self._squares, self._rates
        for point, gradient, mean, square, rate in zip(*parts, strict=True):
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient**2, 1 - BETAS[1])
            size = (square / (1 - BETAS[1] ** self._done)).sqrt_().add_(SLIGHT)
            point.sub_(share * rate / (1 - BETAS[0] ** self._done) * mean / size)
