"""The skorch net behind the CLUE estimators."""

import copy
import math

import torch
from skorch import NeuralNet

from skcalib.training._mc_dropout import mc_dropout
from skcalib.training._network_estimator import drawn_parts


class CLUENet(NeuralNet):
    """A skorch net whose results are stacked passes of Monte-Carlo dropout.

    A batch is ``(x, (target, weight))``. Where the loss is no longer finite, training
    stops and the weights are those of the last epoch known to give a finite loss.
    """

    def __init__(self, *args, n_passes, as_passes, sites, **keywords):
        self.n_passes = n_passes
        self.as_passes = as_passes
        self.sites = sites
        super().__init__(*args, **keywords)

    def initialize(self):
        """Initialise all parts, and forget what an earlier fit left."""
        self.diverged_ = None
        self.ended_ = self.interrupted_ = False
        self.snapshot_ = self.candidate_ = None
        return super().initialize()

    def notify(self, method_name, **keywords):
        """Tell the callbacks, one of which may end the training by an interrupt."""
        try:
            super().notify(method_name, **keywords)
        except KeyboardInterrupt:
            self.ended_ = True
            raise

    def fit_loop(self, *args, **keywords):
        """Train, and remember an interrupt by the user."""
        try:
            return super().fit_loop(*args, **keywords)
        except KeyboardInterrupt:
            self.interrupted_ = not self.ended_
            raise

    def partial_fit(self, *args, **keywords):
        """Train; skorch takes any interrupt for the wish to end with what there is."""
        super().partial_fit(*args, **keywords)
        if self.interrupted_:
            raise KeyboardInterrupt
        return self

    def on_epoch_begin(self, net, **keywords):
        """Keep the weights; they are good if they give a finite loss."""
        super().on_epoch_begin(net, **keywords)
        self.candidate_ = copy.deepcopy(self.module_.state_dict())

    def infer(self, x, **fit_params):
        """Return stacked passes: (n_passes, n_samples, ...)."""
        x = x.to(self.device)
        results = mc_dropout(self.module_, x, self.n_passes, sites=self.sites)
        return self.as_passes(results)

    def predict_proba(self, X):
        """Refuse what skorch would make of stacked passes."""
        raise NotImplementedError(
            "The net inside a CLUE estimator returns passes, of which skorch makes no "
            "prediction: EpochScoring has nothing to score. Monitor train_loss or "
            "valid_loss, and predict by the estimator."
        )

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted loss; the mean weight over all samples is 1."""
        target, weight = (part.to(self.device) for part in y_true)
        loss = self.criterion_(y_pred, target, sample_weight=weight) * weight.mean()
        if training:
            self._watch(loss)
        return loss

    def _watch(self, loss):
        epoch = len(self.history)
        if not math.isfinite(loss.item()):
            self._give_up(epoch, f"the loss was {loss.item()}")
            self.ended_ = True
            raise KeyboardInterrupt  # skorch's way to end the training early.
        # The weights that the epoch began with are now known to be good.
        self.snapshot_ = epoch - 1, self.candidate_

    def _give_up(self, epoch, reason):
        good_epoch, state = self.snapshot_ or (0, None)
        if good_epoch == 0:
            raise ValueError(
                f"Training failed in epoch {epoch}: {reason}, and no epoch before was "
                f"good. Lower the learning rate lr={self.lr:g}, or scale X."
            )
        self.module_.load_state_dict(state)
        self.diverged_ = epoch, reason, good_epoch

    def on_train_end(self, net, **keywords):
        """Check the weights that the last step of all left."""
        super().on_train_end(net, **keywords)
        finite = all(
            bool(torch.isfinite(values).all())
            for values in self.module_.state_dict().values()
            if values.is_floating_point()
        )
        if not finite:
            self._give_up(len(self.history), "a weight was no longer finite")
        self.snapshot_ = self.candidate_ = None


class Rows(torch.utils.data.Dataset):
    """Inputs, targets and weights in memory, to be read many at once."""

    def __init__(self, x, target, weight):
        self.x = x
        self.target = target
        self.weight = weight

    def __len__(self):
        return self.x.shape[0]

    def __getitem__(self, rows):
        return self.x[rows], (self.target[rows], self.weight[rows])


class Batches:
    """Read `Rows` batch by batch; much quicker for small rows than a DataLoader."""

    def __init__(self, rows, batch_size, shuffle=False):
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __iter__(self):
        n = len(self.rows)
        if self.shuffle:
            parts = drawn_parts(n, self.batch_size)
        else:
            parts = torch.arange(n).split(self.batch_size)
        for part in parts:
            yield self.rows[part]

    def __len__(self):
        return -(-len(self.rows) // self.batch_size)
