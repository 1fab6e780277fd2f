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

That every task can be answered, and by nothing cheaper, is tested: tests/tasks/oracles.py and shortcuts.py.
The control that must pass before a study on recall means anything is recipes/positive_control.py.
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(__name__, {"task": "Task Batch Accuracy accuracy losses IGNORE", "catalogue": "get names SIZES"})
