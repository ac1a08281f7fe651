"""Every mistake of a user: its message, its exit code and no traceback."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from skcalib.datasets import make_logits

pytestmark = pytest.mark.onnx

QUICK = ("--n-bootstrap", 0)
UNUSABLE, USAGE, MISSING_PACKAGE = 1, 2, 4


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def calibrate(refused, tmp_path):
    """Refused ``skcalib calibrate``, which must leave no file behind."""

    def run(code, *arguments):
        before = sorted(os.listdir(tmp_path))
        message = refused(code, "calibrate", *arguments, "-o", "out.onnx")
        assert sorted(os.listdir(tmp_path)) == before
        return message

    return run


@pytest.mark.parametrize("command", ["calibrate", "compare"])
def test_nothing_is_fitted_to_a_single_class(refused, command):
    file = save("bad.npz", logits=np.zeros((4, 3)), y=[1, 1, 1, 1])
    output = ("-o", "out.onnx") if command == "calibrate" else ()
    message = refused(UNUSABLE, command, "--logits", file, *output)
    assert "y holds one class only" in message


@pytest.fixture
def command():
    return "evaluate"


every_command = pytest.mark.parametrize("command", ["calibrate", "evaluate", "compare"])


class TestData:
    def run(self, refused, command, *arguments):
        output = ("-o", "out.onnx") if command == "calibrate" else ()
        return refused(UNUSABLE, command, *arguments, *output)

    @every_command
    def test_nan_is_named_with_its_row(self, refused, command):
        logits = np.zeros((10, 3))
        logits[7, 1] = np.nan
        file = save("bad.npz", logits=logits, y=np.arange(10) % 3)
        message = self.run(refused, command, "--logits", file)
        assert "contains NaN: row 7" in message

    def test_infinity_is_named_with_its_row(self, refused, command):
        logits = np.zeros((10, 3))
        logits[4, 2] = -np.inf
        file = save("bad.npz", logits=logits, y=np.arange(10) % 3)
        message = self.run(refused, command, "--logits", file)
        assert "contains infinity: row 4" in message

    def test_absent_classes_are_named_by_an_option(self, refused, command):
        y = np.array(["ant", "cat"])[np.arange(10) % 2]
        file = save("few.npz", logits=np.eye(10)[:, :3], y=y)
        message = self.run(refused, command, "--logits", file)
        assert message.endswith("in the order of the columns: --classes a,b,c.")

    @every_command
    def test_a_missing_file(self, refused, command):
        message = self.run(refused, command, "--logits", "nothing.npz")
        assert "There is no file nothing.npz" in message

    def test_a_missing_key_is_answered_with_the_names(
        self, refused, command, logits_file
    ):
        message = self.run(
            refused, command, "--logits", logits_file, "--logits-key", "resnet"
        )
        assert "no 'resnet' for the logits; the names are logits, y" in message

    def test_labels_outside_the_columns(self, refused, command):
        file = save("bad.npz", logits=np.zeros((4, 3)), y=[0, 1, 2, 7])
        assert "X has 3 columns but y has 4 classes" in self.run(
            refused, command, "--logits", file
        )

    def test_no_labels(self, refused, command):
        file = save("bad.npz", logits=np.zeros((4, 3)))
        message = self.run(refused, command, "--logits", file)
        assert "No labels found in bad.npz" in message

    def test_more_rows_than_labels(self, refused, command):
        file = save("bad.npz", logits=np.zeros((4, 3)), y=[0, 1, 2])
        message = self.run(refused, command, "--logits", file)
        assert "bad.npz has 4 rows but there are 3 labels" in message

    def test_logits_given_as_probabilities(self, refused, command, logits_file):
        message = self.run(
            refused, command, "--probabilities", logits_file,
            "--probabilities-key", "logits",
        )  # fmt: skip
        assert "Row 0 of the probabilities holds -0.39" in message

    def test_no_rows(self, refused, command):
        file = save("bad.npz", logits=np.zeros((0, 3)), y=np.zeros(0, int))
        assert "bad.npz has no rows" in self.run(refused, command, "--logits", file)

    def test_classes_of_another_kind_than_the_labels(
        self, refused, command, logits_file
    ):
        message = self.run(
            refused, command, "--logits", logits_file, "--classes", "a,b"
        )
        assert "--classes names 2 columns, whose numbers are 0 to 1" in message
        assert "there are labels [2]" in message


class TestModel:
    def run(self, refused, command, *arguments):
        output = ("-o", "out.onnx") if command == "calibrate" else ()
        return refused(UNUSABLE, command, *arguments, *output)

    @every_command
    def test_a_missing_model(self, refused, command, images_file):
        message = self.run(refused, command, "none.onnx", "--inputs", images_file)
        assert "Cannot read the ONNX model" in message
        assert "none.onnx" in message

    @pytest.mark.parametrize("content", [b"", b"certainly no model" * 20])
    def test_a_corrupt_model(self, refused, command, images_file, tmp_path, content):
        (tmp_path / "bad.onnx").write_bytes(content)
        message = self.run(refused, command, "bad.onnx", "--inputs", images_file)
        assert "bad.onnx' is no ONNX model" in message

    def test_a_model_in_training_mode(self, refused, command, images_file, tmp_path):
        onnx = pytest.importorskip("onnx")
        info = onnx.helper.make_tensor_value_info
        node = onnx.helper.make_node(
            "BatchNormalization", ["x", "s", "s", "s", "s"], ["p"], training_mode=1
        )
        graph = onnx.helper.make_graph(
            [node],
            "small",
            [info("x", 1, ("n", 3)), info("s", 1, (3,))],
            [info("p", 1, ("n", 3))],
        )
        onnx.save(onnx.helper.make_model(graph), tmp_path / "train.onnx")
        message = self.run(refused, command, "train.onnx", "--inputs", images_file)
        assert "is in training mode; export the network in eval mode" in message

    def test_half_a_model(self, refused, command, images_file, tmp_path, demo):
        with open(demo.model, "rb") as file:
            (tmp_path / "half.onnx").write_bytes(file.read()[:15_000])
        message = self.run(refused, command, "half.onnx", "--inputs", images_file)
        assert "half.onnx' is no ONNX model" in message

    def test_inputs_of_the_wrong_shape(self, refused, command, demo):
        file = save("bad.npz", X=np.zeros((5, 64), np.float32), y=np.arange(5))
        message = self.run(refused, command, demo.model, "--inputs", file)
        assert "shape (5, 64) but the model's input 'image'" in message

    def test_inputs_that_are_bytes(self, refused, command, demo):
        file = save("bad.npz", X=np.zeros((5, 8, 8), np.uint8), y=np.arange(5))
        message = self.run(refused, command, demo.model, "--inputs", file)
        assert "uint8" in message

    def test_an_unknown_output(self, refused, command, demo, images_file):
        message = self.run(
            refused, command, demo.model, "--inputs", images_file,
            "--model-output", "scores",
        )  # fmt: skip
        assert "'scores'" in message
        assert "probabilities" in message


def test_several_outputs_of_scores_are_told_with_the_option(refused, tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    names = ["a", "b"]
    nodes = [
        onnx.helper.make_node(o, ["x"], [n])
        for o, n in zip(["Neg", "Abs"], names, strict=True)
    ]
    ends = [value(name, 1, ["n", 3]) for name in ("x", *names)]
    graph = onnx.helper.make_graph(nodes, "two", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "two.onnx")
    file = save("x.npz", x=np.zeros((9, 3), np.float32), y=np.arange(9) % 3)
    message = refused(UNUSABLE, "evaluate", "two.onnx", "--inputs", file)
    assert "['a', 'b']. Name the right one: --model-output NAME" in message


def test_an_output_that_exists_is_left_alone(refused, logits_file, tmp_path):
    (tmp_path / "out.onnx").write_text("precious")
    message = refused(UNUSABLE, "calibrate", "--logits", logits_file, "-o", "out.onnx")
    assert "'out.onnx' exists already" in message
    assert "--overwrite" in message
    assert (tmp_path / "out.onnx").read_text() == "precious"


def test_a_report_that_exists_keeps_the_model_from_being_written(
    refused, logits_file, tmp_path
):
    (tmp_path / "r.html").write_text("precious")
    message = refused(
        UNUSABLE, "calibrate", "--logits", logits_file, "-o", "out.onnx",
        "--report", "r.html",
    )  # fmt: skip
    assert "'r.html' exists already" in message
    assert (tmp_path / "r.html").read_text() == "precious"
    assert not (tmp_path / "out.onnx").exists()


def test_a_folder_that_does_not_exist(refused, logits_file):
    message = refused(
        UNUSABLE, "calibrate", "--logits", logits_file, "-o", "no/where/out.onnx"
    )
    assert "no/where' does not exist. Make it first" in message


def test_a_folder_in_place_of_a_file(refused, logits_file, tmp_path):
    (tmp_path / "folder").mkdir()
    message = refused(UNUSABLE, "calibrate", "--logits", logits_file, "-o", "folder")
    assert "'folder' is a folder; name a file" in message


def test_a_read_only_folder(refused, logits_file, tmp_path, monkeypatch):
    folder = tmp_path / "fixed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(folder, os.W_OK):  # the superuser may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    message = refused(
        UNUSABLE, "calibrate", "--logits", logits_file, "-o", folder / "out.onnx"
    )
    assert "fixed' is read-only" in message


def test_an_unknown_method_is_answered_with_the_list(calibrate, logits_file):
    message = calibrate(USAGE, "--logits", logits_file, "-m", "temprature")
    assert (
        "no method 'temprature'. Did you mean 'temperature'? Choose from temperature,"
        in message
    )


def test_no_data(calibrate):
    assert "exactly one of --inputs" in calibrate(USAGE)


def test_logits_and_probabilities(calibrate, logits_file):
    message = calibrate(USAGE, "--logits", logits_file, "--probabilities", logits_file)
    assert "got 2 of them" in message


def test_inputs_without_a_model(calibrate, images_file):
    message = calibrate(USAGE, "--inputs", images_file)
    assert "--inputs are the inputs of a model" in message


def test_probabilities_with_a_model(calibrate, demo, probabilities_file):
    message = calibrate(USAGE, demo.model, "--probabilities", probabilities_file)
    assert "leave MODEL out" in message


def test_a_model_that_would_not_be_run(refused, demo, logits_file):
    message = refused(USAGE, "evaluate", demo.model, "--logits", logits_file)
    assert "MODEL is run on --inputs" in message


def test_outputs_to_keep_without_a_model(calibrate, logits_file):
    message = calibrate(USAGE, "--logits", logits_file, "--keep-outputs")
    assert "name one" in message


@pytest.mark.parametrize("option", ["--output", "--report"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_is_read_is_never_written_to(
    refused, demo, images_file, tmp_path, option, number
):
    shutil.copy(demo.model, tmp_path / "model.onnx")
    path = tmp_path / ("model.onnx", images_file.name)[number]
    content = path.read_bytes()
    other = {"--output": "--report", "--report": "--output"}[option]
    message = refused(
        USAGE, "calibrate", "model.onnx", "--inputs", images_file, "--overwrite",
        option, tmp_path / ".." / tmp_path.name / path.name, other, "other",
    )  # fmt: skip
    assert "is read by this command, so it is never written to" in message
    assert path.read_bytes() == content


def test_one_name_for_two_files(calibrate, logits_file):
    message = calibrate(USAGE, "--logits", logits_file, "--report", "out.onnx")
    assert "name the same file" in message


def test_a_wrong_floor(calibrate, probabilities_file):
    message = calibrate(UNUSABLE, "--probabilities", probabilities_file, "--floor", 2.0)
    assert 'floor=2.0 is neither a number between 0 and 1 nor "auto"' in message


@pytest.mark.parametrize(
    "arguments", [("--folds", "1"), ("--test-fraction", "1"), ("--no-such-option",)]
)
def test_impossible_options(calibrate, logits_file, arguments):
    message = calibrate(USAGE, "--logits", logits_file, *arguments)
    assert arguments[0] in message


@pytest.mark.parametrize(
    ("package", "extra"), [("onnx", "onnx"), ("jinja2", "cli"), ("matplotlib", "plot")]
)
def test_a_missing_package_names_its_extra(
    refused, logits_file, hide_package, package, extra
):
    hide_package(package)
    message = refused(
        MISSING_PACKAGE, "calibrate", "--logits", logits_file, "-o", "out.onnx",
        "--report", "r.html",
    )  # fmt: skip
    assert f'pip install "skcalib[{extra}]"' in message


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_the_command_without_its_packages(hide_package, capsys, package):
    from skcalib.cli import main

    hide_package(package)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == MISSING_PACKAGE
    assert 'pip install "skcalib[cli]"' in capsys.readouterr().err


def test_a_warning_is_one_line(skcalib, tmp_path):
    # Logits that are all equal have no best temperature.
    logits = np.zeros((30, 3))
    save(tmp_path / "easy.npz", logits=logits, y=np.arange(30) % 3)
    run = skcalib(
        "calibrate",
        "--logits",
        "easy.npz",
        "-m",
        "temperature",
        "-o",
        "out.onnx",
        *QUICK,
    )
    assert run.code == 0, run.err
    assert run.err.startswith("Warning: TemperatureScaling")
    assert ".py" not in run.err


def test_a_warning_names_classes_counted_from_1_by_the_option(skcalib, tmp_path):
    logits, y = make_logits(400, 4, random_state=0)
    # None is of the last column, whose number would be 4 + 1.
    save(tmp_path / "from_1.npz", logits=logits[y < 3], y=y[y < 3] + 1)
    run = skcalib("evaluate", "--logits", "from_1.npz", *QUICK)
    assert run.code == 0, run.err
    assert run.err.strip().endswith("name them: --classes 1,2,3,4.")


@pytest.mark.parametrize("names", [[0, 1], ["no", "yes"]])
def test_a_warning_of_a_turned_column_names_the_option_once(skcalib, tmp_path, names):
    logits, y = make_logits(400, 2, random_state=0)
    column = logits[:, :1] - logits[:, 1:]
    save(tmp_path / "turned.npz", logits=column, y=np.array(names)[y])
    files = ("--logits", "turned.npz", "-o", "out.onnx")
    run = skcalib("calibrate", *files, "--method", "temperature", *QUICK)
    assert run.code == 0, run.err
    assert run.err.count(f"--classes {names[1]},{names[0]}.") == 1
    assert "classes=" not in run.err


def test_a_written_model_that_differs_from_python_is_not_passed_over(
    skcalib, logits_file, monkeypatch
):
    from skcalib import TemperatureScaling
    from skcalib.cli import _export
    from skcalib.export import to_onnx

    other = to_onnx(TemperatureScaling().fit(np.eye(3)[[0, 0, 1, 2]], [0, 1, 1, 2]))
    monkeypatch.setattr(_export, "to_onnx", lambda calibrator: other)
    run = skcalib(
        "calibrate", "--logits", logits_file, "-m", "vector", "-o", "out.onnx", *QUICK
    )
    assert "Do not serve it before you know why" in run.err


def test_a_result_that_is_no_onnx_file_is_refused_before_any_work(refused):
    message = refused(USAGE, "calibrate", "--logits", "missing.npz", "-o", "model.pkl")
    assert "has the ending '.pkl'" in message
    assert "end in .onnx" in message


def test_a_full_disk_at_the_report_leaves_no_model(refused, logits_file, monkeypatch):
    def full(path, data, encoding):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    before = sorted(os.listdir())
    message = refused(
        UNUSABLE, "calibrate", "--logits", logits_file, "-o", "c.onnx", "-m",
        "temperature", "--report", "r.html", *QUICK,
    )  # fmt: skip
    assert "r.html" in message
    assert "No space left" in message
    assert sorted(os.listdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["imports", "work"])
def test_an_interrupt_is_told_in_one_line(logits_file, tmp_path, moment):
    # The process interrupts itself at a known moment, as a terminal would.
    during_work = "import skcalib.cli._commands as c; c.cross_fit = lambda *a: stop()"
    during_imports = (
        "class Stop:\n"
        "    def find_spec(self, name, *a):\n"
        "        if name == 'skcalib.cli._app': stop()\n"
        "sys.meta_path.insert(0, Stop())\n"
    )
    script = (
        "import os, signal, sys\n"
        # A job in the background, such as a test run, ignores interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def stop(): os.kill(os.getpid(), signal.SIGINT)\n"
        f"{during_imports if moment == 'imports' else during_work}\n"
        "from skcalib.cli import main\n"
        "main()\n"
    )
    arguments = ["calibrate", "--logits", str(logits_file), "-o", "c.onnx"]
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script, *arguments, "-m", "temperature"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 130
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("Interrupted")
    assert os.listdir(tmp_path) == [logits_file.name]


def test_rounded_probabilities_are_normalised_on_request(skcalib, probabilities_file):
    with np.load(probabilities_file) as arrays:
        np.savez(probabilities_file, proba=arrays["proba"].round(2), y=arrays["y"])
    command = ("evaluate", "--probabilities", probabilities_file, *QUICK)
    refused = skcalib(*command)
    assert refused.code == UNUSABLE
    assert "with --normalise" in " ".join(refused.err.split())
    assert skcalib(*command, "--normalise").code == 0
