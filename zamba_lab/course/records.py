"""What a learner has done: a small file in the folder of the notebooks, so that it survives a restart and moves with them."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zamba_lab import writing
from zamba_lab.course.catalogue import Lesson, lessons

FILE = ".course-progress.json"  # hidden: `zamba-lab lab` copies no hidden files


def done(folder: str | Path = ".") -> dict[str, str]:
    """number of an exercise -> the day on which it was passed first.

    Raises ValueError if the file is there and is not one of ours.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(stored, dict) and all(isinstance(day, str) for day in stored.values())
    except (ValueError, AssertionError):
        raise ValueError(f"{file.resolve()} is damaged: delete it, and run the checks again to fill it anew") from None
    return stored


def record(number: str, folder: str | Path = ".") -> str:
    """Note an exercise as passed. Returns "", or a sentence on why it could not be noted."""
    try:
        stored = done(folder)
        if number not in stored:
            stored[number] = datetime.date.today().isoformat()
            writing.write(Path(folder) / FILE, json.dumps(stored, indent=1).encode())
    except (OSError, ValueError) as error:
        return f" (Your progress could not be saved: {error}.)"
    return ""


@dataclass(frozen=True)
class Progress:
    """Which exercises are done: lesson -> (number, title, done) of each exercise."""

    lessons: Sequence[Lesson]
    done: dict[str, str]

    def rows(self) -> list[tuple[str, int, int, str]]:
        """Of each lesson: its title, exercises done, exercises there are, and the next one to do."""
        found = []
        for lesson in self.lessons:
            open_ones = [exercise for exercise in lesson.exercises if exercise.number not in self.done]
            following = f"{open_ones[0].number} {open_ones[0].title}, {open_ones[0].minutes} minutes" if open_ones else ""
            found.append((f"{lesson.number} {lesson.title}", len(lesson.exercises) - len(open_ones), len(lesson.exercises), following))
        return found

    def __repr__(self) -> str:
        lines = [
            f"{'■' * n}{'□' * (of - n)}".ljust(6) + f" {title}" + (f"  (next: {rest})" if rest else "")
            for title, n, of, rest in self.rows()
        ]
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        lines = ["| lesson | done | next |", "|---|---|---|"]
        return "\n".join(lines + [f"| {title} | {'■' * n}{'□' * (of - n)} {n} of {of} | {rest} |" for title, n, of, rest in self.rows()])


def progress(folder: str | Path = ".") -> Progress:
    """All lessons, with what is done according to the file in a folder. Raises ValueError if that is damaged."""
    return Progress(lessons(), done(folder))
