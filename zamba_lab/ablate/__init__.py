"""Ablation studies: which part of the architecture matters, at equal cost, over seeds, with the uncertainty of the answer.

    study = ablate.read_study("study.yaml")           # or ablate.Study(...)
    ablate.run(study, "runs/store")                   # stopped and started as often as you like
    print(ablate.report(study, "runs/store"))         # the answers, and how sure they are

Read in this order:

    study.py         a study as one value, from YAML or JSON; what is trusted
    claims.py        metrics, claims and gates
    arms.py          what an arm may change, and all arms of a study;  matching.py widths adjusted until arms cost the same
    cell.py          one architecture, task and seed: its address and its run
    store.py         where results are kept
    registry.py      a study written down in its store before its cells are run
    planning.py      the cells of a study, learning rates first; studies that come with the lab; trained models
    runner.py        running the cells in worker processes;  live.py the table;  cluster.py the same on many machines
    statistics.py    tests and intervals;  judging.py p of a claim and of a family;  design.py power and false verdicts, before any run
    values.py        a cell's number by a metric;  gates.py whether the base is alive;  verdicts.py outcomes, contrasts and claims
    reporting.py     all of it as text, tables.py its tables;  with figures: zamba_lab.report
    command.py       `zamba-lab ablate`
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "study": "Study read_study",
        "claims": "Claim Gate",
        "design": "flags power false_verdicts",
        "gates": "gate_results",
        "registry": "register registrations",
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
