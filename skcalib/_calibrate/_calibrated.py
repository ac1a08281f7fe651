"""A calibrated model with its figures, and the files that it is written to."""

import os
import textwrap
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from skcalib._judging import HeldOut
from skcalib._onnx._files import is_onnx_model, open_model
from skcalib._saving import save
from skcalib._tables import aligned, html_table
from skcalib.metrics import CalibrationReport
from skcalib.metrics._bins import bin_stats, uniform_edges
from skcalib.metrics._registry import METRICS


class Calibrated:
    """A calibrated model with its figures, as `calibrate` returns it.

    Attributes
    ----------
    model : estimator
        What was fitted, from what was passed as `X`, `logits` or `proba` to calibrated
        probabilities: a `CalibratedClassifier`, a pipeline of a network's logits and a
        calibrator, or a calibrator alone.

    calibrator : calibrator
        The fitted calibrator in it.

    held_out : HeldOut
        The true `labels` of samples that the calibration was not fitted on, their
        probabilities `before` and `after`, the `classes` and `how` they were held out.

    report : dict from str to CalibrationReport
        Metrics of these, under "before" and "after".

    classes_ : ndarray of shape (n_classes,)
        The class of each column of the probabilities.
    """

    def __init__(
        self,
        model: Any,
        calibrator: Any,
        name: str,
        held_out: HeldOut,
        report: dict[str, CalibrationReport],
        network: Any,
        needs_model: str | None,
        sample: Any,
    ) -> None:
        self.model = model
        self.calibrator = calibrator
        self._name = name
        self.held_out = held_out
        self.report = report
        self.classes_ = held_out.classes
        self._network = network
        self._needs_model = needs_model
        self._sample = sample

    def predict_proba(self, X: Any) -> Any:
        """Return calibrated probabilities of more of what was passed to `calibrate`.

        Parameters
        ----------
        X : array-like
            Inputs of the model; logits or probabilities where those were passed.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`.
        """
        return self.model.predict_proba(X)

    def predict(self, X: Any) -> Any:
        """Return the class of the largest calibrated probability.

        Parameters
        ----------
        X : array-like
            As for `predict_proba`.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        return self.model.predict(X)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model: Any = None,
        overwrite: bool = False,
    ) -> None:
        """Write the file to deploy.

        Parameters
        ----------
        path : str or path-like
            Its ending says what is written. ".onnx": the model with its calibration, or
            where logits were passed the calibration alone, from logits to
            probabilities. A model's outputs keep their meaning: logits stay logits,
            whose softmax are the probabilities, or the sigmoid of a single column.
            ".json": the calibrator, for `skcalib.load`. Python alone needs no file to
            deploy: ``joblib.dump(result, path)`` keeps the whole.

        model : str, path-like, bytes or onnx.ModelProto, default=None
            The same model as ONNX, where it was not passed as such: what
            ``torch.onnx.export`` or skl2onnx makes of the network or classifier. It is
            run on some rows of X and refused if most probabilities are not those of
            `predict_proba`.

        overwrite : bool, default=False
            Whether a file that exists may be replaced. The model itself never is.
        """
        ending = Path(path).suffix
        if ending == ".json":
            save(self.calibrator, path, overwrite=overwrite)
            return
        if ending != ".onnx":
            raise ValueError(
                f"{os.fspath(path)!r} ends in {ending!r}. Name a file that ends in "
                ".onnx for the model to deploy, or in .json for the calibrator. "
                "joblib.dump(result, path) keeps the whole for Python."
            )
        from skcalib.export import calibrate_onnx_model, save_onnx, to_onnx

        if not (model is None or is_onnx_model(model)):
            raise TypeError(
                f"model is a {type(model).__name__}, which is no ONNX file. "
                f"{_how_to_write(path)}"
            )
        _check_apart(path, self._network, model)
        model = self._network if model is None else model
        if model is not None:
            is_path = isinstance(model, str | os.PathLike)
            folder = Path(model).absolute().parent if is_path else None
            fitted = self.model if self._network is not None else self.calibrator
            written = calibrate_onnx_model(model, fitted)
            self._check_alike(written, model)
            save_onnx(written, path, overwrite=overwrite, data_folder=folder)
        elif self._needs_model is None:
            save_onnx(to_onnx(self.calibrator), path, overwrite=overwrite)
        else:
            raise ValueError(f"{self._needs_model} {_how_to_write(path)}")

    def _check_alike(self, written: Any, model: Any) -> None:
        """Refuse a file that gives other probabilities of some rows of X."""
        from skcalib.export._verify import check_alike

        if self._sample is not None:
            expected = np.asarray(self.predict_proba(self._sample))
            advice = "" if self._network is not None else _OTHER_SCORES
            check_alike(written, open_model(model), self._sample, expected, advice)

    @property
    def _title(self) -> str:
        return f"{self._name}, judged on {self.held_out.how}"

    def _rows(self) -> Iterable[list[str]]:
        yield ["", *self.report]
        for name in self.report["before"]:
            metric = METRICS[name]
            written = (metric.written(*of[name]) for of in self.report.values())
            cells = [" ".join(part for part in cell if part) for cell in written]
            yield [metric.named(metric.title), *cells]

    def __repr__(self) -> str:
        summary = textwrap.fill(self.held_out.summary, 76)
        return "\n".join([self._title, "", *aligned(self._rows()), "", summary])

    def _repr_html_(self) -> str:
        return (
            f"{html_table(self._rows(), self._title)}{_picture(self.held_out)}"
            f"<p>{escape(self.held_out.summary)}</p>"
        )


def _picture(held_out: HeldOut) -> str:
    """Return a reliability diagram of 15 bins, larger discs where more samples are."""
    n_rows = len(held_out.codes)
    drawn = []
    for when, colour, proba in (
        ("before", "#e69f00", held_out.before),
        ("after", "#0072b2", held_out.after),
    ):
        hit = proba.argmax(axis=1) == held_out.codes
        confidence = proba.max(axis=1).astype(np.float64)
        stats = bin_stats(confidence, hit, np.ones(n_rows), uniform_edges(15))
        points = [
            (100 * x, 100 - 100 * y, 1 + 6 * share**0.5)
            for x, y, share in zip(
                stats.mean_confidence, stats.accuracy, stats.share, strict=True
            )
            if share > 0
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        discs = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>' for x, y, r in points
        )
        drawn.append(
            f'<g fill="{colour}" fill-opacity="0.6"><title>{when}</title>{discs}'
            f'<polyline points="{line}" fill="none" stroke="{colour}"/></g>'
        )
    return (
        '<svg viewBox="-9 -9 130 130" width="260" role="img" font-size="6" '
        'fill="currentColor" stroke-width="0.8"><title>Accuracy by confidence of the '
        "predicted class, before and after</title>"
        '<path d="M0 0V100H100M0 100L100 0" fill="none" stroke="currentColor" '
        f'stroke-opacity="0.5"/>{"".join(drawn)}<text x="100" y="108" '
        'text-anchor="end">confidence</text><text x="2" y="-2">accuracy</text>'
        '<text x="2" y="8" fill="#e69f00">before</text>'
        '<text x="2" y="16" fill="#0072b2">after</text></svg>'
    )


_OTHER_SCORES = (
    "Either it is another model, or a classifier whose decision_function is not the "
    "logit of its predict_proba, which is what a file serves: SGDClassifier, SVC, "
    "OneVsRestClassifier and AdaBoostClassifier are such. For the classifier that the "
    "file holds, and rows that it was not trained on, fit clf = CalibratedClassifier("
    'FrozenEstimator(classifier), calibrator, method="predict_proba").fit(X, y), and '
    "write calibrate_onnx_model(model, clf.calibrators_[0])."
)


def _check_apart(path: str | os.PathLike[str], *read: Any) -> None:
    """Refuse to write over a model that is read, now or by the next prediction."""
    target = Path(path).expanduser()
    for model in read:
        is_path = isinstance(model, str | os.PathLike)
        if is_path and target.exists() and target.samefile(Path(model).expanduser()):
            raise ValueError(
                f"{os.fspath(path)!r} is the model itself, which is read again, so it "
                "is never written to. Choose another name for the result."
            )


def _how_to_write(path: str | os.PathLike[str]) -> str:
    """Say what makes a file to deploy of a model that is no ONNX file."""
    return (
        "Make one of it, by torch.onnx.export of a torch module or skl2onnx of a "
        f"scikit-learn classifier, and pass it: save({os.fspath(path)!r}, "
        'model="model.onnx"). Or name a file that ends in .json for the calibrator '
        "alone."
    )
