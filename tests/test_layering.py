"""Imports point upwards in the table below, files and functions stay small, and importing the core stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "zamba_lab"

# A module imports from rows above its own only. A module is a file or a folder of zamba_lab; inside one folder
# siblings may import each other.
ROWS = (
    ("lazy", "resources", "version", "yaml_file", "writing"),
    ("cache_file",),
    ("config", "trace", "cache", "native"),
    ("ops", "accounting"),
    ("blocks",),
    ("initialisation", "quantization"),
    ("model", "tokenizer", "decoder"),
    ("checkpoints", "generation", "prefixes"),
    ("lens", "corpora", "evaluate"),
    ("tasks", "specimens", "pages"),  # the text of the first two is a corpus
    ("train",),
    ("recipes", "ablate"),
    ("viz",),
    ("report", "atlases"),
    ("widgets", "lab", "course"),
    ("cli",),
)
ROW = {module: row for row, modules in enumerate(ROWS) for module in modules}
UP_FORBIDDEN = {("viz", module) for row in ROWS[ROW["ops"] : ROW["viz"]] for module in row}  # figures take arrays, not models
EXEMPT = {"__init__", "__main__"}  # they hand on the public names, lazily, and run the command line

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40  # from `def` to the last line, docstring included
# Longer than the limits only since the code is laid out by ruff. Each is to be cut; the list only shrinks.
TOO_LONG_YET: set[str] = set()
HEAVY = ("plotly", "ipywidgets", "transformers", "ray", "IPython", "mamba_ssm", "causal_conv1d")


def module_of(path: Path, package: Path) -> str:
    """The module of the table that a file belongs to: the first part of its path in the package."""
    return path.relative_to(package).with_suffix("").parts[0]


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a syntax tree but those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for branch in node.orelse:
                yield branch
                yield from running_nodes(branch)
        else:
            yield node
            yield from running_nodes(node)


def imported_names(node: ast.AST, path: Path, package: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names an import statement may bind, as tuples that start with the package's name.

    `from zamba_lab import x` yields (zamba_lab, x); relative imports are resolved against the file's folder.
    """
    if isinstance(node, ast.Import):
        yield from (tuple(alias.name.split(".")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            folder = path.relative_to(package.parent).parent.parts
            base = folder[: len(folder) - node.level + 1] + base
        yield from (base + (alias.name,) for alias in node.names)


def trouble_with(source: str, target: str) -> str | None:
    """What is wrong with module `source` importing module `target`; None if nothing is."""
    if target not in ROW:
        return "takes a name from the package itself: import it from the module that defines it"
    if source == target:
        return None
    if (source, target) in UP_FORBIDDEN:
        return f"{source} must not know {target}"
    if ROW[target] == ROW[source]:
        return f"sideways: both are in row {ROW[source]}"
    if ROW[target] > ROW[source]:
        return f"wrong way: row {ROW[source]} imports row {ROW[target]}"
    return None


def wrong_arrows(package: Path) -> list[str]:
    """One sentence for each import in the package that the table forbids."""
    found = []
    for path in sorted(package.rglob("*.py")):
        source = module_of(path, package)
        if source in EXEMPT or source not in ROW:
            continue
        for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported_names(node, path, package):
                if name[0] != package.name:
                    continue
                target = name[1] if len(name) > 1 else package.name
                if trouble := trouble_with(source, target):
                    found.append(f"{path.relative_to(package.parent)}:{node.lineno}: {source} -> {target}: {trouble}")
    return found


def unlisted_modules(package: Path) -> list[str]:
    """The modules of the package that the table does not place."""
    modules = {module_of(path, package) for path in package.rglob("*.py")}
    return sorted(modules - set(ROW) - EXEMPT)


def oversized(package: Path) -> list[str]:
    """One sentence for each file and function over its limit."""
    found = []
    for path in sorted(package.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(package.parent)
        inside = path.relative_to(package).as_posix()
        if (lines := len(text.splitlines())) > MAX_FILE_LINES and inside not in TOO_LONG_YET:
            found.append(f"{name}: {lines} lines, at most {MAX_FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES and f"{inside}:{node.name}" not in TOO_LONG_YET:
                    found.append(f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
    return found


def listing(lines: list[str]) -> str:
    return "\n" + "\n".join(lines)


def test_imports_point_up_the_table():
    found = wrong_arrows(PACKAGE)
    assert not found, listing(found)


def test_every_module_has_a_row():
    unlisted = unlisted_modules(PACKAGE)
    assert not unlisted, (
        f"not in the table: {', '.join(unlisted)}. Add each to ROWS in {Path(__file__).name}, in the row below everything it imports"
    )


def test_files_and_functions_stay_small():
    found = oversized(PACKAGE)
    assert not found, listing(found)


def heavy_after(code: str, heavy: Iterable[str] = HEAVY) -> list[str]:
    """The heavy libraries that are imported once a fresh Python has run `code`."""
    report = f"import sys; print(*sorted(set(sys.modules) & set({sorted(heavy)})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    assert heavy_after("import zamba_lab") == []


def test_importing_everything_above_the_figures_imports_nothing_heavy():
    core = [module for row in ROWS[: ROW["viz"]] for module in row if (PACKAGE / module).is_dir() or (PACKAGE / f"{module}.py").is_file()]
    assert heavy_after("\n".join(f"import zamba_lab.{module}" for module in core)) == []


def test_reaching_for_a_model_does_not_import_the_compiler():
    """torch._dynamo takes as long as torch itself."""
    assert heavy_after("import zamba_lab as zl; zl.Zamba; zl.load; zl.generate", ["torch._dynamo", "torch._inductor"]) == []


# --- the checks themselves can fail -------------------------------------------------------------------------------


def write_package(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "zamba_lab"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


@pytest.mark.parametrize(
    ("file", "text", "arrow"),
    [
        ("config/__init__.py", "from zamba_lab.model import Zamba", "config -> model: wrong way"),
        ("config/cost.py", "from ..model import Zamba", "config -> model: wrong way"),
        ("ops/ssd.py", "import zamba_lab.blocks.mamba2", "ops -> blocks: wrong way"),
        ("native/ssd.py", "from ..trace import Trace", "native -> trace: sideways"),
        ("trace.py", "def at(x):\n    from .cache import Cache", "trace -> cache: sideways"),
        ("checkpoints/load.py", "from zamba_lab import generation", "checkpoints -> generation: sideways"),
        ("model.py", "if True:\n    import zamba_lab.viz as viz", "model -> viz: wrong way"),
        ("viz/maps.py", "from zamba_lab.lens import states", "viz must not know lens"),
        ("cli.py", "from zamba_lab import Zamba", "takes a name from the package itself"),
        ("cli.py", "import zamba_lab", "takes a name from the package itself"),
        ("train/loop.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from zamba_lab import cli", "train -> cli: wrong way"),
    ],
)
def test_a_wrong_arrow_is_named(tmp_path, file, text, arrow):
    found = wrong_arrows(write_package(tmp_path, {file: text}))
    assert len(found) == 1
    assert arrow in found[0]
    assert file in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config/presets.py", "from zamba_lab.config import ZambaConfig"),
        ("ops/ssd.py", "from . import conv\nfrom .norm import rms_norm\nfrom zamba_lab.ops.scan import scan_step"),
        ("config/__init__.py", "from zamba_lab.config.cost import n_params\nfrom . import cost"),
        ("native/ssd.py", "from .call import off"),
        ("ops/ssd.py", "from ..native import find"),
        ("viz/maps.py", "from zamba_lab.trace import Trace"),
        ("widgets/panel.py", "from zamba_lab import lens, viz\nimport torch, plotly"),
        ("trace.py", "import typing\nif typing.TYPE_CHECKING:\n    from .model import Zamba"),
        ("__init__.py", "from .cli import main"),
        ("__main__.py", "from zamba_lab.cli import main"),
    ],
)
def test_a_right_arrow_is_let_through(tmp_path, file, text):
    assert wrong_arrows(write_package(tmp_path, {file: text})) == []


def test_an_unlisted_module_is_named(tmp_path):
    package = write_package(tmp_path, {"model.py": "", "cost.py": "", "extra/__init__.py": "", "__init__.py": ""})
    assert unlisted_modules(package) == ["cost", "extra"]


def test_oversized_files_and_functions_are_named(tmp_path):
    long_function = "def long():\n" + "    pass\n" * MAX_FUNCTION_LINES
    package = write_package(tmp_path, {"model.py": long_function, "cli.py": "x = 1\n" * (MAX_FILE_LINES + 1)})
    assert oversized(package) == [
        f"zamba_lab/cli.py: {MAX_FILE_LINES + 1} lines, at most {MAX_FILE_LINES}",
        f"zamba_lab/model.py:1: long has {MAX_FUNCTION_LINES + 1} lines, at most {MAX_FUNCTION_LINES}",
    ]


def test_a_heavy_import_is_seen():
    assert heavy_after("import IPython") == ["IPython"]
