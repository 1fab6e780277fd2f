"""What a run needs to go on after it was stopped: its state as plain data by parameter names, in files.py's files.

    step        steps done; with the seed it is the position in the data
    model       name -> weights           optimiser    name -> AdamW's moments and count
    random      torch's generators        run          what the run is (`run_facts`): schedule, model, tokens

Whole tensors under the names of the model, however many processes hold them: saved by two, they load in one.
"""

from __future__ import annotations

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
from zamba_lab.train.labelled import Labelled
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.team import ALONE, Alone

# what may differ when a run goes on: none of it changes what the steps that are done have computed
MOVABLE = {
    f"train.{name}"
    for name in ("steps", "schedule", "evaluate_every", "checkpoint_every", "keep", "sample_every", "max_epochs", "checkpointing")
}


def run_facts(model: nn.Module, data: Mixture | Labelled, config: TrainConfig, more: Mapping[str, object]) -> dict[str, object]:
    """What a run is, as name -> value: the model's config, the tokens, the arguments."""
    facts: dict[str, object] = {f"train.{name}": value for name, value in config.facts().items()}
    if is_dataclass(getattr(model, "config", None)):
        facts |= {f"model.{name}": value for name, value in asdict(model.config).items()}
    return facts | {f"data.{name}": value for name, value in data.facts().items()} | dict(more)


def state(
    model: nn.Module, optimiser: torch.optim.Optimizer, step: int, facts: Mapping[str, object], team: Alone = ALONE
) -> dict[str, Any]:
    """The state after `step` steps, whole."""
    weights = model.state_dict()  # first: where weights are in parts, this puts the parts back in place
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments = {
        names[id(parameter)]: {key: team.whole(value) for key, value in optimiser.state[parameter].items()}
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()  # of this process's GPU: how many there are may change
    return {
        "step": step,
        "model": {name: team.whole(value) for name, value in weights.items()},
        "optimiser": moments,
        "random": random,
        "run": dict(facts),
    }


@torch.no_grad()
def fill(model: nn.Module, optimiser: torch.optim.Optimizer, content: Mapping[str, Any], team: Alone = ALONE) -> None:
    """Put weights and moments of a state in place. Raises ValueError if the names are not the model's."""
    own = model.state_dict()
    if own.keys() != content["model"].keys():
        raise ValueError(f"a state must have the model's parameters: differing are {sorted(own.keys() ^ content['model'].keys())}")
    for name, value in content["model"].items():
        own[name].copy_(team.placed(value, own[name]))
    for name, parameter in model.named_parameters():
        # the count of steps too lies where the parameter does: a fused AdamW takes it from there
        optimiser.state[parameter] = {
            key: value.clone().to(parameter.device) if value.ndim == 0 else team.placed(value.clone(), parameter)
            for key, value in content["optimiser"].get(name, {}).items()
        }


def differences(known: Mapping[str, object], facts: Mapping[str, object], config: TrainConfig, step: int) -> list[str]:
    """What makes these two runs in the first `step` steps. The end may be moved: arguments in MOVABLE may differ, if all
    those steps had the same learning rate."""
    differ = [name for name in sorted(known.keys() | facts.keys()) if known.get(name) != facts.get(name)]
    if all(name in MOVABLE for name in differ):
        if not step:
            return []
        fields = {name.removeprefix("train."): value for name, value in known.items() if name.startswith("train.")}
        before = from_values(fields)
        if step <= config.steps and all(before.lr_at(k) == config.lr_at(k) for k in range(step)):
            return []
    return [f"{name} was {known.get(name)}, is {facts.get(name)}" for name in differ]


class Store:
    """The checkpoints of one run, and the notes beside them (`run.log`)."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        facts: Mapping[str, object],
        config: TrainConfig,
        team: Alone = ALONE,
    ):
        self.folder, self.model, self.optimiser, self.facts = folder, model, optimiser, dict(facts)
        self.config, self.team = config, team

    def begin(self, branch_from: str | Path | None = None, branch_step: int | None = None) -> int:
        """Go on from the last good checkpoint; without any, begin with the model as it is, or with a trunk's state.

        A run that begins writes its state at once: whatever model it is given the next time, it goes on with this one.

        Returns: the number of steps that are done. Raises ValueError if the checkpoint is of another run.
        """
        content = files.last_good(self.folder, self.warn) if self.team.rank == 0 else None
        self.team.wait()  # until what is spoilt has been set aside
        content = files.last_good(self.folder, self.warn) if self.team.rank else content
        self._agreed(content)  # before anybody writes
        if content is None:
            if branch_from is not None:
                fill(self.model, self.optimiser, trunk_state(branch_from, branch_step, self.facts), self.team)
            self.save(0)
            return 0
        if differ := differences(content["run"], self.facts, self.config, content["step"]):
            raise ValueError(
                f"a run goes on with what it began with, or starts in a new folder: in {str(self.folder)!r} " + "; ".join(differ)
            )
        fill(self.model, self.optimiser, content, self.team)
        torch.set_rng_state(content["random"]["cpu"])
        if torch.cuda.is_available() and "cuda" in content["random"]:
            torch.cuda.set_rng_state(content["random"]["cuda"])
        self.note(f"goes on after step {content['step']}")
        return content["step"]

    def _agreed(self, content: Mapping[str, Any] | None) -> None:
        """Raise ValueError in every process if they do not read the same folder: they would wait for one another for ever."""
        step = torch.tensor(-1.0 if content is None else content["step"], dtype=torch.float64)
        if self.team.any(bool(self.team.mean(step) != step)):
            raise ValueError(
                f"all processes must see the same run in {str(self.folder)!r}: process {self.team.rank} of "
                f"{self.team.size} finds {'no checkpoint' if content is None else f'one of step {int(step)}'}"
            )

    def save(self, step: int, before: Callable[[], object] = lambda: None) -> None:
        """Write the state after `step` steps, after what `before` writes. Raises OSError in every process if process 0 cannot:
        one that stopped alone would leave the others waiting for it."""
        content, error = state(self.model, self.optimiser, step, self.facts, self.team), None
        try:
            before()
            if self.team.rank == 0:
                files.write(self.folder, step, content, self.config.keep)
        except OSError as found:
            error = found
            self.note(f"stops: {found}")
        if self.team.any(error is not None):
            raise error or OSError(f"process 0 could not write the checkpoint of step {step}")

    def note(self, sentence: str) -> None:
        """Append a line to the run's log, if there is room for it."""
        if self.team.rank == 0:
            try:
                with open(self.folder / "run.log", "a", encoding="utf-8") as log:
                    log.write(f"{datetime.now().isoformat(timespec='seconds')} {sentence}\n")
            except OSError:
                pass

    def warn(self, sentence: str) -> None:
        self.note(sentence)
        warnings.warn(sentence, stacklevel=2)


def trunk_state(folder: str | Path, step: int | None, facts: Mapping[str, object]) -> dict[str, Any]:
    """The state of another run's checkpoint, to branch from. Raises ValueError if there is none, or of another model."""
    content = files.at_step(folder, step)
    differ = [
        f"{name} was {content['run'].get(name)}, is {value}"
        for name, value in facts.items()
        if name.startswith("model.") and content["run"].get(name) != value
    ]
    if differ:
        raise ValueError(f"a branch has its trunk's model: in {str(folder)!r} " + "; ".join(differ))
    return content
