"""Ablation studies: which part of the architecture matters, at equal cost, over seeds, with the uncertainty of the answer.

    study = ablate.read_study("study.yaml")           # or ablate.Study(...)
    ablate.run(study, "runs/store")                   # stopped and started as often as you like
    print(ablate.report(study, "runs/store"))         # what was found, and how sure it is

Read in this order:

    study.py         a study as one value;  files.py from YAML or JSON;  claims.py what is claimed beforehand
    axes.py          what an arm may change;  arms.py all arms of a study
    matching.py      widths adjusted until arms cost the same
    cell.py          one architecture, task and seed: its address and its run
    planning.py      the cells of a study, learning rates first;  store.py where results are kept
    trained.py       the model that a cell left behind
    runner.py        running them;  pool.py the workers;  live.py the table;  cluster.py the same on many machines
    statistics.py    tests and intervals;  verdicts.py outcomes, contrasts and claims of a study
    reporting.py     all of it as text;  with figures: zamba_lab.report
    box.py           the studies that come with the lab
    command.py       `zamba-lab ablate`
"""

from importlib import import_module

_HOME = {
    "Study": "study",
    "read_study": "study",
    "Match": "matching",
    "match": "matching",
    "Claim": "claims",
    "AXES": "axes",
    "Arm": "arms",
    "Cell": "cell",
    "run_cell": "cell",
    "plan": "planning",
    "Plan": "planning",
    "Store": "store",
    "run": "runner",
    "SweepStopped": "runner",
    "Live": "live",
    "Quiet": "live",
    "outcomes": "verdicts",
    "contrasts": "verdicts",
    "judged": "verdicts",
    "by_arm": "verdicts",
    "report": "reporting",
    "Report": "reporting",
    "run_on_ray": "cluster",
    "stored": "box",
    "trained": "trained",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
