import errno
import json
import os
import time
from threading import Thread

import numpy as np
import pytest
from streams import draw_stream

pytest.importorskip("typer")
pytest.importorskip("rich")

from skcalib.cli import _monitoring

UNUSABLE, USAGE, ALARM = 1, 2, 3


@pytest.fixture
def batches(tmp_path):
    """Files of a calibrated batch, and of two of an over-confident model."""
    rng = np.random.default_rng(0)
    for name, factor in {"calm": 1.0, "sharp": 1.8, "more": 1.8}.items():
        y, proba = draw_stream(rng, 600, 3, factor=factor)
        groups = rng.choice(["a", "b"], 600)
        np.savez(tmp_path / f"{name}.npz", proba=proba, y=y, groups=groups)
    return tmp_path


def test_a_state_is_made_updated_and_alarms(skcalib, batches):
    first = skcalib("monitor", "state.json", "--probabilities", "calm.npz", "--json")
    assert first.code == 0
    assert first.json["alarm"] is False
    assert first.json["n_rows"] == 600
    result = skcalib("monitor", "state.json", "--probabilities", "sharp.npz")
    assert result.code == ALARM
    assert "ALARM after" in result.out
    again = skcalib("monitor", "state.json", "--json")
    assert again.code == ALARM
    assert again.json["n_rows"] == 1200


def test_rounded_probabilities_are_normalised_where_it_is_asked_for(skcalib, batches):
    with np.load(batches / "calm.npz") as calm:
        y, rounded = calm["y"], calm["proba"].round(1)
    np.savez("rounded.npz", proba=rounded, y=y)
    np.savez("divided.npz", proba=rounded / rounded.sum(axis=1, keepdims=True), y=y)
    run = ("monitor", "rounded.json", "--json", "--probabilities", "rounded.npz")
    refused = skcalib(*run)
    assert refused.code == UNUSABLE
    assert "--normalise" in refused.err
    divided = skcalib(
        "monitor", "other.json", "--json", "--probabilities", "divided.npz"
    )
    assert skcalib(*run, "--normalise").json == divided.json


@pytest.mark.parametrize("begun", [(), ("--groups-key", "groups")], ids=len)
def test_groups_are_those_that_a_state_began_with(refused, skcalib, batches, begun):
    first = ("monitor", "state.json", "--probabilities", "calm.npz", *begun)
    assert skcalib(*first).code == 0
    others = () if begun else ("--groups-key", "groups")
    batch = ("monitor", "state.json", "--probabilities", "calm.npz", *others)
    message = refused(USAGE, *batch)
    assert "--groups-key" in message
    assert "begin another state" in message


def test_whole_numbers_in_text_are_labels_in_their_order(skcalib, tmp_path):
    y, proba = draw_stream(np.random.default_rng(0), 300, 12)
    np.savez("integers.npz", proba=proba, y=y)
    np.savez("text.npz", proba=proba, y=y.astype(str))
    runs = [
        skcalib("monitor", f"{name}.json", "--probabilities", f"{name}.npz", "--json")
        for name in ("integers", "text")
    ]
    assert runs[0].json == runs[1].json


@pytest.mark.parametrize("names", ["01,02,03", "1,2,3"])
def test_labels_are_read_as_the_state_spells_them(skcalib, tmp_path, names):
    y = np.arange(300) % 3
    np.savez("day.npz", proba=np.full((300, 3), 1 / 3), y=np.array(names.split(","))[y])
    run = ("monitor", "state.json", "--probabilities", "day.npz", "--json")
    begun = skcalib(*run, "--classes", names)
    assert begun.code == 0, begun.err
    assert skcalib(*run).json["n_rows"] == 600


def test_tables_and_groups_are_read(skcalib, tmp_path):
    rng = np.random.default_rng(0)
    y, proba = draw_stream(rng, 300, 3)
    names = np.array(["cat", "dog", "owl"])[y]
    country = rng.choice(["de", "fr"], 300)
    lines = ["cat,dog,owl,country,label"]
    for row, where, label in zip(proba.tolist(), country, names, strict=True):
        lines.append(",".join([*map(repr, row), where, label]))
    (tmp_path / "day.csv").write_text("\n".join(lines))
    run = (
        "monitor",
        "state.json",
        "--probabilities",
        "day.csv",
        "--groups-key",
        "country",
    )
    assert skcalib(*run, "--json").json["group_evidence"].keys() == {"de", "fr"}
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["classes"] == ["cat", "dog", "owl"]
    turned = lines[0].replace("cat,dog", "dog,cat")
    (tmp_path / "turned.csv").write_text("\n".join([turned, *lines[1:]]))
    refused = skcalib(
        "monitor", "state.json", "--probabilities", "turned.csv", *run[4:]
    )
    assert refused.code == UNUSABLE
    assert "--probabilities-key cat,dog,owl" in " ".join(refused.err.split())
    assert state == json.loads((tmp_path / "state.json").read_text())


def test_the_option_of_the_command_is_named(skcalib, batches):
    with np.load(batches / "calm.npz") as calm:
        y, proba = calm["y"], calm["proba"]
    np.savez(batches / "none.npz", logits=np.log(proba), y=y)
    np.savez(batches / "two.npz", proba=proba, probabilities=proba, y=y)
    np.save(batches / "one.npy", proba)
    for arguments in (
        ["none.npz"],
        ["two.npz"],
        ["one.npy", "--probabilities-key", "p"],
    ):
        refused = skcalib("monitor", "state.json", "--probabilities", *arguments)
        assert refused.code == UNUSABLE
        assert "--probabilities-key" in refused.err
        assert "--proba-key" not in refused.err


def test_parquet_is_read(skcalib, tmp_path):
    pandas = pytest.importorskip("pandas")
    y, proba = draw_stream(np.random.default_rng(0), 100, 2)
    frame = pandas.DataFrame({"0": proba[:, 0], "1": proba[:, 1], "y": y})
    frame.to_parquet(tmp_path / "batch.parquet")
    found = skcalib(
        "monitor", "state.json", "--probabilities", "batch.parquet", "--json"
    )
    assert found.json["n_rows"] == 100


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_a_batch_without_rows_adds_nothing(skcalib, refused, tmp_path, ending):
    pandas = pytest.importorskip("pandas")
    y, proba = draw_stream(np.random.default_rng(0), 100, 2)
    frame = pandas.DataFrame({"cat": proba[:, 0], "dog": proba[:, 1]})
    frame["y"] = np.array(["cat", "dog"])[y]
    frame.to_csv("full.csv", index=False)
    none = f"none.{ending}"
    if ending == "npz":
        np.savez(none, proba=proba[:0], y=frame["y"][:0].to_numpy(str))
    elif ending == "csv":
        frame[:0].to_csv(none, index=False)
    else:
        frame[:0].to_parquet(none)
    message = refused(UNUSABLE, "monitor", "state.json", "--probabilities", none)
    assert f"{none} has no rows to begin a state with" in message
    full = skcalib(
        "monitor", "state.json", "--probabilities", "full.csv", "--json"
    ).json
    again = skcalib("monitor", "state.json", "--probabilities", none, "--json")
    assert (again.code, again.json) == (0, full)
    message = refused(UNUSABLE, "evaluate", "--probabilities", none)
    assert f"{none} has no rows." in message


def test_states_of_servers_are_merged_once(skcalib, batches):
    for name in ("sharp", "more"):
        skcalib(
            "monitor",
            f"{name}.json",
            "--probabilities",
            f"{name}.npz",
            "--alpha",
            "1e-9",
        )
    run = ("monitor", "day.json", "--merge", "sharp.json", "--merge", "more.json")
    merged = skcalib(*run, "--json").json
    assert merged["n_rows"] == 1200
    assert merged["threshold"] == pytest.approx(np.log(1e9))
    again = skcalib("monitor", "day.json", "--merge", "more.json")
    assert again.code == UNUSABLE
    assert "count twice" in again.err


def test_report_and_metrics_are_written(skcalib, batches):
    pytest.importorskip("matplotlib")
    run = (
        "monitor",
        "s.json",
        "--probabilities",
        "sharp.npz",
        "--groups-key",
        "groups",
    )
    result = skcalib(*run, "--report", "m.html", "--prometheus", "m.prom")
    assert result.code == ALARM
    page = (batches / "m.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "not\ncalibrated since about row" in page
    metrics = (batches / "m.prom").read_text()
    assert 'skcalib_monitor_alarm{state="s"} 1\n' in metrics
    assert 'skcalib_monitor_group_evidence{state="s",group="a"} ' in metrics
    assert "# TYPE skcalib_monitor_rows_total counter" in metrics


def test_the_metrics_of_two_states_are_no_series_twice(skcalib, batches):
    series = []
    for name in ("calm", "more"):
        run = ("monitor", f"{name}.json", "--probabilities", f"{name}.npz")
        skcalib(*run, "--groups-key", "groups", "--prometheus", "m.prom")
        lines = (batches / "m.prom").read_text().splitlines()
        series += [line.rpartition(" ")[0] for line in lines if line[0] != "#"]
    assert len(series) == len(set(series)) == 2 * 9


def test_names_in_metrics_are_escaped_as_prometheus_reads_them(skcalib, batches):
    with np.load(batches / "calm.npz") as arrays:
        groups = np.where(arrays["groups"] == "a", 'a"\\\n\tä\x01', "b")
        np.savez(batches / "calm.npz", **{**arrays, "groups": groups})
    run = ("monitor", "s.json", "--probabilities", "calm.npz", "--groups-key", "groups")
    skcalib(*run, "--prometheus", "m.prom")
    metrics = (batches / "m.prom").read_text(encoding="utf-8")
    assert 'group="a\\"\\\\\\n\tä\x01"} ' in metrics


@pytest.mark.onnx
def test_the_next_model_is_written(skcalib, batches):
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, kind, [None, 3]) for n in ("x", "logits")]
    # A model that computes something, if little.
    node = helper.make_node("Add", ["x", "x"], ["logits"])
    graph = helper.make_graph([node], "served", ends[:1], ends[1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, batches / "model.onnx")
    skcalib("monitor", "s.json", "--probabilities", "sharp.npz")
    result = skcalib(
        "recalibrate", "model.onnx", "s.json", "-o", "next.onnx", "--save", "next.json"
    )
    assert result.code == 0, result.err
    assert "calibrated logits" in result.out
    session = ort.InferenceSession(batches / "next.onnx")
    logits = np.log(np.load(batches / "more.npz")["proba"]).astype(np.float32)
    after = session.run(None, {"x": logits / 2})[0]
    spread = np.ptp(after, axis=1).mean() / np.ptp(logits, axis=1).mean()
    assert 0.4 < spread < 0.75
    told = skcalib("recalibrate", "model.onnx", "s.json", "--save", "b.json", "--json")
    assert 1.3 < told.json["temperature"] < 2.5


@pytest.mark.parametrize(
    ("option", "value"),
    [("--alpha", "2"), ("--tolerance", "-1"), ("--delay", "-1"), ("--memory", "-1")],
)
@pytest.mark.parametrize("source", ["--probabilities", "--merge"])
def test_a_setting_out_of_its_range_is_a_wrong_command_line(
    skcalib, refused, batches, option, value, source
):
    skcalib("monitor", "calm.json", "--probabilities", "calm.npz")
    path = "calm.npz" if source == "--probabilities" else "calm.json"
    message = refused(USAGE, "monitor", "s.json", source, path, option, value)
    assert f"'{option[2:]}' parameter of CalibrationMonitor must be" in message


def test_mistakes_are_told(skcalib, refused, batches):
    message = refused(USAGE, "monitor", "none.json")
    assert "There is no state none.json yet" in message
    skcalib("monitor", "s.json", "--probabilities", "calm.npz", "--tolerance", "0.01")
    message = refused(USAGE, "monitor", "s.json", "--tolerance", "0.02")
    assert "not that of the state, 0.01" in message
    message = refused(
        UNUSABLE, "monitor", "s.json", "--probabilities", "calm.npz", "--position", "0"
    )
    assert "came before" in message
    message = refused(USAGE, "monitor", "s.json", "--report", "s.json")
    assert "named twice" in message
    message = refused(UNUSABLE, "monitor", "new.json", "--merge", "gone.json")
    assert "There is no state gone.json" in message
    (batches / "bad.json").write_text("{}")
    message = refused(UNUSABLE, "monitor", "bad.json", "--probabilities", "calm.npz")
    assert "no state of a CalibrationMonitor" in message
    (batches / "cut.json").write_text('{"format": ')
    message = refused(UNUSABLE, "monitor", "cut.json", "--probabilities", "calm.npz")
    assert "cut.json" in message
    np.save(batches / "alone.npy", np.full((5, 2), 0.5))
    message = refused(UNUSABLE, "monitor", "new.json", "--probabilities", "alone.npy")
    assert "No labels found" in message
    message = refused(USAGE, "recalibrate", "m.onnx", "s.json")
    assert "--output, --save" in message
    message = refused(USAGE, "recalibrate", "m.onnx", "s.json", "-o", "m.onnx")
    assert "m.onnx is read by this command" in message
    message = refused(UNUSABLE, "recalibrate", "m.onnx", "s.json", "--save", "bad.json")
    assert "'bad.json' exists already" in message
    assert "pass --overwrite" in message
    assert "overwrite=" not in message


@pytest.mark.parametrize(
    ("option", "name", "ending"),
    [("--output", "next.json", ".onnx"), ("--save", "next.onnx", ".json")],
)
def test_a_result_has_the_ending_of_what_is_written(refused, option, name, ending):
    message = refused(USAGE, "recalibrate", "m.onnx", "s.json", option, name)
    assert f"{option} {name} has the ending" in message
    assert f"let its name end in {ending}." in message


def test_labels_in_a_file_of_their_own_are_named_there(skcalib, batches):
    held = np.load(batches / "calm.npz")
    np.save(batches / "served.npy", held["proba"])
    np.savez(batches / "came.npz", truth=held["y"], other=held["y"])
    run = (
        "monitor",
        "state.json",
        "--probabilities",
        "served.npy",
        "--labels",
        "came.npz",
    )
    assert skcalib(*run, "--labels-key", "truth", "--json").json["n_rows"] == 600


def test_classes_in_another_order_than_those_of_the_state_are_refused(skcalib, batches):
    run = ("monitor", "state.json", "--probabilities", "calm.npz", "--classes")
    assert skcalib(*run, "0,1,2").code == 0
    refused = skcalib(*run, "2,1,0")
    assert refused.code == USAGE
    assert "not those of the state, 0,1,2" in " ".join(refused.err.split())
    assert skcalib("monitor", "state.json", "--json").json["n_rows"] == 600


def test_labels_and_groups_of_a_batch_are_read_as_the_state_names_them(
    skcalib, tmp_path
):
    y, proba = draw_stream(np.random.default_rng(0), 300, 3)
    names = np.array(["1", "2", "2b"])
    for name, kept in {"first": y < 3, "next": y < 2}.items():
        lines = ["1,2,2b,label,group"]
        for row, k in zip(proba[kept].tolist(), y[kept], strict=True):
            lines.append(",".join([*map(repr, row), names[k], names[k]]))
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    for name in ("first", "next"):
        keys = ("--probabilities-key", "1,2,2b", "--groups-key", "group")
        run = skcalib(
            "monitor", "s.json", "--probabilities", f"{name}.csv", *keys, "--json"
        )
        assert run.code in (0, ALARM), run.err
    assert run.json["n_rows"] == 300 + (y < 2).sum()


def test_classes_of_bool_labels_are_named_by_their_text(skcalib, tmp_path):
    y, proba = draw_stream(np.random.default_rng(0), 300, 2)
    np.savez(tmp_path / "b.npz", proba=proba, y=y == 1)
    run = skcalib(
        "monitor", "s.json", "--probabilities", "b.npz", "--classes", "False,True"
    )
    assert run.code == 0, run.err


def slowly(monkeypatch, then):
    """Let a run read the state, and do something before it goes on."""
    read = _monitoring._read_state

    def read_and_then(path):
        state = read(path)
        then(path)
        return state

    monkeypatch.setattr(_monitoring, "_read_state", read_and_then)


def test_of_two_runs_at_once_both_are_counted(skcalib, batches, monkeypatch):
    pytest.importorskip("fcntl")
    assert skcalib("monitor", "state.json", "--probabilities", "calm.npz").code == 0
    slowly(monkeypatch, lambda path: time.sleep(0.5))
    state = batches / "state.json"
    runs = [
        Thread(
            target=_monitoring.run_monitor,
            args=(
                state,
                _monitoring.Batch(probabilities=batches / name),
                [],
                {},
                None,
                None,
            ),
        )
        for name in ("sharp.npz", "more.npz")
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert json.loads(state.read_text())["n_rows"] == 1800
    assert not [path for path in batches.iterdir() if path.name.startswith(".")]


def test_a_state_that_moved_meanwhile_is_not_written_over(
    skcalib, refused, batches, monkeypatch
):
    assert skcalib("monitor", "state.json", "--probabilities", "calm.npz").code == 0
    slowly(monkeypatch, lambda path: path.write_text("moved"))
    message = refused(UNUSABLE, "monitor", "state.json", "--probabilities", "sharp.npz")
    assert "state.json was written by another run in the meantime" in message
    assert (batches / "state.json").read_text() == "moved"


def test_a_state_stays_where_its_metrics_cannot_be_replaced(
    skcalib, refused, batches, monkeypatch
):
    run = ("monitor", "s.json", "--prometheus", "m.prom", "--probabilities")
    assert skcalib(*run, "calm.npz").code == 0
    replace = os.replace

    def of_a_mounted_file(source, target):
        if os.fspath(target).endswith(".prom"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(source, target)

    monkeypatch.setattr(os, "replace", of_a_mounted_file)
    assert "m.prom" in refused(UNUSABLE, *run, "sharp.npz")
    assert json.loads((batches / "s.json").read_text())["n_rows"] == 600


def test_recalibrate_writes_over_nothing_that_came_meanwhile(
    skcalib, refused, batches, monkeypatch
):
    assert skcalib("monitor", "s.json", "--probabilities", "calm.npz").code == 0
    saved = batches / "next.json"
    slowly(monkeypatch, lambda path: saved.write_text("another"))
    run = ("recalibrate", "model.onnx", "s.json", "--save", "next.json")
    (batches / "model.onnx").touch()
    assert "next.json' exists already" in refused(UNUSABLE, *run)
    assert saved.read_text() == "another"


def test_names_for_labels_that_are_numbers_are_told(skcalib, tmp_path):
    proba = np.full((4, 3), 1 / 3)
    np.savez(tmp_path / "p.npz", proba=proba, y=np.array([0, 1, 2, 0]))
    run = skcalib(
        "monitor", "s.json", "--probabilities", "p.npz", "--classes", "cat,dog,owl"
    )
    assert run.code == 1
    assert "Name the number of each column" in run.err


@pytest.mark.parametrize("number", [300, -1, 10**20])
def test_a_class_beyond_the_type_of_the_labels_is_refused(refused, tmp_path, number):
    labels = np.array([0, 1, 2, 0], dtype=np.uint8)
    np.savez(tmp_path / "p.npz", proba=np.full((4, 3), 1 / 3), y=labels)
    told = (
        "monitor",
        "s.json",
        "--probabilities",
        "p.npz",
        "--classes",
        f"0,1,{number}",
    )
    assert "Name the number of each column" in refused(1, *told)
