"""Training: a loop that can be stopped at any moment and resumed, by one process or many, in one phase or two.

Read in this order:

    loop.py          the loop: a batch, a step, a row of metrics, a checkpoint
    step.py          loss, gradient, AdamW, and what is decayed
    config.py        the arguments;  schedules.py the learning rate as a value
    mixture.py       which windows a step sees, or a task's labelled batches;  batches.py in micro-batches
    state.py         what a checkpoint holds;  files.py how it gets to the disk and back
    checks.py        what must hold before the first step;  lock.py the folder's lock and Ctrl-C
    metrics.py       the rows as parquet;  writers.py TensorBoard and others
    distributed.py   one process, or many (DDP, FSDP2)
    command.py       `zamba-lab train`

Tensor- and context-parallel training are out of scope.
"""

from importlib import import_module

_HOME = {
    "train": "loop",
    "TrainConfig": "config",
    "annealing": "config",
    "Mixture": "mixture",
    "Labelled": "mixture",
    "REPLAY": "mixture",
    "Schedule": "schedules",
    "Constant": "schedules",
    "Linear": "schedules",
    "Cosine": "schedules",
    "WSD": "schedules",
    "Exponential": "schedules",
    "read_metrics": "metrics",
    "tensorboard": "writers",
    "trackio": "writers",
    "wandb": "writers",
    "from_torchrun": "distributed",
    "save_sharded": "distributed",
    "load_sharded": "distributed",
    "packed_bits_per_byte": "batches",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
