"""What a run needs to continue after it was stopped: its state as plain data by parameter names, in the files of files.py.

    step        steps done; with the seed it is the position in the data
    model       name -> weights           optimiser    name -> AdamW's moments and count
    random      torch's generators        run          what the run is (`run_facts`): schedule, model, tokens

Full tensors under the model's names, however many processes hold them: a run saved by two processes is resumed by one.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zamba_lab.train import files
from zamba_lab.train.config import TrainConfig, from_values
from zamba_lab.train.distributed import SINGLE, SingleProcess
from zamba_lab.train.mixture import Labelled, Mixture

# what may differ when a run is resumed: none of it changes what the steps that are done have computed
MOVABLE = {
    f"train.{name}"
    for name in ("steps", "schedule", "evaluate_every", "checkpoint_every", "keep", "sample_every", "max_epochs", "checkpointing")
}
TOKENIZER = "model.tokenizer"  # the hash of the pieces that the model's ids stand for; None where it is not known


def run_facts(model: nn.Module, data: Mixture | Labelled, config: TrainConfig, more: Mapping[str, object]) -> dict[str, object]:
    """What a run is, as name -> value: the model's config and tokenizer, the tokens, the arguments."""
    facts: dict[str, object] = {f"train.{name}": value for name, value in config.facts().items()}
    if is_dataclass(getattr(model, "config", None)):
        facts |= {f"model.{name}": value for name, value in asdict(model.config).items()}
    facts[TOKENIZER] = getattr(model, "tokenizer_hash", None) or getattr(getattr(model, "tokenizer", None), "pieces_hash", None)
    return facts | {f"data.{name}": value for name, value in data.facts().items()} | dict(more)


def state(
    model: nn.Module, optimiser: torch.optim.Optimizer, step: int, facts: Mapping[str, object], processes: SingleProcess = SINGLE
) -> dict[str, Any]:
    """The full state after `step` steps."""
    weights = model.state_dict()  # first: under FSDP this puts the shards back in place
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments = {
        names[id(parameter)]: {key: processes.full(value) for key, value in optimiser.state[parameter].items()}
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()  # of this process's GPU: how many there are may change
    return {
        "step": step,
        "model": {name: processes.full(value) for name, value in weights.items()},
        "optimiser": moments,
        "random": random,
        "run": dict(facts),
    }


@torch.no_grad()
def fill(model: nn.Module, optimiser: torch.optim.Optimizer, content: Mapping[str, Any], processes: SingleProcess = SINGLE) -> None:
    """Put weights and moments of a state in place. Raises ValueError if the names are not the model's."""
    own = model.state_dict()
    if own.keys() != content["model"].keys():
        raise ValueError(f"a state must have the model's parameters: differing are {sorted(own.keys() ^ content['model'].keys())}")
    for name, value in content["model"].items():
        own[name].copy_(processes.shard(value, own[name]))
    for name, parameter in model.named_parameters():
        # the count of steps, too, goes to the parameter's device: a fused AdamW reads it there
        optimiser.state[parameter] = {
            key: value.clone().to(parameter.device) if value.ndim == 0 else processes.shard(value.clone(), parameter)
            for key, value in content["optimiser"].get(name, {}).items()
        }


def differences(known: Mapping[str, object], facts: Mapping[str, object], config: TrainConfig, step: int) -> list[str]:
    """What makes these two runs in the first `step` steps. The end may be moved: arguments in MOVABLE may differ, if all
    those steps had the same learning rate."""
    differ = [name for name in sorted(known.keys() | facts.keys()) if known.get(name) != facts.get(name)]
    if TOKENIZER in differ and None in (known.get(TOKENIZER), facts.get(TOKENIZER)):
        differ.remove(TOKENIZER)
    if all(name in MOVABLE for name in differ):
        if not step:
            return []
        before = from_values({name.removeprefix("train."): value for name, value in known.items() if name.startswith("train.")})
        if step <= config.steps and all(before.lr_at(k) == config.lr_at(k) for k in range(step)):
            return []
    return [f"{name} was {known.get(name)}, is {facts.get(name)}" for name in differ]


class CheckpointStore:
    """The checkpoints of one run, and the notes beside them (`run.log`)."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        facts: Mapping[str, object],
        config: TrainConfig,
        processes: SingleProcess = SINGLE,
    ):
        self.folder, self.model, self.optimiser, self.facts = folder, model, optimiser, dict(facts)
        self.config, self.processes = config, processes

    def begin(self, branch_from: str | Path | None = None, branch_step: int | None = None) -> int:
        """Continue from the last valid checkpoint; without any, begin with the model as it is, or with a trunk's state.

        A run that begins writes its state first: whatever model it is given the next time, it continues with this one.

        Returns: the number of steps that are done. Raises ValueError if the checkpoint is of another run.
        """
        content = files.newest_valid(self.folder, self.warn) if self.processes.rank == 0 else None
        self.processes.barrier()  # until corrupt files have been set aside
        content = files.newest_valid(self.folder, self.warn) if self.processes.rank else content
        self._check_same_run(content)  # before anybody writes
        if content is None:
            if branch_from is not None:
                fill(self.model, self.optimiser, trunk_state(branch_from, branch_step, self.facts), self.processes)
            self.save(0)
            return 0
        if differ := differences(content["run"], self.facts, self.config, content["step"]):
            raise ValueError(
                f"a run continues with what it began with, or starts in a new folder: in {str(self.folder)!r} " + "; ".join(differ)
            )
        fill(self.model, self.optimiser, content, self.processes)
        torch.set_rng_state(content["random"]["cpu"])
        if torch.cuda.is_available() and "cuda" in content["random"]:
            torch.cuda.set_rng_state(content["random"]["cuda"])
        self.note(f"continues after step {content['step']}")
        return content["step"]

    def _check_same_run(self, content: Mapping[str, Any] | None) -> None:
        """Raise ValueError in every process if they do not read the same folder: they would wait for one another for ever."""
        step = torch.tensor(-1.0 if content is None else content["step"], dtype=torch.float64)
        if self.processes.any(bool(self.processes.mean(step) != step)):
            raise ValueError(
                f"all processes must see the same run in {str(self.folder)!r}: process {self.processes.rank} of "
                f"{self.processes.size} finds {'no checkpoint' if content is None else f'one of step {int(step)}'}"
            )

    def save(self, step: int, before: Callable[[], object] = lambda: None) -> None:
        """Write the state after `step` steps, after what `before` writes. Raises OSError in every process if process 0 cannot:
        one that stopped by itself would leave the others waiting for it."""
        content, error = state(self.model, self.optimiser, step, self.facts, self.processes), None
        try:
            before()
            if self.processes.rank == 0:
                files.write(self.folder, step, content, self.config.keep)
        except OSError as caught:
            error = caught
            self.note(f"stops: {error}")
        if self.processes.any(error is not None):
            raise error or OSError(f"process 0 could not write the checkpoint of step {step}")

    def note(self, sentence: str) -> None:
        """Append a line to the run's log, if there is room for it."""
        if self.processes.rank == 0:
            try:
                with open(self.folder / "run.log", "a", encoding="utf-8") as log:
                    log.write(f"{datetime.now().isoformat(timespec='seconds')} {sentence}\n")
            except OSError:
                pass

    def warn(self, sentence: str) -> None:
        self.note(sentence)
        warnings.warn(sentence, stacklevel=2)


def trunk_state(folder: str | Path, step: int | None, facts: Mapping[str, object]) -> dict[str, Any]:
    """The state of another run's checkpoint, to branch from. Raises ValueError if there is none, or of another model or tokenizer."""
    content = files.at_step(folder, step)
    known = content["run"]
    differ = [
        f"{name} was {known.get(name)}, is {value}"
        for name, value in facts.items()
        if name.startswith("model.") and known.get(name) != value and not (name == TOKENIZER and None in (known.get(name), value))
    ]
    if differ:
        raise ValueError(f"a branch has its trunk's model: in {str(folder)!r} " + "; ".join(differ))
    return content
