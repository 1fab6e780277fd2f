"""What is measured in a run: a row a step, always kept as parquet beside the checkpoints.

    runs/x/metrics/000000001-000000250.parquet      the rows of steps 1..250, and so on: a file an interval

A file is written when a checkpoint is, whole or not at all; one that went past the checkpoint a run goes on from is cut
back. So a run that was stopped reads like one that never was. `read_metrics` reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zamba_lab.writing import whole

Row = Mapping[str, Any]  # "step" (from 1), "tokens", "loss", ...; what was not measured is absent
Writer = Callable[[Row], object]  # whatever takes a row: see writers.py


class Metrics:
    """The rows of a run, opened at the step that it goes on from; what is after that is dropped."""

    def __init__(self, folder: Path, step: int, writes: bool = True):
        """writes: False in a process that leaves the files to another."""
        self.folder, self.step, self.writes = Path(folder) / "metrics", step, writes
        self.rows: list[dict] = []
        if writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in self.folder.glob("*.part"):
                part.unlink()
            for file in _files(self.folder):
                if _last(file) > step:
                    if kept := [row for row in _rows([file]) if row["step"] <= step]:
                        _write(self.folder, kept)
                    file.unlink()

    def add(self, row: Row) -> None:
        self.rows.append(dict(row))

    def last(self) -> Row | None:
        """The newest row there is, of this process or of one before."""
        files = _files(self.folder)
        return self.rows[-1] if self.rows else _rows(files[-1:])[-1] if files else None

    def flush(self) -> None:
        """Write the rows since the last time. Raises OSError if there is no room; they are kept then."""
        if self.rows and self.writes:
            _write(self.folder, self.rows)
        self.rows = []

    def rescue(self) -> None:
        """At the end of a run, of whatever kind: the last rows, if there is room for them."""
        try:
            self.flush()
        except OSError:
            pass


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """All rows of a run's folder in order; what was not measured in a step is None. No rows: no run, or no step yet."""
    return _rows(_files(Path(folder) / "metrics"))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _last(file: Path) -> int:
    return int(file.stem.split("-")[1])


def _rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables(map(pq.read_table, files), promote_options="default").to_pylist() if files else []


def _write(folder: Path, rows: Sequence[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    file = folder / f"{rows[0]['step']:09d}-{rows[-1]['step']:09d}.parquet"
    try:
        with whole(file) as out:
            pq.write_table(table, out)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the rows of steps {rows[0]['step']} to {rows[-1]['step']} could not be written to {file.parent} "
            f"({error.strerror or error}): make room, and the same call goes on",
        ) from error
