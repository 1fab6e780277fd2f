"""`zamba-lab course write FOLDER` and `zamba-lab course grade FOLDER`."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(required=True, metavar="WHAT")
    write = what.add_parser("write", help="the lessons' notebooks; files of these names are replaced")
    write.add_argument("folder", type=Path)
    write.add_argument("--solved", action="store_true", help="with the solutions in their places")
    write.set_defaults(run=_write)
    grade = what.add_parser("grade", help="check every submission of a folder; a table as CSV. Runs the learners' functions")
    grade.add_argument("folder", type=Path, help="a folder for each learner, or notebooks")
    grade.add_argument("--table", type=Path, help="the file to write; printed if left out")
    grade.set_defaults(run=_grade)


def _write(arguments: argparse.Namespace) -> int:
    from zamba_lab.course import write

    files = write(arguments.folder, arguments.solved)
    print(f"{len(files)} notebooks in {arguments.folder}: {', '.join(file.name for file in files)}")
    return 0


def _grade(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from zamba_lab.course.grading import grade, table

    graded = list(tqdm(grade(arguments.folder), unit=" submissions", disable=not sys.stderr.isatty()))
    if arguments.table is None:
        table(graded, sys.stdout)
        return 0
    with open(arguments.table, "w", encoding="utf-8", newline="") as out:
        table(graded, out)
    print(f"{len(graded)} submissions in {arguments.table}")
    return 0
