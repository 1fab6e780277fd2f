"""The panels of the causal lab: what is changed, and what that does. The numbers are `lens`'s, the pictures `viz`'s."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from zamba_lab import lens, viz
from zamba_lab.model import Zamba
from zamba_lab.widgets.panel import Panel, choice
from zamba_lab.widgets.panels import EVERY, labels

WORDS = {"ssm": "SSM state", "conv": "convolution's window", "kv": "keys and values"}
MOST = 16  # numbers of a part in one dropdown


def lens_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """What the model would say if it ended at each site."""
    tokens = labels(model, ids, tokens)

    @cache
    def reading(added: bool) -> lens.LensReading:
        sites = lens.lens_sites(model.config)
        stream = lens.lens_sites(model.config, added=False)
        return lens.logit_lens(model, ids, [site for site in sites if site not in stream] if added else stream, top=1)

    def draw(added: bool):
        found = reading(added)
        words = [labels(model, best[:, :, 0], None) for best in found.tokens]
        names = [site.removeprefix("layers.") for site in found.sites]
        title = f"The logit lens: {'what is added to the stream' if added else 'the stream'}"
        return viz.lens_map(
            words,
            found.divergence[:, 0],
            tokens,
            names,
            title,
            "KL from the model's own (nats)",
            subtitle="the likeliest next token at each site; the lighter, the closer to what the model says",
        )

    return Panel(
        draw,
        added=choice(
            "sites",
            [("the stream", False), ("what is added to it", True)],
            "the stream after each layer, or what each mixer and shared block makes",
        ),
    )


def intervention_panel(model: Zamba, ids: Tensor, donor: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """What replacing a part does to the loss of each token.

    donor: (1, l') ids of another text, at least as long, that means and samples are taken from.
    """
    tokens, made = (
        labels(model, ids, tokens),
        {
            "off": lambda part, where: lens.zero(part, where),
            "its mean": lambda part, where: lens.mean(part, where, donor),
            "another text's": lambda part, where: lens.resample(part, where, donor),
        },
    )

    @cache
    def effect(part: str, how: str, where: int | None) -> lens.Effect:
        return lens.effect(model, ids, made[how](part, where))

    def draw(part: str, how: str, where: int | str):
        found = effect(part, how, None if where == EVERY else where)
        change = torch.cat([torch.full((1,), torch.nan), found.change[0]])
        return viz.token_effect(
            change,
            tokens,
            found.name,
            "change of loss (nats)",
            subtitle=(
                f"mean change {found.change.mean():+.3f} nats a token; {found.control_change.mean():+.3f} from random changes "
                "of the same size"
            ),
        )

    c = model.config
    parts = [part for part in lens.parts(c) if part not in ("head", "steps")]
    least = min(lens.count(c, part) for part in parts)
    return Panel(
        draw,
        part=choice("part", [(part, part) for part in parts], "which part"),
        how=choice("is", [(how, how) for how in made], "what it is replaced by"),
        where=choice("number", [("every", EVERY)] + [(str(i), i) for i in range(min(least, MOST))], "which of them, down the depth"),
    )


def recall_panel(model: Zamba, filler: Tensor, distances: Sequence[int] = (4, 16, 64), count: int = 16) -> Panel:
    """What wiping each memory of each layer costs the recall of a needle, at each distance. filler: (n,) ids."""
    found = lens.who_remembers(model, filler, distances, count)
    low, high = found.interval()

    def draw(distance: int):
        i = found.distances.index(distance)
        rows, columns = [WORDS[part] for part in found.parts], [str(depth) for depth in range(model.config.n_layers)]
        return viz.table(
            found.loss[i].mean(-1),
            rows,
            columns,
            f"Who remembers a needle {distance} tokens back",
            "wiped",
            "depth",
            "recall lost (nats)",
            signed=True,
            low=low[i],
            high=high[i],
            subtitle=(
                f"its value costs {found.whole[i].mean():.2f} nats; had it not been told, "
                f"{found.recall[i].mean():+.2f}; "
                f"{count} prompts, bold where the 95 % interval leaves 0 out"
            ),
        )

    options = [(f"{d} tokens", d) for d in found.distances]
    return Panel(draw, distance=choice("distance", options, "between needle and question"))
