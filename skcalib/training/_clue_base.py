"""What the CLUE estimators share: validation, training, passes at prediction."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split

from skcalib._networks._torch import module_device
from skcalib._progress import Progress
from skcalib._sklearn_compat import Interval, StrOptions
from skcalib._warnings import warn
from skcalib.training._clue_loss import REDUCTIONS, CLUELoss
from skcalib.training._mc_dropout import has_dropout, mc_dropout
from skcalib.training._net import Batches, CLUENet, Rows
from skcalib.training._network_estimator import (
    LARGEST_SEED,
    NetworkEstimator,
    seed_generator,
    seeded,
)


class BaseCLUE(NetworkEstimator):
    """A network trained with the CLUE loss; subclasses name the task and the targets.

    `_task` is that of the loss, `_stratify` whether the early stopping split keeps the
    shares of the classes, `_as_passes` turns a module's stacked results into passes.
    """

    _stratify = False
    _parameter_constraints: dict = {
        "module": [callable, None],
        "hidden_layer_sizes": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="neither")],
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "reduction": [StrOptions(set(REDUCTIONS))],
        "detach_uncertainty": ["boolean"],
        "n_passes": [Interval(Integral, 1, None, closed="left")],
        "n_predict_passes": [Interval(Integral, 1, None, closed="left")],
        "sites": ["array-like", None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [callable, None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "callbacks": [list, None],
        "device": [str, torch.device],
        "net_params": [dict, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    @staticmethod
    def _as_passes(results):
        return results

    def _run_once(self, module, x):
        return mc_dropout(module, x, 1)[0]

    def _build_module(self, X, weight, n_outputs):
        module = super()._build_module(X, weight, n_outputs)
        if not has_dropout(module, self.sites):
            where = "" if self.sites is None else f" at sites={self.sites!r}"
            raise ValueError(
                f"{type(self).__name__} takes its uncertainty from dropout, and the "
                f"module has no dropout layer with a positive probability{where}; "
                "that inside TorchScript is not seen. Add a torch.nn.Dropout, or give "
                "hidden_layer_sizes at least one entry."
            )
        return module

    def _train(self, module, x, target, weight, rng):
        """Train `module` and set all learned attributes but those of the targets."""
        weight = torch.as_tensor(weight / weight.mean(), dtype=torch.float32)
        rows, valid = Rows(x, torch.as_tensor(target), weight), None
        if self.early_stopping:
            rows, valid = self._split(rows, rng)
        net = self._build_net(module, valid)
        with seeded(int(rng.randint(LARGEST_SEED)), module_device(module)):
            net.fit(rows, None)
        self.net_ = net
        self.module_ = net.module_.eval()
        self.history_ = net.history
        self.n_iter_ = len(net.history)
        self._predict_seed = int(rng.randint(LARGEST_SEED))
        if net.diverged_ is not None:
            epoch, reason, self.n_iter_ = net.diverged_
            warn(
                f"{type(self).__name__} stopped in epoch {epoch}: {reason}. The "
                f"weights of the end of epoch {self.n_iter_} are kept. Lower the "
                f"learning rate lr={self.lr:g}, or scale X.",
                ConvergenceWarning,
            )

    def _split(self, rows, rng):
        self._refuse_few(rows)
        train, valid = train_test_split(
            np.arange(len(rows)),
            test_size=self.validation_fraction,
            stratify=rows.target.numpy() if self._stratify else None,
            random_state=rng,
        )
        return [Rows(part[0], *part[1]) for part in (rows[train], rows[valid])]

    def _refuse_few(self, rows):
        """Refuse rows, or a class of them, too few to be held out and trained on."""
        n_rows, fraction = len(rows), self.validation_fraction
        n_held = math.ceil(fraction * n_rows)
        codes = rows.target.numpy() if self._stratify else np.zeros(n_rows)
        found, counts = np.unique(codes, return_counts=True)
        least = len(counts)
        if counts.min() < 2:
            rare = "X has a single row"
            if self._stratify:
                rare = f"class {self.classes_[found[counts.argmin()]]} has a single row"
            raise ValueError(
                f"early_stopping=True holds out validation_fraction={fraction:g} of "
                f"the rows, and {rare}. Pass at least two"
                f"{' of each class' * self._stratify}, or early_stopping=False."
            )
        if not least <= n_held <= n_rows - least:
            each = f"as many as there are classes, {least}" if self._stratify else "one"
            raise ValueError(
                f"early_stopping=True holds out {n_held} of {n_rows} rows, by "
                f"validation_fraction={fraction:g}; these and the others have to be at "
                f"least {each}. Choose a validation_fraction that holds out {least} to "
                f"{n_rows - least} rows, or pass more rows or early_stopping=False."
            )

    def _build_net(self, module, valid):
        callbacks = list(self.callbacks or [])
        if self.verbose:
            callbacks.append(("told", _Told(type(self).__name__)))
        if valid is not None:
            patience = self.n_iter_no_change
            stopping = EarlyStopping(patience=patience, load_best=True, sink=_ignore)
            callbacks.append(("early_stopping", stopping))
        settings = {
            "criterion": CLUELoss,
            "criterion__alpha": self.alpha,
            "criterion__reduction": self.reduction,
            "criterion__task": self._task,
            "criterion__detach_uncertainty": self.detach_uncertainty,
            "n_passes": self.n_passes,
            "as_passes": self._as_passes,
            "sites": self.sites,
            "optimizer": self.optimizer or torch.optim.Adam,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "iterator_train": Batches,
            "iterator_train__shuffle": True,
            "iterator_valid": Batches,
            "train_split": None if valid is None else predefined_split(valid),
            "callbacks": callbacks,
            "device": module_device(module),
            "verbose": 0,
        }
        return CLUENet(module, **{**settings, **(self.net_params or {})})

    def _map_batches(self, X, function):
        """Return what a function makes of the rows of `X`, a list of its batches."""
        check_is_fitted(self)
        x = self._as_tensor(self._check_inputs(X, reset=False), self.module_)
        device = module_device(self.module_)
        with torch.no_grad(), seeded(self._predict_seed, device):
            self.module_.eval()  # A user may have trained on by `net_`.
            return [function(part.to(device)) for part in x.split(self.batch_size)]

    def _passes(self, x, n_passes, stage=0):
        """Return stacked passes of a batch, with masks of the stage.

        The same seed for each batch, and masks that all rows share: a row's result
        hangs neither on its neighbours nor on the size of the batches.
        """
        seed_generator(self._predict_seed + stage, x.device)
        passes = mc_dropout(
            self.module_, x, n_passes, share_masks=True, sites=self.sites
        )
        return self._as_passes(passes)


class _Told(Callback):
    """Tells the loss after each epoch, that of rows held out where there are any."""

    def __init__(self, name):
        self.progress = Progress(name, shown=True)

    def on_epoch_end(self, net, **more):
        """Tell it."""
        losses = net.history[-1]
        self.progress.epoch(losses.get("valid_loss", losses["train_loss"]))


def _ignore(text):
    """Swallow a message: only `verbose` decides what is printed."""
