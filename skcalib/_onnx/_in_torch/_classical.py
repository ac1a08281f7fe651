"""Operators of ai.onnx.ml, as scikit-learn's models are exported."""

import math

import torch
from torch import Tensor

from skcalib._onnx._in_torch._registry import Function, Node, operator

_ML = "ai.onnx.ml"


@operator("Scaler", domain=_ML, placed=True)
def _scaler(node: Node) -> Function:
    return lambda place, x, offset, scale: (x.to(place.dtype) - offset) * scale


@operator("Normalizer", domain=_ML)
def _normalizer(node: Node) -> Function:
    kind = node.get("norm", "MAX")

    def run(x: Tensor) -> Tensor:
        if kind == "MAX":
            norm = x.amax(-1, keepdim=True)
        else:
            order = 1 if kind == "L1" else 2
            norm = torch.linalg.vector_norm(x, order, -1, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return run


@operator("Imputer", domain=_ML)
def _imputer(node: Node) -> Function:
    missing = node.get("replaced_value_float", 0.0)

    def run(x: Tensor, filler: Tensor) -> Tensor:
        gone = torch.isnan(x) if math.isnan(missing) else x == missing
        return torch.where(gone, filler, x)

    return run


@operator("FeatureVectorizer", domain=_ML, placed=True)
def _feature_vectorizer(node: Node) -> Function:
    return lambda place, *parts: torch.cat([p.to(place.dtype) for p in parts], -1)


@operator("ArrayFeatureExtractor", domain=_ML)
def _feature_extractor(node: Node) -> Function:
    return lambda x, index: x.index_select(-1, index.reshape(-1).to(torch.int64))


def _linear(x: Tensor, coef: Tensor, intercept: Tensor | None, rows: int) -> Tensor:
    scores = x.to(coef.dtype) @ coef.reshape(rows, -1).T
    return scores if intercept is None else scores + intercept


@operator("LinearRegressor", domain=_ML)
def _linear_regressor(node: Node) -> Function:
    if node.get("post_transform", "NONE") != "NONE":
        raise node.refuse("transforms its results, which is not supported")
    rows = node.get("targets", 1)
    return lambda x, coef, intercept=None: _linear(x, coef, intercept, rows)


@operator("LinearClassifier", domain=_ML)
def _linear_classifier(node: Node) -> Function:
    transform = node.get("post_transform", "NONE")
    if transform not in ("NONE", "SOFTMAX", "LOGISTIC"):
        raise node.refuse(f"transforms its scores by {transform}: not supported")
    labels = node.get("classlabels_ints") or node.get("classlabels_strings") or []
    rows = max(len(node.get("intercepts", [])), 1)

    def run(
        x: Tensor, coef: Tensor, intercept: Tensor | None = None
    ) -> tuple[None, Tensor]:
        scores = _linear(x, coef, intercept, rows)
        if transform == "SOFTMAX":
            scores = torch.softmax(scores, -1)
        elif transform == "LOGISTIC":
            scores = torch.sigmoid(scores)
        if rows == 1 and len(labels) == 2:
            other = 1 - scores if transform == "LOGISTIC" else -scores
            scores = torch.cat([other, scores], -1)
        return None, scores

    return run
