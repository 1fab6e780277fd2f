"""Whether a checkpoint computes the same here as in transformers, an optional library that is imported when asked for.

Both read the same files and the same tokens, one after the other, so that there is never more than one in memory. The
authors' code does not clamp the step sizes of a Zamba2; transformers does while it reads a prompt, and here is told not
to. `tests/parity` holds small random checkpoints of every kind to the same comparison.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.load import load, locate
from zamba_lab.lazy import needed
from zamba_lab.trace import Trace

LENGTH = 64  # tokens compared, unless the caller names some


@dataclass(frozen=True)
class Parity:
    """How far two readings of a checkpoint are apart.

    differences: for the residual stream before each layer ("depth 0" is the embeddings), for the final norm and for the
    logits, the largest difference as a fraction of the largest value. same_choice: at how many of the positions both
    find the same token the likeliest.
    """

    source: str
    reference: str
    dtype: torch.dtype
    n_tokens: int
    differences: dict[str, float]
    same_choice: int

    def __str__(self) -> str:
        where = max(self.differences, key=self.differences.get)
        return (
            f"{self.source} here and in {self.reference}, {self.n_tokens} tokens in {str(self.dtype)[6:]}:\n"
            f"  likeliest token      the same at {self.same_choice} of {self.n_tokens} positions\n"
            f"  logits               differ by at most {self.differences['logits']:.1e} of the largest\n"
            f"  where most apart     {where}, by {self.differences[where]:.1e}"
        )


def parity(source: str | Path, ids: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Parity:
    """Compare every layer of a checkpoint with transformers' reading of the same files.

    Args:
        source: as `load` takes it; a folder in the published layout, or a hub id of one.
        ids: (1, l) tokens; None draws 64 from a fixed seed.
        dtype: to compute in. In bfloat16 rounding alone makes differences of about a hundredth.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        CheckpointError: the files are damaged, or transformers cannot read all of them: it would go on with random
            numbers in the place of what it did not find.
    """
    transformers = needed("transformers", "comparing", "test")
    folder, _ = locate(source)
    ids, ours = _here(source, ids, dtype)
    theirs = _there(transformers, folder, ids, dtype)
    if set(ours) != set(theirs):
        raise CheckpointError(
            f"{str(source)!r} has other layers in transformers than here: {len(theirs)} and {len(ours)} things to compare"
        )
    differences = {name: _difference(ours[name], theirs[name]) for name in ours}
    same = int((ours["logits"].argmax(-1) == theirs["logits"].argmax(-1)).sum())
    return Parity(str(source), f"transformers {transformers.__version__}", dtype, ids.shape[1], differences, same)


@torch.no_grad()
def _here(source: str | Path, ids: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    model = load(source, dtype=dtype)
    if ids is None:
        ids = torch.randint(model.config.vocab_size, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise ValueError(f"ids must be (1, l): got {tuple(ids.shape)}")
    trace = Trace(keep=["layers.*.resid_in", "final_norm", "logits"])
    model(ids, trace=trace)
    values = {f"depth {i}": trace[f"layers.{i}.resid_in"] for i in range(model.config.n_layers)}
    return ids, values | {"final norm": trace["final_norm"], "logits": trace["logits"]}


@torch.no_grad()
def _there(transformers, folder: Path, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    with _quiet(transformers):
        try:
            model, notes = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="eager", local_files_only=True, output_loading_info=True
            )
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"transformers cannot open {str(folder)!r}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
            ) from error
        if notes["missing_keys"] or notes["mismatched_keys"]:
            raise CheckpointError(
                f"transformers does not find all of {str(folder)!r} and would put random numbers there; it knows the current layout only",
                missing=notes["missing_keys"],
            )
        for module in model.eval().modules():
            if hasattr(module, "time_step_limit"):
                module.time_step_limit = (0.0, math.inf)
        output = model(ids, output_hidden_states=True, use_cache=False)
    *depths, final = output.hidden_states
    return {f"depth {i}": x for i, x in enumerate(depths)} | {"final norm": final, "logits": output.logits}


@contextmanager
def _quiet(transformers) -> Iterator[None]:
    """Without the reference's advice on kernels that it would rather use."""
    log, level = transformers.logging, transformers.logging.get_verbosity()
    bars = log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()
