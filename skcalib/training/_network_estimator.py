"""What all estimators of this room share: checked inputs, a new module, seeds."""

import copy
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from skcalib._networks._given import SharedByCopies
from skcalib._networks._module_copy import ModuleCopier, is_exported
from skcalib._networks._sharing import portable_scripts
from skcalib._networks._torch import checked_device, floating_types, module_device
from skcalib._networks._train_mode import refuse_train_trace
from skcalib._onnx._outputs import warn_of_proba
from skcalib._validation import (
    check_two_classes,
    check_weight,
    column_on_host,
    encode_labels,
)
from skcalib.training._modules import ONE_AT_A_TIME, build_perceptron, logits_of
from skcalib.training._uncertainty import two_columns, widen

LARGEST_SEED = 2**31 - 1


class NetworkEstimator(SharedByCopies, BaseEstimator):
    """An estimator around a module, or around a perceptron made for the data.

    Subclasses have the parameters `module`, `hidden_layer_sizes`, `dropout`, `device`
    and `random_state`.
    """

    def __getstate__(self):
        """Return the state, with TorchScript as the bytes of its file."""
        return portable_scripts(super().__getstate__())

    def _run_once(self, module, x):
        """Return the results for a few rows, samples along the first axis."""
        return logits_of(module(x))

    def _check_inputs(self, X, *, reset):
        """Return `X` as a finite array with one row a sample."""
        if isinstance(X, torch.Tensor):
            X = widen(X.detach())
        return validate_data(self, X, reset=reset, allow_nd=True)

    def _as_tensor(self, X, module):
        """Return a tensor of the module's type; whole numbers reach your own module.

        Whether `fit` had whole numbers decides, not how later ones are written.
        """
        if self._whole_numbers and np.array_equal(whole := X.astype(np.int64), X):
            return torch.from_numpy(whole)
        # The perceptron takes what its means are, which may be wider than its weights.
        means = (buffer.dtype for buffer in module.buffers())
        types = means if self.module is None else floating_types(module)
        dtype = next(types, torch.float32)
        # A copy: torch refuses to read arrays that may not be written to.
        return torch.from_numpy(np.array(X, X.dtype.newbyteorder("="))).to(dtype)

    def _build_module(self, X, weight, n_outputs):
        """Return a new module: the perceptron, a copy, or what a callable gives."""
        if self.module is None:
            if X.ndim != 2:
                raise ValueError(
                    f"X has shape {X.shape}, and the default network takes "
                    "(n_samples, n_features). Pass a module for other inputs."
                )
            return self._build_perceptron(X, weight, n_outputs)
        if isinstance(self.module, torch.nn.Module):
            return _own_copy(self.module)
        module = self.module()
        if not isinstance(module, torch.nn.Module):
            raise TypeError(
                f"module() gave a {type(module).__name__}. module has to be a "
                "torch.nn.Module or a callable without arguments that builds one."
            )
        return module

    def _build_perceptron(self, X, weight, n_outputs, **options):
        # Apple's devices have no float64.
        narrow = self.device != "auto" and torch.device(self.device).type == "mps"
        dtype = torch.float32 if narrow else torch.float64
        sizes = self.hidden_layer_sizes
        return build_perceptron(
            X, weight, sizes, self.dropout, n_outputs, dtype=dtype, **options
        )

    def _start(self, X, weight, n_outputs):
        """Return the new module, its input, the shape of its results, a generator.

        The module is where it is to be trained.
        """
        if self.device != "auto":
            checked_device(self.device)
        rng = check_random_state(self.random_state)
        with seeded(int(rng.randint(LARGEST_SEED)), self.device):
            module = self._build_module(X, weight, n_outputs)
            if self.device != "auto":
                module = module.to(self.device)
            self._whole_numbers = X.dtype.kind in "iub" and self.module is not None
            x = self._as_tensor(X, module)
            shape = self._probe(module, x[:2].clone())
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError(
                "The module has no parameter that can be trained, with "
                "requires_grad=True. A frozen network is calibrated by NeuralClamping "
                "or by a calibrator of its logits."
            )
        return module, x, shape, rng

    def _probe(self, module, rows):
        """Return the shape of the results for a few rows; refuse unfit inputs."""
        with torch.no_grad():
            try:
                results = self._run_once(module.eval(), rows.to(module_device(module)))
            except (RuntimeError, TypeError, IndexError) as error:
                advice = "Pass X in the shape the module was made for."
                if not rows.is_floating_point():
                    advice += (
                        " Whole numbers reach it as int64, as tokens do: one that "
                        "takes real numbers, as of images, needs X.astype(np.float32)."
                    )
                raise ValueError(
                    f"The module could not be run on a batch of shape "
                    f"{tuple(rows.shape)} and type {rows.dtype}: {error}. {advice}"
                ) from error
        if not isinstance(results, torch.Tensor) or results.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"The module turned {rows.shape[0]} rows into "
                f"{_describe(results)}. It has to return one tensor of logits or "
                "means, with one row a sample."
            )
        if is_classifier(self) and results.ndim == 2:
            warn_of_proba(results.float().cpu().numpy())
        return tuple(results.shape)

    def _check_classes(self, X, y, sample_weight):
        """Return labels and weights of a classification, of all rows."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        y = column_or_1d(column_on_host(y), warn=True)
        check_consistent_length(X, y)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        weight = check_weight(sample_weight, y)
        classes, codes = np.unique(y, return_inverse=True)
        check_two_classes(self, codes, weight, classes)
        return y, weight

    def _start_classifier(self, X, y, weight):
        """Start, and set `classes_`; return module, input, codes, a generator."""
        present = np.unique(y)
        n_outputs = present.shape[0] if self.classes is None else len(self.classes)
        module, x, shape, rng = self._start(X, weight, n_outputs)
        if len(shape) not in (1, 2):
            raise ValueError(
                f"The module returned shape {shape}; {type(self).__name__} needs "
                "logits of shape (n_samples, n_classes)."
            )
        n_columns = max(2, shape[1] if len(shape) == 2 else 1)
        labels = present if self.classes is self.module is None else self.classes
        self.classes_, codes = encode_labels(self, y, n_columns, labels)
        return module, x, codes.astype(np.int64), rng


def _own_copy(module):
    """Return a deep copy of a module that is not compiled, whatever refers to it."""
    for part in module.modules():
        if is_exported(part):
            raise ValueError(
                "The module is, or holds, a graph of torch.export, which has one mode "
                "for good and cannot be trained. Pass the module that was exported."
            )
        if isinstance(part, torch.jit.ScriptModule):
            refuse_train_trace(part)
    return ModuleCopier(copy.deepcopy, copy.deepcopy, deep=True).module(module)


def _describe(results):
    if isinstance(results, torch.Tensor):
        return f"a tensor of shape {tuple(results.shape)}"
    return f"a {type(results).__name__}"


def class_logits(module, x):
    """Return the logits of all classes, (n_samples, n_classes)."""
    return two_columns(logits_of(module(x)).unsqueeze(0)).squeeze(0)


def drawn_parts(n_rows, batch_size):
    """Return the numbers of rows in random order, in parts of at most `batch_size`.

    Of even size: batch normalization refuses a single row that is left over, and a few
    would weigh as much as many.
    """
    return torch.randperm(n_rows).tensor_split(-(-n_rows // batch_size))


@contextmanager
def seeded(seed, device):
    """Seed torch's global generators and put their state back at the end.

    Other threads that would seed them wait. "auto" is any device that a module may lie
    on. Autocast keeps no weights meanwhile: those of the first run would serve all
    steps of a training, and nothing be learned.
    """
    if device == "auto":
        devices = list(range(torch.cuda.device_count()))
    else:
        devices = [device] if torch.device(device).type == "cuda" else []
    forked = torch.random.fork_rng(devices=devices)
    with ONE_AT_A_TIME, forked, _autocast_without_cache():
        torch.manual_seed(seed)
        yield


@contextmanager
def _autocast_without_cache():
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def seed_generator(seed, device):
    """Seed the generator of one device: quick, where `torch.manual_seed` seeds all."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
