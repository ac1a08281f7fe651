"""Neural clamping on real networks: what it gains, where, and what it costs.

Parts:
- table: the paper's table on clean images, with the controls beside it;
- shift: the same where all images, to fit on and to judge by, went through a strong
  JPEG compression that the network was not trained on;
- gamma: the paper's figure of ECE, log-loss and entropy against gamma;
- corruption: fitted on clean images, judged on corrupted ones;
- speed: seconds to the objectives at which the published recipes end.

Means over random halves, and 95 % bootstrap intervals of the difference to temperature
scaling (see _paired.py). Accuracy, ECE, AECE and SCE are in percent (15 bins), entropy
and NLL in nats. `--keep` names a folder for finished fits, from which an interrupted
run goes on. Tables go to the standard output, progress to the standard error.

Usage: SKCALIB_DATA=<folder> python benchmarks/neural_clamping.py
       [--parts table shift] [--networks cifar10-resnet8d] [--splits 5]
       [--keep <folder>] [--output results.json] [--figure gamma.svg]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _clamping_figure import draw
from _clamping_parts import REFERENCE, corruption, gamma, shift, table
from _clamping_rows import METHODS
from _clamping_speed import PRESETS, speed
from _common import DATA
from _networks import NETWORKS

PARTS = {
    "table": table,
    "shift": shift,
    "gamma": gamma,
    "corruption": corruption,
    "speed": speed,
}
PERCENT = {"accuracy", "ECE", "AECE", "SCE"}


class Keep:
    """Computes a dict of arrays, or reads what an earlier run has left."""

    def __init__(self, folder):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, task, title, compute):
        key = f"{task.name}-{task.data}-{len(task.cal.y)}-{task.seed}-{title}"
        path = self._folder / f"{key}.npz"
        if path.exists():
            with np.load(path) as arrays:
                return dict(arrays)
        start = time.perf_counter()
        arrays = compute()
        seconds = time.perf_counter() - start
        print(f"{key}: {seconds:.1f} s", file=sys.stderr, flush=True)
        unfinished = self._folder / "unfinished.npz"
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
        return arrays


def show(part, name, found):
    """Print what a part has found on one network."""
    title = f"{NETWORKS[name][0]}, {part}"
    if part in {"table", "shift"}:
        print(markdown(title, found))
    elif part == "corruption":
        for kind, block in found.items():
            print(markdown(f"{title}: {kind}", block))
    else:
        print(f"### {title}\n\n{json.dumps(found, indent=1)}\n")
    sys.stdout.flush()


def markdown(title, block):
    """Rows with their differences to temperature scaling, as a Markdown table."""
    columns = list(next(iter(block.values()))["mean"])
    changes = ["NLL", "ECE", "accuracy"]
    heads = [f"{c} %" if c in PERCENT else c for c in columns]
    heads += [f"{c} - {REFERENCE}" for c in changes]
    lines = [f"### {title}", "", f"| method | {' | '.join(heads)} |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    for row, values in block.items():
        cells = [number(c, values["mean"][c]) for c in columns]
        for c in changes:
            value, low, high = (number(c, v, "+") for v in values["to TS"][c])
            cells.append("" if row == REFERENCE else f"{value} [{low}, {high}]")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def number(column, value, sign=""):
    if column not in PERCENT:
        return f"{value:{sign}.4f}"
    digits = 3 if column == "SCE" else 2
    return f"{100 * value:{sign}.{digits}f}"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    several = {"nargs": "+", "metavar": "NAME"}
    every = list(NETWORKS)
    parser.add_argument("--parts", default=list(PARTS), choices=PARTS, **several)
    parser.add_argument("--networks", default=every, choices=every, **several)
    parser.add_argument("--methods", choices=METHODS, help="of the tables", **several)
    parser.add_argument("--presets", default=PRESETS, choices=PRESETS, **several)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--samples", type=int, default=5000, help="images a half")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--keep", type=Path, help="folder for finished fits")
    parser.add_argument("--output", type=Path, help="a .json file")
    parser.add_argument("--figure", type=Path, help="a .svg or .png file, for gamma")
    parser.add_argument("--tiny", action="store_true", help="only try the script")
    options = parser.parse_args()
    if options.tiny:
        options.splits, options.samples = 2, 100
        options.networks = options.networks[:1]
    return options


def main():
    options = parse_arguments()
    if not DATA.is_dir():
        sys.exit(f"no data folder {DATA}; set SKCALIB_DATA to the real one")
    torch.set_num_threads(options.threads)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        keep = Keep(options.keep or folder)
        for part in options.parts:
            for name in options.networks:
                found = PARTS[part](name, keep, options)
                results.setdefault(part, {})[name] = found
                show(part, name, found)
                if options.output:
                    options.output.write_text(json.dumps(results, indent=1) + "\n")
    if options.figure and "gamma" in results:
        draw(results["gamma"], options.figure)


if __name__ == "__main__":
    main()
