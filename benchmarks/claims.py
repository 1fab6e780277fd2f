"""The published case for Zamba2-2.7B against Phi-3-3.8B, measured here: time to first token, latency of a token, memory.

Published (Zyphra, with Zamba2-2.7B, on a GPU): 2 times faster time to first token, 1.29 times lower generation latency, 27 % less
memory than Phi-3-3.8B. Shapes with random weights; every contender is built in a process of its own, one at a time, and the
contenders take turns. Ours and transformers' of Zamba2, transformers' of Phi-3, in bfloat16; ours and Phi-3 besides with the
matrices of both rounded to 8 and 4 bits by the same kernels. "ratio" is the peer's over ours; its spread is that of the rounds.
`python benchmarks/claims.py --depth 0.25` cuts both models to a quarter of their layers, each of full width, and --contexts names
other prompts. On a machine with a GPU it measures there.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace

import torch
from harness import factor, forget_peak, fresh, markdown, megabytes, milliseconds, peak_resident, percent, repeats
from pairs import TINY, extend_peer, quiet
from torch import nn

import zamba_lab as zl
from zamba_lab.accounting import DENSE, cost, group_of
from zamba_lab.quantization.int4 import Int4Linear
from zamba_lab.quantization.int8 import Int8Linear

OURS, PEER, PHI = "ours", "transformers, Zamba2", "transformers, Phi-3"
CONTEXTS = (128, 512, 1024, 4096)
PUBLISHED = {"first": 2.0, "token": 1.29, "memory": 1 / (1 - 0.27)}
PRECISIONS = {"bf16": None, "int8": 8, "int4": 4}
CONTENDERS = [(name, "bf16") for name in (OURS, PEER, PHI)] + [(name, bits) for bits in ("int8", "int4") for name in (OURS, PHI)]
TINY_PHI = replace(DENSE["phi-3-mini"], vocab_size=64, d_model=64, n_layers=2, heads=4, kv_heads=4, head_dim=16, d_mlp=96)
TOKENS, WARM = 8, 2  # timed after so many that are not


@dataclass(frozen=True)
class Sizes:
    """What is measured: depth is the share of both models' layers that is built."""

    depth: float = 1.0
    contexts: tuple[int, ...] = CONTEXTS
    tiny: bool = False

    @property
    def zamba(self) -> zl.ZambaConfig:
        c = replace(TINY, d_model=64, d_mlp=64) if self.tiny else zl.ZambaConfig.preset("zamba2-2.7b")
        layers = max(1, round(self.depth * c.n_layers))
        kept = tuple(i for i in c.hybrid_layers if i < layers)
        return replace(c, n_layers=layers, hybrid_layers=kept, n_shared_blocks=min(c.n_shared_blocks, len(kept)))

    @property
    def phi(self):
        c = TINY_PHI if self.tiny else DENSE["phi-3-mini"]
        return replace(c, n_layers=max(1, round(self.depth * c.n_layers)))


# --- in a process of its own ----------------------------------------------------------------------------------------


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """Matrices from one block of random numbers, at scales that keep numbers finite: drawing billions takes minutes."""
    block = torch.randn(2**20 + 7, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).bfloat16()
    for name, p in model.named_parameters():
        if p.ndim < 2:
            p.fill_(-3.0 if name.endswith("dt_bias") else 0.0 if "bias" in name or name.endswith("A_log") else 1.0)
            continue
        for part in p.view(-1).split(len(block)):
            part.copy_(block[: len(part)] * (0.7 * p.shape[-1] ** -0.5))
    return model.eval()


def build(contender: str, sizes: Sizes, bits: int | None) -> nn.Module:
    """A contender with random weights in bfloat16, its matrices then of fewer bits if asked."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_default_dtype(torch.bfloat16)
    if contender == OURS:
        with torch.device("meta"):
            model = zl.Zamba(sizes.zamba)
        model = filled(model.to_empty(device=device))
        return zl.quantize(model, bits) if bits else model
    import transformers
    from transformers.initialization import no_init_weights

    quiet()
    if contender == PHI:
        p = sizes.phi
        # fmt: off
        config = transformers.Phi3Config(
            vocab_size=p.vocab_size, hidden_size=p.d_model, intermediate_size=p.d_mlp, num_hidden_layers=p.n_layers,
            num_attention_heads=p.heads, num_key_value_heads=p.kv_heads, tie_word_embeddings=p.tie_embeddings, pad_token_id=0,
            max_position_embeddings=max(sizes.contexts) + 64, original_max_position_embeddings=max(sizes.contexts) + 64,
        )
        # fmt: on
    else:
        from zamba_lab.checkpoints.config_write import write_config

        config = transformers.Zamba2Config(**write_config(sizes.zamba, dtype="bfloat16"))
    with no_init_weights(), device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return rounded(filled(model), bits) if bits else model


def rounded(model: nn.Module, bits: int) -> nn.Module:
    """A transformer of transformers' with the matrices that `zl.quantize` would round rounded the same way."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and name != "lm_head":
                group = group_of(child.in_features, 64)
                new = Int8Linear(child.weight, child.bias) if bits == 8 else group and Int4Linear(child.weight, child.bias, group)
                setattr(module, name, new or child)
    return model


@torch.inference_mode()
def once(contender: str, bits: int | None, sizes: Sizes) -> dict:
    """Seconds to the first token and of each later one after each context, and bytes at rest and at most."""
    import transformers  # noqa: F401 in every process, so that it counts in none

    before = resident()
    model = build(contender, sizes, bits)
    extend = model.extend if contender == OURS else lambda ids, cache=None, **_: extend_peer(model, ids, cache)
    device, vocab = next(model.buffers() if bits else model.parameters()).device, sizes.zamba.vocab_size
    held = sum({t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}.values())
    found = {"weights": held, "contexts": {}}
    extend(torch.ones(1, 2, dtype=torch.int64, device=device), None, last_only=True)  # what is compiled or read once
    for length in sizes.contexts:
        ids = torch.randint(vocab, (1, length), generator=torch.Generator().manual_seed(length)).to(device)
        start = reset_peak() or time.perf_counter()
        logits, cache = extend(ids, None, last_only=True)
        token = logits[:, -1].argmax(-1, keepdim=True)
        token.sum().item()
        first, times = time.perf_counter() - start, []
        for following in continued(model, extend, contender, token, cache):
            following.sum().item()
            times.append(time.perf_counter())
        steps = [b - a for a, b in zip(times, times[1:])][-TOKENS:]
        found["contexts"][str(length)] = {"first": first, "token": statistics.median(steps), "memory": max(held, resident_peak() - before)}
        del cache, logits
    return found


def continued(model, extend, contender: str, token, cache):
    """The tokens after the first, each side's fastest way of its own."""
    if contender == OURS:
        yield from zl.stream(model, token, TOKENS + WARM + 1, cache=cache)
        return
    for _ in range(TOKENS + WARM + 1):
        logits, cache = extend(token, cache)
        yield (token := logits[:, -1].argmax(-1, keepdim=True))


def resident() -> int:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    forget_peak()
    return peak_resident()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()


def resident_peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident()


# --- the card -------------------------------------------------------------------------------------------------------


def card(sizes: Sizes, rounds: int, apart: bool = True) -> list[dict]:
    """Every contender once a round, in turns; then a row for each claim, context, precision and peer."""
    found: dict[tuple, list[dict]] = {contender: [] for contender in CONTENDERS}
    for _ in range(rounds):
        for name, precision in CONTENDERS:
            asked = json.dumps([name, PRECISIONS[precision], asdict(sizes)])
            found[name, precision].append(fresh(__file__, "--once", asked) if apart else child(asked))
    return [
        row(sizes, what, length, found, peer, precision)
        for precision in PRECISIONS
        for peer in (PHI, PEER)
        if (peer, precision) in found
        for length in sizes.contexts
        for what in PUBLISHED
    ]


def child(asked: str) -> dict:
    name, bits, sizes = json.loads(asked)
    dtype = torch.get_default_dtype()
    try:
        return once(name, bits, Sizes(**{**sizes, "contexts": tuple(sizes["contexts"])}))
    finally:
        torch.set_default_dtype(dtype)


def row(sizes: Sizes, what: str, length: int, found: dict, peer: str, precision: str) -> dict:
    """How many times more the peer needs than ours: median and spread of the rounds, beside what is published."""
    mine, theirs = ([one["contexts"][str(length)][what] for one in found[name, precision]] for name in (OURS, peer))
    ratios = sorted(b / a for a, b in zip(mine, theirs))
    ratio, words = statistics.median(ratios), megabytes if what == "memory" else None
    label = {"first": "time to first token", "token": "a token after", "memory": "peak memory at"}[what]
    claimed = PUBLISHED[what] if peer == PHI else None
    return {
        "work": f"{label} {length:,}, {precision}",
        "ratio": factor(ratio),
        "spread": f"{factor(ratios[0])} .. {factor(ratios[-1])} (n={len(ratios)})",
        "published": factor(claimed) if claimed else "",
        "ours took": words(statistics.median(mine)) if words else milliseconds(mine),
        "peer": peer,
        "peer took": words(statistics.median(theirs)) if words else milliseconds(theirs),
        "why": why(sizes, what, length, PRECISIONS[precision], ratio, claimed) if claimed else "",
    }


def why(sizes: Sizes, what: str, length: int, bits: int | None, ratio: float, claimed: float) -> str:
    """Whether the claim holds here, and what the shapes alone would give."""
    ours, theirs = cost(sizes.zamba, length, bits=bits), cost(sizes.phi, length, bits=bits)
    verdict = "holds" if ratio >= claimed else "fails"
    if what == "first":
        shapes = theirs.prefill_flops / ours.prefill_flops
        return (
            f"{verdict}: ours computes {ours.prefill_flops / 1e12:.3g} TFLOP, Phi-3 {theirs.prefill_flops / 1e12:.3g}, "
            f"{factor(shapes)} at equal speed"
        )
    if what == "token":
        shapes = theirs.traffic / ours.traffic
        return (
            f"{verdict}: a token moves {ours.traffic / 1e9:.3g} GB against {theirs.traffic / 1e9:.3g}, {factor(shapes)} at equal "
            f"bandwidth: shared blocks are read at every invocation, {ours.weight_traffic / 1e9:.3g} GB for "
            f"{ours.weight_bytes / 1e9:.3g} stored"
        )
    return (
        f"{verdict}: {percent(1 - 1 / ratio)} less, published 27 %; weights, states, keys and values are {ours.memory / 1e9:.3g} GB "
        f"against {theirs.memory / 1e9:.3g}, {percent(1 - ours.memory / theirs.memory)} less"
    )


def run(quick: bool = False) -> list[dict]:
    if quick:
        return card(Sizes(contexts=(4,), tiny=True), rounds=1, apart=False)
    return card(Sizes(), repeats(3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=float, default=1.0, help="share of both models' layers (1)")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="tokens of the prompts (128 512 1024 4096)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender (3)")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(child(given.once)))
    else:
        print(markdown(card(Sizes(given.depth, tuple(given.contexts)), given.rounds)))
