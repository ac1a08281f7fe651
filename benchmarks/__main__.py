"""Run the benchmarks, and write what they found into the documentation.

    python -m benchmarks list
    python -m benchmarks run NAME ... [--tiny | --save] [--threads 1] [options of NAME]
    python -m benchmarks run NAME --help
    python -m benchmarks tables [--check]

`--tiny` only tries a benchmark, in seconds, and all of them where none is named.
`--save` keeps the rows in benchmarks/results/NAME.json, in the place of those of an
earlier run with the same options. `tables` writes the tables of README and docs from
these files; with `--check` it only says which ones differ.
"""

import argparse
import os
import sys
import time
import warnings
from importlib import import_module
from itertools import takewhile

from benchmarks import _records, _tables

OWN = {"benchmarks", "skcalib"}


def general_parser():
    """Options of every benchmark."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--tiny", action="store_true", help="only try it, in seconds")
    parser.add_argument("--save", action="store_true", help="keep the rows")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    return parser


def parse_options(name, module, words):
    """Return the options of a module's `run`, and those of every benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks run {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[general_parser()],
    )
    choices = getattr(module, "CHOICES", {})
    defaults = dict(module.run.__kwdefaults__)
    for option, default in defaults.items():
        flag = f"--{option.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
            continue
        several = isinstance(default, tuple)
        kind = type((*default, "")[0] if several else default)
        rest = {"choices": choices.get(option), "nargs": "+" if several else None}
        shown = (
            f"default: {', '.join(map(str, default)) if several else default or 'none'}"
        )
        metavar = {int: "N", float: "X", str: "NAME"}[kind]
        parser.add_argument(flag, type=kind, metavar=metavar, help=shown, **rest)
    tiny = module.TINY if "--tiny" in words else {}
    parser.set_defaults(**(defaults | tiny))
    options = vars(parser.parse_args(words))
    if options["tiny"] and options["save"]:
        parser.error("--save keeps results; those of --tiny are none")
    general = {key: options.pop(key) for key in ("tiny", "save", "threads")}
    return options, general


def limit_threads(n_threads):
    """For this process and those it starts, before the libraries are imported."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(n_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)


def run_one(name, words):
    """Run one benchmark; return whether it could."""
    start = time.perf_counter()
    limit_threads(general_parser().parse_known_args(words)[0].threads)
    try:
        module = import_module(f"benchmarks.{name}")
        options, general = parse_options(name, module, words)
        limit_threads(general["threads"])
        print(f"\n{name}: {module.__doc__.splitlines()[0]}", flush=True)
        record = _records.Record(name, words, options) if general["save"] else None
        rows = follow(module.run(**options), record)
        if record:
            record.finish()
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in OWN:
            raise
        print(f"{name}: skipped, {error.name} is not installed")
        return False
    except FileNotFoundError as error:
        print(f"{name}: skipped, {error}; is SKCALIB_DATA the folder of the data?")
        return False
    for table in module.summary(rows) if hasattr(module, "summary") else ():
        print("\n" + _tables.markdown(table))
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return True


def follow(results, record):
    """Print the rows as they come, and keep them."""
    rows, columns = [], None
    # Fits that stop early are judged as they are, and rivals warn of their own insides.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in results:
            if list(row) != columns:
                columns = list(row)
                print("\n" + _tables.aligned(columns, row))
            print(_tables.aligned(row.values(), row), flush=True)
            rows.append(row)
            if record:
                record.add(row)
    return rows


def run(words):
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    options = words[len(names) :]
    known = _records.benchmarks()
    if not set(names) <= set(known) or not (names or "--tiny" in options):
        sys.exit(f"name some of {', '.join(known)}; without a name only --tiny runs")
    could = [run_one(name, options) for name in names or known]
    return 0 if all(could) or "--tiny" in options else 1


def main(words):
    match words:
        case ["list"]:
            print(_tables.markdown(_tables.overview()))
        case ["run", *rest]:
            return run(rest)
        case ["tables", *rest] if rest in ([], ["--check"]):
            return _tables.write_pages(check=bool(rest))
        case _:
            print(__doc__)
            return 0 if words in (["-h"], ["--help"]) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
