"""The runner of the benchmarks, and the tables of the documentation."""

import inspect
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.utils.fixes import parse_version

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def suite(monkeypatch, tmp_path):
    """The runner with a benchmark of its own, whose results go to a new folder."""
    from benchmarks import __main__, _records

    def run(*, colours=("red", "blue"), n=2, loud=False):
        for colour in colours:
            yield {"colour": colour, "size": n * 0.5, "loud": str(loud)}

    made_up = types.ModuleType("benchmarks.made_up", "What colours weigh.\n\nText.")
    made_up.run, made_up.TINY = run, {"n": 1}
    made_up.CHOICES = {"colours": ("red", "blue", "green")}
    made_up.TABLES = {
        "sizes": lambda rows: __main__._tables.Table(
            ["colour", "size"], [[row["colour"], row["size"]] for row in rows]
        )
    }
    monkeypatch.setitem(sys.modules, "benchmarks.made_up", made_up)
    monkeypatch.setattr(_records, "RESULTS", tmp_path)
    monkeypatch.setattr(_records, "benchmarks", lambda: {"made_up": made_up.__doc__})
    # The threads of the tests are not the runner's.
    monkeypatch.setattr(__main__, "limit_threads", lambda n_threads: None)
    return __main__


def test_the_tables_of_the_documentation_are_those_of_the_results(capsys):
    for package in ("torch", "PIL"):
        pytest.importorskip(package)
    from benchmarks import _tables

    assert _tables.write_pages(check=True) == 0
    assert "left as they are" not in capsys.readouterr().out


def headlines():
    """Return fragments of the README, made from the results."""
    from benchmarks import _records, _tables

    runs = _records.load("calarena")
    arena = {(r["benchmark"], r["method"]): r for run in runs for r in run["rows"]}
    many, two = (arena[f"tabular-{k}", "skcalib"] for k in ("multiclass", "binary"))
    beta = arena["tabular-binary", "Beta"]
    yield f"On {many['experiments'] + two['experiments']} tabular experiments"
    share = "win rate log-loss"
    yield f"wins {100 * many[share]:.0f} % of its comparisons with several classes"
    yield f"and {100 * two[share]:.0f} % with two"
    yield f"comes near with {100 * beta[share]:.0f} %"

    lines = _tables.made("default_search", "best_single").rows
    apart = [line[-1].split(" ± ") for line in lines]
    worst, error = max(apart, key=lambda pair: float(pair[0]))
    n_best = sum(difference.startswith("-") for difference, _ in apart)
    yield f"`default_search` on {len(lines)} sets"
    yield f"on {n_best} sets, and above it by at most {worst.strip('+')} ± {error}"
    *ranks, seconds = zip(*_tables.made("default_search", "ranks").rows, strict=True)
    assert all(min(map(float, column)) == float(column[0]) for column in ranks[1:])
    took = dict(zip(ranks[0], seconds, strict=True))
    yield f"It takes {took['the default search']} processor seconds in the median"
    yield f"Order-preserving scaling takes {took['order-preserving']}, "
    yield f"network {took['IOP network (probmetrics)']} and its softplus map "
    yield f"softplus map {took['softplus map (probmetrics)']}."

    filters = {tuple(r[:2]): r[2:6] for r in _tables.made("input_filter", "shift").rows}
    for kind, strength, text in (
        ("defocus blur", "3", "defocus {}, {}, {};"),
        ("gaussian noise", "3", "noise {}, {}, {};"),
        ("contrast", "3", "low contrast {}, {}, {},"),
        ("contrast", "5", "and {}, {}, {} where next to none is left"),
    ):
        cells = filters[kind, strength]
        before, *outputs, after = (float(cell.split(" / ")[0]) for cell in cells)
        yield text.format(*(f"{v:.0f}" for v in (before, max(outputs), after)))


def test_the_headline_figures_of_the_readme_are_those_of_the_results():
    for package in ("torch", "PIL"):
        pytest.importorskip(package)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [text for text in headlines() if text not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_declares_what_the_runner_asks_for(name):
    module = pytest.importorskip(f"benchmarks.{name}")
    options = inspect.signature(module.run).parameters
    assert all(option.kind == option.KEYWORD_ONLY for option in options.values())
    assert set(module.TINY) | set(getattr(module, "CHOICES", {})) <= set(options)
    assert all(map(callable, getattr(module, "TABLES", {}).values()))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.rst")), ids=str)
def test_a_marked_table_belongs_to_a_benchmark(page):
    from benchmarks import _tables

    for match in _tables.MARKED.finditer(page.read_text(encoding="utf-8")):
        assert match["name"] in NAMES
        module = pytest.importorskip(f"benchmarks.{match['name']}")
        assert match["table"] in module.TABLES


def test_a_runtime_of_node_that_is_missing_is_named(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    from benchmarks import runtimes

    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    use = runtimes.RUNTIMES["onnxruntime-web"]
    found = runtimes.attempt(use, None, {}, "probabilities")
    assert found == (None, "onnxruntime-web is missing")


def test_a_small_benchmark_runs(suite, capsys):
    assert suite.run_one("many_classes", ["--tiny"])
    assert "structured matrix" in capsys.readouterr().out


def test_options_are_those_of_run_with_its_types(suite, capsys):
    assert (
        suite.main(["run", "made_up", "--colours", "green", "--n", "3", "--loud"]) == 0
    )
    assert "green" in (out := capsys.readouterr().out)
    assert "1.5" in out
    assert "True" in out


def test_an_unknown_value_of_an_option_is_refused(suite, capsys):
    with pytest.raises(SystemExit):
        suite.main(["run", "made_up", "--colours", "grey"])
    assert "invalid choice: 'grey'" in capsys.readouterr().err


def test_an_unknown_benchmark_is_refused_with_the_known_ones(suite):
    with pytest.raises(SystemExit, match="name some of made_up"):
        suite.main(["run", "made_down"])


def test_tiny_runs_all_and_keeps_nothing(suite, tmp_path, capsys):
    assert suite.main(["run", "--tiny"]) == 0
    assert "0.5" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        suite.main(["run", "made_up", "--tiny", "--save"])
    assert "those of --tiny are none" in capsys.readouterr().err


def test_a_run_takes_the_place_of_one_with_the_same_options(suite, tmp_path):
    for words in ([], ["--n", "4"], []):
        suite.main(["run", "made_up", *words, "--save"])
    runs = json.loads((tmp_path / "made_up.json").read_text(encoding="utf-8"))
    assert [run["options"]["n"] for run in runs] == [4, 2]
    assert all(run["finished"] for run in runs)
    assert runs[0]["command"] == "python -m benchmarks run made_up --n 4 --save"
    assert runs[1]["rows"][0] == {"colour": "red", "size": 1.0, "loud": "False"}
    assert {"date", "commit", "processor", "cores", "versions"} <= set(runs[0])


def test_a_run_that_breaks_off_leaves_the_finished_one(suite, tmp_path, monkeypatch):
    suite.main(["run", "made_up", "--save"])
    module = sys.modules["benchmarks.made_up"]
    whole = module.run

    def broken(**options):
        yield next(whole(**options))
        raise KeyboardInterrupt

    broken.__kwdefaults__ = whole.__kwdefaults__
    monkeypatch.setattr(module, "run", broken)
    with pytest.raises(KeyboardInterrupt):
        suite.main(["run", "made_up", "--save"])
    runs = json.loads((tmp_path / "made_up.json").read_text(encoding="utf-8"))
    assert [(run["finished"], len(run["rows"])) for run in runs] == [
        (True, 2),
        (False, 1),
    ]


def test_a_benchmark_without_its_package_is_skipped(suite, monkeypatch, capsys):
    def run():
        import a_package_that_is_not_there  # noqa: F401

        yield {}

    module = sys.modules["benchmarks.made_up"]
    run.__kwdefaults__ = {}
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "TINY", {})
    assert suite.main(["run", "--tiny"]) == 0
    assert suite.main(["run", "made_up"]) == 1
    assert "a_package_that_is_not_there is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("begin", "end", "body"),
    [
        (
            ".. table: made_up.sizes",
            ".. end of table",
            '.. csv-table::\n   :header-rows: 1\n\n   "colour", "size"\n'
            '   "red", "1.0"\n   "blue", "1.0"',
        ),
        (
            "<!-- table: made_up.sizes -->",
            "<!-- end of table -->",
            "| colour | size |\n| ------ | ---- |\n"
            "| red    | 1.0  |\n| blue   | 1.0  |",
        ),
    ],
)
def test_a_table_is_written_between_its_marks(suite, begin, end, body):
    page = f"before\n\n{begin}\n\nold\n\n{end}\n\nafter\n"
    left = []
    assert suite._tables.rewritten(page, left) == page
    assert left == ["made_up.sizes"]
    suite.main(["run", "made_up", "--save"])
    new = f"before\n\n{begin}\n\n{body}\n\n{end}\n\nafter\n"
    assert suite._tables.rewritten(page, []) == new
    assert suite._tables.rewritten(new, []) == new


def test_check_fails_where_a_page_differs_and_writes_nothing(
    suite, monkeypatch, tmp_path
):
    suite.main(["run", "made_up", "--save"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks").mkdir()
    page = tmp_path / "README.md"
    page.write_text("<!-- table: made_up.sizes -->\n<!-- end of table -->\n", "utf-8")
    (tmp_path / "benchmarks" / "README.md").write_text("nothing\n", "utf-8")
    monkeypatch.setattr(suite._tables, "ROOT", tmp_path)
    assert suite.main(["tables", "--check"]) == 1
    assert "red" not in page.read_text("utf-8")
    assert suite.main(["tables"]) == 0
    assert "red" in page.read_text("utf-8")
    assert suite.main(["tables", "--check"]) == 0


def test_a_bend_keeps_the_order_of_a_row_and_is_none_at_one():
    from benchmarks.many_classes import drawn

    X, y, X_test, _ = drawn(40, 6, 1.0)
    bent = drawn(40, 6, 1.5)[0]
    assert (X.shape, y.shape, X_test.shape) == ((20, 6), (20,), (20, 6))
    assert (np.argsort(bent, axis=1) == np.argsort(X, axis=1)).all()
    gap = X.max(axis=1, keepdims=True) - X
    assert_allclose(bent.max(axis=1, keepdims=True) - bent, gap**1.5 / 10**0.5)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_published_logits_are_read(tmp_path, protocol):
    from benchmarks.many_classes import load

    X, y = np.eye(3, dtype=np.float32), np.arange(3)
    path = tmp_path / "network_imgnet_logits.p"
    path.write_bytes(pickle.dumps(((X, y[:, np.newaxis]), (2 * X, y)), protocol))
    np.savez(tmp_path / "n.npz", cal_logits=X, cal_y=y, test_logits=2 * X, test_y=y)
    for file in (path, tmp_path / "n.npz"):
        for part, expected in zip(load(str(file)), (X, y, 2 * X, y), strict=True):
            assert_allclose(part, expected)


def test_a_file_of_logits_runs_no_code(tmp_path):
    from benchmarks.many_classes import load

    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    (tmp_path / "bad.p").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(pickle.UnpicklingError, match="only arrays of NumPy are read"):
        load(str(tmp_path / "bad.p"))
    assert not (tmp_path / "touched").exists()


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"),
    reason="scikit-learn scales temperatures from 1.8 on",
)
def test_wrappers_are_compared_on_the_same_rows(monkeypatch):
    from sklearn.datasets import make_classification

    from benchmarks import _tabular, calibrated_classifier

    X, y = make_classification(200, flip_y=0.2, random_state=0)
    monkeypatch.setattr(_tabular, "load", lambda name: (X, y))
    monkeypatch.setattr(
        calibrated_classifier, "experiments", lambda part: [("a", "logistic")]
    )
    # A quick calibrator in the place of the searches.
    quick = {
        calibrated_classifier.OURS: calibrated_classifier.SVC_METHODS["PlattScaling()"]
    }
    methods = {k: m for k, m in calibrated_classifier.METHODS.items() if "," not in k}
    monkeypatch.setattr(calibrated_classifier, "METHODS", methods | quick)
    rows = list(calibrated_classifier.run(parts=("classifiers",)))
    by_method = {row["method"]: row for row in rows}
    assert set(by_method) == set(calibrated_classifier.METHODS)
    assert [row["mean rank"] for row in rows] == sorted(r["mean rank"] for r in rows)
    sklearn = [by_method[name] for name in calibrated_classifier.SKLEARN]
    assert min(row["over the best"] for row in sklearn) == 0
    assert len(calibrated_classifier.table(rows, "classifiers").rows) == len(rows)
