"""Folders of images as inputs of a network, which are read when they are needed."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skcalib._blocks import free_memory
from skcalib._onnx._inputs import InputSpec
from skcalib._optional import import_optional
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._rows import Rows, is_dataset

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
# What a name stands for in --preprocess.
_IMAGENET = "resize=256 crop=224 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Preprocessing(NamedTuple):
    """What is made of an image before a network sees it, in this order.

    The shorter side becomes `resize` pixels long, `crop` x `crop` pixels are cut from
    the centre, values are brought to [0, `range`], `mean` is taken off, and the rest
    divided by `std`.
    """

    resize: int | None = None
    crop: int | None = None
    range: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str | None) -> "Preprocessing":
        """Read the words of --preprocess."""
        if text is None:
            return cls()
        words = (_IMAGENET if text.strip() == "imagenet" else text).split()
        given: dict[str, Any] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name not in _READ:
                raise UsageError(
                    f"--preprocess does not know {word!r}; it takes imagenet, or words "
                    f"of {', '.join(f'{known}=' for known in _READ)}."
                )
            try:
                given[name] = _READ[name](value)
            except ValueError as error:
                raise UsageError(
                    f"--preprocess {word!r} is no number that can be used; write such "
                    f"as {_IMAGENET!r}."
                ) from error
        return cls(**given)

    def __call__(self, image: Any, mode: str) -> NDArray[np.float32]:
        """Return an image of Pillow as height x width x channels."""
        image = _of_bytes(image).convert(mode)
        if self.resize is not None:
            # The longer side is cut to whole pixels, as torchvision does.
            least = min(image.size)
            sides = [self.resize * side // least for side in image.size]
            image = image.resize(sides, resample=2)  # bilinear
        if self.crop is not None:
            left, top = (round((side - self.crop) / 2) for side in image.size)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.atleast_3d(np.asarray(image, dtype=np.float32))
        mean, std = (np.array(part, np.float32) for part in (self.mean, self.std))
        return (pixels * np.float32(self.range / 255) - mean) / std


def _of_bytes(image: Any) -> Any:
    """Bring 16 bits a number to 8, which a conversion would cut off at 255."""
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image, dtype=np.float64) / 257
        return import_optional("PIL.Image", "Reading images").fromarray(
            np.rint(pixels).astype(np.uint8)
        )
    if image.mode in ("I", "F"):
        raise DataError(
            f"an image has numbers of mode {image.mode!r}, whose range is not known; "
            "save it with 8 bits a number."
        )
    return image


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _divisors(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if not all(number > 0 for number in numbers):
        raise ValueError(text)
    return numbers


_READ: dict[str, Callable[[str], Any]] = {
    "resize": _positive,
    "crop": _positive,
    "range": float,
    "mean": _numbers,
    "std": _divisors,
}


class ImageRows:
    """Images in files, as rows of a network's input; a slice reads those rows.

    Parameters
    ----------
    paths : list of Path
        One image each.

    preprocess : Preprocessing
        What is made of each.

    spec : InputSpec
        The network's input, which says how many channels there are, and where.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, paths: list[Path], preprocess: Preprocessing, spec: InputSpec
    ) -> None:
        wanted = spec.shape or ()
        if len(wanted) not in (3, 4):
            raise DataError(
                f"The model's input {spec.name!r} has {len(wanted)} dimensions, and "
                "images make three or four: samples, channels if there are any, height "
                "and width. Pass the inputs as an .npy or .npz file."
            )
        # Channels come last only where they can be told there alone.
        last = len(wanted) == 4 and wanted[1] not in _MODES and wanted[3] in _MODES
        n_channels = 1 if len(wanted) == 3 else wanted[3 if last else 1] or 3
        self._channels = None if len(wanted) == 3 else 2 if last else 0
        if n_channels not in _MODES:
            raise DataError(
                f"The model's input {spec.name!r} has {n_channels} channels, and images"
                " have 1, 3 or 4. Pass the inputs as an .npy or .npz file."
            )
        for name in ("mean", "std"):
            if len(getattr(preprocess, name)) not in (1, n_channels):
                raise UsageError(
                    f"--preprocess has {len(getattr(preprocess, name))} numbers as "
                    f"{name}, and the model's input {n_channels} channels: pass one, or"
                    " one for each channel."
                )
        self._mode = _MODES[n_channels]
        self._images = import_optional("PIL.Image", "Reading images")
        self._paths = paths
        self._preprocess = preprocess
        self.shape = (len(paths), *self._read(paths[0]).shape)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        chosen = np.arange(len(self))[rows]
        images = [self._read(self._paths[row]) for row in chosen.tolist()]
        for row, image in zip(chosen.tolist(), images, strict=True):
            if image.shape != self.shape[1:]:
                raise DataError(
                    f"{self._paths[row]} is an image of shape {image.shape}, and "
                    f"{self._paths[0]} one of {self.shape[1:]}. Bring them to one size:"
                    " --preprocess 'resize=256 crop=224'"
                )
        return np.stack(images)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        n_bytes = self.dtype.itemsize * int(np.prod(self.shape))
        if n_bytes > free_memory():
            raise DataError(
                f"{len(self):,} images of shape {self.shape[1:]} are "
                f"{n_bytes / 2**30:.1f} GiB, more than the memory holds; methods that "
                "change the inputs need all of them there. Pass fewer images."
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def row_hashes(self) -> NDArray[np.uint64]:
        """Return a hash of each file."""
        digests = [
            blake2b(path.read_bytes(), digest_size=8).digest() for path in self._paths
        ]
        return np.frombuffer(b"".join(digests), dtype=np.uint64)

    def _read(self, path: Path) -> NDArray[np.float32]:
        try:
            with self._images.open(path) as image:
                pixels = self._preprocess(image, self._mode)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from error
        if self._channels is None:
            return pixels[:, :, 0]
        return np.moveaxis(pixels, 2, self._channels)


def is_image_folder(path: Path) -> bool:
    """Whether a path is a folder of images, or of folders of images."""
    return path.is_dir() and path.suffix != ".zarr" and not is_dataset(path)


def read_images(path: Path, text: str | None, spec: InputSpec) -> Rows:
    """Read the files of a folder, with the name of the folder in it as their labels.

    Files are sorted by name. Where no folder holds images, those beside them come
    without labels.
    """
    preprocess = Preprocessing.parse(text)
    folders = sorted(part for part in path.iterdir() if part.is_dir())
    held = {folder.name: _images_in(folder) for folder in folders}
    held = {name: files for name, files in held.items() if files}
    loose = _images_in(path)
    if bool(held) == bool(loose):
        raise DataError(
            f"{path} holds {len(loose)} images and {len(held)} folders of them. Name a "
            "folder that has one folder for each class, or images alone, with --labels."
        )
    if loose:
        return Rows(ImageRows(loose, preprocess, spec))
    files = [file for files in held.values() for file in files]
    labels = np.repeat(list(held), [len(files) for files in held.values()])
    return Rows(ImageRows(files, preprocess, spec), _as_numbers(path, labels))


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)


def _as_numbers(path: Path, labels: NDArray[np.str_]) -> NDArray[Any]:
    """Return labels as integers where all are; they are the numbers of columns."""
    names = np.unique(labels)
    if not all(name.isdecimal() for name in names.tolist()):
        return labels
    if names.tolist() != sorted(names.tolist(), key=int):
        raise DataError(
            f"The folders of {path} are numbers of unequal length, such as "
            f"{names[0]} and {max(names.tolist(), key=len)}. Sorted as text, as "
            "training often does, they come in another order than as numbers. Rename "
            "them to equal length, such as 003."
        )
    return labels.astype(np.int64)
