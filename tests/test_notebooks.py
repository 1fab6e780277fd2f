"""Every committed notebook is small, clean and short, outputs only where a test compares them, and its model may be another."""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FIRST = "00_start_here.ipynb"
CHECKED = "# NBVAL_CHECK_OUTPUT"
MAX_BYTES = 200_000
MAX_CELL_LINES = 15
MAX_LOOP_LINES = 3

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def code_of(cell: dict) -> ast.Module:
    """The cell's syntax tree, without IPython's own `%magic` and `!shell` lines."""
    return ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source_of(cell).splitlines()))


def kernel_trouble(notebook: dict) -> list[str]:
    name = notebook["metadata"].get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernelspec must be python3, not {name}"]


def state_trouble(notebook: dict) -> list[str]:
    return ["widget state is stored: save without it"] if "widgets" in notebook["metadata"] else []


def length_trouble(cell: dict) -> list[str]:
    lines = len(source_of(cell).splitlines())
    return [f"{lines} lines, at most {MAX_CELL_LINES}"] if lines > MAX_CELL_LINES else []


def code_trouble(cell: dict) -> list[str]:
    """Definitions and long loops: they belong in the package, with a test."""
    found = []
    for node in ast.walk(code_of(cell)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(f"defines {node.name}: move it into the package, with a test")
        if isinstance(node, ast.For | ast.AsyncFor | ast.While):
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_LOOP_LINES:
                found.append(f"a loop of {lines} lines, at most {MAX_LOOP_LINES}: move it into the package")
    return found


def output_trouble(cell: dict) -> list[str]:
    """Errors, and outputs or a count where nothing compares them."""
    found = [f"stored error {output['ename']}" for output in cell["outputs"] if output["output_type"] == "error"]
    if CHECKED not in source_of(cell):
        if cell["outputs"]:
            found.append(f"output is stored, but the cell has no {CHECKED}: clear it")
        if cell["execution_count"] is not None:
            found.append(f"execution count {cell['execution_count']} is stored: clear it")
    elif not cell["outputs"] or cell["execution_count"] is None:
        found.append(f"{CHECKED}, but no output is stored: run it and save")
    return found


def troubles(text: str) -> list[str]:
    """One sentence for each thing that must not be committed in a notebook with this text."""
    notebook, size = json.loads(text), len(text.encode())
    found = [f"{size} bytes, at most {MAX_BYTES}"] if size > MAX_BYTES else []
    found += kernel_trouble(notebook) + state_trouble(notebook)
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            in_cell = length_trouble(cell) + code_trouble(cell) + output_trouble(cell)
            found += [f"cell {index}: {trouble}" for trouble in in_cell]
    return found


def test_the_first_notebook_is_there():
    assert NOTEBOOKS / FIRST in PATHS


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_notebook_is_clean(path):
    found = troubles(path.read_text(encoding="utf-8"))
    assert not found, "\n" + "\n".join(found)


# --- another model --------------------------------------------------------------------------------------------------

SWITCH = 'MODEL = "zamba2-nano"'  # the first cell of a notebook about one trained model
SWITCHED = [path for path in PATHS if SWITCH in path.read_text(encoding="utf-8").replace('\\"', '"')]
SHORTER = {'xmlreader".split()': 'xmlreader".split()[:2]', "count=24": "count=2", "max_new_tokens=60": "max_new_tokens=8"}
# What is said, and how often, in the place of what a model lacks.
LACKS = {
    "zamba1-nano": {"This model has no adapters": 3, "It has 1 shared block": 1},
    "mamba2-nano": {"has no shared attention block": 3, "This model has no shared block": 2, "It has no shared block": 1},
    "transformer-nano": {
        "has no shared attention block": 3,
        "it has no SSM states": 2,
        "carries keys and values, and no states": 1,
        "attribution through frozen mixers": 1,
        "none of the parts that can be replaced": 1,
        "there is nothing to compare with": 1,
    },
}


def test_the_notebooks_with_a_model_switch_are_known():
    assert [path.name[:2] for path in SWITCHED] == ["00", "01", "02", "03", "04"]


@pytest.mark.parametrize("model", LACKS)
def test_every_notebook_runs_with_every_shipped_model_and_says_what_it_lacks(model):
    """Code alone, with fewer texts and in one kernel, emptied between them: starting five takes longer than what they do."""
    every = nbformat.v4.new_notebook()
    for path in SWITCHED:
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        every.cells += [nbformat.v4.new_code_cell("%reset -f"), *code]
    text = "\0".join(cell.source for cell in every.cells)
    assert text.count(SWITCH) == len(SWITCHED) and all(text.count(long) == 1 for long in SHORTER)
    for long, short in {SWITCH: f'MODEL = "{model}"', **SHORTER}.items():
        text = text.replace(long, short)
    for cell, source in zip(every.cells, text.split("\0"), strict=True):
        cell.source = source
    NotebookClient(every, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS.parent)}}).execute()
    outputs = [output for cell in every.cells for output in cell.get("outputs", ())]
    shown = "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert {sentence: shown.count(sentence) for sentence in LACKS[model]} == LACKS[model] and "nan" not in printed.split()


# --- the checks themselves can fail -------------------------------------------------------------------------------


def cell_with(source: str, outputs: tuple = (), count: int | None = None) -> dict:
    return {
        "cell_type": "code",
        "metadata": {},
        "source": source.splitlines(keepends=True),
        "outputs": list(outputs),
        "execution_count": count,
    }


def notebook_with(*cells: dict, **metadata) -> str:
    return json.dumps({"cells": list(cells), "metadata": {"kernelspec": {"name": "python3"}, **metadata}})


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
PRINTED = {"output_type": "stream", "name": "stdout", "text": ["1.0\n"]}


def test_a_clean_notebook_passes():
    text = notebook_with(
        cell_with("%matplotlib inline\nfor x in range(3):\n    print(x)"),
        cell_with(f"{CHECKED}\nprint(1.0)", (PRINTED,), 2),
        {"cell_type": "markdown", "metadata": {}, "source": ["# title\n"] * 40},
    )
    assert troubles(text) == []


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        (notebook_with(kernelspec={"name": "my-venv"}), "not my-venv"),
        (notebook_with(widgets={"state": {}}), "widget state"),
        (notebook_with(title="x" * MAX_BYTES), "bytes, at most"),
        (notebook_with(cell_with("x = 1\n" * 16)), "cell 0: 16 lines"),
        (notebook_with(cell_with("x = 1\nif x:\n    def f(): pass")), "defines f"),
        (notebook_with(cell_with("class A: pass")), "defines A"),
        (notebook_with(cell_with("for x in ():\n    x\n    x\n    x")), "loop of 4 lines"),
        (notebook_with(cell_with("1", (PRINTED,))), "cell 0: output is stored"),
        (notebook_with(cell_with("1", (), 3)), "execution count 3"),
        (notebook_with(cell_with(f"{CHECKED}\n1", (ERROR,), 1)), "stored error ValueError"),
        (notebook_with(cell_with(f"{CHECKED}\n1")), "no output is stored"),
    ],
)
def test_a_blemish_is_named(text, trouble):
    found = troubles(text)
    assert len(found) == 1
    assert trouble in found[0]


def test_the_notebook_on_architectures_trains_the_one_cell_it_speaks_of():
    """At that arm's own tuned rate: a cell of the plan has the rate that was chosen for its arm."""
    notebook = nbformat.read(NOTEBOOKS / "07_architecture_ablations.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert text.count("run_cell(") == 1 and "ablate.run(" not in text and "train(" not in text
    assert "quick.plan.cells" in text and "planned.tuning" in text
