"""The laboratory: one page, which runs networks where it carries a runtime for them."""

import base64
import gzip
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

from skcalib.cli._errors import DataError
from skcalib.cli._report import template

# In the package, as the registry has it.
_CODE = "dist/ort.wasm.bundle.min.mjs"
_WASM = "dist/ort-wasm-simd-threaded.wasm"
# Older ones look for a file beside the page; 1.24 was tried.
_OLDEST = (1, 26)


class Runtime(NamedTuple):
    """onnxruntime-web, packed as text that a page may hold."""

    version: str
    code: str
    wasm: str


def read_runtime(path: Path) -> Runtime:
    """Read onnxruntime-web from its folder or from the archive of the registry."""
    files = ("package.json", _CODE, _WASM)
    try:
        content = _from_folder(path, files) if path.is_dir() else _from_tar(path, files)
        package = json.loads(content[0])
        version = tuple(map(int, package["version"].split(".")[:2]))
        if package["name"] != "onnxruntime-web" or version < _OLDEST:
            raise ValueError(f"{package['name']} {package['version']}")
    except (
        tarfile.TarError,
        EOFError,
        LookupError,
        ValueError,
        FileNotFoundError,
    ) as error:
        raise DataError(
            f"{path} is not onnxruntime-web, version 1.26 or newer, as a folder with "
            f"package.json and {_CODE}, or as the archive that `npm pack "
            "onnxruntime-web` brings. Name one of these."
        ) from error
    return Runtime(package["version"], _packed(content[1]), _packed(content[2]))


def _from_folder(folder: Path, names: tuple[str, ...]) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def _from_tar(path: Path, names: tuple[str, ...]) -> list[bytes]:
    with tarfile.open(path) as archive:
        files = [archive.extractfile(f"package/{name}") for name in names]
        return [file.read() for file in files if file is not None]


def _packed(content: bytes) -> str:
    # Without the time, so that the same runtime gives the same page.
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def render_lab(runtime: Runtime | None = None) -> str:
    """Return the laboratory as one page of HTML, which loads nothing."""
    text: str = template("lab.html").render(runtime=runtime)
    return text
