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
    initial_state.py a state as a soft prompt, with the weights frozen
    command.py       `zamba-lab train`

Tensor- and context-parallel training are out of scope.
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "loop": "train",
        "config": "TrainConfig annealing",
        "mixture": "Mixture Labelled REPLAY",
        "schedules": "Schedule Constant Linear Cosine WSD Exponential",
        "metrics": "read_metrics",
        "writers": "tensorboard trackio wandb",
        "distributed": "from_torchrun save_sharded load_sharded",
        "initial_state": "fit_state",
        "batches": "packed_bits_per_byte",
    },
)
