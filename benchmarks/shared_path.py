"""Whether the shared path of a small hybrid says something about the text, by how training begins and by its rates.

A hybrid of zamba2-nano's depth, with states so small that its mixers remember little, reads programs of the installed packages. Each
row is an arm and an invocation: RMS(link out) / RMS(stream); the share of link out's energy that lies in its mean over the text (1: a
constant vector); and what the invocation is worth, the rise of the next-token loss with link out at its mean, over windows of packages
that are not trained on. The last row of an arm has all invocations together, and its loss.

Arms differ in one thing from the first: keys that begin as copies of queries ("matching"), or the rates that keep link out from
outgrowing the stream.
"""

from dataclasses import replace

import numpy as np
import torch

import zamba_lab as zl
from zamba_lab import corpora, lens
from zamba_lab.train.batches import micro_batches
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.schedules import Cosine
from zamba_lab.train.step import adamw, train_step

STEPS, WINDOWS, WINDOW, TOKENS = 300, 16, 256, 1_000_000
# fmt: off
MATCHING = replace(
    zl.ZambaConfig.preset("zamba2-nano"), d_state=4, expand=1, chunk_size=32, rope_theta=None, init="matching", link_gain=0.3,
)
# fmt: on
KEPT = "link=0.15/1 mlp_out=0.15/1 qk=0.5/0 vo=0.5/0.3"
ARMS = {
    "matching, rates": (MATCHING, KEPT),
    "small, rates": (replace(MATCHING, init="small"), KEPT),
    "matching, one rate": (MATCHING, ""),
    "matching, rotary, rates": (replace(MATCHING, rope_theta=10_000.0), KEPT),
}


def tokens(documents, count: int) -> np.ndarray:
    """The first `count` tokens of documents, each behind its start token, in zamba2-nano's vocabulary."""
    tokenizer, ids = zl.load("zamba2-nano").tokenizer, []
    for document in documents:
        ids += tokenizer.encode(document.text)
        if len(ids) >= count:
            break
    return np.array(ids[:count], dtype=np.uint16)


def trained(config: zl.ZambaConfig, rates: str, text: np.ndarray, seed: int, steps: int) -> zl.Zamba:
    torch.manual_seed(seed)
    model = zl.Zamba(config)
    # fmt: off
    plan = TrainConfig(
        steps=steps, batch=8, length=128, lr=3e-3, rates=rates, schedule=Cosine(warmup=min(50, steps // 2), final=0.5), max_epochs=None,
        seed=seed,
    )
    # fmt: on
    optimiser, mixture = adamw(model, plan), Mixture({"code": text})
    for step in range(steps):
        train_step(model, optimiser, micro_batches(mixture, step, plan, 1), plan.lr_at(step), plan.clip)
    return model.eval()


@torch.no_grad()
def measured(model: zl.Zamba, held: torch.Tensor) -> list[dict[str, str]]:
    """A row an invocation, and one for all. held: (b, l) ids."""
    ratios, constant = lens.link_ratios(model, held), lens.constant_shares(model, held)
    rows = []
    for effect in lens.switch_off_each(model, held, "mean"):
        if not effect.name.startswith("invocation"):
            continue
        low, high = effect.interval()
        row = {"part": effect.name, "worth by the mean": f"{effect.change.mean():+.3f} ({low:+.3f} to {high:+.3f})"}
        k = len(rows)
        if k < model.config.n_invocations:
            row["link / stream"], row["constant share"] = f"{ratios[k]:.2f}", f"{constant[k]:.2f}"
        else:
            row["loss"] = f"{effect.baseline.mean():.3f}"
        rows.append(row)
    return rows


def run(quick: bool = False) -> list[dict[str, str]]:
    steps, seeds = (2, (0,)) if quick else (STEPS, (0, 1))
    source = corpora.Installed(packages=("click", "Jinja2")) if quick else corpora.Installed()
    text = tokens(_shuffled(source.documents("train")), 3000 if quick else TOKENS)
    held = tokens(_shuffled(source.documents("test")), WINDOWS * WINDOW * 4)
    windows = torch.from_numpy(held.astype(np.int64)).view(WINDOWS, -1)[: 2 if quick else WINDOWS, :WINDOW]
    rows = []
    for name, (config, rates) in ARMS.items():
        for seed in seeds:
            rows += [{"arm": name, "seed": str(seed)} | row for row in measured(trained(config, rates, text, seed, steps), windows)]
    return rows


def _shuffled(documents):
    """In the order of a fixed draw, so that the first tokens are of many packages."""
    documents = list(documents)
    return (documents[k] for k in np.random.default_rng(0).permutation(len(documents)))
