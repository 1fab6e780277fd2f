"""Opening a checkpoint exactly: each stored tensor is used once, each parameter filled once, or nothing is built.

Names and shapes are compared first, from the files' headers and a model on the meta device. Only then are tensors
mapped into memory, and they become the parameters themselves: there is no second copy.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from zamba_lab.checkpoints import quantised
from zamba_lab.checkpoints.config_read import original_to_today, read_config
from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import COMPANIONS, CONFIG, DTYPES, PICKLED_SUFFIXES, PROGRESS_ABOVE, TOKENIZERS, Weights, weight_files
from zamba_lab.checkpoints.folder import read_whole
from zamba_lab.checkpoints.hub import fetch, is_hub_id
from zamba_lab.checkpoints.json_values import MAX_DESCRIPTION, read_object
from zamba_lab.checkpoints.layouts import choose, missing_prefix
from zamba_lab.checkpoints.plan import Plan, make_plan
from zamba_lab.config import ZambaConfig
from zamba_lab.config.presets import PRESETS, SHIPPED
from zamba_lab.model import Zamba

if TYPE_CHECKING:
    from zamba_lab.tokenizer import Tokenizer

TOKENIZER_HASH = "tokenizer_sha256"  # the key of a weight file's metadata
FORGET_ABOVE = 10**8  # bytes read through the passing mapping before it is given up
# The mixers compute with these in float32 or wider whatever they are stored in.
ANY_DTYPE = (".A_log", ".D", ".dt_bias")


def load(
    source: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu", dt_min: float = 0.0, check: bool = True
) -> Zamba:
    """Open a trained model. Nothing on the disk is changed by it.

    Args:
        source: a preset with shipped weights ("zamba2-nano"), a folder, a single weight file with its config.json
            beside it, or a hub id ("Zyphra/Zamba2-1.2B", with "@revision" if need be).
        dtype: of the parameters; None keeps the stored one. Where a file mixes dtypes, A_log, D and dt_bias keep theirs
            and all others get the widest of theirs, so that nothing is lost.
        device: where to; "meta" checks names and shapes and reads no weights.
        dt_min: lower clamp on the step size. 0.0 is what the authors trained with and leaves what the checkpoint says,
            which for published ones is the same; 0.001 reproduces readers that clamp.
        check: look for NaN and infinite numbers, which reads every weight. False trusts them: names, shapes and copies
            are compared with the config as ever, and what is not converted is read from the file when it is first used.

    Returns: the model. `model.tokenizer` is the tokenizer.json or, failing that, the tokenizer.model beside the weights;
    None, with a warning, where reading it needs a library that is not installed. `model.tokenizer_hash` is the hash of
    the tokenizer it was saved with, or None (see `check_tokenizer`). A warning says if the tensors' names were wrapped.
    Raises CheckpointError if the checkpoint is not whole or does not fit, if another process keeps saving into it or was
    stopped while it did, and ValueError if an argument breaks a rule.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating torch.dtype or None: got {dtype!r}")
    device = _device(device)
    folder, files = locate(source)
    model, notes = read_whole(folder, lambda: _load(folder, files, dtype, device, dt_min, check))
    for note in notes:
        warnings.warn(f"{source}: {note}", stacklevel=2)
    return model


def _load(
    folder: Path, files: dict[Path, None] | None, dtype: torch.dtype | None, device: torch.device, dt_min: float, check: bool
) -> tuple[Zamba, list[str]]:
    raw, how = quantised.split(read_raw(folder))
    config = read_config(raw)
    config = replace(config, dt_min=dt_min or config.dt_min)
    with _no_collection(), Weights(files or weight_files(folder)) as weights:
        if how is not None:
            model = quantised.read(config, how, weights, dtype, device, check)
        else:
            model = _read_full(folder, raw, config, weights, dtype, device, check)
    notes = weights.notes
    try:
        model.tokenizer = read_tokenizer(folder)
    except ModuleNotFoundError as error:  # the weights are as good without it
        notes = [*notes, f"loaded without its tokenizer: {error}"]
    model.tokenizer_hash = weights.metadata.get(TOKENIZER_HASH)
    if model.tokenizer_hash:
        check_tokenizer(model, model.tokenizer, f"the tokenizer in {str(folder)!r}")
    return model, notes


def _read_full(
    folder: Path, raw: dict, config: ZambaConfig, weights: Weights, dtype: torch.dtype | None, device: torch.device, check: bool
) -> Zamba:
    plan = plan_for(original_to_today(raw)["model_type"], config, weights).check(str(folder))
    if device.type == "meta":
        return plan.model.to(dtype or _widest(plan, weights))
    plan.model.load_state_dict(dict(read_tensors(plan, weights, dtype, device, check)), assign=True)
    return plan.model


def plan_for(model_type: str, config: ZambaConfig, weights: Weights) -> Plan:
    """The plan for the layout that the weights' names show, which get the prefix they lack. Errors as `make_plan`."""
    weights.put_before(missing_prefix(model_type, weights.headers))
    return make_plan(choose(model_type, weights.headers), config, weights.headers)


def check_tokenizer(model: Zamba, tokenizer: Tokenizer | None, what: str = "the data's tokenizer") -> None:
    """Raise ValueError if a model's weights were made with other pieces than a tokenizer's: its ids would mean other text.

    Call it wherever weights meet ids: training data, texts to score, prompts. Compared are SHA-256 hashes of all pieces in
    the order of their ids, `Tokenizer.pieces_hash`; the model's is the one it was saved with or, failing that, the one of
    `model.tokenizer`. Nothing is raised where one of the two has none.

    Args: what: what the tokenizer is, for the message.
    """
    ours = getattr(model, "tokenizer_hash", None) or getattr(getattr(model, "tokenizer", None), "pieces_hash", None)
    if tokenizer is not None and ours and ours != tokenizer.pieces_hash:
        raise CheckpointError(
            f"{what} must have the pieces that the weights were made with, or its ids mean other text: their hashes are "
            f"{tokenizer.pieces_hash[:12]} and {ours[:12]}, with {tokenizer.vocab_size:,} pieces "
            f"and {model.config.vocab_size:,} rows of weights"
        )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic collector: opening a model makes thousands of objects and no garbage, and a collection that
    this sets off walks all of torch's besides. That took as long as all the rest."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_config(source: str | Path) -> ZambaConfig:
    """The config of a checkpoint, or of a preset by its name, without touching weights. Errors as `load`."""
    if isinstance(source, str) and source in PRESETS and source not in SHIPPED:
        return ZambaConfig.preset(source)
    folder, _ = locate(source)
    return read_whole(folder, lambda: read_config(quantised.split(read_raw(folder))[0]))


def read_raw(folder: Path) -> dict:
    """The parsed config.json of a checkpoint's folder."""
    if not (folder / CONFIG).is_file():
        names = sorted(path.name for path in folder.iterdir())[:8]
        raise CheckpointError(
            f"{str(folder)!r} is not a checkpoint: {f'it has no {CONFIG}, but {names}' if names else 'the folder is empty'}"
        )
    return read_object(folder / CONFIG)


def locate(source: str | Path) -> tuple[Path, dict[Path, None] | None]:
    """The folder of a source, and its weight file if the source names one."""
    name, path = str(source), Path(source)
    if isinstance(source, str) and name in SHIPPED:
        if not (SHIPPED[name] / CONFIG).is_file():
            raise CheckpointError(
                f"{name} is a model of this project, but its weights are not in "
                f"{str(SHIPPED[name])!r}: fetch the project's data/ folder, or train it again as "
                "data/README.md says"
            )
        return SHIPPED[name], None
    if os.path.isdir(path):  # unlike Path's methods, not an error where no file can have such a name
        return path, None
    if os.path.isfile(path):
        if path.suffix not in (".safetensors", *PICKLED_SUFFIXES):
            raise CheckpointError(
                f"a single file must be a .safetensors file (or one of torch.save: "
                f"{', '.join(PICKLED_SUFFIXES)}) with {CONFIG} beside it: got {name!r}"
            )
        return path.parent, {path: None}
    if isinstance(source, str) and is_hub_id(source):
        return fetch(source), None
    hint = (
        f". {name} is a shape without weights here: Zamba(ZambaConfig.preset({name!r})) starts one at random, and "
        "a hub id loads a trained one"
        if name in PRESETS
        else ""
    )
    raise CheckpointError(
        "a model is loaded from a folder, a .safetensors file, a hub id ('organisation/name') or one "
        f"of {', '.join(SHIPPED)}: there is no {name!r:.200}{hint}"
    )


def read_tensors(
    plan: Plan, weights: Weights, dtype: torch.dtype | None, device: torch.device, check: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's name and its tensor, one after the other. Raises CheckpointError on what is no weight.

    What is checked or converted is read through a mapping that is given up now and then, so that the peak of memory
    stays near the size of the model.
    """
    widest, faults, copies_differ, n_read = dtype or _widest(plan, weights), [], False, 0
    sizes = [sum(weights.nbytes(name) for names in stored_names for name in names) for _, stored_names in plan.steps]
    bar = tqdm(plan.steps, desc="loading", disable=sum(sizes) < PROGRESS_ABOVE)
    for (binding, stored_names), size in zip(bar, sizes):
        to = None if dtype is None and binding.ours[0].endswith(ANY_DTYPE) else widest

        def converted(stored: list[Tensor], binding=binding, to=to) -> list[Tensor]:
            return [t.to(device=device, dtype=to or t.dtype) for t in binding.transform.to_ours(stored, plan.config)]

        stored = [weights.peek(first) for first, *_ in stored_names]
        new_faults, ours = _faults(stored, stored_names, weights, check), converted(stored)
        if ours[0].data_ptr() == stored[0].data_ptr():
            # Neither moved nor converted: from the lasting mapping, whose pages the checks above did not read in.
            ours = converted([weights.read(first) for first, *_ in stored_names])
        if not new_faults and dtype == torch.float16:
            new_faults = [f"{name} holds numbers beyond the range of float16" for name, t in zip(binding.ours, ours) if not all_finite(t)]
        faults += new_faults
        copies_differ |= bool(new_faults) and binding.ours[0].startswith("shared_blocks.") and any(len(names) > 1 for names in stored_names)
        yield from zip(binding.ours, ours)
        n_read += size
        if n_read > FORGET_ABOVE:
            weights.forget()
            n_read = 0
    if faults:
        why = (
            f"; n_shared_blocks is {plan.config.n_shared_blocks}, which num_mem_blocks in {CONFIG} decides "
            "(1 where it is absent): blocks that differ must be counted there"
        )
        raise CheckpointError(f"{len(faults)} tensors cannot be used: {'; '.join(faults[:10])}{why * copies_differ}")


def _faults(stored: list[Tensor], stored_names: list[tuple[str, ...]], weights: Weights, check: bool) -> list[str]:
    """A sentence on each stored tensor that is no weight (if `check`), and each copy that is none."""
    faults = []
    for tensor, (first, *copies) in zip(stored, stored_names):
        if check and not all_finite(tensor):
            faults.append(f"{first} holds NaN or infinite numbers")
        faults += [f"{name} differs from {first}, of which it should be a copy" for name in copies if not equal(weights.peek(name), tensor)]
    return faults


def _device(device: str | torch.device) -> torch.device:
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:  # AssertionError: a build without that device
        raise ValueError(f"device must be one that torch knows and has here: got {str(device)!r} ({error})") from error
    return device


def all_finite(t: Tensor) -> bool:
    """Whether no element is NaN or infinite. t: any shape of a floating-point type; empty: True."""
    # The extremes tell, NaN included, and need no second copy.
    return t.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(t))


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two stored tensors are the same numbers of the same dtype."""
    return a.dtype == b.dtype and torch.equal(a, b)


def _widest(plan: Plan, weights: Weights) -> torch.dtype:
    counted = [names for binding, stored_names in plan.steps if not binding.ours[0].endswith(ANY_DTYPE) for names in stored_names]
    return reduce(torch.promote_types, {DTYPES[weights.headers[first].dtype] for first, *_ in counted})


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder, with the files for other readers beside it; None if there is none.

    Raises CheckpointError if it is damaged, and ModuleNotFoundError if reading it needs a library that is not installed.
    """
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    from zamba_lab.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer.load(folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    names = (*COMPANIONS, *(name for name in TOKENIZERS if name != tokenizer.source))
    beside = [folder / name for name in names if (folder / name).is_file()]
    tokenizer.companions = {path.name: path.read_bytes() for path in beside if path.stat().st_size <= MAX_DESCRIPTION}
    return tokenizer
