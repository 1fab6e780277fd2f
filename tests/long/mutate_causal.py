"""Break the causal lenses, one sign, comparison or index at a time, and see whether a test notices.

    python tests/long/mutate_causal.py [--count 40] [--seed 0]

Works on a copy of the package in a temporary folder. Messages of errors and names of effects are left alone. Prints each mutant
that no test killed, and the share that was killed; fails under 95 %.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# a file of the lens -> the tests that hold it to its laws
TESTS = {"attribution": "attribution", "logits": "logits", "tuned": "logits", "timetravel": "timetravel", "recall": "recall",
         "hold": "hold interventions", "replace": "interventions effect", "rewire": "rewire interventions", "paths": "paths",
         "effect": "effect", "interventions": "interventions", "parts": "interventions effect"}
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
         ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
         ast.In: ast.NotIn, ast.NotIn: ast.In, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}


def running(node: ast.AST):
    """The nodes that compute: no annotations, words, raised errors or names of things."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            words = isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or name in ("annotation", "returns")
            named = isinstance(child, ast.FunctionDef) and child.name in ("name", "phrase", "__exit__")
            if isinstance(child, ast.AST) and not words and not named:
                yield child
                yield from running(child)


def mutants(tree: ast.Module):
    """Functions that each break one thing in the tree, with where and what."""
    for node in running(tree):
        if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
            yield node, "op", SWAPS[type(node.op)]()
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield node, "ops", [SWAPS[type(node.ops[0])](), *node.ops[1:]]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield node, "op", ast.UAdd()
        elif isinstance(node, ast.Constant) and type(node.value) is int and node.value < 9:
            yield node, "value", node.value + 1


def survives(folder: Path, file: str) -> bool:
    """Whether the tests of this file pass in the copy."""
    tests = [f"tests/lens/test_{name}.py" for name in TESTS[file].split()]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], cwd=folder,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"})
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sources = {file: (ROOT / "zamba_lab" / "lens" / f"{file}.py").read_text(encoding="utf-8") for file in TESTS}
    places = [(file, i) for file, text in sources.items() for i in range(sum(1 for _ in mutants(ast.parse(text))))]
    chosen = random.Random(given.seed).sample(places, min(given.count, len(places)))
    alive = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("zamba_lab", "tests", "data", "pyproject.toml"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
        for file, i in chosen:
            tree = ast.parse(sources[file])
            node, field, value = list(mutants(tree))[i]
            before = ast.unparse(node)
            setattr(node, field, value)
            target = folder / "zamba_lab" / "lens" / f"{file}.py"
            target.write_text(ast.unparse(tree), encoding="utf-8")
            if survives(folder, file):
                alive += 1
                print(f"alive: {file}.py:{node.lineno}: {before}  ->  {ast.unparse(node)}", flush=True)
            target.write_text(sources[file], encoding="utf-8")
    killed = 1 - alive / len(chosen)
    print(f"{len(chosen)} of {len(places)} mutants, {killed:.1%} killed")
    return killed < 0.95


if __name__ == "__main__":
    sys.exit(main())
