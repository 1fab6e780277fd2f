"""Panels on what a model does with a text: its states, its attention, its mixers. Numbers are `lens`'s, pictures `viz`'s.

Each takes a model, (1, l) token ids, and labels for the tokens if the model has no tokenizer. What a model lacks is an `Absent`.
"""

from collections.abc import Sequence
from functools import cache

from einops import rearrange
from torch import Tensor

from zamba_lab import lens, viz
from zamba_lab.config import block_name
from zamba_lab.model import Zamba
from zamba_lab.widgets.panel import (
    EVERY,
    Absent,
    Panel,
    block_choice,
    choice,
    invocation_names,
    labels,
    slider,
    without_blocks,
    without_states,
)

SOURCES = {  # the half of [x, x0] that the query and the key are made of
    "query from stream, key from stream": (0, 0),
    "query from stream, key from embedding": (0, 1),
    "query from embedding, key from stream": (1, 0),
    "query from embedding, key from embedding": (1, 1),
}
MOST = 8  # maps side by side
POINTS = {"the block's output": "mlp_out", "the attention's output": "attn_out", "the link's output": "link_out"}


def states_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """The norm of one head's SSM state after every token, at every depth."""
    tokens = labels(model, ids, tokens)
    if absent := without_states(model):
        return absent
    norms = lens.state_norms(model, ids)[:, 0]  # (i, l, h)
    words = dict(value_label="norm of the state", subtitle="how much each layer's state holds after each token")
    return by_depth(norms, tokens, "SSM state norm", words)


def dimensions_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """Over how many directions one head's state is spread after every token, at every depth."""
    tokens = labels(model, ids, tokens)
    if absent := without_states(model):
        return absent
    ratios = lens.state_dimensions(model, ids)[:, 0]  # (i, l, h)
    most = min(model.config.headdim, model.config.d_state)
    subtitle = f"how many directions the state is spread over; there is room for {most}"
    return by_depth(ratios, tokens, "Directions in the state", dict(value_label="participation ratio", subtitle=subtitle))


def by_depth(values: Tensor, tokens: Sequence[str], title: str, words: dict) -> Panel:
    """A map of (depth, token, head) values over tokens and depth, a head at a time, all on one scale."""
    depths, top = [str(i) for i in range(len(values))], float(values.max())

    def draw(head: int):
        return viz.heatmap(values[:, :, head], tokens, depths, f"{title}, head {head}", top=top, **words)

    return Panel(draw, head=slider("head", values.shape[-1], "which SSM head of every layer"))


def decay_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """The half-life of every head's state in one layer, and of one head along the text."""
    tokens = labels(model, ids, tokens)
    if absent := without_states(model):
        return absent
    half_lives = lens.decay(model, ids).half_life[:, 0]  # (i, l, h)
    subtitle = "after how many tokens like this one a head's state would have halved"

    def draw(depth: int, head: int):
        return viz.half_life_ranges(half_lives[depth], tokens, head, f"Half-lives at depth {depth}", subtitle)

    return Panel(draw, depth=slider("depth", len(half_lives), "which layer"), head=slider("head", half_lives.shape[-1], "which SSM head"))


def contents_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """What one head's state after one token is made of, token by token."""
    tokens, c = labels(model, ids, tokens), model.config
    if absent := without_states(model):
        return absent
    contents = cache(lambda depth, after: lens.contents(model, ids, depth, after))

    def draw(depth: int, head: int, after: int):
        title = f"In the state of head {head}, depth {depth}, after token {after}"
        subtitle = "what is left of what each token wrote; shares sum to 1"
        return viz.token_effect(contents(depth, after).share[0, head], tokens[: after + 1], title, "share of the state", subtitle)

    return Panel(
        draw,
        depth=slider("depth", c.n_layers, "which layer"),
        head=slider("head", c.ssm_heads, "which SSM head"),
        after=slider("after token", len(tokens), "the token after which to look", value=len(tokens) - 1),
    )


def mixer_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """One layer's mixer as attention: what each token adds to each token's output, by one head and by all."""
    tokens, c = labels(model, ids, tokens), model.config
    if absent := without_states(model):
        return absent
    matrix = cache(lambda depth: lens.mixer_matrix(model, ids, depth))
    shares = cache(lambda depth: matrix(depth).shares()[0])
    coverage = cache(lambda depth: lens.coverage(model, ids, depth))

    def draw(depth: int, head: int):
        subtitle = (
            "convolution, skip and gate included; the shares of a row sum to 1 over all heads. "
            f"The factors rebuild the output to {matrix(depth).error:.0e}; of its whole derivative they have a cosine of "
            f"{coverage(depth).cosine:.2f} and a difference of {coverage(depth).difference:.2f}"
        )
        maps = [shares(depth)[head].tolist(), shares(depth).sum(0).tolist()]
        words = dict(value_label="share of the output", signed=True, subtitle=subtitle)
        return viz.attention_grid(maps, tokens, [f"head {head}", "all heads"], f"The mixer of depth {depth} as attention", **words)

    return Panel(draw, depth=slider("depth", c.n_layers, "which layer"), head=slider("head", c.ssm_heads, "which SSM head"))


def attention_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """The attention of one shared block at each of its invocations: all heads at a glance, or one."""
    tokens, c = labels(model, ids, tokens), model.config
    if absent := without_blocks(model):
        return absent
    maps = [lens.attention_by_invocation(model, ids, block) for block in range(c.n_shared_blocks)]

    def draw(block: int, head: int | str):
        some, own = maps[block], f"Block {block_name(block)}"
        heads, subtitle = range(c.attn_heads) if head == EVERY else [head], "a row is a token, its colours are the tokens it reads"
        places = [f"invocation {k}" + f", depth {i}" * (head != EVERY) for k, i in zip(some.invocations, some.depths)]
        names = [place + f", head {h}" * (head == EVERY) for h in heads for place in places]
        probs = rearrange(some.probs[:, 0, list(heads)], "k h l s -> (h k) l s")
        title = f"{own}, every attention head" if head == EVERY else f"{own}, attention head {head}"
        return viz.attention_grid(probs, tokens, names, title, subtitle, across=min(MOST, len(some.invocations)))

    options = [("all", EVERY)] + [(str(h), h) for h in range(c.attn_heads)]
    return Panel(draw, block=block_choice(c), head=choice("head", options, "which attention head"))


def drift_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """One shared block with the input of each of its invocations and the adapters of each."""
    labels(model, ids, tokens)
    if absent := without_blocks(model):
        return absent
    drift, names = cache(lambda block, point: lens.drift(model, ids, block, POINTS[point])), invocation_names(model.config)

    def draw(block: int, point: str):
        table = drift(block, point)
        total = float(table.total.sum()) or 1.0
        inputs, adapters, both = (100 * float(part.sum()) / total for part in (table.inputs, table.adapters, table.both))
        own = [name for name, owner in zip(names, model.config.blocks_by_invocation) if owner == block]
        subtitle = (
            f"what differs between all cells: {inputs:.0f} % by the input, {adapters:.0f} % by the adapters"
            f"{' and the link' if POINTS[point] == 'link_out' else ''}, {both:.0f} % by both together"
        )
        title = f"Block {block_name(block)} with other adapters: {point}"
        return viz.table(
            table.distance[..., 0],
            own,
            [name.split(" of")[0] for name in own],
            title,
            "input of",
            "adapters of",
            "relative change",
            subtitle,
        )

    return Panel(
        draw, block=block_choice(model.config), point=choice("look at", [(point, point) for point in POINTS], "where in the block")
    )


def xray_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel | Absent:
    """One head's attention scores in four parts: query and key from the stream or from the embedding."""
    tokens, c = labels(model, ids, tokens), model.config
    if absent := without_blocks(model):
        return absent
    if not c.concat_embedding:
        return Absent("This model's shared blocks do not read the token embeddings: there is nothing to take apart here.")
    scores = cache(lambda invocation: lens.score_parts(model, ids, invocation))
    names = invocation_names(c)

    def draw(invocation: int, head: int):
        maps = [scores(invocation).parts[q, k, 0, head].tolist() for q, k in SOURCES.values()]
        subtitle = "before the softmax; the four sum to the score, adapters and rotation included"
        title = f"Scores of head {head}, {names[invocation]}"
        return viz.attention_grid(maps, tokens, list(SOURCES), title, subtitle, "part of the score", signed=True)

    places = slider("invocation", c.n_invocations, "which invocation of a shared block")
    return Panel(draw, invocation=places, head=slider("head", c.attn_heads, "which attention head"))
