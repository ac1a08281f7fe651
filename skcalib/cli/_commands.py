"""What the commands do, from files to files; `_app` prints what they return."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skcalib._files import write_together
from skcalib._optional import import_optional
from skcalib.calibrators import TemperatureScaling
from skcalib.cli._console import progress, working
from skcalib.cli._errors import UsageError
from skcalib.cli._export import check_target, write_model
from skcalib.cli._judging import HeldOut, cross_fit, judge, split_rows, uncalibrated
from skcalib.cli._methods import CLAMPING, METHODS, make_calibrator
from skcalib.cli._options import Judging, Serving, Source
from skcalib.cli._outcome import Outcome, judged, measure
from skcalib.cli._report import render_report
from skcalib.cli._scores import Scores, load_scores
from skcalib.datasets import load_demo
from skcalib.export._save import model_files
from skcalib.frozen import OnnxLogits
from skcalib.metrics import CalibrationReport
from skcalib.model_selection import CalibratorComparison, compare_calibrators


def run_demo(output: Path, report: Path, *, seed: int, overwrite: bool) -> Outcome:
    """Calibrate the network that ships, and judge it on images kept apart."""
    output.parent.mkdir(parents=True, exist_ok=True)
    _check_ready(output, report, overwrite=overwrite)
    demo = load_demo()
    network = OnnxLogits(demo.model).fit(demo.X_calibration)
    calibrator = TemperatureScaling()
    calibrator.fit(network.transform(demo.X_calibration), demo.y_calibration)
    test = Scores(
        network.transform(demo.X_test),
        demo.y_test,
        demo.target_names,
        network,
        demo.X_test,
    )
    held_out = judge(calibrator, test, np.arange(len(demo.y_test)))
    model, served = write_model(calibrator, test, Path(demo.model), output, Serving())
    outcome = judged(
        "temperature",
        calibrator,
        len(demo.y_calibration),
        held_out,
        served,
        Judging(seed=seed),
    )
    _save(model, Path(demo.model), outcome, report, overwrite=overwrite)
    return outcome


def run_calibrate(
    source: Source,
    method: str,
    output: Path,
    report: Path | None,
    *,
    judging: Judging,
    gamma: float | None,
    serving: Serving,
    overwrite: bool,
) -> Outcome:
    """Fit a calibrator, judge it by data it was not fitted on, and write it."""
    calibrator = make_calibrator(
        method,
        judging.seed,
        gamma=gamma,
        model=None if source.inputs is None else source.model,
        model_output=source.model_output,
    )
    _check_together(source, output, report, serving)
    if method == CLAMPING and serving.keep_outputs:
        raise UsageError(
            "--keep-outputs cannot go with clamping: the original outputs are those of "
            "inputs that are not perturbed. Serve the two models side by side."
        )
    _check_ready(output, report, overwrite=overwrite)
    scores = load_scores(source)
    calibrator.set_params(classes=scores.classes)
    held_out, n_fit = _fit_and_judge(calibrator, scores, judging)
    model, served = write_model(
        calibrator,
        scores,
        source.model,
        output,
        serving,
        source.model_output,
    )
    outcome = judged(method, calibrator, n_fit, held_out, served, judging)
    _save(model, source.model, outcome, report, overwrite=overwrite)
    return outcome


def _check_together(
    source: Source, output: Path, report: Path | None, serving: Serving
) -> None:
    """Refuse options that contradict each other."""
    if source.model is not None and source.probabilities is not None:
        raise UsageError(
            "A calibrator for a model is fitted on the model's logits: pass --inputs "
            "or --logits with MODEL. With --probabilities, leave MODEL out."
        )
    for option, is_set in vars(serving).items():
        if source.model is None and is_set:
            option = option.replace("_", "-")
            raise UsageError(f"--{option} is about the outputs of MODEL; name one.")
    targets = [path.resolve() for path in (output, report) if path is not None]
    for path in source.files:
        if path.resolve() in targets:
            raise UsageError(
                f"{path} is read by this command, so it is never written to. "
                "Choose another name for the result."
            )
    if len(set(targets)) < len(targets):
        raise UsageError("--report and --output name the same file.")
    if output.suffix != ".onnx" and not output.is_dir():
        raise UsageError(
            f"--output {output} has the ending {output.suffix!r}; what is written is an"
            " ONNX model, so let its name end in .onnx."
        )


def _check_ready(output: Path, report: Path | None, *, overwrite: bool) -> None:
    """Refuse what could not be written at the end, before any work is done for it."""
    needed = [("onnx", "Writing an ONNX model"), ("onnxruntime", "Running it")]
    check_target(output, overwrite=overwrite)
    if report is not None:
        check_target(report, overwrite=overwrite)
        needed += [(name, "The HTML report") for name in ("jinja2", "matplotlib")]
    for name, purpose in needed:
        import_optional(name, purpose)


def _check_model_runs(source: Source) -> None:
    """Refuse a model that would be named for nothing."""
    if source.model is not None and source.inputs is None:
        raise UsageError(
            "MODEL is run on --inputs. With --logits or --probabilities, leave it out."
        )


def _fit_and_judge(
    calibrator: Any, scores: Scores, judging: Judging
) -> tuple[HeldOut, int]:
    """Fit in place; return held-out probabilities and the number of samples fitted."""
    n_samples = len(scores.codes)
    if judging.test_fraction is None:
        with working("Fitting"):
            calibrator.fit(scores.seen_by(calibrator), scores.labels)
        held_out = cross_fit(calibrator, scores, judging.folds, judging.seed)
        return held_out, n_samples
    train, test = split_rows(scores, judging.test_fraction, judging.seed)
    with working("Fitting"):
        calibrator.fit(scores.seen_by(calibrator)[train], scores.labels[train])
    return judge(calibrator, scores, test), len(train)


def _save(
    model: Any,
    original: Path | None,
    outcome: Outcome,
    report: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Write the model, its weights and the report: all of them, or none."""
    target = outcome.served.path.absolute()
    folder = None if original is None else original.absolute().parent
    files = model_files(model, target, overwrite, folder)
    if report is not None:
        check_target(report, overwrite=overwrite)
        text = render_report(outcome)
        files[report.absolute()] = partial(Path.write_text, data=text, encoding="utf-8")
    write_together(files)


def run_evaluate(source: Source, judging: Judging) -> tuple[Scores, CalibrationReport]:
    """Measure probabilities as they are."""
    _check_model_runs(source)
    scores = load_scores(source)
    proba = uncalibrated(scores.logits)
    return scores, measure(scores.labels, proba, scores.classes, judging)


def run_compare(
    source: Source, methods: str | None, judging: Judging
) -> tuple[Scores, CalibratorComparison]:
    """Fit and judge methods on the same folds."""
    _check_model_runs(source)
    names = list(METHODS) if methods is None else _names(methods)
    if CLAMPING in names:
        raise UsageError(
            "compare fits all methods on the same logits; clamping is fitted on "
            "inputs. Run `skcalib calibrate --method clamping` and see its report."
        )
    calibrators = {name: make_calibrator(name, judging.seed) for name in names}
    scores = load_scores(source)
    tables = [
        compare_calibrators(
            {name: calibrator},
            scores.logits,
            scores.labels,
            cv=judging.folds,
            n_bins=judging.n_bins,
            classes=scores.classes,
            random_state=judging.seed,
        )
        for name, calibrator in progress(calibrators.items(), "Comparing", len(names))
    ]
    return scores, _join(tables)


def _names(methods: str) -> list[str]:
    return [name.strip() for name in methods.split(",")]


def _join(tables: list[CalibratorComparison]) -> CalibratorComparison:
    """Put tables of one method each under one another, "uncalibrated" only once."""
    first, *others = tables
    return CalibratorComparison(
        first.names + [name for table in others for name in table.names[1:]],
        first.metrics,
        np.vstack([first.mean, *(table.mean[1:] for table in others)]),
        np.vstack([first.std, *(table.std[1:] for table in others)]),
    )
