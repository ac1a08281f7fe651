"""Training for a bilevel problem: networks, sample weights and the confidence head."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from skcalib.training._bilevel_confidence import (
    fit_head,
    outer_losses,
    own_parameters,
    two_outputs,
)
from skcalib.training._bilevel_hypergradient import solve_hypergradient
from skcalib.training._bilevel_splits import find_judges
from skcalib.training._network_estimator import class_logits, drawn_parts

# Most rows of either level that a hypergradient is computed from; of more, as many are
# drawn anew in each epoch.
_HYPERGRADIENT_ROWS = 2048
# Memory of the running mean of the squared hypergradients, as in RMSprop. No search of
# these two is recorded; `benchmarks/bilevel.py` measures what the method is worth.
_MEMORY = 0.9
# For conjugate gradients: a network on its way is no minimum, and directions of little
# curvature count too much without.
_DAMPING = 0.01


@dataclass(frozen=True)
class Settings:
    """How to train; the names are those of the estimator's parameters."""

    confidence: str
    hypergradient: str
    weight_lr: float
    l2_penalty: float
    optimizer: type
    lr: float
    max_epochs: int
    batch_size: int
    n_iter_no_change: int


@dataclass(eq=False)
class Member:
    """One network: trained on its inner rows, judged on its outer rows.

    The outer rows train the parameters that only its confidence has, `own`.
    """

    module: torch.nn.Module
    inner: torch.Tensor
    outer: torch.Tensor
    parameters: list
    own: list
    optimizer: torch.optim.Optimizer = field(repr=False)
    own_optimizer: torch.optim.Optimizer | None = field(repr=False)


class DivergedError(Exception):
    """A loss, or a weight, is no longer finite."""


class BilevelTraining:
    """Train all members side by side, and their sample weights.

    An epoch is a pass over the inner rows of each member, then the outer level: a fit
    of the head to the outer rows of all, or a pass of each confidence output over those
    of its network; and a step of the sample weights. `kept` holds the state of the
    epoch with the least outer loss.
    """

    def __init__(self, modules, splits, x, codes, weight, settings, progress):
        self.x, self.codes, self.weight = x, codes, weight
        self.settings, self.progress = settings, progress
        has_output = settings.confidence == "network"
        self.read = two_outputs if has_output else class_logits
        self.members = [
            self._member(module, *map(torch.as_tensor, split))
            for module, split in zip(modules, splits, strict=True)
        ]
        self.judges = torch.as_tensor(find_judges(splits, x.shape[0]), device=x.device)
        # One row a member: s(w) = 2 sigmoid(w) is 1 at the start.
        self.scores = torch.zeros(
            len(modules), x.shape[0], device=x.device, dtype=self.judges.dtype
        )
        self.mean_square = 0.0
        self.n_weight_steps = 0
        self.epoch = 0
        self.outer_losses = []
        self.kept: dict[str, Any] = {}

    def _member(self, module, inner, outer):
        device, settings = self.x.device, self.settings
        own, own_optimizer = [], None
        if settings.confidence == "network":
            own = own_parameters(module.eval(), self.x[:2].clone())
            own_optimizer = settings.optimizer(own, lr=settings.lr)
        parameters = [p for p in _trainable(module) if all(p is not q for q in own)]
        optimizer = settings.optimizer(parameters, lr=settings.lr)
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "The optimizer LBFGS needs the loss anew within a step, which this "
                "training does not offer. Take one such as torch.optim.Adam."
            )
        return Member(
            module,
            inner.to(device),
            outer.to(device),
            parameters,
            own,
            optimizer,
            own_optimizer,
        )

    def run(self):
        """Train until the outer loss no longer improves."""
        for epoch in range(1, self.settings.max_epochs + 1):
            self.epoch = epoch
            for number, member in enumerate(self.members):
                self._train_epoch(number, member)
                if member.own_optimizer:
                    self._train_confidence(member)
            loss, head = self._judge()
            self.outer_losses.append(loss)
            self.progress.epoch(loss)
            if not self.kept or loss < self.kept["loss"]:
                self._keep(epoch, loss, head)
            elif epoch - self.kept["epoch"] >= self.settings.n_iter_no_change:
                break
            if self.settings.weight_lr and epoch < self.settings.max_epochs:
                self._move_weights(head)

    @torch.no_grad()
    def outputs(self, member, rows):
        """Return the outputs of one member in eval mode, batch by batch."""
        member.module.eval()
        parts = rows.split(self.settings.batch_size)
        return torch.cat([self.read(member.module, self.x[part]) for part in parts])

    def _train_epoch(self, number, member):
        member.module.train()
        shares = _shares(self.scores[number])
        for part in self._batches(member.inner):
            loss = self._weighted_loss(member, part, shares[part])
            if not math.isfinite(loss.item()):
                raise DivergedError(f"the inner loss was {loss.item()}")
            self._step(member.optimizer, member.parameters, loss)

    def _batches(self, rows):
        """Return the rows in random order, in parts."""
        parts = drawn_parts(rows.shape[0], self.settings.batch_size)
        return [rows[part.to(rows.device)] for part in parts]

    def _step(self, optimizer, parameters, loss):
        """Take a step; the gradient of the penalty is cheaper than to differentiate."""
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        used = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in used]
        torch._foreach_add_(gradients, used, alpha=2 * self.settings.l2_penalty)
        optimizer.step()

    def _train_confidence(self, member):
        """Train the confidence output on the outer rows, the network as it is."""
        member.module.eval()
        for part in self._batches(member.outer):
            outputs = two_outputs(member.module, self.x[part])
            losses = outer_losses(outputs, self.codes[part], None)
            loss = (self.weight[part].to(losses.dtype) * losses).mean()
            self._step(member.own_optimizer, member.own, loss)

    def _weighted_loss(self, member, rows, shares):
        logits = self.read(member.module, self.x[rows])
        if member.own:
            logits = logits[:, :-1]
        losses = functional.cross_entropy(logits, self.codes[rows], reduction="none")
        return (self.weight[rows].to(losses.dtype) * shares * losses).mean()

    def _judge(self):
        """Return the mean loss of the outer rows of all members, and their head.

        The head is None where each has an output for that.
        """
        rows = torch.cat([member.outer for member in self.members])
        outputs = torch.cat([self.outputs(m, m.outer) for m in self.members])
        codes, weight = self.codes[rows], self.weight[rows]
        if not torch.isfinite(outputs).all():
            raise DivergedError("a logit was no longer finite")
        has_head = self.settings.confidence == "head"
        head = fit_head(outputs, codes, weight) if has_head else None
        losses = outer_losses(outputs.double(), codes, head)
        loss = float(np.average(losses.cpu(), weights=weight.cpu()))
        if not math.isfinite(loss):
            raise DivergedError(f"the outer loss was {loss}")
        return loss, head

    def _keep(self, epoch, loss, head):
        states = [copy.deepcopy(m.module.state_dict()) for m in self.members]
        scores = self.scores.clone()
        self.kept = {
            "epoch": epoch,
            "loss": loss,
            "head": head,
            "states": states,
            "scores": scores,
        }

    def restore(self):
        """Give the members the weights of the epoch that was kept."""
        for member, state in zip(self.members, self.kept["states"], strict=True):
            member.module.load_state_dict(state)
            member.module.eval()

    def sample_weights(self):
        """Return the mean over the members of s(w); NaN in no inner split."""
        shares = _shares(self.kept["scores"]).cpu().double().numpy()
        trained = np.zeros(shares.shape, dtype=bool)
        for number, member in enumerate(self.members):
            trained[number, member.inner.cpu().numpy()] = True
        counts = trained.sum(axis=0)
        total = (shares * trained).sum(axis=0)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    def _move_weights(self, head):
        """Take a step down the hypergradients of the members that may judge.

        The step is relative to the root mean square of the hypergradients, so that it
        has no unit but keeps their proportions.
        """
        found = torch.stack(
            [
                self._hypergradient(number, member, head)
                for number, member in enumerate(self.members)
            ]
        )
        if not torch.isfinite(found).all():
            raise DivergedError("a hypergradient was no longer finite")
        total = self.judges @ found
        self.n_weight_steps += 1
        square = float((total**2).mean())
        self.mean_square = _MEMORY * self.mean_square + (1 - _MEMORY) * square
        scale = math.sqrt(self.mean_square / (1 - _MEMORY**self.n_weight_steps))
        if scale > 0:
            self.scores -= self.settings.weight_lr / scale * total

    # The other kernels of attention have no second derivative.
    @sdpa_kernel(SDPBackend.MATH)
    def _hypergradient(self, number, member, head):
        """Return how the outer loss of one member changes with its rows' scores."""
        member.module.eval()
        inner, outer = (_draw(rows) for rows in (member.inner, member.outer))
        scores = self.scores[number, inner].requires_grad_()
        squares = sum((p**2).sum() for p in member.parameters)
        inner_loss = self._weighted_loss(member, inner, _shares(scores))
        outputs = self.read(member.module, self.x[outer])
        losses = outer_losses(outputs, self.codes[outer], head)
        weight = self.weight[outer].to(losses.dtype)
        # Never at a minimum, and so never exact: that is no news.
        (gradient,), _ = solve_hypergradient(
            inner_loss + self.settings.l2_penalty * squares,
            weight @ losses / weight.sum(),
            member.parameters,
            [scores],
            method=self.settings.hypergradient,
            damping=_DAMPING,
        )
        found = torch.zeros_like(self.scores[number])
        found[inner] = gradient.to(found.dtype)
        return found


def _shares(scores):
    """Return s(w), between 0 and 2."""
    return 2 * torch.sigmoid(scores)


def _trainable(module):
    return [p for p in module.parameters() if p.requires_grad]


def _draw(rows):
    if rows.shape[0] <= _HYPERGRADIENT_ROWS:
        return rows
    chosen = torch.randperm(rows.shape[0])[:_HYPERGRADIENT_ROWS]
    return rows[chosen.to(rows.device)]
