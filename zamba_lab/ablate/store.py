"""The results of all cells, in one folder: parquet for what was measured, safetensors for weights, DuckDB to ask.

    store/
      store.json                the format's number: another one is refused
      cells/<address>.parquet   one finished cell, complete or absent
      cells/many-<hash>.parquet the cells of many such files, compacted so that asking stays quick
      weights/<address>.safetensors
      work/<address>/           checkpoints and metrics of a cell that is being run, or was when it stopped
      registered/<study>.jsonl  studies as they were written down before their cells were run (registry.py)
      claims/<address>          the lock of the process that runs a cell; it ends with that process

Why DuckDB: a question to a hundred thousand cells is one line of SQL over these very files, answered in parallel and without
reading what it does not ask for; there is no server and no second copy that could disagree with the files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from zamba_lab.writing import NoLocks, locked, write

FORMAT = 1
COMPACT_FROM = 256  # files of one cell before they are compacted
LOCK_SECONDS = 300.0  # for another process to read or compact
# A query sees the table `cells` and nothing else: no file, no extension, no variable of the caller's, and no way to change that.
SEALED = {"enable_external_access": "false", "temp_directory": "", "python_enable_replacements": "false", "lock_configuration": "true"}
TYPES = {  # of the columns: what a cell is (JSON texts), how it ended, what it cost, where it was run
    "string": ("address", "config", "task", "train", "rules", "status", "slices", "also", "measures", "error", "host", "versions")
    + ("weights_sha256", "outcome_sha256"),
    "int64": ("code", "seed", "steps", "solved_at", "n_params", "state_bytes"),
    "double": ("accuracy", "held_out_loss", "flops_per_token", "seconds", "seconds_a_step", "finished"),
    "curve": ("curve",),  # of POINT, one for each evaluation
    "doubles": ("link_shares",),  # one for each invocation
}
POINT = {"step": "int64", "loss": "double", "accuracy": "double", "held_out_loss": "double", "slices": "string"}
COLUMNS = {name: kind for kind, names in TYPES.items() for name in names}


class Store:
    """A folder of results; made if there is none. Raises ValueError if it is of another format, or no store."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.cells, self.weights, self.claims = (self.folder / name for name in ("cells", "weights", "claims"))
        mark = self.folder / "store.json"
        if not mark.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise ValueError(f"a store is a folder of its own: {str(self.folder)!r} holds other things and no store.json")
            self.folder.mkdir(parents=True, exist_ok=True)
            write(mark, json.dumps({"format": FORMAT}).encode())
        try:
            number = json.loads(mark.read_bytes())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(mark)!r} is not a store's: {error!r}") from error
        if number != FORMAT:
            raise ValueError(
                f"a store of format {number} cannot be read by this version, which reads and writes format {FORMAT}"
                f": {str(self.folder)!r}. Take another folder; results of two formats are never mixed"
            )
        self._compacted: dict[str, frozenset[str]] = {}  # file of many cells -> their addresses

    def work(self, address: str) -> Path:
        """The folder of a cell that is being run."""
        return self.folder / "work" / address

    def has(self, address: str) -> bool:
        """Whether a cell is finished."""
        return (self.cells / f"{address}.parquet").exists() or address in frozenset().union(*self._in_many())

    def finished(self) -> set[str]:
        """The addresses of all finished cells."""
        return {file.stem for file in self._single()}.union(*self._in_many())

    def statuses(self) -> dict[str, str]:
        """The status of each finished cell, by address: solved, unsolved or diverged."""
        return {row["address"]: row["status"] for row in self.query("select address, status from cells")}

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
        if len(self._single()) >= COMPACT_FROM:
            self.compact()

    def load_weights(self, address: str) -> dict[str, Tensor]:
        """The trained weights of a cell. Raises ValueError if they were not kept."""
        from safetensors.torch import load_file

        file = self.weights / f"{address}.safetensors"
        if not file.exists():
            raise ValueError(f"no weights were kept of cell {address}: a study keeps them with weights: true")
        return load_file(file)

    def query(self, sql: str = "select * from cells", parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a DuckDB query over the table `cells` (COLUMNS), each cell once. No cells: no rows.

        The query can read that table alone and write nothing (SEALED). Raises ValueError if DuckDB refuses it.
        """
        import duckdb
        from pyarrow.dataset import dataset

        with self._held():
            if not (files := self._files()):
                return []
            # A cell may for a moment be in two files: while they are compacted, or where a kill came in between.
            counts = [len(self._single()), *map(len, self._in_many())]
            once = " qualify row_number() over (partition by address) = 1" if sum(counts) > len(self.finished()) else ""
            try:
                with duckdb.connect(config=SEALED) as connection:
                    connection.register("files", dataset([str(file) for file in files], schema=schema(), format="parquet"))
                    connection.execute("create view cells as select * from files" + once)
                    result = connection.execute(sql, list(parameters))
                    names = [column[0] for column in result.description]
                    return [dict(zip(names, row)) for row in result.fetchall()]
            except duckdb.Error as error:
                raise ValueError(f"a query reads the table cells and nothing else: {error}") from error

    def records(self, addresses: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The finished ones among these cells, by address."""
        wanted = list(addresses)
        rows = self.query("select * from cells where address in (select unnest(?))", [wanted]) if wanted else []
        return {row["address"]: row for row in rows}

    @contextmanager
    def claim(self, address: str) -> Iterator[bool]:
        """Whether this process may run the cell: no other does, and it is not finished. Raises OSError where there are no locks."""
        self.claims.mkdir(exist_ok=True)
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(self.claims / address))
            except TimeoutError:
                yield False
                return
            try:
                yield not self.has(address)
            finally:
                # Once a cell is finished its lock means nothing: whoever still holds the old file finds the cell done.
                if self.has(address):
                    (self.claims / address).unlink(missing_ok=True)

    def compact(self) -> None:
        """Join the files of one cell into one file. Killed at any moment, no cell is lost and none counts twice."""
        import pyarrow.parquet as pq

        with self._held() as alone:
            single = self._single()
            if len(single) < 2 or not alone:
                return
            rows = [row for file in single for row in pq.read_table(file).to_pylist()]
            name = hashlib.sha256("".join(row["address"] for row in rows).encode()).hexdigest()[:16]
            write(self.cells / f"many-{name}.parquet", _parquet(rows))
            for file in single:
                file.unlink()

    def export(self, folder: str | Path, addresses: Iterable[str]) -> "Store":
        """The finished ones among these cells as a store of one file, to be given away: machines are not named in it.

        Raises ValueError if there is something in the folder already.
        """
        if Path(folder).exists() and any(Path(folder).iterdir()):
            raise ValueError(f"results go into a new folder: there is something in {str(folder)!r}")
        records, other = self.records(sorted(set(addresses))), Store(folder)
        for address in sorted(records):
            other.add(records[address] | {"host": ""})
        other.compact()
        if (self.folder / "registered").exists():
            shutil.copytree(self.folder / "registered", other.folder / "registered", ignore=shutil.ignore_patterns("*.lock"))
        return other

    def _files(self) -> list[Path]:
        return sorted(self.cells.glob("*.parquet"))

    def _single(self) -> list[Path]:
        return [file for file in self._files() if not file.stem.startswith("many-")]

    def _in_many(self) -> list[frozenset[str]]:
        """The addresses in each file of many cells."""
        import pyarrow.parquet as pq

        for file in self.cells.glob("many-*.parquet"):
            if file.name not in self._compacted:
                self._compacted[file.name] = frozenset(pq.read_table(file, columns=["address"])["address"].to_pylist())
        return list(self._compacted.values())

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """While files are read or compacted: whether no other process does. Where none can have a lock, none compacts."""
        with ExitStack() as lock:
            try:
                if alone := os.access(self.folder, os.W_OK):
                    lock.enter_context(locked(self.folder / "lock", LOCK_SECONDS))
            except NoLocks:
                alone = False
            yield alone


def schema():
    """The columns as pyarrow types: the same in every file, so that files join."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "doubles": pa.list_(pa.float64())}
    kinds["curve"] = pa.list_(pa.struct([(name, kinds[kind]) for name, kind in POINT.items()]))
    return pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema()), out)
    return out.getvalue().to_pybytes()
