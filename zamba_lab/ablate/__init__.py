"""Ablation studies: which part of the architecture matters, at equal cost, over seeds, with the uncertainty of the answer.

    study = ablate.read_study("study.yaml")           # or ablate.Study(...)
    ablate.run(study, "runs/store")                   # stopped and started as often as you like
    print(ablate.report(study, "runs/store"))         # the answers, and how sure they are

Read in this order:

    study.py         a study as one value, from YAML or JSON; what is trusted; its claims
    arms.py          what an arm may change, and all arms of a study;  matching.py widths adjusted until arms cost the same
    cell.py          one architecture, task and seed: its address and its run
    store.py         where results are kept
    planning.py      the cells of a study, learning rates first; studies that come with the lab; trained models
    runner.py        running the cells in worker processes;  live.py the table;  cluster.py the same on many machines
    statistics.py    tests and intervals;  verdicts.py outcomes, contrasts and claims of a study
    reporting.py     all of it as text;  with figures: zamba_lab.report
    command.py       `zamba-lab ablate`
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "study": "Study Claim read_study",
        "arms": "AXES Arm",
        "matching": "Match match",
        "cell": "Cell run_cell",
        "store": "Store",
        "planning": "Plan plan stored load_trained",
        "runner": "run SweepStopped",
        "live": "Live Quiet",
        "cluster": "run_on_ray",
        "verdicts": "by_arm outcomes contrasts claim_results",
        "reporting": "report Report",
    },
)
