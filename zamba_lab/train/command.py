"""`zamba-lab train`: a run from a command line, or from a file (YAML or JSON) that says the same.

    zamba-lab train zamba2-nano                                       a shipped model, by its recipe; `shipped`: all of them
    zamba-lab train annealing-study                                   what the second phase is worth (recipes/)
    zamba-lab train mamba2-130m --data tokens/ --out runs/a --steps 2000 --batch 16 --schedule "cosine(warmup=100)"
    zamba-lab train runs/a.yaml --resume
    zamba-lab train zamba2-nano --data web/ --data books/ --anneal-from runs/a --out runs/b --steps 200
    torchrun --nproc-per-node 8 -m zamba_lab train ... --parallel fsdp

Such a file holds what the command line does, and the model too: {model: {preset: zamba2-nano, n_layers: 4}, data: [tokens/],
out: runs/a, train: {steps: 2000, batch: 16}}. A flag has the last word.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from zamba_lab.config.yaml_file import read_yaml
from zamba_lab.train.config import TrainConfig, annealing, defaults, from_values

Recipe = Callable[[Path | None, Path | None], object]  # (folder of the result, folder of the runs) -> what is printed
OF_RECIPES = ("out", "model_out", "threads")
LOW = 0.5  # of its peak: a trunk's rate below that has been let down already
KEYS = ("model", "data", "shares", "out", "model_out", "anneal_from", "anneal_step", "prompts", "parallel", "threads", "writers", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags: those of a run, and one for each field of TrainConfig."""
    parser.add_argument("source", help="a preset, a folder with a config.json, or a run's .yaml or .json file")
    parser.add_argument("--data", action="append", metavar="FOLDER", help="a corpus that `zamba-lab corpus` made; again for a mixture")
    parser.add_argument("--shares", type=float, nargs="+", help="share of each --data; by size, or 0.6 0.4 when annealing")
    parser.add_argument("--out", metavar="RUN", help="folder for checkpoints and metrics")
    parser.add_argument("--model-out", metavar="FOLDER", help="folder for the trained model (RUN/model)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--anneal-from", metavar="RUN", help="branch from this run's checkpoint, with exponential decay")
    parser.add_argument("--anneal-step", type=int, metavar="N", help="after N of its steps; its newest checkpoint if left out")
    parser.add_argument("--prompts", nargs="+", help="texts to go on with, every --sample-every steps")
    parser.add_argument("--writers", nargs="+", choices=("tensorboard", "trackio", "wandb"), help="where else metrics go")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), help="under torchrun: a copy each (ddp), or a part each (fsdp)")
    parser.add_argument("--threads", type=int, help="threads of one operation; torch's own choice if left out")
    group = parser.add_argument_group("training (their defaults in brackets)")
    for name, (default, about) in defaults().items():
        more = {"nargs": "?", "const": "true"} if isinstance(default, bool) else {}
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"train.{name}", metavar="X", help=f"{about} [{default}]", **more)


def main(given: argparse.Namespace, recipes: Mapping[str, Recipe]) -> int:
    """Train as a command line says. recipes: what is trained by its name alone, without --data.

    Returns: 0: done; 1: it had to stop, and why; 130: interrupted, and can be resumed.
    """
    import torch

    plan = described(given)
    if plan.get("threads"):
        torch.set_num_threads(plan["threads"])
    recipe = None if plan["data"] else recipes.get(given.source)
    if not recipe and not (plan["data"] and plan.get("out")):
        alone = "" if plan["data"] else f", or one of the recipes {', '.join(recipes)} alone"
        raise ValueError(f"training needs data and a folder for the run: --data FOLDER --out RUN{alone}")
    try:
        follow(given.source, recipe, plan) if recipe else run(plan, given.resume)
    except KeyboardInterrupt as stop:
        print(f"{stop or 'stopped'}; the same command{'' if recipe else ' with --resume'} goes on from there", file=sys.stderr)
        return 130
    except (FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"zamba-lab: {error}", file=sys.stderr)
        return 1
    return 0


def follow(name: str, recipe: Recipe, plan: dict[str, Any]) -> None:
    """Make what a recipe makes, or go on with it. Raises ValueError for arguments that a recipe does not take."""
    more = sorted(plan["train"]) + [key for key in KEYS if plan.get(key) and key not in ("model", "train", *OF_RECIPES)]
    if more:
        raise ValueError(
            f"{name!r} without --data is a recipe, which takes {', '.join(OF_RECIPES)}: got {', '.join(more)}; to train "
            "a model of that shape on text of your own give --data FOLDER"
        )
    result = recipe(*(Path(plan[key]) if plan.get(key) else None for key in ("model_out", "out")))
    print(result if isinstance(result, str) else json.dumps(result, indent=1))


def described(given: argparse.Namespace) -> dict[str, Any]:
    """The run that a command line, and its file if it names one, describe. Raises ValueError for a key that means nothing."""
    source, plan = given.source, {"model": given.source, "train": {}}
    if Path(source).suffix in (".yaml", ".yml", ".json"):
        plan |= _read(Path(source))
    if not isinstance(plan["train"], dict | None):
        raise ValueError(f"train must name training arguments, {{steps: 2000, ...}}: got {plan['train']!r}")
    flags = {name: value for name, value in vars(given).items() if value is not None}
    plan["train"] = (plan["train"] or {}) | {
        name.removeprefix("train."): value for name, value in flags.items() if name.startswith("train.")
    }
    plan |= {name: value for name, value in flags.items() if name in KEYS}
    for name in ("data", "prompts", "writers"):  # a text is a list of one
        plan[name] = [plan[name]] if isinstance(plan.get(name), str) else list(plan.get(name) or ())
    return _checked(plan)


def _checked(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan. Raises ValueError for what a file may say and a flag could not."""
    from zamba_lab.train.several import TEAMS
    from zamba_lab.train.writers import WRITERS

    shares = plan.get("shares")
    if shares is not None and not (isinstance(shares, list | tuple) and all(isinstance(one, int | float) for one in shares)):
        raise ValueError(f"shares must be a list of numbers: got {shares!r}")
    if unknown := sorted(set(plan["writers"]) - WRITERS.keys()):
        raise ValueError(f"writers must be of {', '.join(WRITERS)}: got {', '.join(unknown)}")
    if plan.get("parallel") not in (None, *TEAMS):
        raise ValueError(f"parallel must be one of {', '.join(TEAMS)}: got {plan['parallel']!r}")
    return plan


def _read(file: Path) -> dict[str, Any]:
    found, _ = read_yaml(file, "a run's file")
    if not isinstance(found, dict) or (unknown := sorted(map(str, found.keys() - set(KEYS)))) or "model" not in found:
        got = f"it has {unknown}" if isinstance(found, dict) and unknown else "it lacks 'model'"
        raise ValueError(f"a run's file has the keys {', '.join(KEYS)}: in {str(file)!r} {got}")
    return found


def run(plan: dict[str, Any], resume: bool) -> None:
    """Train as described, and save the model. Raises ValueError before the first step if anything does not fit."""
    import torch

    from zamba_lab.checkpoints import save
    from zamba_lab.model import Zamba
    from zamba_lab.train.files import checkpoints
    from zamba_lab.train.loop import train
    from zamba_lab.train.writers import WRITERS

    out, known = Path(plan["out"]), checkpoints(plan["out"])
    if known and not resume:
        raise ValueError(f"{str(out)!r} holds a run of {known[-1][0]} steps: go on with it by --resume, or take another folder")
    if resume and not known:
        raise ValueError(f"there is nothing to resume: {str(out)!r} holds no checkpoint")
    config, model_config = training(plan, resume), shape(plan["model"])
    folders = opened(plan["data"], model_config)
    held_out = {name: one.packed("validation") for name, one in folders.items() if one.manifest["splits"]["validation"]["documents"]}
    team = _team(plan)
    torch.manual_seed(config.seed)
    model = Zamba(model_config).to(team.device)
    model.tokenizer = next(iter(folders.values())).tokenizer
    prompts = plan.get("prompts") or ()
    writers = [_writer(WRITERS[name], name, out) for name in plan.get("writers") or () if team.rank == 0]
    train(
        model,
        mixture(plan, folders),
        config,
        out,
        held_out,
        branch_from=plan.get("anneal_from"),
        branch_step=plan.get("anneal_step"),
        prompts=prompts,
        on_row=writers,
        team=team,
    )
    team.save(save, model, Path(plan.get("model_out") or out / "model"))


def training(plan: dict[str, Any], resume: bool = False) -> TrainConfig:
    """The training arguments. An annealing run has its trunk's, `annealing`'s in their place, and over both what is given."""
    given = plan["train"]
    if not plan.get("anneal_from"):
        return from_values(given)
    if resume:
        return from_values(recorded(plan["out"], None)[0].facts() | given)
    trunk, done = recorded(plan["anneal_from"], plan.get("anneal_step"))
    steps = from_values({"schedule": "constant", "steps": given.get("steps", defaults()["steps"][0])}).steps
    share = trunk.schedule.share(max(0, done - 1), trunk.steps)
    if share < LOW:
        print(
            f"{plan['anneal_from']!r} after {done} steps had let its rate down to {share:.2g} of the peak already: a trunk is rather one "
            "that has not (--schedule 'wsd(warmup=100, decay=0)', or --anneal-step)",
            file=sys.stderr,
        )
    return from_values(annealing(trunk, steps).facts() | given)


def recorded(folder: str, step: int | None) -> tuple[TrainConfig, int]:
    """What a run was trained with, and the steps of the checkpoint. Raises ValueError if it has none such."""
    from zamba_lab.train.files import at_step

    content = at_step(folder, step)
    return from_values(
        {name.removeprefix("train."): value for name, value in content["run"].items() if name.startswith("train.")}
    ), content["step"]


def opened(data: list[str], model_config) -> dict[str, Any]:
    """The corpora, by the names of their folders. Raises ValueError unless all have one tokenizer, and it fits the model."""
    from zamba_lab import corpora

    found = {name: corpora.load(folder) for name, folder in zip(corpora.distinct_names(data), data)}
    for one in found.values():
        corpora.fits(one, model_config)
    hashes = {name: one.manifest["files"][one.manifest["tokenizer"]["file"]] for name, one in found.items()}
    if len(set(hashes.values())) > 1:
        raise ValueError(
            f"corpora of one run must be made by one tokenizer (zamba-lab corpus ... --tokenizer FOLDER): got tokenizers {hashes}"
        )
    return found


def mixture(plan: dict[str, Any], folders: dict):
    """The data of the folders, by the shares given, or 60 % of the first when annealing on two."""
    from zamba_lab.train.mixture import REPLAY, Mixture

    shares = plan.get("shares") or ([REPLAY, 1 - REPLAY] if plan.get("anneal_from") and len(folders) == 2 else None)
    if shares is not None and len(shares) != len(plan["data"]) or len(folders) != len(plan["data"]):
        raise ValueError(f"each folder of data has a name and a share of its own: got {plan['data']}, shares {shares}")
    return Mixture(
        {name: one.packed("train").tokens for name, one in folders.items()}, None if shares is None else dict(zip(folders, shares))
    )


def shape(model: str | dict[str, Any]):
    """The config of a preset, of a folder, or of field values over a preset's or the defaults."""
    from zamba_lab.checkpoints import load_config
    from zamba_lab.config import ZambaConfig

    if isinstance(model, str):
        return ZambaConfig.preset(model) if model in ZambaConfig.presets() else load_config(model)
    values = dict(model)
    base = shape(values.pop("preset")) if "preset" in values else ZambaConfig()
    names = {one.name for one in fields(ZambaConfig)}
    if unknown := sorted(values.keys() - names):
        raise ValueError(f"no such field of a model: {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return replace(base, **values)


def _team(plan: dict[str, Any]):
    if not plan.get("parallel"):
        from zamba_lab.train.team import ALONE

        return ALONE
    from zamba_lab.train.several import from_torchrun

    return from_torchrun(plan["parallel"])


def _writer(make, name: str, out: Path):
    """A run that goes on is the same run to the others, too."""
    if name == "tensorboard":
        return make(out / "tensorboard")
    same = {"id": hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]} if name == "wandb" else {}
    return make(out.parent.name or "zamba-lab", out.name, resume="allow", **same)
