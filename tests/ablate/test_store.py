"""The store: cells whole or absent, each once, of one format; asked in SQL."""

import json
from dataclasses import replace

import pytest
import torch
from ablate.records import made
from ablate.tiny import BASE, TRAIN, Before, study

from zamba_lab import writing
from zamba_lab.ablate import Cell, Store, by_arm, cell as cells, plan, store as module

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


def test_files_put_together_hold_each_cell_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MANY", 3)
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
