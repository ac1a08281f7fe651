"""A small classifier of token sequences, with inputs and result as HuggingFace's have.

It takes ``input_ids`` or ``inputs_embeds``, and ``attention_mask``; its result has the
attribute `logits`.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

N_TOKENS, LENGTH, WIDTH, N_CLASSES = 30, 8, 16, 3


@dataclass
class Result:
    logits: Tensor


class TokenClassifier(nn.Module):
    """One layer of attention over embedded tokens; the first one is read."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(N_TOKENS, WIDTH)
        self.place = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.drop = nn.LayerNorm(WIDTH), nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH, N_CLASSES)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Result:
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        x = x + self.place
        scores = self.query(x) @ self.key(x).transpose(1, 2) / WIDTH**0.5
        if attention_mask is not None:
            scores = scores + (1.0 - attention_mask[:, None].to(x.dtype)) * -1e4
        x = self.norm(x + scores.softmax(-1) @ self.value(x))
        return Result(3 * self.head(self.drop(x[:, 0])))


class _Served(nn.Module):
    """The same, with a result that can be written as ONNX."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, input_ids, attention_mask):
        return self.module(input_ids, attention_mask).logits


def make_tokens(n_rows, seed=0):
    """Return tokens of several lengths, padded with 0, their mask and labels."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, N_TOKENS, (n_rows, LENGTH))
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, (n_rows, 1))).astype(int)
    X = {"input_ids": ids * mask, "attention_mask": mask}
    return X, rng.integers(0, N_CLASSES, n_rows)


def make_module():
    torch.manual_seed(0)
    return TokenClassifier()


def labels_of(module, X, scale=0.5):
    """Draw labels that suit a module less sure of itself."""
    with torch.no_grad():
        tensors = {name: torch.from_numpy(part) for name, part in X.items()}
        proba = module.eval()(**tensors).logits.mul(scale).softmax(1).numpy()
    drawn = np.random.default_rng(1).random((len(proba), 1))
    return (proba.cumsum(1) < drawn).sum(1).clip(max=N_CLASSES - 1)


def export(module):
    """Write the module as ONNX, as users do; return its bytes."""
    example = tuple(torch.ones(2, LENGTH, dtype=torch.int64) for _ in range(2))
    names = ["input_ids", "attention_mask"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "tokens.onnx")
        torch.onnx.export(
            _Served(module).eval(),
            example,
            path,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "n"} for name in (*names, "logits")},
        )
        return path.read_bytes()
