"""`zamba-lab eval MODEL TEXT...` and `zamba-lab eval MODEL --tasks NAMES`."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


TEXTS: dict[str, dict[str, Any]] = {
    "texts": dict(nargs="*", type=Path, metavar="TEXT", help="text files, or folders of them; each is one document"),
    "--window": dict(type=int, default=512, help="tokens read together (512)"),
    "--stride": dict(type=int, default=256, help="tokens by which the window moves on (256)"),
    "--json": dict(action="store_true", help="print JSON"),
}
TASKS: dict[str, dict[str, Any]] = {
    "--tasks": dict(
        type=_names,
        metavar="NAMES",
        help="with commas: tasks of lm-eval; zamba_lab and zamba_lab_long, which need no data; or published: those of the published "
        "table, with its figures beside",
    ),
    "--include": dict(type=Path, action="append", default=[], metavar="FOLDER", help="of your own tasks' YAML files; may be repeated"),
    "--shots": dict(type=int, help="examples before each question; as the task says if left out"),
    "--limit": dict(type=int, help="documents of each task; all if left out"),
    "--lengths": dict(type=_numbers, help="of the texts of zamba_lab_long, in tokens, with commas (256,512,1024)"),
    "--batch": dict(type=int, default=16, help="requests read together (16)"),
    "--max-length": dict(type=int, help="tokens the model may read; its config's max_context if left out"),
    "--too-long": dict(choices=("refuse", "window"), default="refuse", help="what becomes of a longer request: refuse it, or read its end"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags, of texts and of tasks."""
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder or a hub id")
    for flag, more in TEXTS.items():
        parser.add_argument(flag, **more)
    tasks = parser.add_argument_group("tasks", "with the extra `eval`")
    for flag, more in TASKS.items():
        tasks.add_argument(flag, **more)


def main(arguments: argparse.Namespace) -> int:
    """Score texts, or measure on tasks."""
    if bool(arguments.texts) == bool(arguments.tasks):
        raise ValueError(
            "eval takes texts or --tasks: zamba-lab eval zamba2-nano notes.txt, or zamba-lab eval zamba2-nano --tasks zamba_lab"
        )
    return _tasks(arguments) if arguments.tasks else _texts(arguments)


def _texts(arguments: argparse.Namespace) -> int:
    from zamba_lab.checkpoints import load
    from zamba_lab.evaluate.bits import score_files

    scores = score_files(load(arguments.source), arguments.texts, arguments.window, arguments.stride, progress=sys.stderr.isatty())
    if arguments.json:
        print(json.dumps([score._asdict() for score in scores], indent=1))
        return 0
    print(f"{'bits/byte':>9} {'xz -9':>7} {'bytes':>11} {'tokens':>10}  text")
    for score in scores:
        bits, xz = (("-" if value is None else f"{value:.3f}") for value in score[3:])
        print(f"{bits:>9} {xz:>7} {score.bytes:11,} {score.tokens:10,}  {score.text}")
    return 0


def _tasks(arguments: argparse.Namespace) -> int:
    from zamba_lab.evaluate.lm import ZambaLM  # first: it says what to install where lm-eval is missing
    from zamba_lab.evaluate.tasks import run

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its messages would bury the table
    lm = ZambaLM(arguments.source, batch_size=arguments.batch, max_length=arguments.max_length, too_long=arguments.too_long)
    with contextlib.redirect_stdout(sys.stderr):  # lm-eval prints on its way
        rows, _ = run(lm, arguments.tasks, arguments.include, arguments.shots, arguments.limit, arguments.lengths, arguments.source)
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return 0
    print(f"{'value':>10} {'± error':>9} {'published':>9} {'documents':>9} {'shots':>5}  task, measure")
    for row in rows:
        error, known = ("" if value is None else f"{value:.{n}f}" for value, n in ((row.stderr, 4), (row.published, 2)))
        print(f"{row.value:10.4f} {error:>9} {known:>9} {row.documents:9} {row.shots:5}  {row.task}, {row.metric}")
    if lm.windowed:
        print(f"{lm.windowed:,} requests were longer than {lm.max_length:,} tokens: of these the end was read")
    return 0
