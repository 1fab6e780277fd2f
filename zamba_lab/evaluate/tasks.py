"""Running tasks of lm-eval by name: its own, ours, and those of a user's folder. What is published stands beside what is measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zamba_lab.evaluate.lm import ZambaLM  # first: it says what to install where lm-eval is missing

# isort: split
from datasets.exceptions import DatasetsError
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from zamba_lab.model import Zamba

OURS = Path(__file__).parent / "tasks"
# Few-shot examples of the tasks of the published table; where none are stated, none.
TABLE = dict(mmlu=5, arc_easy=0, arc_challenge=25, hellaswag=10, piqa=0, winogrande=0, boolq=0, openbookqa=0)
# Percent, as quoted on the models' pages and in the report of Zamba2 (Glorioso et al. 2024); acc or acc_norm is not stated.
PUBLISHED = {
    "zamba2-1.2b": dict(zip(TABLE, (43.1, 72.7, 45.9, 70.9, 78.3, 68.0, 75.0, 43.6))),
    "zamba2-2.7b": dict(zip(TABLE, (55.97, 80.13, 60.0, 76.35, 80.36, 73.24, 74.25, 46.4))),
    "zamba2-7b": dict(zip(TABLE, (67.2, 82.0, 68.9, 81.5, 81.0, 77.3, 84.1, 48.2))),
}


class Tasks(TaskManager):
    """The tasks that can be named. lm-eval's own, 14,000 files, are read only where a name is not among ours."""

    def __init__(self, names: Sequence[str], include: Sequence[str | Path] = (), metadata: dict[str, Any] | None = None):
        """Raises ValueError if a name is neither a task, a group or a tag, nor the file of one."""
        for folder in include:
            if not Path(folder).is_dir():
                raise ValueError(f"tasks are included from a folder of YAML files: there is no folder {str(folder)!r}")
        places = [OURS, *include]
        super().__init__(include_path=places, include_defaults=False, metadata=metadata)
        if self._unknown(names):
            super().__init__(include_path=places, metadata=metadata)
        if unknown := self._unknown(names):
            near = difflib.get_close_matches(unknown[0], self.all_tasks, 3)
            raise ValueError(
                f"there is no task {unknown[0]!r}"
                + (f": is {' or '.join(map(repr, near))} meant?" if near else ".")
                + " `lm_eval ls tasks` lists those of lm-eval; a folder of your own is given by --include"
            )

    def _unknown(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.task_index and not Path(name).is_file()]

    def load(self, task_list):
        """As `TaskManager.load`. Raises ValueError if a task's data cannot be had."""
        try:
            return super().load(task_list)
        except (OSError, DatasetsError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"the data of {', '.join(map(str, task_list))} cannot be had: {reason:.200}. Run once with access to "
                "the hub, or copy a filled cache of data sets and name it by HF_DATASETS_CACHE; --tasks zamba_lab needs no data"
            ) from error


class Row(NamedTuple):
    """One measured number, of `documents` documents (0 for a group of tasks). published: the published figure, in percent, or None."""

    task: str
    metric: str
    value: float
    stderr: float | None
    documents: int
    shots: int
    published: float | None


def run(
    model: ZambaLM | Zamba | str,
    tasks: Sequence[str],
    include: Sequence[str | Path] = (),
    shots: int | None = None,
    limit: int | None = None,
    lengths: Sequence[int] | None = None,
    name: str = "",
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measure a model on tasks.

    Args:
        model: what `ZambaLM` takes, or one that was made with settings.
        tasks: names of lm-eval or of ours (`zamba_lab` and `zamba_lab_long` are all of these), or YAML files. "published" alone: the
            tasks of the published table, each with the number of examples that is stated there.
        include: folders with YAML files of further tasks.
        shots: examples before each question; None: as the task says.
        limit: documents of each task; None: all.
        lengths: of the texts of zamba_lab_long, in tokens: powers of two, 128 to 131,072; None: 256, 512 and 1,024.
        name: of a published model, whose figures stand beside; if empty, `model` where that is a string.

    Returns: the rows, and what lm-eval gives back, the answers to each document included. Raises ValueError for an unknown task, data
    that cannot be had, or a request longer than the model's context.
    """
    lm = model if isinstance(model, ZambaLM) else ZambaLM(model)
    metadata = {"tokenizer": lm.tokenizer, **({"max_seq_lengths": list(lengths)} if lengths else {})}
    named = [([task], count) for task, count in TABLE.items()] if list(tasks) == ["published"] else [(list(tasks), shots)]
    published = PUBLISHED.get((name or str(model)).rsplit("/")[-1].lower(), {})
    results, manager = [], Tasks([task for some, _ in named for task in some], include, metadata)
    for some, count in named:
        results.append(simple_evaluate(lm, tasks=some, task_manager=manager, num_fewshot=count, limit=limit, bootstrap_iters=1000))
    return [row for part in results for row in _rows(part, published)], results


def _rows(results: dict[str, Any], published: dict[str, float]) -> list[Row]:
    rows = []
    for task, measured in results["results"].items():
        for name, value in measured.items():
            metric, _, kind = name.partition(",")
            if not kind or metric.endswith("_stderr"):
                continue
            error = measured.get(f"{metric}_stderr,{kind}")
            count, shots = results["n-samples"].get(task, {}).get("effective", 0), results["n-shot"].get(task, 0)
            known = published.get(task) if metric in ("acc", "acc_norm") else None
            rows.append(Row(task, metric, value, error if isinstance(error, float) else None, count, shots, known))
    return rows
