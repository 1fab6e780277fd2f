"""A small hybrid whose attention looks things up: recall first, then text.

    python -m zamba_lab.recipes.recall_first RUN --corpus CORPUS

On text alone a hybrid of a million parameters learns to do without its shared path (docs/training.md). Here it begins with a task
that attention learns sooner than small SSM states do, and text follows once attention does that task:

    pairs    8 pairs of 64 symbols, then their keys again: half of the symbols are keys, half are values
    roles    the same, but any symbol may be a key or a value
    join     the same, and a fifth of the rows are text
    widen    the same, but three quarters of the sequences of recall have 64 to 2,045 symbols, which is all of the vocabulary
    text     text alone

A pair that comes again is what an induction score rewards: that score is high after `widen` because it was trained for. Whether
text uses the head is asked by replacing it on held-out text (docs/training.md).

Each stage is a run of `train` in a folder of its own; a recipe that was stopped continues where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zamba_lab import corpora, lens
from zamba_lab.checkpoints import save
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.tasks.task import IGNORE, distinct
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.loop import Measure, train
from zamba_lab.train.mixture import Labelled, Mixture
from zamba_lab.train.schedules import Constant, Cosine

# States of 4 and no expansion leave recall to attention at first. A bias of in_proj, so that a constant need not come through the link: not
# tested without.
MODEL = replace(ZambaConfig.preset("zamba2-nano"), d_state=4, expand=1, chunk_size=32, proj_bias=True)
EMBEDDING_GAIN = 3.0  # against init="small": the block reads the stream and the embedding at about the same size
SPECIAL = 3  # the first ids, of padding, start and end: never a symbol
FEW, PAIRS = 64, 8  # symbols of the first two stages; pairs in a sequence
SEQUENCE = 64  # tokens of a sequence of `join` and `widen`, with its start token: several fill a row

FIRST = TrainConfig(
    steps=200,
    batch=48,
    length=48,
    lr=2e-3,
    rates="link=0.3/0.3 mlp_out=0.3/0.3 qk=1/0",
    schedule=Constant(warmup=20),
    max_epochs=None,
    evaluate_every=50,
    checkpoint_every=50,
)
# Cut at start tokens: each sequence of recall is read by itself.
JOIN = replace(FIRST, steps=300, batch=10, length=256, documents=True, evaluate_every=100)
TEXT = replace(JOIN, steps=8000, batch=8, documents=False, schedule=Cosine(warmup=20, final=0.1), max_epochs=1.0, evaluate_every=250)
CONFIGS = FIRST, replace(FIRST, steps=100), JOIN, replace(JOIN, steps=500), TEXT


@dataclass(frozen=True)
class Stage:
    """A run of `train`: its name is its folder's."""

    name: str
    config: TrainConfig
    data: Labelled | Mixture


def stages(text: Mixture, model: ZambaConfig = MODEL, configs: Sequence[TrainConfig] = CONFIGS) -> list[Stage]:
    """The five stages. text: what the last three read, in the model's vocabulary."""
    pairs, roles, join, widen, alone = configs

    def fixed(seed: int, step: int, n: int) -> tuple[Tensor, Tensor]:
        return recall(np.random.default_rng((seed, 0, step)), n, pairs.length, PAIRS, FEW, any_role=False)

    def free(seed: int, step: int, n: int) -> tuple[Tensor, Tensor]:
        return recall(np.random.default_rng((seed, 1, step)), n, roles.length, PAIRS, FEW)

    def mixed(most: int, name: str, config: TrainConfig) -> Stage:
        """A fifth text, the rest recall: a quarter of that of FEW symbols, the other sequences of FEW to `most`."""

        def make(seed: int, step: int, n: int) -> tuple[Tensor, Tensor]:
            rng, read, few = np.random.default_rng((seed, most, step)), n // 5, n // 5
            rows = torch.from_numpy(text.rows(text.windows(step * read, read, config.length, seed), config.length))
            asked = [packed(rng, config.length, FEW, FEW if k < few else most, model.bos_token_id) for k in range(n - read)]
            return torch.cat([rows[:, :-1], *(ids for ids, _ in asked)]), torch.cat([rows[:, 1:], *(labels for _, labels in asked)])

        return Stage(name, config, Labelled(make, config.length, {"task": name, "symbols": most, "pairs": PAIRS} | text.facts()))

    return [
        Stage("pairs", pairs, Labelled(fixed, pairs.length, {"task": "pairs", "symbols": FEW, "pairs": PAIRS})),
        Stage("roles", roles, Labelled(free, roles.length, {"task": "roles", "symbols": FEW, "pairs": PAIRS})),
        mixed(FEW, "join", join),
        mixed(model.vocab_size - SPECIAL, "widen", widen),
        Stage("text", alone, text),
    ]


def packed(rng: np.random.Generator, length: int, least: int, most: int, bos: int) -> tuple[Tensor, Tensor]:
    """One row of recall, (1, length) ids and labels: sequences of SEQUENCE tokens that begin with the start token, each of `least`
    to `most` symbols, log-uniform. length is a multiple of SEQUENCE."""
    ids, labels = [], []
    for symbols in np.exp(rng.uniform(np.log(least), np.log(most), length // SEQUENCE)).astype(int):
        sequence, asked = recall(rng, 1, SEQUENCE, PAIRS, symbols)
        ids += [torch.tensor([[bos]]), sequence[:, :-1]]
        labels += [torch.tensor([[IGNORE]]), asked[:, :-1]]
    return torch.cat(ids, 1), torch.cat(labels, 1)


def recall(rng: np.random.Generator, n: int, length: int, pairs: int, symbols: int, any_role: bool = True) -> tuple[Tensor, Tensor]:
    """Pairs of symbols, then pairs that came before, in random order: (n, length) ids, and labels at the keys seen before.

    any_role: each row draws its keys and its values from all symbols, and no symbol twice; False: keys are of the first half of
    the symbols, values of the second, and two keys may have the same value. length is even, and 2 * pairs <= symbols.
    """
    if any_role:
        keys, values = np.split(distinct(rng, n, 2 * pairs, range(symbols)), 2, axis=1)
    else:
        keys = distinct(rng, n, pairs, range(symbols // 2))
        values = symbols // 2 + rng.integers(0, symbols // 2, (n, pairs))
    again = rng.integers(0, pairs, (n, length // 2 - pairs))
    order = np.concatenate([np.broadcast_to(np.arange(pairs), (n, pairs)), again], axis=1)
    ids = np.empty((n, length), dtype=np.int64)
    ids[:, 0::2] = SPECIAL + np.take_along_axis(keys, order, 1)
    ids[:, 1::2] = SPECIAL + np.take_along_axis(values, order, 1)
    labels = np.full((n, length), IGNORE)
    labels[:, 2 * pairs :: 2] = ids[:, 2 * pairs + 1 :: 2]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def start(config: ZambaConfig = MODEL, seed: int = 0) -> Zamba:
    """The model before its first step."""
    torch.manual_seed(seed)
    model = Zamba(config)
    with torch.no_grad():
        model.embedding.weight.mul_(EMBEDDING_GAIN)
    return model


def follow(model: Zamba, plan: Sequence[Stage], run: Path, **more) -> Zamba:
    """Train through the stages, each from the one before. run: folder of their folders. more: arguments of `train`."""
    before = None
    for stage in plan:
        train(model, stage.data, stage.config, run / stage.name, branch_from=before, **more)
        before = run / stage.name
    return model


def probe(tokens: np.ndarray, windows: int = 8, length: int = 256) -> Measure:
    """What an evaluation adds to its row: the best head's induction score, and by how much each invocation at its mean, and all of
    them, raise the loss of held-out text, in nats a token. tokens: (n,) ids, of which `windows` are read, evenly spread."""
    starts = np.linspace(0, len(tokens) - length, windows).astype(int)
    text = torch.from_numpy(np.stack([tokens[start : start + length] for start in starts]).astype(np.int64))

    def measure(model: Zamba, step: int) -> dict[str, float]:
        effects = [effect for effect in lens.switch_off_each(model, text, "mean") if "invocation" in effect.name]
        worth = {effect.name.removesuffix(" at its mean"): float(effect.change.mean()) for effect in effects}
        return {"induction": float(lens.head_scores(model, lens.repeated_tokens(model)).induction.max())} | worth

    return measure


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zamba_lab.recipes.recall_first", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder for the five runs; what is there is continued")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="what `zamba-lab corpus` made, of 2,048 tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of all that is drawn (0)")
    parser.add_argument("--steps", type=int, default=TEXT.steps, help=f"of the last stage, {TEXT.batch * TEXT.length} tokens each")
    arguments = parser.parse_args(argv)
    corpus = corpora.load(arguments.corpus)
    model = start(seed=arguments.seed)
    model.tokenizer = corpus.tokenizer
    configs = [replace(config, seed=arguments.seed) for config in (*CONFIGS[:-1], replace(TEXT, steps=arguments.steps))]
    plan = stages(Mixture.of(corpus), configs=configs)
    held = corpus.packed("validation")
    follow(model, plan, arguments.run, measure=probe(held.tokens), validation=held)
    save(model, arguments.run / "model")
    print(f"the model is in {arguments.run / 'model'}; look at it: zamba-lab specimen {arguments.run / 'model'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
