"""What the commands do, from files to files; `_app` prints what they return."""

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skcalib._base import BaseCalibrator
from skcalib._blocks import RowsView, is_stored, open_source, row_slices
from skcalib._files import check_target, text_file, write_together
from skcalib._judging import HeldOut
from skcalib._optional import import_optional
from skcalib._saving import calibrator_file
from skcalib.calibrators import TemperatureScaling
from skcalib.cli._comparison import render_comparison
from skcalib.cli._console import working
from skcalib.cli._errors import UsageError
from skcalib.cli._export import Served, write_model
from skcalib.cli._judging import (
    cross_fit,
    fit,
    judge,
    probabilities,
    split_rows,
)
from skcalib.cli._lab import read_runtime, render_lab
from skcalib.cli._methods import (
    CLAMPING,
    METHODS,
    Fixed,
    check_in_place,
    load_calibrator,
    make_calibrator,
    with_floor,
)
from skcalib.cli._options import Judging, Labelled, Serving, Source
from skcalib.cli._outcome import Outcome, judged, measure
from skcalib.cli._report import render_report
from skcalib.cli._rows import STANDARD_INPUT, is_large, split_names
from skcalib.cli._scores import Scores, load_scores, load_values
from skcalib.datasets import load_demo
from skcalib.export._save import model_files
from skcalib.frozen import OnnxLogits
from skcalib.meta._chain import of_log_proba
from skcalib.metrics import CalibrationReport
from skcalib.model_selection import CalibratorComparison, compare_calibrators


@dataclass(frozen=True)
class Targets:
    """The files to write: an ONNX model, a saved calibrator and a report."""

    output: Path | None = None
    save: Path | None = None
    report: Path | None = None
    overwrite: bool = False

    def check_endings(self) -> None:
        """Refuse names whose ending is not that of what is written."""
        for option, path, ending, what in (
            ("output", self.output, ".onnx", "an ONNX model"),
            ("save", self.save, ".json", "a calibrator as JSON"),
        ):
            if path is not None and path.suffix != ending and not path.is_dir():
                raise UsageError(
                    f"--{option} {path} has the ending {path.suffix!r}; what is written"
                    f" is {what}, so let its name end in {ending}."
                )

    def check_apart(self, read: Iterable[Path]) -> None:
        """Refuse to write over what is read, or two results to one file."""
        named = {"report": self.report, "output": self.output, "save": self.save}
        written = {k: path.resolve() for k, path in named.items() if path is not None}
        for path in read:
            if path.resolve() in written.values():
                raise UsageError(
                    f"{path} is read by this command, so it is never written to. "
                    "Choose another name for the result."
                )
        option_of: dict[Path, str] = {}
        for option, target in written.items():
            twin = option_of.setdefault(target, option)
            if twin != option:
                raise UsageError(f"--{twin} and --{option} name the same file.")

    def check_ready(self) -> None:
        """Refuse what could not be written at the end, before any work is done."""
        self.check_free()
        self.check_packages()

    def check_packages(self) -> None:
        """Refuse what is written with a package that is missing."""
        needed = []
        if self.output is not None and self.output.suffix == ".onnx":
            needed += [("onnx", "Writing an ONNX model"), ("onnxruntime", "Running it")]
        if self.report is not None:
            needed += [(name, "The HTML report") for name in ("jinja2", "matplotlib")]
        for name, purpose in needed:
            import_optional(name, purpose)

    def check_free(self) -> None:
        """Refuse to write over what is there, which may have come during the work."""
        for path in (self.output, self.save, self.report):
            if path is not None:
                check_target(path, overwrite=self.overwrite)


def run_demo(folder: Path, *, seed: int, overwrite: bool) -> tuple[Outcome, Path]:
    """Calibrate the network that ships, and judge it on images kept apart."""
    output, report = folder / "calibrated.onnx", folder / "report.html"
    targets = Targets(output, report=report, overwrite=overwrite)
    targets.check_packages()
    folder.mkdir(parents=True, exist_ok=True)
    targets.check_free()
    demo = load_demo()
    network = OnnxLogits(demo.model).fit(demo.X_calibration)
    calibrator = TemperatureScaling()
    calibrator.fit(network.transform(demo.X_calibration), demo.y_calibration)
    test = Scores(
        network.transform(demo.X_test),
        demo.y_test,
        demo.target_names,
        network=network,
        inputs=demo.X_test,
    )
    held_out = judge(calibrator, test, np.arange(len(demo.y_test)))
    source = Source(Path(demo.model))
    model, served = write_model(calibrator, test, source, output, Serving())
    outcome = judged(
        "temperature",
        calibrator,
        len(demo.y_calibration),
        held_out,
        served,
        Judging(seed=seed),
    )
    outcome = replace(
        outcome,
        read={"Model": "the network of the demonstration", "Data": "its images"},
    )
    _save(model, source.model, outcome, targets)
    return outcome, report


def run_calibrate(
    source: Labelled,
    method: str,
    targets: Targets,
    *,
    judging: Judging,
    gamma: float | None,
    site: str | None,
    serving: Serving,
) -> Outcome:
    """Fit a calibrator, judge it by data it was not fitted on, and write it."""
    calibrator = make_calibrator(
        method,
        judging.seed,
        gamma=gamma,
        site=site,
        model=None if source.inputs is None else source.model,
        model_output=source.model_output,
    )
    _check_together(source, targets, serving)
    if method == CLAMPING:
        _check_clamping(targets, serving)
    targets.check_ready()
    scores = load_scores(source)
    if is_stored(scores.logits):
        check_in_place(method, calibrator)
        _check_held_out(scores, judging)
    calibrator.set_params(classes=scores.classes)
    held_out, n_fit = _fit_and_judge(calibrator, scores, judging)
    deployed = calibrator
    if source.probabilities is not None:
        deployed = of_log_proba(calibrator, source.floor)
    model = served = None
    if targets.output is not None:
        takes = with_floor(source, deployed)
        model, served = write_model(deployed, scores, takes, targets.output, serving)
    outcome = judged(method, calibrator, n_fit, held_out, served, judging, targets.save)
    if targets.report is not None:
        rival = _fit_rival(calibrator, scores, judging)
        outcome = replace(outcome, read=_names_of(source), rival=rival)
    _save(model, source.model, outcome, targets, deployed)
    return outcome


def _check_together(source: Source, targets: Targets, serving: Serving) -> None:
    """Refuse options that contradict each other."""
    if source.model is not None and source.probabilities is not None:
        raise UsageError(
            "A calibrator for a model is fitted on the model's logits: pass --inputs "
            "or --logits with MODEL. With --probabilities, leave MODEL out."
        )
    _check_serving(source, serving)
    targets.check_apart(source.files)
    targets.check_endings()
    if targets.output is None:
        _check_without_output(source, targets, serving)


def _check_serving(source: Source, serving: Serving) -> None:
    if source.model is None and serving.given:
        raise UsageError(f"{serving.given[0]} is about the outputs of MODEL; name one.")


def _check_without_output(source: Source, targets: Targets, serving: Serving) -> None:
    """Refuse what is about the ONNX model where none is written."""
    if targets.save is None:
        raise UsageError(
            "Name a file to write: --output for an ONNX model, --save for a calibrator "
            "that skcalib reads again, or both."
        )
    given = ["--report"] * (targets.report is not None) + serving.given
    if given:
        raise UsageError(
            f"{given[0]} is about the ONNX model that is written; pass --output too."
        )
    _check_model_runs(source)


def _check_clamping(targets: Targets, serving: Serving) -> None:
    if serving.keep_outputs:
        raise UsageError(
            "--keep-outputs cannot go with clamping: the original outputs are those of "
            "inputs that are not perturbed. Serve the two models side by side."
        )
    if targets.save is not None:
        raise UsageError(
            "--save cannot go with clamping, which is not applied to logits: it is "
            "written into its model only. Leave --save out, and pass --output."
        )


def _check_model_runs(source: Source) -> None:
    """Refuse a model that would be named for nothing."""
    if source.model is not None and source.inputs is None:
        raise UsageError(
            "MODEL is run on --inputs. With --logits or --probabilities, leave it out."
        )


def _check_held_out(scores: Scores, judging: Judging) -> None:
    """Refuse to hold more rows in memory than there is room for."""
    n_rows, n_columns = scores.logits.shape
    if judging.test_fraction is None:
        raise UsageError(
            f"{n_rows:,} rows of {n_columns} classes are more than the memory holds, "
            "and cross-fitting copies rows. Hold some out to judge by, which are read "
            "into memory, and fit on the others where they are: --test-fraction 0.05"
        )
    if is_large((int(judging.test_fraction * n_rows), n_columns)):
        raise UsageError(
            f"--test-fraction {judging.test_fraction} of {n_rows:,} rows of "
            f"{n_columns} classes is more than the memory holds. Hold out fewer."
        )


def _fit_and_judge(
    calibrator: Any, scores: Scores, judging: Judging
) -> tuple[HeldOut, int]:
    """Fit in place; return held-out probabilities and the number of samples fitted."""
    n_samples = len(scores.codes)
    if judging.test_fraction is None:
        with working("Fitting"):
            fit(calibrator, scores.seen_by(calibrator), scores)
        held_out = cross_fit(calibrator, scores, judging.folds, judging.seed)
        return held_out, n_samples
    train, test = split_rows(scores, judging.test_fraction, judging.seed)
    with working("Fitting"):
        X = scores.seen_by(calibrator)
        part = RowsView(open_source(X), train) if is_stored(X) else X[train]
        fit(calibrator, part, scores, train)
    return judge(calibrator, scores, test), len(train)


def _fit_rival(calibrator: Any, scores: Scores, judging: Judging) -> Any:
    """Return what temperature scaling says of the same rows, the simplest method."""
    if isinstance(calibrator, TemperatureScaling):
        return None
    simple = TemperatureScaling(classes=scores.classes)
    return _fit_and_judge(simple, scores, judging)[0].after


def _names_of(source: Labelled) -> dict[str, str]:
    """Name the files that were read, as the report does."""
    named = {} if source.model is None else {"Model": source.model.name}
    data = [
        "standard input" if path == STANDARD_INPUT else path.name
        for path in source.files
        if path != source.model
    ]
    return {**named, "Data": ", ".join(data)}


def _save(
    model: Any,
    original: Path | None,
    outcome: Outcome,
    targets: Targets,
    calibrator: Any = None,
) -> None:
    """Write the model, its weights, the calibrator and the report: all, or none."""
    targets.check_free()
    files: dict[Path, Callable[[Path], object]] = {}
    if outcome.served is not None:
        files |= _model_files(model, original, outcome.served, targets.overwrite)
    if targets.save is not None:
        files[targets.save.absolute()] = calibrator_file(calibrator)
    if targets.report is not None and outcome.served is not None:
        text = render_report(outcome, outcome.served)
        files[targets.report.absolute()] = text_file(text)
    write_together(files)


def _model_files(
    model: Any, original: Path | None, served: Served, overwrite: bool
) -> dict[Path, Callable[[Path], object]]:
    folder = None if original is None else original.absolute().parent
    return model_files(model, served.path.absolute(), overwrite, folder)


def run_apply(
    source: Source, saved: Path, output: Path, serving: Serving, *, overwrite: bool
) -> Served | tuple[int, int]:
    """Apply a saved calibrator; return the model, or the shape of the probabilities."""
    _check_apply(source, output, serving)
    targets = Targets(output, overwrite=overwrite)
    targets.check_apart([saved, *source.files])
    targets.check_ready()
    calibrator = load_calibrator(saved, source)
    source = with_floor(source, calibrator)
    write = _WRITERS.get(output.suffix)
    values = None
    if write is not None or source.has_values:
        _check_model_runs(source)
        values = load_values(source, calibrator)
    if write is None or values is None:
        model, served = write_model(calibrator, values, source, output, serving)
        write_together(_model_files(model, source.model, served, overwrite))
        return served
    proba = probabilities(values.logits, calibrator)
    check_target(output, overwrite=overwrite)
    n_bytes = 4 if values.logits.dtype == np.float32 else 8
    numbers = partial(
        write,
        proba=proba,
        dtype=np.dtype(f"f{n_bytes}"),
        classes=calibrator.classes_.tolist(),
    )
    write_together({output.absolute(): numbers})
    return proba.shape


def _check_apply(source: Source, output: Path, serving: Serving) -> None:
    """Refuse an ending that is not written, and options that do not go with it."""
    if output.suffix not in (*_WRITERS, ".onnx") and not output.is_dir():
        raise UsageError(
            f"--output {output} has the ending {output.suffix!r}; let its name end in "
            f".onnx for a model, or in {' or '.join(_WRITERS)} for probabilities."
        )
    _check_serving(source, serving)
    if output.suffix in _WRITERS and serving.given:
        raise UsageError(
            f"{serving.given[0]} is about the outputs of a model, but {output} is to "
            "hold probabilities. Let --output end in .onnx, or leave it out."
        )


def _write_npy(path: Path, proba: Any, dtype: np.dtype, classes: list[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": proba.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in row_slices(*proba.shape):
            np.ascontiguousarray(proba[rows], dtype).tofile(file)


def _write_csv(path: Path, proba: Any, dtype: np.dtype, classes: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(classes)
        for rows in row_slices(*proba.shape):
            block = proba[rows].astype(dtype, copy=False)
            np.savetxt(file, block, fmt="%.17g", delimiter=",")


# How probabilities are written, by the ending of the file.
_WRITERS = {".npy": _write_npy, ".csv": _write_csv}


def run_evaluate(
    source: Labelled, saved: Path | None, judging: Judging
) -> tuple[Scores, CalibrationReport]:
    """Measure probabilities as they are, or as a saved calibrator makes them."""
    _check_model_runs(source)
    calibrator = None if saved is None else load_calibrator(saved, source)
    if calibrator is not None:
        source = with_floor(source, calibrator)
    scores = load_scores(source, calibrator, to_fit=False)
    proba = probabilities(scores.logits, calibrator)
    if is_stored(proba) and judging.n_bootstrap:
        raise UsageError(
            f"{len(scores.codes):,} rows of {proba.shape[1]} classes are more than the "
            "memory holds, and a bootstrap reads them again and again. Leave the "
            "intervals out: --n-bootstrap 0"
        )
    labels, classes = scores.labels, scores.classes
    return scores, measure(labels, proba, classes, judging, scores.unit)


def run_compare(
    source: Labelled,
    methods: str | None,
    saved: Path | None,
    judging: Judging,
    targets: Targets,
) -> tuple[Scores, CalibratorComparison]:
    """Fit and judge methods on the same folds, with a saved calibrator beside them."""
    targets.check_apart(source.files)
    targets.check_ready()
    _check_model_runs(source)
    names = list(METHODS) if methods is None else split_names(methods)
    if CLAMPING in names:
        raise UsageError(
            "compare fits all methods on the same logits; clamping is fitted on "
            "inputs. Run `skcalib calibrate --method clamping` and see its report."
        )
    calibrators = {name: make_calibrator(name, judging.seed) for name in names}
    fixed = None
    if saved is not None:
        fixed = load_calibrator(saved, source)
        source = with_floor(source, fixed)
        calibrators[saved.name] = Fixed(fixed)
    scores = load_scores(source, fixed)
    if is_stored(scores.logits):
        raise UsageError(
            f"{len(scores.codes):,} rows are more than the memory holds, and methods "
            "are compared on copies of them. Pass fewer."
        )
    table = _compared(calibrators, scores, judging)
    if targets.report is not None:
        how = f"{len(scores.codes):,} samples, in {judging.folds} folds"
        page = render_comparison(table.sorted(), _names_of(source), how)
        targets.check_free()
        write_together({targets.report.absolute(): text_file(page)})
    return scores, table


def _compared(
    calibrators: dict[str, BaseCalibrator], scores: Scores, judging: Judging
) -> CalibratorComparison:
    with working("Comparing"):
        return compare_calibrators(
            calibrators,
            scores.logits,
            scores.labels,
            groups=scores.groups,
            cv=judging.folds,
            n_bins=judging.n_bins,
            classes=scores.classes,
            random_state=judging.seed,
            verbose=sys.stderr.isatty(),
        )


def run_lab(output: Path, runtime: Path | None, *, overwrite: bool) -> None:
    """Write the laboratory's page, with onnxruntime-web in it if it is named."""
    check_target(output, overwrite=overwrite)
    page = render_lab(None if runtime is None else read_runtime(runtime))
    write_together({output.absolute(): text_file(page)})
