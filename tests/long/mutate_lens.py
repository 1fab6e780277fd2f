"""Break the lens in one place at a time and see whether a test notices: signs, masks, indices.

    python tests/long/mutate_lens.py                                   every file of zamba_lab/lens
    python tests/long/mutate_lens.py zamba_lab/lens/decay.py ...       these files
    python tests/long/mutate_lens.py --sample 60 --least 95            60 of each file, exit status 1 below 95 %

A mutant is one file with one change to its syntax tree: + for -, < for <=, 1 for 0, triu for tril, an index swapped, a mask
dropped. It is killed if a test of tests/lens/test_<file>.py fails, or of those that `TESTS` names. Survivors are printed with
what was changed: a missing test, or a change that changes nothing. Each mutant runs in a fork of one process that has
everything loaded but the lens, the quick tests first, and no file is ever written.

Measured twice, six mutants of each of the 23 files: with seed 0, 131 of 138 killed (94.9 %, 95 % interval 89.9 to 97.5 %); then
tests were written for what survived and for what a reading of the other mutants of those files found, and with seed 1, 134 of
138 (97.1 %, 92.8 to 98.9 %). All seven survivors of the first are killed since. Of the second's, two were killed by tests
written afterwards and two change nothing: s for l in a square table, axis 1 for -1 of two. Others of that kind: reading a
prompt's every logit where the last is used, a sum for a mean that is divided out, a random direction turned round.

A third time, eight of each file with seed 3, on later code and tests: 176 of 184 (95.7 %, 91.7 to 97.8 %). Of the eight survivors one is
killed by a test written afterwards and two change nothing (axes of a square table); the others were not looked into.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import io
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them takes longer than most tests

import pytest  # noqa: E402
import scipy.stats  # noqa: E402,F401  the bootstrap's: half a second in each fork otherwise
import torch  # noqa: E402
from lens_cases import ADAPTED, SSM, TRAINED, case  # noqa: E402  it loads the package, without the lens

import zamba_lab  # noqa: E402

# files whose laws are held by tests of other names, or of more than one
TESTS = {
    "terms": ("states", "horizons", "attention"),
    "passes": ("effect", "masks"),
    "attention": ("attention", "drift", "masks"),
    "decay": ("decay", "horizons"),
    "memory": ("memory", "effect", "interventions"),
    "parts": ("parts", "effect", "interventions"),
    "replace": ("effect", "paths", "interventions", "masks"),
    "rewire": ("rewire", "effect", "interventions"),
}
SECONDS = 300  # of CPU time; a mutant that takes more hangs: killed
Change = tuple[str, Callable[[ast.AST], None]]

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
METHODS = {
    "tril": "triu",
    "triu": "tril",
    "argmax": "argmin",
    "argmin": "argmax",
    "any": "all",
    "all": "any",
    "sum": "mean",
    "mean": "sum",
    "amax": "amin",
    "amin": "amax",
}
DROPPED = {"abs", "flip", "masked_fill", "clamp", "square", "exp", "log", "sqrt", "detach_"}  # x.abs() becomes x
LETTERS = re.compile(r"[a-zA-Z]+(,[a-zA-Z]+)+->[a-zA-Z]*")  # torch.einsum
PAIR = re.compile(r"\((\w) (\w)\)")  # einops


# --- what can be changed ------------------------------------------------------------------------------------------


def parts_of(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that calculate: none of docstrings, messages of errors, annotations, decorators, imports."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for node in value if isinstance(value, list) else [value]:
            said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.AST) and not said and not isinstance(node, ast.Raise | ast.JoinedStr | ast.ImportFrom):
                yield node
                yield from parts_of(node)


def put(node: ast.AST, **fields) -> None:
    for name, value in fields.items():
        setattr(node, name, value)


def become(node: ast.AST, other: ast.AST) -> None:
    """Turn a node into another in place."""
    node.__class__ = type(other)
    node.__dict__.clear()
    node.__dict__.update(other.__dict__)


def changes(node: ast.AST) -> list[Change]:
    """The ways to break one node: what it becomes, in words, and how."""
    found: list[Change] = []
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]
        found.append((other.__name__, lambda n: put(n, op=other())))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        found.append(("without its sign", lambda n: become(n, n.operand)))
    if isinstance(node, ast.Compare):
        swap = COMPARISONS[type(node.ops[0])]
        found.append((swap.__name__, lambda n: put(n, ops=[swap(), *n.ops[1:]])))
    if isinstance(node, ast.BoolOp):
        flip = ast.Or if isinstance(node.op, ast.And) else ast.And
        found.append((flip.__name__, lambda n: put(n, op=flip())))
    if isinstance(node, ast.IfExp | ast.If) and not isinstance(node.test, ast.Compare):
        found.append(("condition negated", lambda n: put(n, test=ast.UnaryOp(ast.Not(), n.test))))
    if isinstance(node, ast.Constant):
        found += constant_changes(node.value)
    if isinstance(node, ast.Attribute) and node.attr == "mT":
        found.append(("not transposed", lambda n: become(n, n.value)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        found += call_changes(node.func)
    return found


def constant_changes(value) -> list[Change]:
    if isinstance(value, bool):
        return [(str(not value), lambda n: put(n, value=not n.value))]
    if isinstance(value, int) and abs(value) <= 4:  # larger ones are sizes, not indices
        return [(str(value + 1), lambda n: put(n, value=n.value + 1))]
    if isinstance(value, float):
        return [(str(value + 1), lambda n: put(n, value=n.value + 1))]
    if isinstance(value, str) and LETTERS.fullmatch(value):
        return [("indices swapped", lambda n: put(n, value=swap_letters(n.value)))]
    if isinstance(value, str) and PAIR.search(value):
        return [("pair swapped", lambda n: put(n, value=PAIR.sub(r"(\2 \1)", n.value, count=1)))]
    return []


def swap_letters(pattern: str) -> str:
    """ "blhp,dhp->bld" to "blhp,dph->bld": the last operand's last two axes."""
    operands, result = pattern.split("->")
    *first, last = operands.split(",")
    return ",".join([*first, last[:-2] + last[-1] + last[-2]]) + "->" + result


def call_changes(function: ast.Attribute) -> list[Change]:
    name, found = function.attr, []
    module = isinstance(function.value, ast.Name) and function.value.id == "torch"
    if name in METHODS and not module:
        found.append((METHODS[name], lambda n: put(n.func, attr=METHODS[name])))
    if name in DROPPED:
        what = (lambda n: become(n, n.args[0])) if module else (lambda n: become(n, n.func.value))
        found.append((f"without {name}", what))
    return found


def mutants(source: str) -> list[tuple[str, ast.Module]]:
    """Every mutant of a file: where and what, and its tree."""
    tree, found = ast.parse(source), []
    for index, node in enumerate(parts_of(tree)):
        for number, (what, _) in enumerate(changes(node)):
            mutant = copy.deepcopy(tree)
            victim = next(n for i, n in enumerate(parts_of(mutant)) if i == index)
            was = ast.get_source_segment(source, node) or ast.unparse(node)
            changes(victim)[number][1](victim)
            found.append((f"{node.lineno}: `{' '.join(was.split())[:90]}` -> {what}", ast.fix_missing_locations(mutant)))
    return found


# --- running the tests on one -------------------------------------------------------------------------------------


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another syntax tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module):
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class Stopwatch:
    """A plugin of pytest that takes the time of each test, and runs those first that were quick the last time."""

    def __init__(self, seconds: dict[str, float]):
        self.last, self.seconds = seconds, {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=lambda item: self.last.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


def timed(path: Path, tree: ast.Module, tests: list[str], last: dict[str, float], limit: float) -> dict[str, float]:
    """The seconds that each test takes with this tree in the file's place; none if one fails. To be run in a fork.

    last: what they took before. limit: seconds of CPU time, 0: any.
    """
    signal.setitimer(signal.ITIMER_PROF, limit)
    sys.meta_path.insert(0, Planted("zamba_lab.lens." + path.stem, path, tree))
    watch = Stopwatch(last)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        status = pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests], plugins=[watch])
    return watch.seconds if status == 0 else {}


def in_fork(work: Callable[[], dict]) -> dict:
    """What work() returns, done in a fork so that nothing of it stays; {} if it raises or is killed."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(start, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(start)
    with os.fdopen(end) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else {}


def warm(tests: list[str]) -> None:
    """Load what tests need, once for all forks, and forget the lens and what has imported it."""
    for name in {*SSM, *ADAPTED, TRAINED}:
        case(name)
    with redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *tests])
    for name in [name for name in sys.modules if name.startswith(("zamba_lab.lens", "tests", "lens_frozen", "conftest"))]:
        del sys.modules[name]
    zamba_lab.__dict__.pop("lens", None)


def tests_of(path: Path) -> list[str]:
    names = TESTS.get(path.stem, (path.stem,))
    files = [ROOT / "tests" / "lens" / f"test_{name}.py" for name in names]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise SystemExit(f"{path.name} has no tests of its own: {', '.join(missing)} (or name others in TESTS)")
    return [str(file) for file in files]


def try_file(path: Path, sample: int | None, seed: int, last: dict[str, float]) -> tuple[int, int]:
    """Killed and tried mutants of one file; prints the survivors. last: what each test took."""
    source, tests, start = path.read_text(encoding="utf-8"), tests_of(path), time.monotonic()
    every = mutants(source)
    chosen = every if sample is None or sample >= len(every) else Random(seed).sample(every, sample)
    survivors = 0
    for what, tree in chosen:
        if in_fork(lambda: timed(path, tree, tests, last, SECONDS)):
            survivors += 1
            print(f"    survived: {path.name}:{what}", flush=True)
    print(
        f"{path.name}: {len(chosen) - survivors} of {len(chosen)} killed ({len(every)} possible, {time.monotonic() - start:.0f} s)",
        flush=True,
    )
    return len(chosen) - survivors, len(chosen)


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share from a sample of it (Wilson 1927)."""
    z, share = 1.96, part / whole
    middle, reach = share + z * z / (2 * whole), z * math.sqrt(share * (1 - share) / whole + (z / (2 * whole)) ** 2)
    return (middle - reach) / (1 + z * z / whole), (middle + reach) / (1 + z * z / whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--sample", type=int, help="mutants of each file, drawn from the seed; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=95.0, help="kill rate in percent below which the exit status is 1")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    files = arguments.files or sorted((ROOT / "zamba_lab" / "lens").glob("[a-z]*.py"))
    tests = sorted({test for path in files for test in tests_of(path)})
    warm(tests)
    last = in_fork(lambda: timed(files[0].resolve(), ast.parse(files[0].read_text(encoding="utf-8")), tests, {}, limit=0))
    if not last:
        raise SystemExit("the tests fail without any change")
    counts = [try_file(path.resolve(), arguments.sample, arguments.seed, last) for path in files]
    killed, tried = (sum(column) for column in zip(*counts))
    low, high = wilson(killed, tried)
    print(f"kill rate {100 * killed / tried:.1f} % ({killed} of {tried}; 95 % interval {100 * low:.1f} to {100 * high:.1f} %)")
    return 0 if killed >= arguments.least / 100 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
