"""Reading ONNX models from a path, bytes or a ModelProto, and their outside data."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skcalib._onnx._form import check_form, without_functions
from skcalib._onnx._train_mode import refuse_train_mode
from skcalib._optional import import_optional
from skcalib.exceptions import ModelFormatError

# Above this size a model keeps its weights in files of their own: a protobuf message
# cannot exceed 2 GB.
LARGEST_INLINE = 1_500_000_000
# What other formats of models are called that are pickles inside.
PICKLES = (".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies: a file, or bytes in memory. Hashable, so a key of caches."""

    path: str | None = None
    stamp: tuple[int, int] | None = None
    data: bytes | None = None

    @property
    def name(self) -> str:
        """The model in the words of an error message."""
        return repr(self.path) if self.path else "the ONNX model in memory"

    @property
    def folder(self) -> str | None:
        """The folder in which files of outside data lie."""
        return os.path.dirname(self.path) if self.path else None

    def read(self) -> bytes:
        """Return the serialised model, without its outside data."""
        return (
            self.data if self.data is not None else Path(self.path or "").read_bytes()
        )


def is_onnx_model(model: Any) -> bool:
    """Whether `model` is what `open_model` takes, as opposed to a live network."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(model, kinds) or hasattr(model, "SerializeToString")


def open_model(model: Any) -> ModelSource:
    """Name the source of `model`: a path, bytes, or an `onnx.ModelProto`."""
    if isinstance(model, bytes | bytearray | memoryview):
        return ModelSource(data=bytes(model))
    if isinstance(model, str | os.PathLike):
        path = os.path.abspath(os.path.expanduser(os.fspath(model)))
        if path.endswith(PICKLES):
            raise ModelFormatError(
                f"{path!r} looks like a pickle of torch, and reading it could execute "
                "code. Load it yourself with torch.load(..., weights_only=True) and "
                "pass the module, or export it to ONNX."
            )
        try:
            status = os.stat(path)
        except OSError as error:
            raise ModelFormatError(
                f"Cannot read the ONNX model {path!r}: {error.strerror}. "
                "Check the path, or pass the bytes of the file."
            ) from error
        if os.path.isdir(path):
            raise ModelFormatError(f"{path!r} is a folder, not an ONNX model file.")
        return ModelSource(path=path, stamp=(status.st_mtime_ns, status.st_size))
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        return ModelSource(data=model.SerializeToString())
    raise TypeError(
        f"An ONNX model is a path, bytes or an onnx.ModelProto; got "
        f"{type(model).__name__}. Pass a torch module to TorchLogits."
    )


def parse_model(source: ModelSource) -> Any:
    """Return the `onnx.ModelProto` of a source; outside data stay outside."""
    onnx = import_optional("onnx", "Reading an ONNX model")
    decode_error = import_optional("google.protobuf.message", "onnx").DecodeError
    try:
        model = onnx.load_model_from_string(source.read())
    except OSError as error:
        raise ModelFormatError(f"Cannot read {source.name}: {error}.") from error
    except decode_error as error:
        raise ModelFormatError(
            f"{source.name} is no ONNX model, or a damaged one: {error}. "
            "Export it again, or check that the file was copied whole."
        ) from error
    if not model.graph.output or not model.opset_import:
        raise ModelFormatError(
            f"{source.name} is no ONNX model, or an empty one: it has no outputs."
        )
    check_form(model, source.name)
    if model.functions:
        model = without_functions(model, source.name)
        check_form(model, source.name)
    refuse_train_mode(model, source.name)
    check_outside_data(model, source)
    return model


def outside_tensors(model: Any) -> list[Any]:
    """Return the tensors whose values lie in files beside the model."""
    helper = import_optional("onnx.external_data_helper", "Reading an ONNX model")
    return [t for t in helper._get_all_tensors(model) if helper.uses_external_data(t)]


def outside_files(model: Any) -> list[str]:
    """Return the names of the files of outside data, relative to the model."""
    locations = {
        entry.value
        for tensor in outside_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(locations)


def check_outside_data(model: Any, source: ModelSource) -> None:
    """Refuse outside data that are missing, or lie outside the model's folder."""
    files = outside_files(model)
    if files and source.folder is None:
        raise ModelFormatError(
            f"The model keeps its weights in the files {files}, which cannot be found "
            "from bytes or a ModelProto. Pass the path of the model file instead."
        )
    for file in files:
        if os.path.isabs(file) or ".." in Path(file).parts:
            raise ModelFormatError(
                f"{source.name} points to weights outside its own folder: {file!r}."
            )
        home = os.path.realpath(source.folder or "")
        if not os.path.realpath(os.path.join(home, file)).startswith(
            os.path.join(home, "")
        ):
            raise ModelFormatError(
                f"{source.name} points to weights outside its own folder: {file!r} is "
                "a link that leaves it. Put the file itself beside the model."
            )
        if not os.path.isfile(os.path.join(source.folder or "", file)):
            raise ModelFormatError(
                f"{source.name} keeps its weights in {file!r}, which does not lie "
                "beside it. Copy the two files together."
            )


def inline_outside_data(model: Any, folder: str | None) -> None:
    """Read outside data into `model` unless they are too large for one message."""
    tensors = outside_tensors(model)
    if not tensors or folder is None:
        return
    if sum(_outside_size(tensor, folder) for tensor in tensors) <= LARGEST_INLINE:
        load_outside_data(model, folder)


def _outside_size(tensor: Any, folder: str) -> int:
    """Return the length of a tensor outside; several may lie in the same place."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if length := int(entries.get("length", 0)):
        return length
    size = os.path.getsize(os.path.join(folder, entries["location"]))
    return size - int(entries.get("offset", 0))


def load_outside_data(model: Any, folder: str) -> None:
    """Read all outside data into `model`."""
    helper = import_optional("onnx.external_data_helper", "Reading an ONNX model")
    invalid = import_optional("onnx.checker", "Reading an ONNX model").ValidationError
    try:
        helper.load_external_data_for_model(model, folder)
    except invalid as error:  # onnx refuses links of any kind
        raise ModelFormatError(
            f"The weights beside the model cannot be read: {error}. Put plain copies "
            "of their files into its folder."
        ) from error
