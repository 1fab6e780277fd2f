"""One training run, killed again and again: `python killed.py FOLDER RUN [KILLS] [SEED]`.

test_kill.py and long/kill_train.py read what is left.

The kills fall on events of the interpreter, by a seeded choice of a number or by name, in children that are forked before
torch has started any thread. SIGKILL leaves no time for anything.
"""

import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from train.tiny import periodic, random_packed, tiny_model, with_documents

from zamba_lab.train import WSD, Mixture, TrainConfig, train
from zamba_lab.train.files import checkpoints

CONFIG = TrainConfig(
    steps=10, batch=2, length=16, accumulate=2, lr=1e-2, schedule=WSD(warmup=2, decay=0.5), evaluate_every=4, checkpoint_every=2
)
# name -> what is read, by which model, with which arguments
RUNS = {
    "plain": (periodic(400), {}, {}),
    "annealing": (
        Mixture.annealing(with_documents(400), with_documents(300)),
        {"mixer": "mamba1", "n_shared_blocks": 1},
        {"schedule": "exponential(warmup=1)", "documents": True, "checkpointing": True, "shared_lr": 0.3},
    ),
}
# inside a save: while the file is written, before and after it gets its name, before an old one goes; in the metrics, too
NAMED = [
    ("call", "write", 40),
    ("c_call", "fsync", 2),
    ("c_call", "replace", 2),
    ("c_return", "replace", 3),
    ("c_call", "unlink", 1),
    ("call", "_write", 1),
    ("call", "flush", 3),
]


def killed_at(event: str | None, name: str | None, count: int) -> None:
    """Kill this process at the count-th event of that kind and name; None: any."""
    left = count

    def look(frame, kind, argument):
        nonlocal left
        found = getattr(argument, "__name__", "") if kind.startswith("c_") else frame.f_code.co_name
        if event in (None, kind) and name in (None, found):
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


def child(folder: Path, name: str, kill: tuple | None, seed: int) -> int:
    """Train in a process of its own; its status as os.waitpid gives it."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return os.waitpid(number, 0)[1]
    torch.set_num_threads(1)
    tokens, kind, arguments = RUNS[name]
    model = tiny_model(seed, **kind)
    if kill:
        killed_at(*kill)
    train(model, tokens, replace(CONFIG, **arguments), folder, random_packed(60))
    sys.setprofile(None)
    torch.save(model.state_dict(), folder / "end.pt")
    os._exit(0)


def main(folder: Path, name: str, count: int = 6, seed: int = 0) -> None:
    chance = random.Random(seed)
    kills = NAMED + [(None, None, chance.randrange(2_000, 60_000)) for _ in range(count)]
    chance.shuffle(kills)
    assert child(folder / "whole", name, None, 0) == 0
    died = 0
    for number, kill in enumerate(kills):
        begun = checkpoints(folder / "parts")  # before the first there is no run to resume
        died += os.WTERMSIG(child(folder / "parts", name, kill, number if begun else 0)) == signal.SIGKILL
    assert child(folder / "parts", name, None, 99) == 0
    print(died)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
