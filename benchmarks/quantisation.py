"""What 8 and 4 bits cost in quality, and what they bring: the shipped models on text they have not seen, and the 1.2B shape.

Quality: bits per byte of test documents, and KL(full || rounded) of the next token, nats, a mean over their tokens; on the 1.2B shape with
random weights the error of the logits in units of theirs. "one scale a row" is rounding to the nearest without groups, by the same
formula. Speed: tokens decoded after a prompt of 64 in bfloat16, contenders in turns. Memory: the peak of a fresh process that
loads the saved model and decodes 4 tokens. Embedding, head and adapters stay as they are, unless it says otherwise.
"""

import json
import sys
import tempfile
import time
from copy import deepcopy
from itertools import pairwise

import torch
from harness import factor, fresh, interleaved, median, megabytes, memory_row, peak_resident, percent, ratio_row, repeats
from pairs import TINY, make

import zamba_lab as zl
from zamba_lab.accounting import KEEP
from zamba_lab.blocks.linear import Linear
from zamba_lab.config.presets import SHIPPED
from zamba_lab.corpora.stdlib import stdlib_documents, texts
from zamba_lab.evaluate import document_bits
from zamba_lab.quantization import part_of
from zamba_lab.quantization.int4 import Int4Matrix

ROW = "4 bits, one scale a row"
HOW = {"8 bits": dict(bits=8), "4 bits, groups of 64": dict(bits=4), "4 bits, groups of 32": dict(bits=4, group_size=32), ROW: None}
TOKENS = 8


@torch.no_grad()
def rounded(model: zl.Zamba, how: str) -> zl.Zamba:
    """A copy with fewer bits; without groups the weights are replaced by what they would be rounded to."""
    model = deepcopy(model)
    if HOW[how] is not None:
        return zl.quantize(model, **HOW[how])
    for name, module in model.named_modules():
        if isinstance(module, Linear) and part_of(name) not in KEEP:
            module.weight.copy_(Int4Matrix(module.weight, module.weight.shape[1]).matrix(module.weight.dtype))
    return model


def held(model: zl.Zamba) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


@torch.no_grad()
def kl(full: zl.Zamba, small: zl.Zamba, ids: torch.Tensor) -> float:
    log_p, log_q = full(ids).log_softmax(-1), small(ids).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()


def quality(name: str, documents: list[str], quick: bool) -> list[dict]:
    """The rows of one shipped model."""
    full = zl.load(name)
    size = sum(len(text.encode()) for text in documents)
    ids = torch.tensor(full.tokenizer.encode("".join(documents)))[:16384]
    ids = ids[: len(ids) // 128 * 128].view(-1, 128)
    before = document_bits(full, documents, full.tokenizer).sum() / size
    rows = []
    for how in ("8 bits", ROW) if quick else HOW:
        small = rounded(full, how)
        after = document_bits(small, documents, full.tokenizer).sum() / size
        rows.append(
            {
                "work": f"{name}, {how}",
                "bits per byte": f"{after:.4f} ({before:.4f} full, {after - before:+.4f})",
                "KL": f"{kl(full, small, ids):.4f}",
                "weights": percent(held(small) / held(full)) if how != ROW else "",
                "n": f"{len(documents)} documents, {size:,} bytes",
            }
        )
    return rows


@torch.no_grad()
def errors(full: zl.Zamba, label: str) -> list[dict]:
    """How far the logits of random weights move, root mean square in units of theirs."""
    ids = torch.randint(full.config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(0))
    before, rows = full(ids).double(), []
    for how in HOW:
        after = rounded(full, how)(ids).double()
        far = ((after - before).square().mean() / before.square().mean()).sqrt().item()
        rows.append({"work": f"{label}, random weights, {how}", "logit error": f"{far:.3f}", "n": f"{ids.numel()} tokens"})
    return rows


def decoding(models: dict[str, zl.Zamba], label: str, turns: int) -> list[dict]:
    """A token's time with each number of bits, against bfloat16."""
    ids = torch.randint(100 if label != "tiny" else 60, (1, 64), generator=torch.Generator().manual_seed(0))
    steps: dict[str, list[float]] = {name: [] for name in models}

    def run(name: str) -> None:
        times = [time.perf_counter() for _ in zl.stream(models[name], ids, TOKENS + 2)]
        steps[name].append(median([b - a for a, b in pairwise(times[1:])]))

    interleaved({name: lambda name=name: run(name) for name in models}, turns)
    times = {name: several[1:] for name, several in steps.items()}
    targets = {"4 bits": ">= 2.5x"}
    return [
        ratio_row(f"{label}, a decoded token, {name}", times, name, "bfloat16", targets.get(name, ""))
        for name in models
        if name != "bfloat16"
    ]


def once(folder: str) -> int:
    """What the fresh process does: the peak of loading a model and decoding with it."""
    zl.generate(zl.load(folder), torch.ones(1, 16, dtype=torch.int64), 4)
    return peak_resident()


def shape(quick: bool) -> list[dict]:
    """The 1.2B shape: logits, speed, and memory in fresh processes."""
    config, label = (TINY, "tiny") if quick else (zl.ZambaConfig.preset("zamba2-1.2b"), "1.2B shape")
    with tempfile.TemporaryDirectory() as folder:
        make(config, f"{folder}/full")
        full = zl.load(f"{folder}/full")
        rows = errors(full, label)
        models = {"bfloat16": full} | {f"{bits} bits": zl.quantize(deepcopy(full), bits) for bits in (8, 4)}
        rows += decoding(models, label, repeats(7, quick) + 1)
        zl.save(models["4 bits"], f"{folder}/small")
        share = held(models["4 bits"]) / held(full)
        rows.append({"work": f"{label}, weights, 4 bits", "ratio": factor(share), "ours took": megabytes(held(models["4 bits"]))})
        del models, full
        if not quick:  # a small process is all imports
            peaks = {"4 bits": fresh(__file__, f"{folder}/small"), "bfloat16": fresh(__file__, f"{folder}/full")}
            rows.append(memory_row(f"{label}, load and decode", peaks, "4 bits", "bfloat16", "<= 0.4"))
    return rows


def run(quick: bool = False) -> list[dict]:
    documents = texts(stdlib_documents(), "test")
    documents = [text[:400] for text in documents[:2]] if quick else documents[::8]
    rows = [row for name in (["zamba2-nano"] if quick else SHIPPED) for row in quality(name, documents, quick)]
    return rows + shape(quick)


if __name__ == "__main__":
    print(json.dumps(once(sys.argv[1])))
