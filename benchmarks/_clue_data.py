"""Data and networks of the CLUE benchmark, all small enough for one processor core."""

from importlib import resources
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks._data import DATA

N_TOKENS = 32
PAD = 0


class Task(NamedTuple):
    """Pairs (x, y) to train, calibrate and judge on; the same shifted; other inputs.

    `sites` are the parts of the network whose dropout is on, None all.
    """

    train: tuple
    calibration: tuple
    test: tuple
    shifted: tuple
    outside: torch.Tensor | None
    build: callable
    epochs: int
    sites: list | None = None


def perceptron(n_in, n_out, width, p):
    return nn.Sequential(
        nn.Linear(n_in, width),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(width, n_out),
    )


def convolutional(n_channels, size, n_out, p):
    return nn.Sequential(
        nn.Conv2d(n_channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(p),
        nn.Linear(32 * (size // 4) ** 2, 64),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(64, n_out),
    )


def three_parts(X, y, seed, sizes, stratify):
    """Split into training, calibration and test rows of the given shares."""
    order = np.arange(len(y))
    labels = y if stratify else None
    train, rest = train_test_split(
        order, train_size=sizes[0], random_state=seed, stratify=labels
    )
    labels = y[rest] if stratify else None
    calibration, test = train_test_split(
        rest, train_size=sizes[1], random_state=seed, stratify=labels
    )
    kind = torch.long if stratify else torch.float32
    return [
        (
            torch.tensor(X[rows], dtype=torch.float32),
            torch.tensor(y[rows], dtype=kind),
        )
        for rows in (train, calibration, test)
    ]


def digits(seed):
    """Digits 0 to 7; shifted by noise; 8 and 9 are the other inputs."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    known = y < 8
    parts = three_parts(X[known], y[known], seed, (0.5, 0.3), stratify=True)
    generator = torch.Generator().manual_seed(seed)
    noise = 0.3 * torch.randn(parts[2][0].shape, generator=generator)
    return Task(
        *parts,
        (parts[2][0] + noise, parts[2][1]),
        torch.tensor(X[~known], dtype=torch.float32),
        lambda: perceptron(64, 8, 64, 0.3),
        20,
    )


def fashion(seed):
    """Fashion-MNIST at 14 x 14; shifted by noise; handwritten digits are the others."""
    with np.load(DATA / "fashion_mnist" / "images_cal10k_test10k.npz") as arrays:
        images, y = arrays["cal_x"], arrays["cal_y"].astype(int)
    images = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    rows = np.random.default_rng(seed).permutation(len(y))[:5000]
    X = images[rows].reshape(len(rows), -1)
    parts = three_parts(X, y[rows], seed, (0.5, 0.2), stratify=True)
    generator = torch.Generator().manual_seed(seed)
    noise = 0.15 * torch.randn(parts[2][0].shape, generator=generator)
    other = np.pad(load_digits().images / 16, ((0, 0), (3, 3), (3, 3)))
    return Task(
        *parts,
        (parts[2][0] + noise, parts[2][1]),
        torch.tensor(other.reshape(len(other), -1), dtype=torch.float32),
        lambda: perceptron(196, 10, 100, 0.3),
        8,
    )


def cifar10(seed):
    """CIFAR-10 at 16 x 16; shifted by noise; pieces of clothing are the others."""
    with np.load(DATA / "cifar10" / "cifar10_test.npz") as arrays:
        images, y = arrays["x"], arrays["y"].astype(int)
    rows = np.random.default_rng(seed).permutation(len(y))[:4000]
    # Means of blocks of 2 x 2, with the channels first.
    X = images[rows].reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4)) / 255
    X = X.transpose(0, 3, 1, 2)
    parts = three_parts(X, y[rows], seed, (0.6, 0.25), stratify=True)
    generator = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(parts[2][0].shape, generator=generator)
    with np.load(DATA / "fashion_mnist" / "images_cal10k_test10k.npz") as arrays:
        other = arrays["cal_x"][:600].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    other = np.pad(other, ((0, 0), (1, 1), (1, 1)))[:, np.newaxis].repeat(3, axis=1)
    return Task(
        *parts,
        (parts[2][0] + noise, parts[2][1]),
        torch.tensor(other, dtype=torch.float32),
        lambda: convolutional(3, 16, 10, 0.3),
        8,
    )


def diabetes(seed):
    """Progress of a disease from ten features; shifted by noise; others lie far off."""
    X, y = load_diabetes(return_X_y=True)
    parts = three_parts(X, y, seed, (0.6, 0.4), stratify=False)
    mean, scale = parts[0][0].mean(0), parts[0][0].std(0)
    y_mean, y_scale = parts[0][1].mean(), parts[0][1].std()
    parts = [((x - mean) / scale, (t - y_mean) / y_scale) for x, t in parts]
    x, y = parts[2]
    generator = torch.Generator().manual_seed(seed)
    return Task(
        *parts,
        (x + 0.5 * torch.randn(x.shape, generator=generator), y),
        3 * x,
        lambda: perceptron(10, 2, 50, 0.2),
        30,
    )


class CharacterModel(nn.Module):
    """A causal transformer of one layer that predicts the next character."""

    def __init__(self, n_characters, width=32):
        super().__init__()
        self.embedding = nn.Embedding(n_characters, width, padding_idx=PAD)
        self.position = nn.Parameter(0.1 * torch.randn(N_TOKENS, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, batch_first=True
        )
        self.output = nn.Linear(width, n_characters)

    def forward(self, x):
        n = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        hidden = self.embedding(x) + self.position[:n]
        return self.output(self.layer(hidden, src_mask=mask, is_causal=True))


def lines_of(folder, ending):
    """The different beginnings of the lines of a folder's files, if not too short."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    words = "\n".join(path.read_text(encoding="utf-8") for path in files)
    lines = (line.strip()[: N_TOKENS + 1] for line in words.splitlines())
    return sorted({line for line in lines if len(line) > 20})


def next_characters(lines, names):
    """Pairs (x, y) of coded lines, padded at the same places."""
    codes = torch.full((len(lines), N_TOKENS + 1), PAD)
    for row, line in enumerate(lines):
        codes[row, : len(line)] = torch.tensor([names[c] for c in line])
    x, y = codes[:, :-1], codes[:, 1:]
    return torch.where(y == PAD, PAD, x), y


def text(seed):
    """Descriptions of data sets; shifted by wrong characters; code is the other."""
    folder = resources.files("sklearn.datasets")
    lines = lines_of(folder / "descr", ".rst")
    names = {c: k + 1 for k, c in enumerate(sorted(set("".join(lines))))}
    rng = np.random.default_rng(seed)
    lines = rng.permutation(lines)
    train, calibration, test = (
        next_characters(part, names) for part in np.split(lines, [400, 500])
    )
    x, y = test
    wrong = torch.tensor(rng.random(x.shape) < 0.1) & (x != PAD)
    other = torch.tensor(rng.integers(1, len(names) + 1, x.shape))
    code = lines_of(folder / "tests", ".py")
    code = rng.permutation([line for line in code if set(line) <= set(names)])
    return Task(
        train,
        calibration,
        test,
        (torch.where(wrong, other, x), y),
        next_characters(code[: len(x)], names)[0],
        lambda: CharacterModel(len(names) + 1),
        30,
    )


TASKS = {
    "digits": digits,
    "fashion": fashion,
    "cifar10": cifar10,
    "diabetes": diabetes,
    "text": text,
}
