"""Whether a tiny hybrid learns to recall, and how soon, by the scale of its link: the initialisations side by side.

Multi-query associative recall (Arora et al. 2023, "Zoology"): 4 keys with their values, then the keys again in random
order; the model is scored on the value after each repeated key. 64 symbols, 32 tokens, data never repeated. Chance is
1/32; a model that knows which values were shown but not to which key they belong reaches 1/4. Two layers, one
invocation.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

import zamba_lab as zl

PAIRS, VOCAB, LENGTH = 4, 64, 32
# fmt: off
CONFIG = zl.ZambaConfig(
    vocab_size=VOCAB, d_model=32, n_layers=2, headdim=32, d_state=16, hybrid_layers=(1,), n_shared_blocks=1, attn_heads=2, d_mlp=128,
    lora_rank=4, tie_embeddings=False,
)
# fmt: on
ARMS = {
    "small, link_gain 8": CONFIG,
    "small, link_gain 1": replace(CONFIG, link_gain=1.0),
    "authors": replace(CONFIG, init="authors"),
    "reference": replace(CONFIG, init="reference"),
}


def recall_batch(generator: torch.Generator, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (b, LENGTH); targets (b, LENGTH), -100 where nothing is asked. Keys are 1..31, values 32..63, filler 0."""
    keys = torch.rand(size, VOCAB // 2 - 1, generator=generator).argsort(1)[:, :PAIRS] + 1
    values = torch.randint(VOCAB // 2, VOCAB, (size, PAIRS), generator=generator)
    ids, targets = torch.zeros(size, LENGTH, dtype=torch.long), torch.full((size, LENGTH), -100)
    ids[:, 0 : 2 * PAIRS : 2], ids[:, 1 : 2 * PAIRS : 2] = keys, values
    asked = torch.rand(size, LENGTH - 2 * PAIRS, generator=generator).argsort(1)[:, :PAIRS] + 2 * PAIRS
    ids.scatter_(1, asked, keys)
    targets.scatter_(1, asked, values)
    return ids, targets


def accuracy(model: zl.Zamba, generator: torch.Generator) -> float:
    ids, targets = recall_batch(generator, 512)
    with torch.no_grad():
        return (model(ids).argmax(-1) == targets)[targets >= 0].double().mean().item()


def train(config: zl.ZambaConfig, seed: int, steps: int) -> tuple[float, int | None, float]:
    """Final accuracy on new data, the step at which it first passed 99 %, and RMS(link out) / RMS(stream) at start."""
    torch.manual_seed(seed)
    model, generator = zl.Zamba(config), torch.Generator().manual_seed(seed)
    trace = zl.Trace(keep=["invocation.0.link_out", "layers.1.resid_in"])
    model(recall_batch(generator)[0], trace=trace)
    link, stream = trace["invocation.0.link_out"], trace["layers.1.resid_in"]
    heard = (link.square().mean() / stream.square().mean()).sqrt().item()
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = 6e-3 * min(1.0, step / 100)
        ids, targets = recall_batch(generator)
        F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 0 and accuracy(model, generator) >= 0.99:
            return accuracy(model, generator), step, heard
    return accuracy(model, generator), None, heard


def run(quick: bool = False) -> list[dict[str, str]]:
    seeds, steps = ((0,), 4) if quick else ((0, 1, 2), 800)
    rows = []
    for name, config in ARMS.items():
        results = [train(config, seed, steps) for seed in seeds]
        rows.append(
            {
                "initialisation": name,
                "link / stream": ", ".join(f"{heard:.3f}" for *_, heard in results),
                "accuracy on new data": ", ".join(f"{acc:.1%}" for acc, _, _ in results),
                "steps to 99 %": ", ".join("-" if at is None else str(at) for _, at, _ in results),
                "seeds": ", ".join(map(str, seeds)),
                "steps at most": str(steps),
            }
        )
    return rows
