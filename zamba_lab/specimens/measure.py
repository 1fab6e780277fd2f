"""`specimen`: all measurements of the sheet, in order. What a model lacks is left out, and named under "absent"."""

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from zamba_lab import lens
from zamba_lab.lens.parts import attention_depths
from zamba_lab.model import Zamba
from zamba_lab.specimens.coding import coding
from zamba_lab.specimens.continuations import continuations
from zamba_lab.specimens.estimates import estimate
from zamba_lab.specimens.heads import attention, repetition, top_induction
from zamba_lab.specimens.held_out import held_out, some, windows
from zamba_lab.specimens.names import Names, names
from zamba_lab.specimens.retrieval import retrieval
from zamba_lab.specimens.sheet import Sheet
from zamba_lab.specimens.worth import worth
from zamba_lab.version import __version__


@dataclass(frozen=True)
class Size:
    """How much is measured: FULL by default, QUICK to try it."""

    documents: int = 16  # whose loss is measured, and as many others for means and resampling
    length: int = 256  # tokens of each, at most the model's max_context
    controls: int = 1  # random changes of each kind for each part
    string: int = 64  # random tokens in a string, which is read twice
    strings: int = 16
    distances: tuple[int, ...] = (4, 16, 64, 128, 256)  # of needles, in tokens
    needles: int = 48  # of each distance
    prompts: int = 64  # that are continued
    n_bytes: int = 120_000  # of each kind of text, for bits a byte
    window: int = 1024  # tokens read together for bits a byte, at most max_context


FULL = Size()
QUICK = Size(4, 64, 1, 16, 4, (4, 16), 6, 4, 6_000, 128)


def specimen(
    model: Zamba, texts: Mapping[str, Sequence[str]] | None = None, size: Size = FULL, name: str = "", progress: bool = False, seed: int = 0
) -> Sheet:
    """Measure a model's sheet; some minutes on one core for a model of two million parameters.

    Args:
        model: with a tokenizer that has a start token.
        texts: name -> Python texts, of two or more kinds. Parts are measured on the first kind; their means and their values on
            another text come from the second; bits a byte are of all. None: `held_out()`.
        name: for the sheet's title. seed: of random strings, needles and samples.

    Raises ValueError if there is no tokenizer, or too few texts of `size.length` tokens.
    """
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.bos_id is None:
        raise ValueError(f"a sheet needs a model with a tokenizer that has a start token: got {tokenizer}")
    texts, started = held_out() if texts is None else dict(texts), time.monotonic()
    if len(texts) < 2:
        raise ValueError(f"a sheet needs texts of two kinds or more, to measure on and to take means from: got {', '.join(texts)}")
    kinds = list(texts.values())
    device, length = model.embedding.weight.device, min(size.length, model.config.max_context)
    ids, others = (windows(kind, tokenizer, length, size.documents).to(device) for kind in kinds[:2])
    found, data = names(ids.cpu(), tokenizer), made(model, texts, size, name, seed)
    induction = _attention(model, data, ids, size, seed)
    data["worth"] = worth(model, ids, others, found, induction, size.controls, progress)
    data["names"] = of_names(model, ids, found)
    data["retrieval"] = retrieval(model, ids.flatten(), size.distances, size.needles, seed=seed)
    window = min(size.window, model.config.max_context)
    data["bits a byte"] = {kind: coding(model, some(each, size.n_bytes), window) for kind, each in texts.items()}
    data["continuations"] = continuations(model, kinds[0], size.prompts, min(192, length), seed=seed)
    data["made"]["seconds"] = round(time.monotonic() - started)
    return Sheet(data)


def made(model: Zamba, texts: Mapping[str, Sequence[str]], size: Size, name: str, seed: int) -> dict[str, Any]:
    """What was measured, with what, on what."""
    c = model.config
    return {
        "model": name,
        "parameters": c.n_params,
        "architecture": {"mixer": c.mixer, "layers": c.n_layers, "invocations": c.n_invocations, "shared_blocks": c.n_shared_blocks},
        "made": {
            "zamba_lab": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "seed": seed,
            "size": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(size).items()},
            "texts": {
                kind: {"documents": len(each), "sha256": hashlib.sha256("\0".join(each).encode()).hexdigest()}
                for kind, each in texts.items()
            },
        },
        "absent": [],
    }


def _attention(model: Zamba, data: dict[str, Any], ids: torch.Tensor, size: Size, seed: int) -> list[tuple[int, int]]:
    """Fill in the heads' page, if there are heads. Returns the top induction heads, (attention, head) each."""
    c, strings = model.config, lens.repeated_tokens(model, size.string, size.strings, seed)
    data["random string, read twice"] = repetition(model, strings)
    if not c.n_invocations:
        data["absent"].append("shared block: no invocations, links, adapters or concatenation")
    elif "adapter" not in lens.parts(c):
        data["absent"].append("adapter")
    if c.mixer == "attention":
        data["absent"].append("mixer: no states and no convolution's windows")
    if not attention_depths(c):
        data["absent"].append("attention: no heads, no keys and values")
        return []
    data["attention"] = attention(model, strings, ids)
    return top_induction(data["attention"]["heads"])


def of_names(model: Zamba, ids: torch.Tensor, found: Names) -> dict[str, Any]:
    """What an identifier costs when it stands in the window for the first time, and when it comes again, in nats."""
    cost = found.cost(lens.next_token_loss(model, ids).cpu().double())
    counts = {"first": int(found.n_first.sum()), "repeated": int(found.n_repeated.sum())}
    return {which: {"names": counts[which], "nats a name": estimate(cost[which])} for which in ("first", "repeated")}
