"""What was asked can be checked: a study is written into its store before its cells, and what is changed later stays to be seen."""

from dataclasses import replace

import pytest
import yaml
from ablate.records import drawn, made
from ablate.tiny import FILE, study

from zamba_lab.ablate import Claim, Gate, Store, plan, register, registrations, report, run
from zamba_lab.ablate.registry import facts_of
from zamba_lab.cli import main

ONE = study(seeds=range(6), claims=(Claim("a", "conv=off", expected=0.1, scatter=0.05),))


def test_a_study_is_registered_once_its_changes_after_it_and_never_in_its_place(tmp_path):
    store = Store(tmp_path / "store")
    line = register(ONE, store)
    assert line["counting cells finished"] == 0 and set(line["cells"]) == {planned.cell.address for planned in plan(ONE).cells}
    assert 0 < line["power"][0] < 1 and line["study"]["claims"] == [{"text": "a", "arm": "conv=off", "expected": 0.1, "scatter": 0.05}]
    with pytest.raises(ValueError, match="tiny is registered as it is"):
        register(ONE, store)
    more = replace(ONE, seeds=range(8))
    with pytest.raises(ValueError, match="with another seeds: say why"):
        register(more, store)
    with pytest.raises(ValueError, match="is another study now, in seeds. Take the change back, or register it"):
        run(more, store.folder)
    assert not store.finished()
    store.add(made(plan(ONE).cells[0].cell, 0.5))
    register(more, store, "six are <b>few</b>")
    assert [one["study"]["seeds"] for one in registrations(more, store)] == [list(range(6)), list(range(8))]
    text = report(more, store).markdown()
    told = text.split("\n\n")[1]
    assert told.startswith("Registered on ") and "before any cell that counts" in told and "Changed in seeds on" in told
    assert "**when 1 of the cells that count were finished**" in told and "Why: six are &lt;b&gt;few&lt;/b&gt;" in told
    assert "it differs in seeds.**" in report(ONE, store).markdown()
    given = store.export(tmp_path / "given", [])
    assert registrations(more, given) == registrations(more, store)


def test_a_report_says_that_its_study_was_not_registered(tmp_path):
    store = Store(tmp_path / "store")
    drawn(ONE, {"base": [0.5] * 6, "conv=off": [0.4] * 6}, store)
    assert "Not registered: nothing in this store shows" in report(ONE, store).markdown()


CHANGES = {
    "claims": {"claims": (replace(ONE.claims[0], threshold=0.01),)},
    "gates": {"gates": (Gate("g", "accuracy", above=0.1),)},
    "alpha": {"alpha": 0.04},
    "until": {"until": "steps"},
    "train": {"train": replace(ONE.train, steps=7)},
    "base": {"base": replace(ONE.base, d_state=8)},
    "task": {"task": replace(ONE.task, length=9), "train": replace(ONE.train, length=9)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_changed_makes_another_study(name):
    here, there = facts_of(ONE), facts_of(replace(ONE, **CHANGES[name]))
    assert name in {key for key in {*here, *there} if here.get(key) != there.get(key)}


def test_the_command_registers_says_what_is_wrong_and_refuses_a_changed_file_until_the_change_is_registered(tmp_path, capsys):
    file, store = tmp_path / "study.yaml", ["--store", str(tmp_path / "store"), "--allow-import", "ablate.tiny:Before"]
    file.write_text(yaml.safe_dump(FILE))
    assert main(["ablate", "register", str(file), *store]) == 0
    said = capsys.readouterr()
    assert "planted is registered in" in said.out and "no gate" in said.err
    file.write_text(yaml.safe_dump(FILE | {"seeds": 1}))
    assert main(["ablate", "run", str(file), *store]) == 2 and "is another study now, in seeds" in capsys.readouterr().err
    assert main(["ablate", "register", str(file), *store]) == 2 and "say why (--reason TEXT)" in capsys.readouterr().err
    assert main(["ablate", "register", str(file), *store, "--reason", "one is enough to see"]) == 0
