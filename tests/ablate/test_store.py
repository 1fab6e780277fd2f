"""The store: cells whole or absent, each once, of one format; asked in SQL."""

import errno
import json
from dataclasses import replace

import pytest
import torch
from ablate.records import made
from ablate.tiny import BASE, TRAIN, Before, study

from zamba_lab import writing
from zamba_lab.ablate import Cell, Store, by_arm, plan
from zamba_lab.ablate import cell as cells
from zamba_lab.ablate import store as module

CELLS = [Cell(BASE, Before(), replace(TRAIN, seed=seed), 0.99, 16) for seed in range(5)]


def filled(folder) -> Store:
    store = Store(folder)
    for k, cell in enumerate(CELLS):
        store.add(made(cell, k / 10))
    return store


def test_what_was_added_is_found_again_by_address_and_by_question(tmp_path):
    store = filled(tmp_path / "store")
    assert store.finished() == {cell.address for cell in CELLS} and store.has(CELLS[0].address) and not store.has("0" * 32)
    assert store.records([CELLS[3].address])[CELLS[3].address]["accuracy"] == 0.3
    assert store.query("select seed, curve[-1].step as step from cells where accuracy > ? order by seed", [0.25]) == [
        {"seed": 3, "step": 6},
        {"seed": 4, "step": 6},
    ]
    by_state = "select (config::json ->> 'd_state')::int as n, count(*) as k from cells group by 1"
    assert store.query(by_state) == [{"n": 4, "k": 5}]


def test_an_empty_store_has_no_rows(tmp_path):
    store = Store(tmp_path / "store")
    assert store.query() == [] and store.records(["a"]) == {} and store.finished() == set()


def test_files_compact_hold_each_cell_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMPACT_FROM", 3)
    store = filled(tmp_path / "store")
    assert sorted(file.name[:5] for file in store.cells.iterdir()).count("many-") == 1 and len(list(store.cells.iterdir())) == 3
    assert len(store.query()) == 5 and Store(tmp_path / "store").finished() == {cell.address for cell in CELLS}
    store.add(made(CELLS[0], 0.0))  # as after a kill between the two halves of putting together
    assert len(store.query()) == 5


def test_weights_come_back(tmp_path):
    store = Store(tmp_path / "store")
    store.add(made(CELLS[0], 0.5), {"a": torch.arange(3.0)})
    assert torch.equal(store.load_weights(CELLS[0].address)["a"], torch.arange(3.0))
    with pytest.raises(ValueError, match="no weights were kept"):
        store.load_weights(CELLS[1].address)


def test_another_format_and_a_folder_of_other_things_are_refused(tmp_path):
    filled(tmp_path / "store")
    (tmp_path / "store" / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99 cannot be read by this version, which reads and writes format 1"):
        Store(tmp_path / "store")
    (tmp_path / "store" / "store.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a store's"):
        Store(tmp_path / "store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other things"):
        Store(tmp_path / "other")


def test_cells_of_another_version_of_the_code_stay_and_count_for_nothing(tmp_path, monkeypatch):
    """The version is part of the address: a study asks for its own cells alone, and those of another version stay."""
    tiny, store = study(axes={}), Store(tmp_path / "store")
    for one in plan(tiny).cells:
        store.add(made(one.cell, 0.9))
    assert plan(tiny, store).left(store) == [] and len(by_arm(plan(tiny), store)["base"]) == 2
    monkeypatch.setattr(cells, "CODE", 2)
    later = plan(study(axes={}), store)
    assert len(later.left(store)) == 2 and by_arm(later, store) == {}
    store.add(made(later.cells[0].cell, 0.1))
    assert [row["accuracy"] for row in by_arm(later, store)["base"].values()] == [0.1]
    assert [row["accuracy"] for row in store.query("select accuracy from cells where code = 1")] == [0.9, 0.9]
    monkeypatch.undo()
    assert [row["accuracy"] for row in by_arm(plan(tiny), store)["base"].values()] == [0.9, 0.9]


@pytest.mark.skipif(not hasattr(__import__("os"), "O_DIRECTORY"), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    store = filled(tmp_path / "store")
    before = sorted(file.name for file in store.folder.rglob("*"))
    monkeypatch.setattr(writing, "open", lambda file, mode: open("/dev/full", mode), raising=False)
    with pytest.raises(OSError, match="No space left"):
        store.add(made(Cell(BASE, Before(), replace(TRAIN, seed=9), 0.99, 16), 0.5))
    monkeypatch.undo()
    assert sorted(file.name for file in store.folder.rglob("*")) == before and len(store.query()) == 5


def test_a_claimed_cell_is_nobody_elses_and_a_finished_one_nobodys(tmp_path):
    one, other, address = Store(tmp_path / "store"), Store(tmp_path / "store"), CELLS[0].address
    with one.claim(address) as mine:
        assert mine
        with other.claim(address) as theirs:
            assert not theirs
    with other.claim(address) as theirs:  # let go unfinished: the next one goes on
        assert theirs
        other.add(made(CELLS[0], 0.5))
    with one.claim(address) as mine:
        assert not mine
    assert not list(one.claims.iterdir())


HARM = [
    "copy (select 1) to '{file}'",
    "copy cells to '{store}/cells/{cell}' (format parquet, use_tmp_file false)",
    "copy (select 1 as x) to '{file}' (format csv, use_tmp_file false)",
    "export database '{file}'",
    "attach '{file}'",
    "attach '{secret}' as other (type sqlite)",
    "create table t as select * from read_csv('{secret}')",
    "select * from read_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from read_parquet('{store}/cells/{cell}')",
    "select * from '{secret}'",
    "select * from glob('{folder}/*')",
    "select * from sniff_csv('{secret}')",
    "import database '{folder}'",
    "install httpfs",
    "load '{file}'",
    "set enable_external_access = true",
    "set temp_directory = '{file}'",
    "set log_query_path = '{file}'",
    "set python_enable_replacements = true",
    "pragma enable_profiling = 'json'",
    "call enable_logging(storage = 'file', storage_path = '{file}')",
    "select * from CELLS_OF_THE_TEST",
    "select 1; copy (select 1) to '{file}'",
    "no query",
]


@pytest.mark.parametrize("sql", HARM)
def test_a_query_reads_the_cells_and_nothing_else_and_writes_nothing(sql, tmp_path):
    CELLS_OF_THE_TEST = [1]  # noqa: F841 - DuckDB would find it by its name
    store, secret = filled(tmp_path / "store"), tmp_path / "secret.csv"
    secret.write_text("secret\n1\n")
    cell = next(store.cells.iterdir())
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match="a query reads the table cells and nothing else"):
        store.query(sql.format(file=tmp_path / "harm", secret=secret, store=store.folder, cell=cell.name, folder=tmp_path))
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert after.keys() - {store.folder / "lock"} == before.keys() - {store.folder / "lock"}
    assert all(after[file] == content for file, content in before.items())


def test_a_folder_whose_name_is_a_pattern_is_a_folder(tmp_path):
    filled(tmp_path / "other1")
    store = filled(tmp_path / "other[1]*?")
    assert len(store.query()) == 5 and store.statuses() == {cell.address: "unsolved" for cell in CELLS}


@pytest.fixture
def without_locks(monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="locks are another system call there")

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)


def test_without_locks_a_store_is_read_and_no_cell_of_it_is_run(tmp_path, without_locks):
    """A soft lock would wait for ever for a process that was killed: here its file is there already."""
    store = filled(tmp_path / "store")
    (store.folder / "lock").write_text("")
    store.claims.mkdir()
    (store.claims / CELLS[0].address).write_text("")
    assert len(store.query()) == 5 and store.has(CELLS[0].address)
    store.compact()
    assert len(list(store.cells.iterdir())) == 5, "nobody compacts what another may be reading"
    for seed in (0, 9):
        address = replace(CELLS[0], train=replace(TRAIN, seed=seed)).address
        with pytest.raises(OSError, match="this file system has no locks"), store.claim(address):
            pass


def test_a_process_that_holds_the_store_for_ever_is_waited_for_so_long_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.3)
    store = filled(tmp_path / "store")
    waited = pytest.raises(TimeoutError, match="another process holds this lock, after 0.3 seconds still")
    with writing.locked(store.folder / "lock"), waited:
        store.query()
    assert len(store.query()) == 5
