"""What a checkpoint is, and everything that is wrong with it: the same checks as `load`, but none stops the next."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from zamba_lab.checkpoints import quantised
from zamba_lab.checkpoints.config_read import original_to_today, read_config
from zamba_lab.checkpoints.errors import SHOWN, CheckpointError
from zamba_lab.checkpoints.files import INDEX, PROGRESS_ABOVE, WEIGHTS, Weights, weight_files
from zamba_lab.checkpoints.folder import planted_links, read_whole, stopped_save
from zamba_lab.checkpoints.load import FORGET_ABOVE, TOKENIZER_HASH, equal, locate, plan_for, read_raw, read_tokenizer
from zamba_lab.checkpoints.plan import Plan
from zamba_lab.checkpoints.published import OWN, ignored_keys
from zamba_lab.config import ZambaConfig, block_name


@dataclass
class Report:
    """A checkpoint's anatomy and its faults. `ok` if there are none; of the faults, `load` lets only "all zero" pass.

    faults: {"fault": its name, "what": a sentence, "tensors": the names concerned}. remarks: what there is to know of
    this model, above all what other readers get wrong.
    """

    source: str
    layout: str | None = None
    generation: str | None = None
    sizes: dict = field(default_factory=dict)
    invocations: list[dict] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)
    dtypes: dict[str, int] = field(default_factory=dict)
    n_params: int | None = None
    n_bytes: int | None = None
    faults: list[dict] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults

    def as_dict(self) -> dict:
        """Everything, as JSON can hold it."""
        return {"ok": self.ok, **asdict(self)}

    def add(self, fault: str, what: str, tensors=()) -> None:
        self.faults.append({"fault": fault, "what": what, "tensors": list(tensors)})

    def __str__(self) -> str:
        faults = f"{len(self.faults)} kind{'s' * (len(self.faults) > 1)} of fault" if self.faults else "no fault found"
        lines = [f"{self.source}: {faults}"]
        facts = {"layout": self.layout, "config.json": self.generation, "parameters": self.n_params, "bytes": self.n_bytes}
        for title, value in facts.items():
            if value is not None:
                lines.append(f"  {title:<12} {f'{value:,}' if isinstance(value, int) else value}")
        for title, values in (("sizes", self.sizes), ("dtypes", self.dtypes)):
            if values:
                lines.append(f"  {title:<12} {', '.join(f'{name} {value}' for name, value in values.items())}")
        for k, invocation in enumerate(self.invocations):
            adapters = f"  adapters of {', '.join(invocation['adapters'])} in slot {k}" if invocation["adapters"] else ""
            lines.append(f"  invocation {k:<2} depth {invocation['depth']:<3} block {block_name(invocation['block'])}{adapters}")
        lines += [f"  tie          {tie}" for tie in self.ties]
        lines += [f"  note         {remark}" for remark in self.remarks]
        for fault in self.faults:
            names, more = fault["tensors"][:SHOWN], len(fault["tensors"]) - SHOWN
            lines += [f"  FAULT {fault['fault']}: {fault['what']}", *(f"      {name}" for name in names)]
            lines += [f"      ... and {more} more"] if more > 0 else []
        return "\n".join(lines)


def doctor(source: str | Path) -> Report:
    """Examine a checkpoint; `source` as in `load`. Nothing on the disk is changed.

    Raises CheckpointError only if there is nothing to examine, or another process keeps saving into the folder.
    """
    folder, files = locate(source)
    try:
        return read_whole(folder, lambda: _examined(str(source), folder, files))
    except CheckpointError as error:
        if not stopped_save(folder):
            raise
        report = Report(str(source))
        report.add("unfinished save", str(error))
        return report


def _examined(source: str, folder: Path, files: dict[Path, None] | None) -> Report:
    report = Report(source)
    if links := planted_links(folder):
        report.add("link", "a link or a file where only a save has a folder of its own: see what it is and remove it", links)
    try:
        raw, how = quantised.split(read_raw(folder))
        raw = original_to_today(raw)
        config = read_config(raw)
    except CheckpointError as error:
        report.add("config", str(error))
        return report
    _describe(report, raw, config)
    try:
        with Weights(files or weight_files(folder)) as weights:
            if how is None:
                _examine(report, raw, config, weights)
            else:
                _examine_quantised(report, config, how, weights)
            _compare_tokenizer(report, folder, weights.metadata.get(TOKENIZER_HASH))
    except CheckpointError as error:
        report.add("files", str(error).splitlines()[0], [*error.missing, *error.left_over])
    if not files and len(sets := [name for name in WEIGHTS if (folder / name).is_file()]) > 1:
        what = f"{sets[0]} is read, as transformers does, and what lies beside it is not: is it of another model?"
        if sets[1] == INDEX:
            report.add("two models", what, sets[1:])
        else:
            report.remarks.append(f"{', '.join(sets[1:])}: {what}")
    return report


def _examine_quantised(report: Report, config: ZambaConfig, how: dict, weights: Weights) -> None:
    """Raises CheckpointError as `load` does: the names are the project's own, and all of them or none fit."""
    report.remarks.append(f"layout: quantised, {', '.join(f'{name} {value}' for name, value in how.items())}; only this project opens it.")
    quantised.read(config, how, weights, None, torch.device("cpu"), True)


def _compare_tokenizer(report: Report, folder: Path, stored_hash: str | None) -> None:
    try:
        tokenizer = read_tokenizer(folder)
    except ModuleNotFoundError as error:
        report.remarks.append(f"tokenizer: not examined: {error}")
    except CheckpointError as error:
        report.add("tokenizer", str(error))
    else:
        if tokenizer is not None and stored_hash not in (None, tokenizer.pieces_hash):
            report.add("tokenizer", "its pieces are not those that the weights were saved with: its ids would mean other text")


def _describe(report: Report, raw: dict, c: ZambaConfig) -> None:
    """What the config alone says."""
    report.generation = f"{raw['model_type']}, {generation(raw)}"
    report.n_params = c.n_params
    sizes = "d_model n_layers d_inner headdim ssm_heads d_state vocab_size"
    hybrid = " n_shared_blocks attn_heads head_dim d_attn d_mlp lora_rank lora_rank_qkv"
    report.sizes = {name: getattr(c, name) for name in (sizes + hybrid * bool(c.hybrid_layers)).split()}
    adapters = ["mlp"] * bool(c.lora_rank) + ["q", "k", "v"] * bool(c.lora_rank_qkv)
    report.invocations = [
        {"invocation": k, "depth": i, "block": b, "adapters": adapters}  # in slot k
        for k, (i, b) in enumerate(zip(c.hybrid_layers, c.blocks_by_invocation))
    ]
    report.ties = ["the head is the embedding"] if c.tie_embeddings else []
    for b in range(c.n_shared_blocks):
        depths = [str(invocation["depth"]) for invocation in report.invocations if invocation["block"] == b]
        report.ties.append(f"block {block_name(b)} serves the depths {', '.join(depths)}")
    report.remarks = remarks(raw, c)


def generation(raw: dict) -> str:
    """Which software's spelling a config.json has."""
    kinds = set(raw.get("layers_block_type") or [])
    if raw["model_type"] == OWN:
        return "this project's own"
    if kinds & {"m", "g"} or "state_size" in raw and raw["model_type"] == "zamba2":
        return "legacy spelling of the authors' fork"
    if "rope_parameters" in raw or "linear_attention" in kinds or "dtype" in raw:
        return "as saved by transformers 5"
    if raw["model_type"] in ("mamba", "mamba2"):
        return "original spelling" if "d_model" in raw and "hidden_size" not in raw else "as transformers spells it"
    return "spelling of transformers since 4.49"


def remarks(raw: dict, c: ZambaConfig) -> list[str]:
    """What there is to know about this model, above all where readers disagree."""
    defaults = {
        "zamba2": {"num_mem_blocks": c.n_shared_blocks, "use_mem_rope": c.rope_theta is not None, "n_mamba_heads": c.ssm_heads},
        "mamba2": {"n_groups": c.n_groups, "tie_word_embeddings": c.tie_embeddings},
    }
    absent = {key: value for key, value in defaults.get(raw["model_type"], {}).items() if key not in raw}
    read_as = ", ".join(f"{key} {value}" for key, value in absent.items())
    clamp = raw.get("time_step_min")
    clamp = clamp if isinstance(clamp, int | float) else 0.001  # transformers' default
    rules = (
        (raw["model_type"] == OWN, "layout: this variant has no published one; only this project opens it."),
        (
            raw["model_type"] == "zamba2" and clamp != c.dt_min and clamp > 1e-15,
            f"step sizes: clamped at {c.dt_min} here; 0 is what the authors trained with. transformers clamps those of a "
            f"prompt at time_step_min; load(..., dt_min={clamp}) reproduces that.",
        ),
        (
            c.mixer == "mamba2" and c.n_groups > 1,
            f"gated norm: over each of {c.n_groups} groups. Readers that normalise all channels at once get it wrong.",
        ),
        (
            c.n_shared_blocks > 1 and c.block_order is None,
            "block order: blocks alternate from invocation to invocation. Readers that count layers use the wrong one.",
        ),
        (
            raw.get("use_long_context") and c.rope_theta,
            f"long context: the base of the positions is scaled to {c.rope_theta or 0:.6g}. transformers only says so.",
        ),
        (c.hybrid_layers and c.rope_theta is None, "positions: attention has none."),
        (
            c.hybrid_layers and not c.tie_embeddings and c.n_shared_blocks < c.n_invocations,
            "ties: transformers unshares the blocks of a model with an untied head: its later ones would be random.",
        ),
        (c.mixer == "mamba1" and raw["model_type"] == "zamba", "in_proj: its rows alternate between x and z, unlike Mamba-1's."),
        (absent, f"defaults: {', '.join(absent)} not given, and readers' defaults differ. Read as: {read_as}."),
        (ignored := ignored_keys(raw), f"config.json: not read, since they change nothing that is computed: {', '.join(sorted(ignored))}"),
    )
    return [text for holds, text in rules if holds]


def _examine(report: Report, raw: dict, config: ZambaConfig, weights: Weights) -> None:
    """The names and shapes, then the numbers."""
    try:
        plan = plan_for(raw["model_type"], config, weights)
    except CheckpointError as error:
        report.add("layout", str(error))
        return
    report.layout = plan.layout.name
    report.remarks += [f"names: {note}" for note in weights.notes]
    report.dtypes = dict(Counter(header.dtype for header in weights.headers.values()))
    for fault, what, names in (
        ("missing", "parameters that no stored tensor fills", plan.missing),
        ("left over", "stored tensors that no parameter wants", plan.left_over),
        ("wrong shape", "the config asks for another", [f"{n} {why}" for n, why in plan.wrong_shape.items()]),
        ("dtype", "not one that weights are computed with", [f"{n} {d}" for n, d in plan.wrong_dtype.items()]),
    ):
        if names:
            report.add(fault, what, names)
    if plan.spares:
        report.remarks.append(f"spares: {len(plan.spares)} stored adapters belong to no invocation and are not read")
    if not plan.wrong_dtype:
        report.n_bytes = sum(map(weights.nbytes, weights.headers))
    _examine_numbers(report, plan, weights)


def _examine_numbers(report: Report, plan: Plan, weights: Weights) -> None:
    faults = {"NaN": "tensors that hold NaN", "infinite": "tensors that hold infinite numbers"}
    faults |= {"all zero": "matrices that hold zeros only: never written?", "copies differ": "tensors that should be equal and are not"}
    names_of: dict[str, list[str]] = {fault: [] for fault in faults}
    usable = [names for _, stored in plan.steps for names in stored if names and not set(names) & set(plan.wrong_dtype)]
    n_read = 0
    for first, *copies in tqdm(usable, desc="reading", disable=(report.n_bytes or 0) < PROGRESS_ABOVE):
        tensor = weights.peek(first)
        low, high = torch.aminmax(tensor)
        if low.isnan():
            names_of["NaN"].append(first)
        elif low.isinf() or high.isinf():
            names_of["infinite"].append(first)
        elif low == high == 0 and tensor.ndim > 1:
            names_of["all zero"].append(first)
        for name in copies:
            report.ties.append(f"{name} is stored as a copy of {first}")
            if not equal(weights.peek(name), tensor):
                names_of["copies differ"].append(f"{name} from {first}")
        n_read += sum(weights.nbytes(name) for name in (first, *copies))
        if n_read > FORGET_ABOVE:
            weights.forget()
            n_read = 0
    for fault, names in names_of.items():
        if names:
            report.add(fault, faults[fault], names)
