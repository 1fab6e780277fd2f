"""Two processes and one, on the same work: `python ranks.py FOLDER`. test_several.py compares what they leave.

Stages are forked before torch has started any thread: one process, then two joined by gloo, then one again.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from train.tiny import TINY, random_packed, tiny_model, with_documents

from zamba_lab.train import Labelled, Mixture, TrainConfig, train
from zamba_lab.train.batches import micro_batches
from zamba_lab.train.distributed import DDP, FSDP, SINGLE, SingleProcess, load_sharded, save_sharded
from zamba_lab.train.step import adamw, autocast_for, gradient, train_step

DATA = Mixture.of(with_documents(600))
CONFIG = TrainConfig(
    steps=6,
    batch=4,
    length=23,
    lr=1e-2,
    schedule="constant(warmup=2)",
    max_epochs=None,
    seed=3,
    checkpoint_every=2,
    precision="float32",
    clip=0.5,
)
OPTIONS = {
    "plain": {},
    "labelled": {},
    "in pieces": {"accumulate": 2},
    "documents": {"documents": True},
    "checkpointing": {"checkpointing": True},
    "all": {"accumulate": 2, "documents": True, "checkpointing": True},
}


def uneven(seed: int, step: int, n: int):
    """Row k asks at 1 + 5 k positions: the processes do not ask equally much."""
    ids = torch.randint(3, TINY.vocab_size, (n, CONFIG.length), generator=torch.Generator().manual_seed(step))
    asked = torch.arange(CONFIG.length) < 1 + 5 * torch.arange(n)[:, None]
    return ids, torch.where(asked, ids, -100)


LABELLED = Labelled(uneven, CONFIG.length, {"task": "say it again"})
MODELS = {"one block": {}, "two blocks": {"n_shared_blocks": 2, "lora_rank_qkv": 2}, "mamba1": {"mixer": "mamba1"}}


def model_of(name: str, seed: int = 0):
    return tiny_model(seed, **MODELS[name]).double()


def gradients(folder: Path, name: str, processes: SingleProcess) -> None:
    """Loss and whole gradient of the second step, for each model and option, after a first step that moves the weights."""
    for kind in MODELS:
        for option, changes in OPTIONS.items():
            config, model, data = replace(CONFIG, **changes), model_of(kind), LABELLED if option == "labelled" else DATA
            model.recompute = config.checkpointing
            module = processes.wrap(model, config)
            optimiser = adamw(model, config)
            train_step(module, optimiser, micro_batches(data, 0, config, 1, processes.rank, processes.size), 1e-2, 0.5, processes=processes)
            optimiser.zero_grad()
            loss = gradient(module, micro_batches(data, 1, config, 1, processes.rank, processes.size), processes=processes)
            grads = {name: processes.full(parameter.grad).clone() for name, parameter in model.named_parameters()}
            norm = processes.clip(list(model.parameters()), 0.5)
            if processes.rank == 0:
                torch.save({"loss": loss, "norm": norm, "grads": grads}, folder / f"{name}, {kind}, {option}.pt")


def steps(folder: Path, kind: type | None, run: str, count: int) -> None:
    """Train from the beginning to that many steps, in a folder of that name. Process 0's weights count, no one else's."""
    go_on(folder, kind, run, count, seed=dist.get_rank() if kind else 0)


def go_on(folder: Path, kind: type | None, run: str, count: int, seed: int = 99) -> None:
    """Train to that many steps with other weights than the run had: it has its own."""
    config = replace(CONFIG, steps=count, evaluate_every=2)  # whoever evaluates has gathered what it was in parts
    train(model_of("two blocks", seed), DATA, config, folder / run, random_packed(60), processes=kind() if kind else SINGLE)


def sharded(folder: Path, processes: SingleProcess, read: str, write: str) -> None:
    """Load what others have saved in parts, say whether it is what they had, and save it in parts oneself."""
    model = model_of("two blocks", seed=17)
    processes.wrap(model, CONFIG)
    optimiser = adamw(model, CONFIG)
    if read:
        load_sharded(folder / read, model, optimiser)
    else:
        train_step(model, optimiser, micro_batches(DATA, 0, CONFIG, 1), 1e-2, 0.5)
    save_sharded(folder / write, model, optimiser)
    weights = {name: processes.full(value) for name, value in model.state_dict().items()}
    moments = {
        name: {key: processes.full(value) for key, value in optimiser.state[parameter].items()}
        for name, parameter in model.named_parameters()
    }
    if processes.rank == 0:
        torch.save({"weights": weights, "moments": moments}, folder / f"{write}.pt")


def mixed_precision(folder: Path) -> None:
    """FSDP2 casts the weights to bfloat16 for each pass: what the native operators see are plain tensors."""
    config, model, processes = replace(CONFIG, precision="bf16"), tiny_model(), FSDP()
    processes.wrap(model, config)
    loss = gradient(
        model, micro_batches(DATA, 0, config, 1, processes.rank, processes.size), autocast_for("bf16", torch.device("cpu")), processes
    )
    grads = {name: processes.full(parameter.grad) for name, parameter in model.named_parameters()}
    if processes.rank == 0:
        torch.save({"loss": loss, "grads": grads}, folder / "mixed.pt")


def units(folder: Path) -> None:
    """Which modules FSDP2 gathers as one."""
    from torch.distributed.fsdp import FSDPModule

    model, processes = model_of("two blocks"), FSDP()
    processes.wrap(model, CONFIG)
    if processes.rank == 0:
        torch.save([name for name, module in model.named_modules() if isinstance(module, FSDPModule)], folder / "units.pt")


def alone_first(folder: Path) -> None:
    gradients(folder, "alone", SINGLE)
    steps(folder, None, "whole", 6)
    steps(folder, None, "one then two", 4)
    sharded(folder, SINGLE, "", "by one")


def together(folder: Path) -> None:
    for name, kind in (("ddp", DDP), ("fsdp", FSDP)):
        gradients(folder, name, kind())
        steps(folder, kind, name, 6)
    go_on(folder, FSDP, "one then two", 6)
    steps(folder, FSDP, "two then one", 4)
    sharded(folder, FSDP(), "by one", "by two")
    mixed_precision(folder)
    units(folder)


def alone_again(folder: Path) -> None:
    go_on(folder, None, "two then one", 6)
    sharded(folder, SINGLE, "by two", "by one again")


def forked(work, folder: Path, size: int) -> None:
    children = []
    for rank in range(size):
        if number := os.fork():
            children.append(number)
            continue
        torch.set_num_threads(1)
        if size > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        work(folder)
        if size > 1:
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    if bad := [status for status in (os.waitpid(number, 0)[1] for number in children) if status]:
        sys.exit(f"{work.__name__}: {bad}")


if __name__ == "__main__":
    for stage, count in ((alone_first, 1), (together, 2), (alone_again, 1)):
        forked(stage, Path(sys.argv[1]), count)
