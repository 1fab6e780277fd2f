"""What is measured in a run: a row a step, always kept as parquet beside the checkpoints.

    runs/x/metrics/000000001-000000250.parquet      the rows of steps 1..250, and so on: a file an interval

A file is written, atomically, before each checkpoint; one that reaches past the checkpoint a run continues from is cut
back. So a run that was stopped reads like one that never was. `read_metrics` reads them all.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zamba_lab.writing import atomic_file

Row = Mapping[str, Any]  # "step" (from 1), "tokens", "loss", ...; what was not measured is absent
Writer = Callable[[Row], object]  # whatever takes a row: see writers.py

NAME = re.compile(r"(\d+)-(\d+)\.parquet")


class Metrics:
    """The rows of a run, opened at the step that it continues from; what is after that is dropped."""

    def __init__(self, folder: Path, step: int, writes: bool = True):
        """writes: False in a process that leaves the files to another."""
        self.folder, self.step, self.writes = Path(folder) / "metrics", step, writes
        self.rows: list[dict] = []
        if writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in self.folder.glob("*.part"):
                part.unlink()
            for last, file in _files(self.folder):
                if last > step:
                    rows = _rows([file])
                    if kept := [row for row in rows if row["step"] <= step]:
                        _write(self.folder, kept)
                    file.unlink() if rows else file.rename(file.with_name(f"corrupt-{file.name}"))

    def add(self, row: Row) -> None:
        self.rows.append(dict(row))

    def last(self) -> Row | None:
        """The newest row there is, of this process or of one before."""
        return next(iter(reversed(self.rows or _rows([file for _, file in _files(self.folder)[-1:]]))), None)

    def flush(self) -> None:
        """Write the rows since the last time. Raises OSError if there is no room; they are kept then."""
        if self.rows and self.writes:
            _write(self.folder, self.rows)
        self.rows = []

    def flush_if_possible(self) -> None:
        """At the end of a run, however it ended: the last rows, if there is room for them."""
        with contextlib.suppress(OSError):
            self.flush()


def plain_values(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Measured values as Python's numbers, texts and lists: tensors and numpy's values are converted.

    Raises ValueError for a name that is no text, and for a value of another kind, which no file of metrics could hold.
    """
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in measured.items()}
    for name, value in plain.items():
        if not isinstance(name, str) or not all(
            isinstance(part, bool | int | float | str | None) for part in (value if isinstance(value, list | tuple) else [value])
        ):
            raise ValueError(f"a measure has a name and is a number, a text or a list of them: got {name!r}, {type(value).__name__}")
    return plain


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """All rows of a run's folder in order; what was not measured in a step is None. No rows: no run, or no step yet.

    Warns of a file that cannot be read, and leaves its rows out.
    """
    rows = _rows([file for _, file in _files(Path(folder) / "metrics")])
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def _files(folder: Path) -> list[tuple[int, Path]]:
    """(last step, file) of each file of rows, in order."""
    return sorted((int(match[2]), file) for file in folder.glob("*.parquet") if (match := NAME.fullmatch(file.name)))


def _rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Row by row, not as one table: a measure may be 0 in one file and 0.5 in the next."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for file in files:
        try:
            rows += pq.ParquetFile(file).read().to_pylist()
        except (pa.ArrowException, OSError) as error:
            warnings.warn(f"{file} cannot be read, and its rows are left out: {error}", stacklevel=3)
    return rows


def _write(folder: Path, rows: Sequence[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    file = folder / f"{rows[0]['step']:09d}-{rows[-1]['step']:09d}.parquet"
    try:
        with atomic_file(file) as out:
            pq.write_table(table, out)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the rows of steps {rows[0]['step']} to {rows[-1]['step']} could not be written to {file.parent} "
            f"({error.strerror or error}): make room, and the same call continues",
        ) from error


def _column(values: list[Any]):
    """A column of one type: the values' own, floats for numbers of several types, or else texts."""
    import pyarrow as pa

    for convert in (lambda value: value, float):
        try:
            return pa.array([None if value is None else convert(value) for value in values])
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
    return pa.array([None if value is None else str(value) for value in values])
