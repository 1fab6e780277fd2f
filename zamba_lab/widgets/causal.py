"""Panels on what a part is worth: what is changed, and what that does. The numbers are `lens`'s, the pictures `viz`'s."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from zamba_lab import lens, viz
from zamba_lab.model import Zamba
from zamba_lab.widgets.panel import EVERY, Absent, Panel, choice, invocation_names, labels, without_blocks

WORDS = {"ssm": "SSM state", "conv": "convolution's window", "kv": "keys and values"}
MOST = 16  # numbers of a part in one dropdown


def switch_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """The change of each token's loss when an invocation, its adapter or its view of the embeddings is held at its mean over the text."""
    tokens, c = labels(model, ids, tokens), model.config
    if absent := without_blocks(model):
        return absent
    measure = cache(lambda part, where: lens.effect(model, ids, lens.mean(part, where, ids), controls=0))

    def draw(part: str, where: int | str):
        effect = measure(part, None if where == EVERY else where)
        return changed_tokens(
            effect,
            tokens,
            f"mean loss {effect.baseline.mean():.3f} -> {effect.changed.mean():.3f} nats a token; "
            "red: the token got harder to predict, blue: easier",
        )

    places = [("every invocation", EVERY)] + [(name, k) for k, name in enumerate(invocation_names(c))]
    parts = [(part, part) for part in lens.SWITCHED if part in lens.parts(c)]
    return Panel(draw, part=choice("hold at its mean", parts, "which part"), where=choice("at", places, "where"))


def changed_tokens(effect: lens.Effect, tokens: Sequence[str], subtitle: str):
    """The text coloured by an effect on each token's loss; the first token has none."""
    change = torch.cat([torch.full((1,), torch.nan), effect.change[0]])
    return viz.token_effect(change, tokens, effect.name, "change of loss (nats)", subtitle)


def intervention_panel(model: Zamba, ids: Tensor, donor: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """What replacing a part does to the loss of each token.

    donor: (1, l') ids of another text, at least as long, that means and samples are taken from.
    """
    tokens, c = labels(model, ids, tokens), model.config
    parts = [part for part in lens.parts(c) if part not in ("head", "steps")]
    if not parts:
        return Absent("This model has none of the parts that can be replaced here: no mixer with a state and no shared block.")
    ways = {
        "its mean": lambda part, where: lens.mean(part, where, donor),
        "another text's": lambda part, where: lens.resample(part, where, donor),
        "zero": lens.zero,
    }
    measure = cache(lambda part, how, where: lens.effect(model, ids, ways[how](part, where)))

    def draw(part: str, how: str, where: int | str):
        effect = measure(part, how, None if where == EVERY else where)
        means = f"{effect.change.mean():+.3f} nats a token; {effect.control_change.mean():+.3f}"
        return changed_tokens(effect, tokens, f"mean change {means} from random changes of the same size")

    numbers = range(min(MOST, *(lens.count(c, part) for part in parts)))
    return Panel(
        draw,
        part=choice("part", [(part, part) for part in parts], "which part"),
        how=choice("replaced by", [(how, how) for how in ways], "what it is replaced by"),
        where=choice("number", [("every", EVERY)] + [(str(i), i) for i in numbers], "which of them, down the depth"),
    )


def lens_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """What the model would say if it ended at each site."""
    tokens, stream = labels(model, ids, tokens), lens.lens_sites(model.config, added=False)
    sites = {False: stream, True: [site for site in lens.lens_sites(model.config) if site not in stream]}
    read = cache(lambda added: lens.logit_lens(model, ids, sites[added], top=1))

    def draw(added: bool):
        reading = read(added)
        words = [labels(model, best[:, :, 0], None) for best in reading.tokens]
        names = [site.removeprefix("layers.") for site in reading.sites]
        title = f"The logit lens: {'what is added to the stream' if added else 'the stream'}"
        subtitle = "the likeliest next token at each site; the lighter, the closer to what the model says"
        return viz.lens_map(words, reading.divergence[:, 0], tokens, names, title, "KL from the model's own (nats)", subtitle)

    options = [("the stream", False), ("what is added to it", True)]
    return Panel(draw, added=choice("sites", options, "the stream after each layer, or what each mixer and shared block makes"))


def recall_panel(model: Zamba, filler: Tensor, distances: Sequence[int] = (4, 16, 64), count: int = 16) -> Panel:
    """What wiping each memory of each layer costs the recall of a needle, at each distance. filler: (n,) ids."""
    recall = lens.who_remembers(model, filler, distances, count)
    low, high = recall.interval()
    rows, columns = [WORDS[part] for part in recall.parts], [str(depth) for depth in range(model.config.n_layers)]

    def draw(distance: int):
        i = recall.distances.index(distance)
        subtitle = (
            f"its value costs {recall.baseline[i].mean():.2f} nats; had it not been told, {recall.recall[i].mean():+.2f}; "
            f"{count} prompts, bold where the 95 % interval leaves 0 out"
        )
        words = f"Who remembers a needle {distance} tokens back", "memory wiped", "depth", "recall lost (nats)", subtitle
        return viz.table(recall.loss[i].mean(-1), rows, columns, *words, signed=True, low=low[i], high=high[i])

    return Panel(draw, distance=choice("distance", [(f"{d} tokens", d) for d in recall.distances], "between needle and question"))
