"""Tables whose columns are classes: by name, in order, and beside other columns."""

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.onnx

pandas = pytest.importorskip("pandas")

QUICK = ("--n-bootstrap", 0)
# Not in alphabetical order.
NAMES = ["trouser", "top", "pullover"]


@pytest.fixture
def frame(logits_file):
    """The logits of `logits_file` under the names of the classes, and the labels."""
    with np.load(logits_file) as arrays:
        table = pandas.DataFrame(arrays["logits"], columns=NAMES)
        table["label"] = np.array(NAMES)[arrays["y"]]
    return table


@pytest.fixture
def metrics(skcalib):
    """Metrics that ``skcalib evaluate`` prints for files of logits."""

    def evaluate(*arguments):
        run = skcalib("evaluate", "--logits", *arguments, "--json", *QUICK)
        assert run.code == 0, run.err
        return {name: told["value"] for name, told in run.json["metrics"].items()}

    return evaluate


def save(frame, ending):
    path = f"table.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_named_after_the_classes_are_theirs(
    metrics, skcalib, frame, logits_file, ending
):
    expected = metrics(logits_file)
    path = save(frame, ending)
    assert metrics(path) == pytest.approx(expected)
    np.save("labels.npy", frame["label"].to_numpy(str))
    alone = save(frame[NAMES], ending)
    assert metrics(alone, "--labels", "labels.npy") == pytest.approx(expected)


def test_columns_named_by_numbers_are_those_numbers(metrics, frame, logits_file):
    # As pandas sorts them: 0, 1, 10, ... are named in the order of text.
    frame.columns = ["20", "3", "100", "label"]
    frame["label"] = frame["label"].map(dict(zip(NAMES, [20, 3, 100], strict=True)))
    assert metrics(save(frame, "csv")) == pytest.approx(metrics(logits_file))


@pytest.mark.parametrize(
    "names",
    [
        ["03", "01", "02"],
        ["3.0", "1.0", "2.0"],
        ["30_0", "1_0", "2_0"],
        ["3E5", "1E5", "2E5"],
    ],
)
def test_labels_that_name_columns_keep_their_spelling(
    metrics, frame, logits_file, names
):
    frame["label"] = frame["label"].map(dict(zip(NAMES, names, strict=True)))
    frame.columns = [*names, "label"]
    expected = pytest.approx(metrics(logits_file))
    assert metrics(save(frame, "csv")) == expected
    frame["label"].to_csv("labels.csv", index=False)
    alone = save(frame[names], "parquet")
    assert metrics(alone, "--labels", "labels.csv") == expected


@pytest.mark.parametrize("form", ["%d", "%+d", "%02d", "%.1f", "%.18e"])
def test_labels_are_integers_however_they_are_written(
    metrics, frame, logits_file, form
):
    # Sorted as text, 10 would come before 2.
    with np.load(logits_file) as arrays:
        np.save("logits.npy", arrays["logits"])
        np.savetxt("labels.csv", np.array([1, 2, 10])[arrays["y"]], form)
    found = metrics("logits.npy", "--labels", "labels.csv")
    assert found == pytest.approx(metrics(logits_file))


def test_the_classes_of_the_columns_are_told(skcalib, frame):
    path = save(frame, "csv")
    told = "trouser = trouser, top = top, pullover = pullover"
    for command in (["evaluate", *QUICK], ["compare", "--methods", "temperature"]):
        run = skcalib(*command, "--logits", path)
        assert f"Columns and their classes: {told}\n" in run.out
        columns = skcalib(*command, "--logits", path, "--json").json["columns"]
        assert list(columns.items()) == [(name, name) for name in NAMES]
    calibrate = ("calibrate", "--logits", path, "-m", "platt", *QUICK, "-o")
    assert told in skcalib(*calibrate, "a.onnx").out
    assert skcalib(*calibrate, "b.onnx", "--json").json["columns"] == columns


def test_columns_of_other_names_are_told_as_they_are_taken(skcalib, frame):
    frame.columns = ["x1", "x2", "x3", "label"]
    run = skcalib("evaluate", "--logits", save(frame, "csv"), *QUICK)
    assert "x1 = pullover, x2 = top, x3 = trouser\n" in run.out


def test_arrays_have_no_columns_to_tell_of(skcalib, logits_file):
    run = skcalib("evaluate", "--logits", logits_file, *QUICK)
    assert "Columns" not in run.out
    run = skcalib("evaluate", "--logits", logits_file, *QUICK, "--json")
    assert run.json["columns"] is None


def test_the_option_classes_goes_before_the_names(metrics, frame, logits_file):
    shuffled = frame.set_axis(["top", "pullover", "trouser", "label"], axis=1)
    path = save(shuffled, "csv")
    expected = metrics(logits_file)
    assert metrics(path, "--classes", ",".join(NAMES)) == pytest.approx(expected)
    assert metrics(path) != pytest.approx(expected)


def test_names_of_some_classes_only_are_refused(refused, frame):
    path = save(frame.rename(columns={"top": "shirt"}), "csv")
    message = refused(1, "evaluate", "--logits", path)
    assert "['pullover', 'trouser'] are names of columns and ['top'] are not" in message


@pytest.mark.parametrize("name", ["id", "ID", "index", "image_id", "Unnamed: 0"])
def test_an_index_becomes_no_class(refused, metrics, frame, logits_file, name):
    frame.insert(0, name, np.random.default_rng(0).permutation(len(frame)) + 5000)
    path = save(frame, "csv")
    message = refused(1, "evaluate", "--logits", path)
    assert f"column '{name}' of table.csv numbers the rows" in message
    assert "--logits-key trouser,top,pullover" in message
    chosen = metrics(path, "--logits-key", ",".join(NAMES))
    assert chosen == pytest.approx(metrics(logits_file))


@pytest.mark.parametrize("name", ["y_pred", "prediction", "Predicted Label", "argmax"])
@pytest.mark.parametrize("by_number", [True, False])
def test_a_predicted_class_becomes_no_class(
    refused, metrics, frame, logits_file, name, by_number
):
    frame.insert(3, name, frame[NAMES].to_numpy().argmax(axis=1))
    if by_number:
        frame["label"] = frame["label"].map(NAMES.index)
    path = save(frame, "csv")
    message = refused(1, "evaluate", "--logits", path)
    assert f"column '{name}' of table.csv holds predicted classes" in message
    assert "--logits-key trouser,top,pullover" in message
    chosen = metrics(path, "--logits-key", ",".join(NAMES))
    assert chosen == pytest.approx(metrics(logits_file))


def test_an_index_that_is_named_is_taken(skcalib, frame):
    frame.insert(0, "id", np.arange(len(frame)) % 7)
    # Not all different, so it may be scores.
    assert skcalib("evaluate", "--logits", save(frame, "csv"), *QUICK).code == 0
    frame["id"] = np.arange(len(frame))
    path = save(frame, "csv")
    for option in (
        ["--logits-key", f"id,{','.join(NAMES)}"],
        ["--classes", f"none,{','.join(NAMES)}"],
    ):
        run = skcalib("evaluate", "--logits", path, *option, *QUICK)
        assert run.code == 0, run.err


def test_scores_of_a_class_called_like_an_index_are_scores(skcalib, frame):
    path = save(frame.rename(columns={"top": "id"}).replace("top", "id"), "csv")
    run = skcalib("evaluate", "--logits", path, *QUICK)
    assert "trouser = trouser, id = id, pullover = pullover" in run.out
