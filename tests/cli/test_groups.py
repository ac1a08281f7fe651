"""Rows that belong together, on the command line."""

import csv

import numpy as np
import pytest

from skcalib import IsotonicCalibration, calibrate
from skcalib.datasets import make_logits
from skcalib.metrics import calibration_report

PATIENT = np.repeat(np.arange(60), 5)


@pytest.fixture
def copies(tmp_path):
    """Five noisy copies of each of 60 rows, in several files; and their numbers."""
    logits, y = make_logits(60, 3, random_state=0)
    noise = np.random.default_rng(0).normal(size=(300, 3))
    logits, y = logits[PATIENT] + 0.01 * noise, y[PATIENT]
    names = [f"p{k}" for k in PATIENT]
    np.savez(tmp_path / "all.npz", logits=logits, y=y, patient=names)
    np.savez(tmp_path / "scores.npz", logits=logits, y=y)
    np.save(tmp_path / "scores.npy", logits)
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "groups.csv").write_text("\n".join(["group", *names]) + "\n")
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["0", "patient", "1", "2", "label"])
        for (a, b, c), name, label in zip(logits, names, y, strict=True):
            writer.writerow([a, name, b, c, label])
    return logits, y


FIT = ("calibrate", "--save", "c.json", "-m", "isotonic", "--overwrite", "--json")
IN_COLUMN = ("--logits", "all.csv", "--groups-key", "patient")


@pytest.mark.parametrize(
    "files",
    [
        IN_COLUMN,
        ("--logits", "all.npz", "--groups-key", "patient"),
        ("--logits", "scores.npz", "--groups", "groups.csv"),
        ("--logits", "scores.npz", "--groups", "all.npz", "--groups-key", "patient"),
        ("--logits", "scores.npy", "--labels", "y.npy", "--groups", "groups.csv"),
    ],
)
def test_groups_in_any_file_judge_as_in_python(skcalib, copies, files):
    logits, y = copies
    run = skcalib(*FIT, *files, "--n-bootstrap", 30)
    assert run.code == 0, run.err
    assert run.json["judged_on"] == "300 samples in 60 groups, cross-fitted in 5 folds"
    found = calibrate(
        logits=logits,
        y=y,
        calibrator=IsotonicCalibration(),
        groups=PATIENT,
        n_bootstrap=30,
    )
    for when, report in found.report.items():
        told = run.json[when]["metrics"]["nll"]
        assert told == pytest.approx(report["nll"]._asdict(), rel=1e-6)


def test_a_table_on_standard_input_holds_groups(skcalib, copies, tmp_path):
    text = (tmp_path / "all.csv").read_text()
    files = ("--logits", "-", "--groups-key", "patient", "--n-bootstrap", 0)
    run = skcalib(*FIT, *files, stdin=text)
    assert run.code == 0, run.err
    assert run.json["judged_on"].startswith("300 samples in 60 groups")


def test_groups_are_held_out_as_a_whole(skcalib, copies):
    run = skcalib(*FIT, *IN_COLUMN, "--test-fraction", 0.25, "--n-bootstrap", 30)
    assert run.code == 0, run.err
    assert run.json["judged_on"] == "75 samples in 15 groups held out"
    told = run.json["before"]["metrics"]["nll"]
    assert told["low"] < told["value"] < told["high"]


@pytest.mark.slow
def test_the_search_is_told_of_the_groups(skcalib, copies, tmp_path):
    options = ("calibrate", "--save", "c.json", "--json", "--n-bootstrap", 0)
    run = skcalib(*options, *IN_COLUMN)
    assert run.code == 0, run.err
    logits, y = copies
    found = calibrate(logits=logits, y=y, groups=PATIENT, n_bootstrap=0)
    nll = run.json["after"]["metrics"]["nll"]["value"]
    assert nll == pytest.approx(found.report["after"]["nll"].value, rel=1e-3)


def test_intervals_of_groups_are_wider(skcalib, copies):
    logits, y = copies
    one = calibration_report(y, np.exp(logits) / np.exp(logits).sum(1)[:, None])
    options = ("evaluate", "--n-bootstrap", 300, "--json")
    together, alone = (
        skcalib(*options, "--logits", "all.npz", *more).json["metrics"]["nll"]
        for more in (("--groups-key", "patient"), ())
    )
    assert together["value"] == alone["value"] == pytest.approx(one["nll"].value)
    ratio = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(np.sqrt(5), rel=0.25)
    told = skcalib("evaluate", *IN_COLUMN, "--n-bootstrap", 0)
    assert "300 samples in 60 groups of 3 classes:" in told.out


def test_methods_are_compared_by_groups(skcalib, copies):
    options = ("compare", "--methods", "isotonic", "--json")
    together, alone = (
        skcalib(*options, *more).json["methods"]["isotonic"]["nll"]["mean"]
        for more in (IN_COLUMN, ("--logits", "scores.npz"))
    )
    assert together > 2 * alone


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("all.npz", "--groups-key", "video"), "There is no 'video' for the groups"),
        (
            ("scores.npy", "--labels", "y.npy", "--groups-key", "patient"),
            "scores.npy holds one array without a name, and no 'patient'",
        ),
        (("all.npz", "--groups", "few.csv"), "groups has shape (2,); it needs one"),
        (("all.npz", "--groups", "one.csv"), "groups holds one group only: 'a'"),
        (("all.npz", "--groups", "gap.csv"), "gap.csv misses 1 values of"),
        (("all.npz", "--groups", "all.csv"), "none has a usual name of groups"),
    ],
)
def test_groups_that_are_not_there_are_refused(
    refused, copies, tmp_path, files, message
):
    (tmp_path / "few.csv").write_text("group\na\nb\n")
    (tmp_path / "one.csv").write_text("group\n" + "a\n" * 300)
    (tmp_path / "gap.csv").write_text("group,x\n" + ",1\n" + "a,1\n" * 299)
    options = [word for word in FIT if word != "--json"]
    assert message in refused(1, *options, "--logits", *files)


def test_a_file_of_groups_is_not_written_over(refused, copies):
    files = ("--logits", "all.npz", "--groups", "groups.csv")
    told = refused(2, "calibrate", "--save", "groups.csv", *files)
    assert "groups.csv is read by this command" in told


def test_the_verdict_on_copies_is_that_on_the_rows():
    from skcalib._judging import HeldOut
    from skcalib.cli._words import loss_gain, verdict

    rng = np.random.default_rng(0)
    codes = rng.integers(2, size=40)
    before, after = rng.dirichlet([2, 2], size=(2, 40))
    row = np.repeat(np.arange(40), 25)
    once, many = (
        HeldOut(
            codes[rows], np.arange(2), before[rows], after[rows], "held out", unit=unit
        )
        for rows, unit in ((np.arange(40), None), (row, row))
    )
    gain, error = loss_gain(once, before)
    assert loss_gain(many, before[row]) == pytest.approx((gain, error))
    assert verdict(once).partition(", and in")[0] in verdict(many)
    low, high = (float(word) for word in verdict(many).split()[-8:-5:2])
    low_once, high_once = (float(word) for word in verdict(once).split()[-8:-5:2])
    assert (low, high) == pytest.approx((low_once, high_once), abs=0.5)


def test_a_monitor_reads_groups_from_standard_input(skcalib):
    rows = "".join(f".5,.5,{'ab'[k % 2]},{k // 2 % 2}\n" for k in range(40))
    options = ("--probabilities", "-", "--groups-key", "market", "--json")
    run = skcalib("monitor", "s.json", *options, stdin=f"0,1,market,label\n{rows}")
    assert run.code == 0, run.err
    assert set(run.json["group_evidence"]) == {"a", "b"}


def test_a_folder_of_images_has_no_column_of_groups(refused, tmp_path, demo):
    (tmp_path / "images").mkdir()
    files = (demo.model, "--inputs", "images", "--groups-key", "patient")
    told = refused(2, "calibrate", *files, "--save", "c.json")
    assert "Name a file of groups with --groups" in told
