"""Tasks that ask one skill each: seeded, endless, with the levels a score is read against.

    task = tasks.get("mqar", "ci", kv=8)
    ids, labels = task.batch(seed=0, step=3, n=64)              # labels[t]: what to say at t; tasks.IGNORE: nothing is asked
    tasks.accuracy(model(ids), labels).total                    # to be read beside task.chance and task.plateau
    task.unseen().batch(seed=0, step=0, n=512)                  # sequences that training never shows

Read in this order:

    task.py          what a task is, the two streams, the score
    catalogue.py     every task at three sizes
    recall.py        associative recall and its variants, induction, needle
    mad.py           the tasks of MAD;  copying.py copying, and what stood where
    tracking.py      word problems of groups, brackets;  text.py real text
    checks.py        guessing and shortcuts: what a score has to beat

The control that must pass before a study on recall means anything is recipes/positive_control.py.
"""

from importlib import import_module

_HOME = {
    "Task": "task",
    "Batch": "task",
    "Accuracy": "task",
    "accuracy": "task",
    "losses": "task",
    "IGNORE": "task",
    "get": "catalogue",
    "names": "catalogue",
    "SIZES": "catalogue",
    "shortcuts": "checks",
    "guessing": "checks",
    "unbound": "checks",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
