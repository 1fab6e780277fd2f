"""The results of all cells, in one folder: parquet for what was measured, safetensors for weights, DuckDB to ask.

    store/
      store.json                the format's number: another one is refused
      cells/<address>.parquet   one finished cell, written whole or not at all
      cells/many-<hash>.parquet the cells of many such files, put together so that asking stays quick
      weights/<address>.safetensors
      work/<address>/           checkpoints and metrics of a cell that is being run, or was when it stopped
      claims/<address>          who is at work on a cell holds this lock; it goes with its process

Why DuckDB: a question to a hundred thousand cells is one line of SQL over these very files, answered in parallel and without
reading what it does not ask for; there is no server and no second copy that could disagree with the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from zamba_lab.writing import write

FORMAT = 1
MANY = 256  # files of one cell before they are put together
COLUMNS = {
    "address": "string",
    "code": "int64",
    "config": "string",
    "task": "string",
    "train": "string",
    "rules": "string",
    "seed": "int64",
    "status": "string",
    "steps": "int64",
    "solved_at": "int64",
    "accuracy": "double",
    "held_out_loss": "double",
    "slices": "string",
    "also": "string",
    "curve": "curve",
    "link_shares": "doubles",
    "error": "string",
    "weights_sha256": "string",
    "outcome_sha256": "string",
    "n_params": "int64",
    "flops_per_token": "double",
    "state_bytes": "int64",
    "seconds": "double",
    "seconds_a_step": "double",
    "host": "string",
    "versions": "string",
    "finished": "double",
}


class Store:
    """A folder of results; made if there is none. Raises ValueError if it is of another format, or no store at all."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.cells, self.weights, self.claims = (self.folder / name for name in ("cells", "weights", "claims"))
        mark = self.folder / "store.json"
        if not mark.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ValueError(f"a store is a folder of its own: {str(self.folder)!r} holds other things and no store.json")
            self.folder.mkdir(parents=True, exist_ok=True)
            write(mark, json.dumps({"format": FORMAT}).encode())
        self._check(mark)
        self._put_together: dict[str, frozenset[str]] = {}

    def _check(self, mark: Path) -> None:
        try:
            found = json.loads(mark.read_bytes())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(mark)!r} is not a store's: {error!r}") from error
        if found != FORMAT:
            raise ValueError(
                f"a store of format {found} cannot be read by this version, which reads and writes format {FORMAT}"
                f": {str(self.folder)!r}. Take another folder; results of two formats are never mixed"
            )

    def work(self, address: str) -> Path:
        """The folder of a cell that is being run."""
        return self.folder / "work" / address

    def has(self, address: str) -> bool:
        """Whether a cell is finished."""
        return (self.cells / f"{address}.parquet").exists() or address in self._in_many()

    def finished(self) -> set[str]:
        """The addresses of all finished cells."""
        return {file.stem for file in self._files() if not file.stem.startswith("many-")} | self._in_many()

    def add(self, record: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> None:
        """Keep a finished cell, and forget its work. Raises OSError if there is no room; the store is as it was then."""
        from safetensors.torch import save

        address = record["address"]
        if weights:
            self.weights.mkdir(exist_ok=True)
            write(self.weights / f"{address}.safetensors", save({name: t.contiguous() for name, t in weights.items()}))
        self.cells.mkdir(exist_ok=True)
        write(self.cells / f"{address}.parquet", _parquet([record]))
        shutil.rmtree(self.work(address), ignore_errors=True)
        if sum(not file.stem.startswith("many-") for file in self._files()) >= MANY:
            self.put_together()

    def load_weights(self, address: str) -> dict[str, Tensor]:
        """The trained weights of a cell. Raises ValueError if they were not kept."""
        from safetensors.torch import load_file

        file = self.weights / f"{address}.safetensors"
        if not file.exists():
            raise ValueError(f"no weights were kept of cell {address}: a study keeps them with weights: true")
        return load_file(file)

    def query(self, sql: str = "select * from cells", parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a DuckDB query over the table `cells` (COLUMNS), each cell once. No cells: no rows."""
        import duckdb

        with self._held():
            if not (files := [str(file) for file in self._files()]):
                return []
            with duckdb.connect() as connection:
                connection.execute(f"create view files as select * from read_parquet({files!r})")
                # A cell may for a moment be in two files: while they are put together, or where a kill fell in between.
                # Looking for the second of each costs more than most questions, so first whether there is any.
                ((twice,),) = connection.execute("select count(*) > count(distinct address) from files").fetchall()
                once = " qualify row_number() over (partition by address) = 1" if twice else ""
                connection.execute("create view cells as select * from files" + once)
                found = connection.execute(sql, list(parameters))
                names = [column[0] for column in found.description]
                return [dict(zip(names, row)) for row in found.fetchall()]

    def records(self, addresses: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The finished ones among these cells, by address."""
        wanted = list(addresses)
        rows = self.query("select * from cells where address in (select unnest(?))", [wanted]) if wanted else []
        return {row["address"]: row for row in rows}

    @contextmanager
    def claim(self, address: str) -> Iterator[bool]:
        """Whether this process may run the cell: nobody else is at it, and it is not finished."""
        from filelock import FileLock, Timeout

        self.claims.mkdir(exist_ok=True)
        lock = FileLock(self.claims / address)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield not self.has(address)
        finally:
            # Once a cell is finished its lock means nothing: whoever still holds the old file finds the cell done.
            if self.has(address):
                (self.claims / address).unlink(missing_ok=True)
            lock.release()

    def put_together(self) -> None:
        """Join the files of one cell into one file. Killed at any moment, no cell is lost and none counts twice."""
        import pyarrow.parquet as pq

        with self._held():
            single = [file for file in self._files() if not file.stem.startswith("many-")]
            if len(single) < 2:
                return
            rows = [row for file in single for row in pq.read_table(file).to_pylist()]
            name = hashlib.sha256("".join(row["address"] for row in rows).encode()).hexdigest()[:16]
            write(self.cells / f"many-{name}.parquet", _parquet(rows))
            for file in single:
                file.unlink()

    def export(self, folder: str | Path, addresses: Iterable[str]) -> Store:
        """The finished ones among these cells as a store of one file, to be given away: machines are not named in it.

        Raises ValueError if there is something in the folder already.
        """
        if Path(folder).exists() and any(Path(folder).iterdir()):
            raise ValueError(f"results go into a new folder: there is something in {str(folder)!r}")
        found, other = self.records(sorted(set(addresses))), Store(folder)
        for address in sorted(found):
            other.add(found[address] | {"host": ""})
        other.put_together()
        return other

    def _in_many(self) -> frozenset[str]:
        import pyarrow.parquet as pq

        for file in self.cells.glob("many-*.parquet"):
            if file.name not in self._put_together:
                self._put_together[file.name] = frozenset(pq.read_table(file, columns=["address"])["address"].to_pylist())
        return frozenset().union(*self._put_together.values())

    def _files(self) -> list[Path]:
        return sorted(self.cells.glob("*.parquet"))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """While files are read or put together. Where nothing can be written, nobody puts anything together."""
        from filelock import FileLock

        if not os.access(self.folder, os.W_OK):
            yield
            return
        with FileLock(self.folder / "lock"):
            yield


def schema():
    """The columns as pyarrow types: the same in every file, so that files join."""
    import pyarrow as pa

    curve = pa.list_(
        pa.struct(
            [
                ("step", pa.int64()),
                ("loss", pa.float64()),
                ("accuracy", pa.float64()),
                ("held_out_loss", pa.float64()),
                ("slices", pa.string()),
            ]
        )
    )
    kinds = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "curve": curve, "doubles": pa.list_(pa.float64())}
    return pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema()), out)
    return out.getvalue().to_pybytes()
