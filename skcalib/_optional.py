"""Optional packages: imported when used, named with their extra when missing."""

import importlib
from types import ModuleType

_EXTRA = {
    "torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "matplotlib": "plot",
    "skorch": "train",
    "typer": "cli",
    "rich": "cli",
    "jinja2": "cli",
    "h5py": "files",
    "zarr": "files",
    "pyarrow": "files",
    "PIL": "files",
}


def import_optional(name: str, purpose: str) -> ModuleType:
    """Import `name`, or raise an ImportError that says what to install and why."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        extra = _EXTRA.get(package)
        target = f'"skcalib[{extra}]"' if extra else package
        raise ImportError(
            f"{purpose} needs the package {package}, which is not installed. "
            f"Install it with: pip install {target}"
        ) from error
