"""ONNX networks in onnxruntime: one session per model, process and thread count."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from skcalib._onnx._files import ModelSource, open_model
from skcalib._onnx._inputs import InputSpec, batches, probe_lengths, probes
from skcalib._onnx._readout import (
    Readout,
    confirm_labels,
    confirm_readout,
    read_classifier,
    read_logits,
)
from skcalib._onnx._recent import Recent
from skcalib._optional import import_optional
from skcalib._sklearn_compat import n_threads
from skcalib.exceptions import ModelFormatError

# Sessions are kept open, the last few used, because opening one costs far more than
# a batch. They can be neither copied nor pickled, and do not survive a fork.
_sessions = Recent(8)
# So many rows, given or made up, show what a tensor holds where the graph does not.
_GIVEN, _MADE_UP = 256, 16


class OnnxSession:
    """A model in onnxruntime: what it takes, and what it makes of it."""

    def __init__(self, session: Any, name: str) -> None:
        self.session = session
        self.name = name
        self.inputs = [InputSpec.of(argument) for argument in session.get_inputs()]
        for spec in self.inputs:
            spec.check_batch()

    def tensor_types(self) -> dict[str, tuple[str, list[Any]]]:
        """Return the type and shape of every tensor the session can give."""
        return {v.name: (v.type, list(v.shape)) for v in self.session.get_outputs()}

    def run(self, feeds: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        """Compute the named tensors for one batch."""
        try:
            return self.session.run(outputs, feeds)
        except Exception as error:  # onnxruntime's own classes share no parent
            raise ModelFormatError(
                f"onnxruntime could not run {self.name} on a batch of inputs of shape "
                f"{[values.shape for values in feeds.values()]}: {error}"
            ) from error


class OnnxNetwork(OnnxSession):
    """An open session that returns logits."""

    def __init__(self, session: Any, name: str, readout: Readout) -> None:
        super().__init__(session, name)
        self.readout = readout

    def confirm(self, X: Any, batch_size: int) -> Readout:
        """Settle how logits are read, on the first rows of `X`."""
        batched = batches(self.inputs, X, batch_size)
        (values, score), n_rows = self._read_some(batched, _GIVEN)
        return confirm_readout(self.readout, values, score, n_rows)

    def _read_some(
        self, batched: Iterable[tuple[dict[str, np.ndarray], int]], n_rows: int
    ) -> tuple[list[np.ndarray], int]:
        """Return what is read and what is served, and for how many rows.

        Those are of one batch if it is certain what they hold, else of as many as make
        `n_rows`: a row alone shows little.
        """
        names = [self.readout.tensor, self.readout.score]
        parts: list[list[np.ndarray]] = []
        n_read = 0
        for feeds, n_given in batched:
            parts.append([part[:n_given] for part in self.run(feeds, names)])
            n_read += n_given
            if self.readout.is_certain or n_read >= n_rows:
                break
        return [np.concatenate(blocks) for blocks in zip(*parts, strict=True)], n_read

    def confirm_on_probe(
        self,
        as_rows: Callable[[np.ndarray], np.ndarray] = np.asarray,
        *,
        multilabel: bool = False,
    ) -> Readout:
        """Settle how logits are read without data, on made-up inputs if they run.

        `as_rows` lays out what comes as a row a sample and a column a class. What the
        graph does not say and no input shows is refused.
        """
        readout = self.try_probe(as_rows, multilabel=multilabel)
        if readout is None:
            raise ModelFormatError(
                f"{self.name} does not say whether {self.readout.tensor!r} holds "
                "logits or probabilities, and it runs on no made-up inputs that would "
                "show it. Pass make_pipeline(OnnxLogits(model).fit(X), calibrator), "
                "which looks at its results on X, or export the model with the number "
                "of features that it takes."
            )
        return readout

    def try_probe(
        self,
        as_rows: Callable[[np.ndarray], np.ndarray] = np.asarray,
        *,
        multilabel: bool = False,
    ) -> Readout | None:
        """Do so, or return None where the graph does not say and nothing runs."""
        certain = self.readout if self.readout.is_certain else None
        for length in probe_lengths(self.inputs) if certain is None else [None]:
            try:
                parts, _ = self._read_some(probes(self.inputs, length), _MADE_UP)
            except ModelFormatError:
                continue
            if not parts:
                continue
            values, score = map(as_rows, parts)
            finite = np.isfinite(np.atleast_1d(values)).all(axis=-1)
            if certain is None and not finite.any():
                continue
            if multilabel:
                return confirm_labels(self.readout, values, values.shape[0])
            return confirm_readout(self.readout, values, score, score.shape[0])
        return certain

    def logits(self, X: Any, batch_size: int, readout: Readout) -> Iterator[np.ndarray]:
        """Yield the logits of `X`, batch by batch."""
        for feeds, n_rows in batches(self.inputs, X, batch_size):
            (values,) = self.run(feeds, [readout.tensor])
            yield read_logits(readout, values[:n_rows], n_rows)


def open_onnx(
    model: Any, output: str | None = None, providers: list[Any] | None = None
) -> OnnxNetwork:
    """Open a session on a path, bytes or `onnx.ModelProto`, or find the open one."""
    source = open_model(model)
    threads = n_threads()
    chosen = repr(providers)
    key = (os.getpid(), source, output, chosen, threads)
    network: OnnxNetwork = _sessions.get(
        key, lambda: _open(source, output, providers, threads)
    )
    return network


def _open(
    source: ModelSource, output: str | None, providers: list[Any] | None, threads: int
) -> OnnxNetwork:
    onnx = import_optional("onnx", "Reading an ONNX model")
    model, readout = read_classifier(source, output)
    served = {value.name for value in model.graph.output}
    for tensor in (readout.tensor, readout.score):
        if tensor not in served:
            model.graph.output.append(onnx.ValueInfoProto(name=tensor))
            served.add(tensor)
    session = _start(model, source, providers, threads)
    return OnnxNetwork(session, source.name, readout)


def open_session(model: Any, source: ModelSource | None = None) -> OnnxSession:
    """Open an `onnx.ModelProto`, whose outside data lie beside `source`."""
    source = source or ModelSource()
    return OnnxSession(_start(model, source, None, 1), source.name)


def _start(
    model: Any, source: ModelSource, providers: list[Any] | None, threads: int
) -> Any:
    runtime = import_optional("onnxruntime", "Running an ONNX model")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, not logged
    if source.folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", source.folder
        )
    try:
        return runtime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=providers or ["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime's own classes share no parent
        raise ModelFormatError(
            f"onnxruntime cannot open {source.name}: {error}"
        ) from error
