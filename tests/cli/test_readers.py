import json
import pickle
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skcalib.cli._errors import DataError
from skcalib.cli._readers import read_labels, read_rows
from skcalib.cli._rows import Request

LOGITS = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, -1e4], [2.0, 1.0, 0.5]])
LABELS = np.array([2, 0, 1])


@pytest.fixture
def write_csv(tmp_path):
    def write(text):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def write_npz(folder, **arrays):
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return path


def test_npy_holds_the_values_and_is_mapped_not_read(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    rows = read_rows(tmp_path / "logits.npy", Request("logits"))
    assert_array_equal(rows.values, LOGITS)
    assert rows.labels is None
    assert isinstance(rows.values, np.memmap)


@pytest.mark.parametrize("name", ["logits", "Logits", "scores"])
@pytest.mark.parametrize("label_name", ["y", "labels", "ground_truth"])
def test_npz_arrays_are_found_by_their_usual_names(tmp_path, name, label_name):
    path = write_npz(
        tmp_path, **{name: LOGITS, label_name: LABELS, "cal_idx": np.arange(2)}
    )
    rows = read_rows(path, Request("logits"))
    assert_array_equal(rows.values, LOGITS)
    assert_array_equal(rows.labels, LABELS)


def test_npz_keys_go_before_usual_names(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, other=-LOGITS, y=LABELS, z=LABELS[::-1])
    rows = read_rows(path, Request("logits", "other", "z"))
    assert_array_equal(rows.values, -LOGITS)
    assert_array_equal(rows.labels, LABELS[::-1])


def test_the_only_array_of_an_npz_needs_no_name(tmp_path):
    path = write_npz(tmp_path, arr_0=LOGITS)
    assert_array_equal(read_rows(path, Request("logits")).values, LOGITS)


def test_probabilities_are_never_taken_for_logits_or_back(tmp_path):
    path = write_npz(tmp_path, probabilities=np.full((3, 3), 1 / 3), y=LABELS)
    with pytest.raises(DataError, match=r"probabilities \(float64, shape \(3, 3\)\)"):
        read_rows(path, Request("logits"))


def test_a_wrong_key_is_answered_with_the_names(tmp_path):
    path = write_npz(tmp_path, resnet20=LOGITS, y=LABELS)
    with pytest.raises(DataError, match=r"no 'resnet' for .* resnet20, y"):
        read_rows(path, Request("logits", "resnet"))


def test_two_usual_names_are_not_chosen_between(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, scores=LOGITS, y=LABELS)
    with pytest.raises(DataError, match=r"logits, scores\. Choose one with --logits-k"):
        read_rows(path, Request("logits"))


def test_csv_with_a_header_has_its_labels_in_a_column(write_csv):
    path = write_csv("a,label,b\n1.5,cat,-2\n0,dog,3e2\n")
    rows = read_rows(path, Request("logits"))
    assert_array_equal(rows.values, [[1.5, -2], [0, 300]])
    assert_array_equal(rows.labels, ["cat", "dog"])


def test_csv_columns_are_chosen_and_ordered_by_the_key(write_csv):
    path = write_csv("id,b,a,target\n7,1,2,0\n8,3,4,1\n")
    rows = read_rows(path, Request("logits", "a, b"))
    assert_array_equal(rows.values, [[2, 1], [4, 3]])
    assert_array_equal(rows.labels, [0, 1])
    assert rows.labels.dtype == np.int64


def test_csv_without_a_header_is_all_values(write_csv):
    rows = read_rows(write_csv("1,2\n3,4\n"), Request("logits"))
    assert_array_equal(rows.values, [[1, 2], [3, 4]])
    assert rows.labels is None


def test_the_numbered_header_of_pandas_is_no_row(write_csv):
    rows = read_rows(write_csv("0,1\n3,4\n5,6\n"), Request("logits"))
    assert_array_equal(rows.values, [[3, 4], [5, 6]])


@pytest.mark.parametrize("names", ["1,2,3", "-1,1", "10,200"])
def test_integers_that_ascend_above_other_numbers_are_a_header(write_csv, names):
    row = [0.25] * len(names.split(","))
    path = write_csv(f"{names}\n{','.join(map(str, row))}\n")
    rows = read_rows(path, Request("logits"))
    assert rows.names == names.split(",")
    assert_array_equal(rows.values, [row])


@pytest.mark.parametrize(
    "text",
    [
        "1,0\n0.9,0.1\n",  # probabilities; integers that do not ascend
        "1.0,2.0\n0.9,0.1\n",
        "1,2\n3,4\n",
        "01,02\n0.9,0.1\n",
        "1,2\n",
    ],
)
def test_other_numbers_are_a_row(write_csv, text):
    rows = read_rows(write_csv(text), Request("logits"))
    assert rows.names is None
    assert len(rows.values) == text.count("\n")


def test_integers_that_are_known_to_be_names_are_a_header(write_csv):
    path = write_csv("3,1,2\n1,0,0\n")
    rows = read_rows(path, Request("logits", columns=["3", "1", "2"]))
    assert rows.names == ["3", "1", "2"]
    assert_array_equal(rows.values, [[1, 0, 0]])
    rows = read_rows(path, Request("logits", columns=["1", "2", "3"]))
    assert rows.names == ["3", "1", "2"]
    assert_array_equal(rows.values, [[1, 0, 0]])
    # A file of labels alone has one column, whose first line is a label.
    path = write_csv("2\n1\n")
    assert_array_equal(read_labels(path, None, ["2"]), [2, 1])


def test_labels_that_start_with_zero_are_no_header(write_csv):
    assert_array_equal(read_labels(write_csv("0\n1\n1\n"), None), [0, 1, 1])


def test_quoted_labels_may_hold_commas_and_hashes(write_csv):
    path = write_csv('label\n"cat, black"\n"#dog"\n')
    assert_array_equal(read_labels(path, None), ["cat, black", "#dog"])


def test_parquet_reads_like_csv(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(LOGITS, columns=["a", "b", "c"])
    frame["label"] = ["cat", "dog", "cat"]
    frame.to_parquet(tmp_path / "table.parquet")
    rows = read_rows(tmp_path / "table.parquet", Request("logits"))
    assert_array_equal(rows.values, LOGITS)
    assert_array_equal(rows.labels, ["cat", "dog", "cat"])


def test_a_parquet_column_of_lists_is_a_matrix(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"logits": list(LOGITS), "y": LABELS})
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table, tmp_path / "table.parquet")
    rows = read_rows(tmp_path / "table.parquet", Request("logits"))
    assert_array_equal(rows.values, LOGITS)
    assert_array_equal(rows.labels, LABELS)


def write_table(folder, ending, **columns):
    arrow = pytest.importorskip("pyarrow")
    path = folder / f"table.{ending}"
    if ending == "jsonl":
        rows = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif ending == "feather":
        feather = pytest.importorskip("pyarrow.feather")
        feather.write_feather(arrow.table(columns), path)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "feather"])
@pytest.mark.parametrize(
    ("role", "name"), [("logits", "logits"), ("probabilities", "proba")]
)
def test_a_column_of_lists_is_taken_by_its_usual_name(tmp_path, ending, role, name):
    others = {"logits": (-LOGITS).tolist(), "proba": (-LOGITS).tolist()}
    columns = {"id": [7, 8, 9], **others, "label": LABELS.tolist()}
    path = write_table(tmp_path, ending, **{**columns, name: LOGITS.tolist()})
    rows = read_rows(path, Request(role))
    assert_array_equal(rows.values, LOGITS)
    assert_array_equal(rows.labels, LABELS)


@pytest.mark.parametrize("others", [{"id": [7, 8, 9]}, {"more": LOGITS.tolist()}])
def test_a_column_of_lists_beside_others_is_to_be_named(tmp_path, others):
    columns = {**others, "z": LOGITS.tolist(), "label": LABELS.tolist()}
    path = write_table(tmp_path, "jsonl", **columns)
    with pytest.raises(DataError, match=r"holds lists, .* beside it\. .*--logits-key"):
        read_rows(path, Request("logits"))
    assert_array_equal(read_rows(path, Request("logits", "z")).values, LOGITS)


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "feather"])
@pytest.mark.parametrize("labels", [["cat", None, "dog"], [1, None, 2]])
def test_a_null_label_is_refused_with_its_row(tmp_path, ending, labels):
    path = write_table(tmp_path, ending, logits=LOGITS.tolist(), y=labels)
    with pytest.raises(DataError, match=r"misses 1 values of 'y', the first in row 1,"):
        read_rows(path, Request("logits"))


class Payload:
    def __reduce__(self):
        return print, ("code from the file has run",)


@pytest.mark.parametrize("name", ["evil.npy", "evil.npz"])
def test_python_objects_are_refused_without_running_code(tmp_path, capsys, name):
    payload = np.array([Payload()], dtype=object)
    if name.endswith("npy"):
        np.save(tmp_path / name, payload, allow_pickle=True)
    else:
        np.savez(tmp_path / name, logits=payload)
    with pytest.raises(DataError, match="could run code"):
        read_rows(tmp_path / name, Request("logits"))
    (tmp_path / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="could run code"):
        read_rows(tmp_path / name, Request("logits"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (
            "a,b\n1,x\n",
            "could not convert string 'x' to a number in column 'b', row 0, counted "
            r"from 0\. Name the columns of numbers: --logits-key",
        ),
        ('a,b\n1,2\n3,"it\'s"\n', "string \"it's\" .*column 'b', row 1"),
        ("a,b\n1,NA\n2,\n3,4\n", "misses 2 values of 'b', the first in row 0"),
        ("a,b\n1,2\n3\n", "cannot be read"),
        (",a,b\n0,1,2\n", "Column 1 .* has no name.*index=False"),
        ("\n1,2\n", "begins with an empty line"),
        ("a,b,a\n1,2,3\n", r"uses a name more than once: a\. Rename the columns"),
        ("a;b;y\n1,5;2,5;0\n", r"semicolons stood between them\. Commas"),
        ("1,5;2,5;0\n", "semicolons stood between them"),
        ("a\tb\n1\t2\n", "tabs stood between them"),
        ("a|b\n1|2\n", "bars stood between them"),
        ("1,5|2,5|0\n", "bars stood between them"),
        ('a,b\n"1,5","2,5"\n', r"Points are needed in numbers\."),
        ("label\nx\n", "no columns beside those of labels"),
        ('"a", "b"\n1,2\n', 'space stands between a comma and a quote:  "b"'),
        ('a,b,y\n1,2, "cat"\n', 'space stands between a comma and a quote:  "cat"'),
    ],
)
def test_broken_csv_files(write_csv, text, message):
    with pytest.raises(DataError, match=message):
        read_rows(write_csv(text), Request("logits"))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x93NUMPY\x01"])
def test_broken_binary_files(tmp_path, suffix, content):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"broken{suffix}"):
        read_rows(path, Request("logits"))


def test_files_named_after_the_wrong_format(tmp_path):
    np.savez(tmp_path / "a.npz", logits=LOGITS)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match="not a NumPy file of numbers"):
        read_rows(tmp_path / "a.npy", Request("logits"))
    np.save(tmp_path / "b.npy", LOGITS)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"b\.npz.*let its name end in \.npy"):
        read_rows(tmp_path / "b.npz", Request("logits"))


def test_missing_files_and_unknown_endings(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*nothing\.npz"):
        read_rows(tmp_path / "nothing.npz", Request("logits"))
    with pytest.raises(DataError, match=r"'\.pkl'; .* \.npy, \.npz, .*\.parquet"):
        read_rows(tmp_path / "logits.pkl", Request("logits"))


def test_text_is_not_taken_for_logits(tmp_path):
    path = write_npz(tmp_path, logits=np.array([["1", "2"]]))
    with pytest.raises(DataError, match="logits of type <U1; they must be numbers"):
        read_rows(path, Request("logits"))


def test_labels_are_one_column(tmp_path):
    np.save(tmp_path / "one_hot.npy", np.eye(3))
    with pytest.raises(DataError, match=r"shape \(3, 3\); labels are one"):
        read_labels(tmp_path / "one_hot.npy", None)
    np.save(tmp_path / "column.npy", LABELS[:, np.newaxis])
    assert_array_equal(read_labels(tmp_path / "column.npy", None), LABELS)


def test_a_single_number_is_no_file_of_rows(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, y=np.array(3))
    with pytest.raises(DataError, match="holds a single value where rows are needed"):
        read_rows(path, Request("logits"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["3.0", "10.0", "2.0"], [3, 10, 2]),
        (["3.000e+00", "1", " 2"], [3, 1, 2]),
        (["3.0", "cat", "2.0"], ["3.0", "cat", "2.0"]),
        (["0.5", "1", "2"], ["0.5", "1", "2"]),
        (["nan", "cat", "2"], ["nan", "cat", "2"]),
        (["99999999999999999999", "1", "2"], ["99999999999999999999", "1", "2"]),
        ([" cat", "dog ", "cat"], ["cat", "dog", "cat"]),
    ],
)
def test_labels_of_a_table_are_integers_where_all_are_whole(
    write_csv, labels, expected
):
    rows = "".join(f"1.5,2.5,{label}\n" for label in labels)
    path = write_csv(f"a,b,y\n{rows}")
    found = read_rows(path, Request("logits")).labels.tolist()
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "", "2"],
        ["cat", " ", "dog"],
        *([1, m, 2.0] for m in ("nan", "NA", "null")),
    ],
)
def test_a_missing_label_of_a_csv_is_refused_with_its_row(write_csv, labels):
    rows = "".join(f"1.5,2.5,{label}\n" for label in labels)
    path = write_csv(f"a,b,y\n{rows}")
    with pytest.raises(DataError, match=r"misses 1 values of .*, the first in row 1,"):
        read_rows(path, Request("logits"))
    with pytest.raises(DataError, match="misses 1 values of 'y'"):
        read_labels(path, "y")
    unread = Request("logits", wants_labels=False)
    assert read_rows(path, unread).values.shape == (3, 2)


def test_a_class_that_a_column_is_named_after_is_not_missing(write_csv):
    path = write_csv("1,NA,label\n0.5,1,NA\n0.7,2,1\n")
    assert read_rows(path, Request("logits")).labels.tolist() == ["NA", "1"]


def test_an_empty_label_of_json_lines_and_of_arrays_is_refused(tmp_path):
    labels = ["cat", "dog", ""]
    lines = write_table(tmp_path, "jsonl", logits=LOGITS.tolist(), label=labels)
    arrays = write_npz(tmp_path, logits=LOGITS, label=np.array(labels))
    for path in (lines, arrays):
        with pytest.raises(DataError, match=r"1 values of the labels, .* in row 2"):
            read_rows(path, Request("logits"))


def test_float_labels_of_arrays_are_integers_too(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, y=LABELS.astype(float))
    labels = read_rows(path, Request("logits")).labels
    assert labels.dtype == np.int64
    assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("ending", ["npz", "npy", "jsonl", "parquet", "feather"])
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["10", "2", "3"], [10, 2, 3]),
        (["10.0", "2.0", "3.0"], [10, 2, 3]),
        (["010", "02", "x"], ["010", "02", "x"]),
    ],
)
def test_text_that_is_all_whole_numbers_is_integers(
    tmp_path, ending, written, expected
):
    if ending == "npz":
        path = write_npz(tmp_path, logits=LOGITS, y=np.array(written))
    elif ending == "npy":
        path = tmp_path / "y.npy"
        np.save(path, np.array(written)[:, np.newaxis])
    else:
        path = write_table(tmp_path, ending, logits=LOGITS.tolist(), y=written)
    assert read_labels(path, None).tolist() == expected
    if ending != "npy":
        assert read_rows(path, Request("logits")).labels.tolist() == expected


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_text_that_names_columns_keeps_its_spelling(tmp_path, ending):
    names = ["03", "01", "02"]
    columns = dict(zip(names, LOGITS.tolist(), strict=True))
    path = write_table(tmp_path, ending, **columns, label=names)
    assert read_rows(path, Request("logits")).labels.tolist() == names
    assert read_labels(path, "label").tolist() == names
    arrays = write_npz(tmp_path, y=np.array(names))
    assert read_labels(arrays, None, classes=names).tolist() == names


def test_groups_in_text_of_arrays_stay_apart(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, patient=np.array(["01", "1", "2"]))
    rows = read_rows(path, Request("logits", groups_key="patient"))
    assert rows.groups.tolist() == ["01", "1", "2"]


def test_labels_in_bytes_become_text(tmp_path):
    path = write_npz(tmp_path, logits=LOGITS, y=np.array([b"cat", b"dog", b"cat"]))
    labels = read_rows(path, Request("logits")).labels
    assert_array_equal(labels, ["cat", "dog", "cat"])
    assert labels.dtype.kind == "U"


def test_labels_of_no_use_are_refused(tmp_path):
    days = np.array(["2020-01-01"] * 3, dtype="datetime64[D]")
    path = write_npz(tmp_path, logits=LOGITS, y=days)
    with pytest.raises(DataError, match=r"labels of type datetime64.*numbers or text"):
        read_rows(path, Request("logits"))


def test_a_table_tells_the_names_of_its_columns(write_csv):
    header = write_csv("a,label,b\n1.5,cat,-2\n0,dog,3e2\n")
    assert read_rows(header, Request("logits")).names == ["a", "b"]
    assert read_rows(header, Request("logits", "b,a")).names == ["b", "a"]
    assert read_rows(write_csv("1,2\n3,4\n"), Request("logits")).names is None


def test_an_index_that_pandas_saved_is_no_column(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(LOGITS, columns=["a", "b", "c"], index=[7, 3, 5])
    frame["y"] = LABELS
    frame.to_parquet(tmp_path / "table.parquet")
    rows = read_rows(tmp_path / "table.parquet", Request("logits"))
    assert rows.names == ["a", "b", "c"]
    named = Request("labels", "__index_level_0__")
    assert read_rows(tmp_path / "table.parquet", named).values.tolist() == [7, 3, 5]


def test_two_parquet_columns_of_one_name_are_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_arrays([[1.0], [2.0]], names=["a", "a"])
    parquet.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(DataError, match="uses a name more than once: a"):
        read_rows(tmp_path / "table.parquet", Request("logits"))


def test_a_column_is_not_made_of_the_folder_of_a_parquet_file(tmp_path):
    pandas = pytest.importorskip("pandas")
    folder = tmp_path / "split=1"
    folder.mkdir()
    pandas.DataFrame(LOGITS, columns=["a", "b", "c"]).to_parquet(folder / "t.parquet")
    rows = read_rows(folder / "t.parquet", Request("logits"))
    assert_array_equal(rows.values, LOGITS)


def test_wide_tables_are_read_in_linear_time(write_csv):
    names = [f"c{k}" for k in range(16_000)]
    path = write_csv(f"{','.join(names)}\n{','.join('1' * 16_000)}\n")
    started = time.process_time()
    rows = read_rows(path, Request("logits", ",".join(names[:-1])))
    assert rows.values.shape == (1, 15_999)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "days",
    [
        ["2024-01-05", "2024-01-06"] * 2,
        ["2024-01-05", "2024-01-05T00:00:00"] * 2,
        ["2024-01-05 10:00:00", "2024-01-05T10:00:00Z"] * 2,
    ],
)
def test_text_that_looks_like_dates_is_text(tmp_path, days):
    pytest.importorskip("pyarrow")
    lines = (
        json.dumps({"logits": [float(k), 0.5], "day": day, "label": k % 2})
        for k, day in enumerate(days)
    )
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(lines))
    request = Request("logits", "logits", "label", "day")
    assert read_rows(path, request).groups.tolist() == days
