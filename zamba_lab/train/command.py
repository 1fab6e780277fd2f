"""`zamba-lab train`: a run from a command line, or from a file (YAML or JSON) that says the same.

    zamba-lab train zamba2-nano                                       a shipped model, by its recipe; `shipped`: all of them
    zamba-lab train annealing-study                                   what the second phase is worth (recipes/)
    zamba-lab train mamba2-130m --data tokens/ --out runs/a --steps 2000 --batch 16 --schedule "cosine(warmup=100)"
    zamba-lab train runs/a.yaml --resume
    zamba-lab train my-model/ --from-weights --data web/ --out runs/c                      from its weights, not from random ones
    zamba-lab train zamba2-nano --data web/ --data books/ --anneal-from runs/a --out runs/b --steps 200
    torchrun --nproc-per-node 8 -m zamba_lab train ... --parallel fsdp

Such a file holds what the command line does, and the model too: {model: {preset: zamba2-nano, n_layers: 4}, data: [tokens/],
out: runs/a, train: {steps: 2000, batch: 16}}. A flag overrides the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zamba_lab.train.config import TrainConfig, annealing, defaults, from_values
from zamba_lab.yaml_file import read_yaml

if TYPE_CHECKING:
    from zamba_lab.config import ZambaConfig
    from zamba_lab.corpora import Corpus
    from zamba_lab.model import Zamba
    from zamba_lab.train.distributed import SingleProcess
    from zamba_lab.train.metrics import Writer
    from zamba_lab.train.mixture import Mixture

Recipe = Callable[[Path | None, Path | None], object]  # (folder of the result, folder of the runs) -> what is printed
OF_RECIPES = ("out", "model_out", "threads")
LOW = 0.5  # of its peak: a trunk whose rate is below that has begun to anneal already
KEYS = (
    *("model", "data", "shares", "out", "model_out", "from_weights", "anneal_from", "anneal_step"),
    *("prompts", "parallel", "threads", "writers", "train"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags: those of a run, and one for each field of TrainConfig."""
    parser.add_argument("source", help="a preset, a folder with a config.json, or a run's .yaml or .json file")
    parser.add_argument("--data", action="append", metavar="FOLDER", help="a corpus that `zamba-lab corpus` made; repeat it for a mixture")
    parser.add_argument("--shares", type=float, nargs="+", help="share of each --data; by size, or 0.6 0.4 when annealing")
    parser.add_argument("--out", metavar="RUN", help="folder for checkpoints and metrics")
    parser.add_argument("--model-out", metavar="FOLDER", help="folder for the trained model (RUN/model)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, if there is one")
    parser.add_argument(
        "--from-weights", action="store_true", default=None, help="begin with the weights of the source, not with random ones"
    )
    parser.add_argument("--anneal-from", metavar="RUN", help="branch from this run's checkpoint, with exponential decay")
    parser.add_argument("--anneal-step", type=int, metavar="N", help="after N of its steps; its newest checkpoint if left out")
    parser.add_argument("--prompts", nargs="+", help="texts to continue, every --sample-every steps")
    parser.add_argument("--writers", nargs="+", choices=("tensorboard", "trackio", "wandb"), help="where else metrics go")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), help="under torchrun: a copy each (ddp), or a shard each (fsdp)")
    parser.add_argument("--threads", type=int, help="threads of one operation; torch's own choice if left out")
    group = parser.add_argument_group("training (their defaults in brackets)")
    for name, (default, about) in defaults().items():
        more = {"nargs": "?", "const": "true"} if isinstance(default, bool) else {}
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"train.{name}", metavar="X", help=f"{about} [{default}]", **more)


def main(arguments: argparse.Namespace, recipes: Mapping[str, Recipe]) -> int:
    """Train as a command line says. recipes: what is trained by its name alone, without --data.

    Returns: 0: done; 1: it had to stop, and why; 130: interrupted, and can be resumed.
    """
    import torch

    plan = described(arguments)
    if plan.get("threads"):
        torch.set_num_threads(plan["threads"])
    recipe = None if plan["data"] else recipes.get(arguments.source)
    if not recipe and not (plan["data"] and plan.get("out")):
        alone = "" if plan["data"] else f", or one of the recipes {', '.join(recipes)} alone"
        raise ValueError(f"training needs data and a folder for the run: --data FOLDER --out RUN{alone}")
    try:
        follow(arguments.source, recipe, plan) if recipe else run(plan, arguments.resume)
    except KeyboardInterrupt as stop:
        print(f"{stop or 'stopped'}; the same command{'' if recipe else ' with --resume'} continues from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough: the command line's business
        raise
    except (FloatingPointError, OSError, ModuleNotFoundError) as error:
        print(f"zamba-lab: {error}", file=sys.stderr)
        return 1
    return 0


def follow(name: str, recipe: Recipe, plan: dict[str, Any]) -> None:
    """Make what a recipe makes, or continue it. Raises ValueError for arguments that a recipe does not take."""
    more = sorted(plan["train"]) + [key for key in KEYS if plan.get(key) and key not in ("model", "train", *OF_RECIPES)]
    if more:
        raise ValueError(
            f"{name!r} without --data is a recipe, which takes {', '.join(OF_RECIPES)}: got {', '.join(more)}; to train "
            "a model of that shape on text of your own give --data FOLDER"
        )
    result = recipe(*(Path(plan[key]) if plan.get(key) else None for key in ("model_out", "out")))
    print(result if isinstance(result, str) else json.dumps(result, indent=1))


def described(arguments: argparse.Namespace) -> dict[str, Any]:
    """The run that a command line, and its file if it names one, describe. Raises ValueError for a key or value that means nothing."""
    plan = {"model": arguments.source, "train": {}}
    if Path(arguments.source).suffix in (".yaml", ".yml", ".json"):
        content, _ = read_yaml(arguments.source, "a run's file")
        unknown = sorted(map(str, content.keys() - set(KEYS))) if isinstance(content, dict) else []
        if not isinstance(content, dict) or unknown or "model" not in content:
            got = f"it has {unknown}" if unknown else "it lacks 'model'"
            raise ValueError(f"a run's file has the keys {', '.join(KEYS)}: in {arguments.source!r} {got}")
        plan |= content
    if not isinstance(plan["train"], dict | None):
        raise ValueError(f"train must name training arguments, {{steps: 2000, ...}}: got {plan['train']!r}")
    flags = {name: value for name, value in vars(arguments).items() if value is not None}
    plan["train"] = (plan["train"] or {}) | {
        name.removeprefix("train."): value for name, value in flags.items() if name.startswith("train.")
    }
    plan |= {name: value for name, value in flags.items() if name in KEYS}
    for name in ("data", "prompts", "writers"):  # a single text is a list of one
        plan[name] = [plan[name]] if isinstance(plan.get(name), str) else plan.get(name) or []
    _check_values(plan)
    return plan


def _check_values(plan: dict[str, Any]) -> None:
    """Raise ValueError for a value that a file may hold and a flag could not."""
    from zamba_lab.train.distributed import PARALLEL
    from zamba_lab.train.writers import WRITERS

    for name in ("data", "prompts", "writers"):
        if not isinstance(plan[name], list) or not all(isinstance(value, str) for value in plan[name]):
            raise ValueError(f"{name} must be a text or a list of texts: got {plan[name]!r}")
    shares = plan.get("shares")
    if shares is not None and not (isinstance(shares, list) and all(isinstance(share, int | float) for share in shares)):
        raise ValueError(f"shares must be a list of numbers: got {shares!r}")
    for name, kind in {"out": str, "model_out": str, "anneal_from": str, "anneal_step": int, "threads": int, "from_weights": bool}.items():
        if plan.get(name) is not None and type(plan[name]) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}: got {plan[name]!r}")
    if unknown := sorted(set(plan["writers"]) - WRITERS.keys()):
        raise ValueError(f"writers must be of {', '.join(WRITERS)}: got {', '.join(unknown)}")
    if plan.get("parallel") not in (None, *PARALLEL):
        raise ValueError(f"parallel must be one of {', '.join(PARALLEL)}: got {plan['parallel']!r}")


def run(plan: dict[str, Any], resume: bool) -> None:
    """Train as described, and save the model. Raises ValueError before the first step if anything does not fit."""
    from zamba_lab.checkpoints import save
    from zamba_lab.train.files import checkpoints
    from zamba_lab.train.loop import train

    out, existing = Path(plan["out"]), checkpoints(plan["out"])
    if existing and not resume:
        raise ValueError(f"{plan['out']!r} holds a run of {existing[-1][0]} steps: continue it by --resume, or take another folder")
    config, shape = train_config(plan, bool(existing)), model_config(plan["model"])
    data = corpora_of(plan, shape)
    validation = {
        name: corpus.packed("validation") for name, corpus in data.items() if corpus.manifest["splits"]["validation"]["documents"]
    }
    processes = _processes(plan)
    model, origin = initial_model(plan, shape, config.seed)
    if getattr(model, "tokenizer", None) is None:
        model.tokenizer = next(iter(data.values())).tokenizer
    if processes.rank == 0:
        begun = _checkpoint_of(out, existing[-1][0]) if existing else origin
        print(f"{plan['model'] if isinstance(plan['model'], str) else 'model'}: {model.config.n_params:,} parameters from {begun}")
    train(
        model.to(processes.device),
        mixture(plan, data),
        config,
        out,
        validation,
        branch_from=plan.get("anneal_from"),
        branch_step=plan.get("anneal_step"),
        prompts=plan["prompts"],
        on_row=[_writer(name, out) for name in plan["writers"] if processes.rank == 0],
        processes=processes,
    )
    processes.save(save, model, Path(plan.get("model_out") or out / "model"))
    processes.leave()


def initial_model(plan: dict[str, Any], shape: ZambaConfig, seed: int) -> tuple[Zamba, str]:
    """The model that a run begins with, and where its weights are from, in words. Raises ValueError if there are no weights to load."""
    import torch

    from zamba_lab.checkpoints import load
    from zamba_lab.model import Zamba

    torch.manual_seed(seed)
    if plan.get("from_weights"):
        if not isinstance(plan["model"], str):
            raise ValueError(f"from_weights needs a model with weights, a folder or a name: got the fields {sorted(plan['model'])}")
        model, origin = load(plan["model"], dtype=torch.float32), f"the weights of {plan['model']}"
    else:
        model, origin = Zamba(shape), f"random weights of seed {seed} (--from-weights begins with stored ones)"
    trunk = plan.get("anneal_from")
    return model, _checkpoint_of(trunk, plan.get("anneal_step")) if trunk else origin


def _checkpoint_of(folder: str | Path, step: int | None) -> str:
    return f"the newest checkpoint of {folder}" if step is None else f"the checkpoint of step {step} in {folder}"


def train_config(plan: dict[str, Any], resumed: bool = False) -> TrainConfig:
    """The training arguments. An annealing run has its trunk's, `annealing`'s in their place, and over both what is given."""
    values = plan["train"]
    if not plan.get("anneal_from"):
        return from_values(values)
    if resumed:
        return from_values(recorded(plan["out"], None)[0].facts() | values)
    trunk, done = recorded(plan["anneal_from"], plan.get("anneal_step"))
    steps = from_values({"schedule": "constant", "steps": values.get("steps", defaults()["steps"][0])}).steps
    share = trunk.schedule.share(max(0, done - 1), trunk.steps)
    if share < LOW:
        print(
            f"{plan['anneal_from']!r} after {done} steps had let its rate down to {share:.2g} of the peak already: a trunk is rather one "
            "that has not (--schedule 'wsd(warmup=100, decay=0)', or --anneal-step)",
            file=sys.stderr,
        )
    return from_values(annealing(trunk, steps).facts() | values)


def recorded(folder: str, step: int | None) -> tuple[TrainConfig, int]:
    """What a run was trained with, and the steps of the checkpoint. Raises ValueError if it has none such."""
    from zamba_lab.train.files import at_step

    content = at_step(folder, step)
    values = {name.removeprefix("train."): value for name, value in content["run"].items() if name.startswith("train.")}
    return from_values(values), content["step"]


def corpora_of(plan: dict[str, Any], shape: ZambaConfig) -> dict[str, Corpus]:
    """The corpora by the names of their folders. Raises ValueError unless each has a name, and a share if any has, of its own, and
    its tokens fit the model."""
    from zamba_lab import corpora

    data = {name: corpora.load(folder) for name, folder in zip(corpora.distinct_names(plan["data"]), plan["data"])}
    if len(data) != len(plan["data"]) or len(plan.get("shares") or plan["data"]) != len(data):
        raise ValueError(f"each folder of data has a name and a share of its own: got {plan['data']}, shares {plan.get('shares')}")
    for corpus in data.values():
        corpora.fits(corpus, shape)
    return data


def mixture(plan: dict[str, Any], data: dict[str, Corpus]) -> Mixture:
    """The corpora by the shares given, or 60 % of the first when annealing on two."""
    from zamba_lab.train.mixture import REPLAY, Mixture

    shares = plan.get("shares") or ([REPLAY, 1 - REPLAY] if plan.get("anneal_from") and len(data) == 2 else None)
    return Mixture(data, None if shares is None else dict(zip(data, shares)))


def model_config(model: str | dict[str, Any]) -> ZambaConfig:
    """The config of a preset, of a folder, or of field values over a preset's or the defaults."""
    from zamba_lab.checkpoints import load_config
    from zamba_lab.config import ZambaConfig

    if isinstance(model, str):
        return ZambaConfig.preset(model) if model in ZambaConfig.presets() else load_config(model)
    if not isinstance(model, Mapping):
        raise ValueError(f"a model is a preset, a folder or its fields: got {model!r}")
    values = dict(model)
    base = model_config(values.pop("preset")) if "preset" in values else ZambaConfig()
    names = {field.name for field in fields(ZambaConfig)}
    if unknown := sorted(map(str, values.keys() - names)):
        raise ValueError(f"no such field of a model: {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return replace(base, **values)


def _processes(plan: dict[str, Any]) -> SingleProcess:
    from zamba_lab.train.distributed import SINGLE, from_torchrun

    return from_torchrun(plan["parallel"]) if plan.get("parallel") else SINGLE


def _writer(name: str, out: Path) -> Writer:
    """A run that is resumed is the same run to the others, too."""
    from zamba_lab.train.writers import WRITERS

    if name == "tensorboard":
        return WRITERS[name](out / "tensorboard")
    same = {"id": hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]} if name == "wandb" else {}
    return WRITERS[name](out.parent.name or "zamba-lab", out.name, resume="allow", **same)
