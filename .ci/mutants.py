"""Do the tests notice? Plant faults in the code one at a time and run its tests.

    pip install -c constraints.txt -e ".[dev,mutants]" && make mutants

Sixty places of the rooms below are drawn by a hash of what stands there, so that a
change elsewhere draws no others. Each is mutated by an operator of Cosmic Ray, in a
copy of the tree, and the tests of its room run until one fails: the mutant is killed.
One that survives is a hole in the tests, or changes nothing that is promised;
`SURVIVORS` says which and why. The command fails on a survivor without a reason, on a
reason without its survivor, and on more than three survivors.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = "tests/test_docstrings.py"
TESTS = {
    "_solvers": ["tests/solvers", "tests/calibrators", "tests/metrics"],
    "metrics": [
        "tests/metrics",
        "skcalib/metrics",
        "tests/plotting",
        "tests/cli/test_evaluate_compare.py",
        DEFAULTS,
    ],
    "model_selection": ["tests/model_selection", "skcalib/model_selection", DEFAULTS],
    "training": ["tests/training", "skcalib/training", DEFAULTS],
}
OPERATORS = [
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Pow_Mul",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceFalseWithTrue",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_USub",
    "ZeroIterationForLoop",
]
# Nothing that is computed depends on these: the star of a signature, which is no
# product, decorators, the guard of a zip of equal lengths, and sizes of blocks.
NOT_MUTATED = re.compile(r"^\*,|^@|strict=True|_ELEMENTS\b")
MOST_SURVIVORS = 3
# A mutant that makes a loop endless is noticed as a person would: it takes too long.
TIMEOUT_S = 600

# The file and the mutated line of each survivor, with the reason why no test can or
# should tell it from the original.
SURVIVORS = {
    (
        "skcalib/_solvers/_logistic.py",
        "step[:, free] = -np.linalg.solve(system, right[:, free, np.newaxis])[..., -1]",
    ): "the last axis has length 1",
    (
        "skcalib/_solvers/_matrix.py",
        "ridge = np.full(second.shape[ -1], 2 * self._ridge.off_diagonal)",
    ): "the matrix is square",
    (
        "skcalib/_solvers/_temperature.py",
        "LEAST_TEMPERATURE = 2.0**- 1001",
    ): "any power of two that small will do",
}


class Mutant(NamedTuple):
    """One operator at one place of a file."""

    path: str
    operator: str
    occurrence: int
    number: int
    line: str

    def code(self):
        """Return the file with the mutation in it."""
        operator = get_operator(f"core/{self.operator}")()
        return mutate_code((ROOT / self.path).read_text(), operator, self.occurrence)

    def mutated_line(self):
        """Return the line of the place after the mutation."""
        return self.code().split("\n")[self.number - 1].strip()


def mutants_of(path):
    """Yield every mutant of one file, with the key that its rank is drawn by."""
    code = (ROOT / path).read_text()
    nodes = list(ast_nodes(get_ast(code)))
    lines = [line.strip() for line in code.split("\n")]
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = [
            start for node in nodes for start, _ in operator.mutation_positions(node)
        ]
        seen = Counter()
        for occurrence, (number, _) in enumerate(places):
            line = lines[number - 1]
            if not NOT_MUTATED.search(line):
                yield Mutant(path, name, occurrence, number, line), (line, seen[line])
            seen[line] += 1


def draw(n_mutants, seed):
    """Return the mutants whose hashes come first, and how many there are in all."""

    def rank(entry):
        mutant, key = entry
        text = f"{seed} {mutant.path} {mutant.operator} {key}"
        return hashlib.sha256(text.encode()).hexdigest()

    paths = [
        str(path.relative_to(ROOT))
        for room in TESTS
        for path in sorted((ROOT / "skcalib" / room).glob("*.py"))
    ]
    every = sorted((entry for path in paths for entry in mutants_of(path)), key=rank)
    return [mutant for mutant, _ in every[:n_mutants]], len(every)


def copy_tree(folder):
    """Copy what the tests need; whoever edits meanwhile disturbs nothing."""
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "_build"),
    )


def passes(folder, tests):
    """Whether the tests pass in a copy of the tree."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", "--no-header", "--tb=line", *tests]
    data = os.environ.get("SKCALIB_DATA", str(ROOT.parent / "shared" / "data"))
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SKCALIB_DATA": data,
    }
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def survives(mutant, folders):
    """Whether the tests of its room pass with the mutant in place."""
    folder = folders.pop()
    file = folder / mutant.path
    original = file.read_text()
    file.write_text(mutant.code())
    started = time.monotonic()
    try:
        alive = passes(folder, TESTS[Path(mutant.path).parts[1]])
    finally:
        file.write_text(original)
        folders.append(folder)
    verdict = "SURVIVES" if alive else "killed"
    print(
        f"{verdict:8}  {time.monotonic() - started:5.0f} s  "
        f"{mutant.path}:{mutant.number}  {mutant.line}  ->  {mutant.mutated_line()}",
        flush=True,
    )
    return alive


def main():
    """Print a line a mutant and the count; exit with 1 where tests fail to notice."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutants", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="draw only, run nothing")
    options = parser.parse_args()

    drawn, n_all = draw(options.mutants, options.seed)
    print(f"{len(drawn)} of {n_all} mutants, seed {options.seed}", flush=True)
    if options.list:
        for mutant in drawn:
            print(f"{mutant.path}:{mutant.number}  {mutant.line}")
            print(f"    {mutant.mutated_line()}")
        return 0

    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(job) for job in range(options.jobs)]
        for folder in folders:
            copy_tree(folder)
        with ThreadPoolExecutor(options.jobs) as pool:
            alive = list(pool.map(lambda mutant: survives(mutant, folders), drawn))
    survivors = {
        (mutant.path, mutant.mutated_line())
        for mutant, lives in zip(drawn, alive, strict=True)
        if lives
    }
    print(f"{len(drawn) - sum(alive)} of {len(drawn)} killed")
    for place in sorted(survivors):
        print(f"survivor: {place}: {SURVIVORS.get(place, 'NO REASON GIVEN')}")
    stale = (
        [] if options.seed or options.mutants != 60 else SURVIVORS.keys() - survivors
    )
    for place in sorted(stale):
        print(f"killed, though a reason to survive is given: {place}")
    unexplained = survivors - SURVIVORS.keys()
    return int(bool(unexplained or stale or sum(alive) > MOST_SURVIVORS))


if __name__ == "__main__":
    sys.exit(main())
