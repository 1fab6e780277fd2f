"""The pages of an atlas that look: the figures, and what they say of each layer and invocation. `experiments` has those that change.

A page is a function of `Material` to a `Page`, or to None where the model lacks the part. Numbers come from `lens`, `specimens` and
`accounting`, pictures from `viz`; every figure stands with its units, interval and call.
"""

from dataclasses import dataclass, field, replace

import torch

from zamba_lab import lens, viz
from zamba_lab.accounting import cost, crossover
from zamba_lab.atlases.material import Material
from zamba_lab.config import ZambaConfig, block_name
from zamba_lab.lens.parts import attention_depths, attention_path
from zamba_lab.specimens.heads import attention

MAPS = 64  # maps drawn at most
HEAD = "head {head}: token before {previous:.3f}, same token {duplicate:.3f}, induction {induction:.3f}; spreads over {tokens:.1f} tokens"
CONTEXTS = [2**power for power in range(7, 20)]


@dataclass
class Page:
    """Blocks of {"figure" or "html", "caption", "call"}, and sentences by part: "layer.3", "invocation.1"."""

    title: str
    intro: str
    blocks: list[dict] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=dict)

    def show(self, picture, caption: str, call: str) -> None:
        shown = {"html": picture.html} if isinstance(picture, viz.Drawing) else {"figure": picture.to_json()}
        self.blocks.append(shown | {"caption": caption, "call": call})

    def say(self, part: str, sentence: str) -> None:
        self.facts.setdefault(part, []).append(sentence)


def plan(m: Material) -> Page:
    """The depth diagram."""
    c, norms = m.model.config, {name: rms[0].tolist() for name, rms in lens.stream_norms(m.model, m.drawn).items()}
    page = Page(
        "Depth", f"{c.n_params:,} parameters in {c.n_layers} layers of {c.mixer}. Point at a part: what is known of it stands below."
    )
    drawing = viz.depth_diagram(c, m.name, "the widths of the arrows are the model's own, at one token", m.tokens, norms)
    page.show(
        drawing,
        "One text; exact for these weights.",
        "viz.depth_diagram(model.config, name, tokens=tokens, norms=lens.stream_norms(model, ids))",
    )
    return page


def heads(m: Material) -> Page | None:
    """Every head's maps on one text, and what each looks for."""
    c, depths = m.model.config, attention_depths(m.model.config)
    if not depths:
        return None
    page = Page("Attention heads", "Every head of every invocation: where it reads on one text, and what it looks for.")
    points = [f"{attention_path(c, a)}.attn_probs" for a in range(len(depths))]
    trace = lens.run(m.model, m.drawn, keep=points)
    maps = torch.stack([trace[point][0] for point in points], 1).flatten(0, 1)[:MAPS]  # (h a, l, s): a row of maps for each head
    labels = [f"{place_of(c, a)}, head {h}" for h in range(c.attn_heads) for a in range(len(depths))][:MAPS]
    words = "Every head", f"the first {len(labels)} maps" * (len(labels) == MAPS)
    grid = viz.attention_grid(maps, m.tokens, labels, *words, across=min(12, len(depths)))
    caption = f"One text of {len(m.tokens)} tokens; click a map, or choose it, to see it large."
    page.show(grid, caption, f"lens.run(model, ids, keep={[points[0], '...']})")
    scores(m, page)
    return page


def scores(m: Material, page: Page) -> None:
    """What each head looks for, and what is said of it."""
    c = m.model.config
    strings = lens.repeated_tokens(m.model, m.size.string, m.size.strings, m.seed)
    found = attention(m.model, strings, m.ids)
    kinds = ("previous", "duplicate", "induction", "entropy_over_even")
    table = [[row[kind] for row in found["heads"]] for kind in kinds]
    even = ", ".join(f"{name} {value:.3f}" for name, value in found["even"].items())
    columns = [f"{row['attention']}.{row['head']}" for row in found["heads"]]
    rows = ["token before", "same token", "induction", "entropy over even"]
    words = "What each head looks for", "score", "attention and head", "mean weight", f"an even head has {even}; entropy 1"
    figure = viz.table(table, rows, columns, *words, top=1)
    caption = (
        f"Means over {m.size.strings} random strings of {m.size.string} tokens, each read twice; entropy over {len(m.ids)} documents. "
        "A score says where a head looks, not that it matters: that is on the next page."
    )
    page.show(figure, caption, f"lens.head_scores(model, lens.repeated_tokens(model, {m.size.string}, {m.size.strings}, {m.seed}))")
    for k, share in enumerate(found["constant_share_of_link_out"]):
        page.say(f"invocation.{k}", f"{share:.1%} of what its link gives, in energy, is one constant vector ({len(m.ids)} documents)")
    for row in found["heads"]:
        part = f"invocation.{row['attention']}" if c.n_invocations else f"layer.{row['attention']}"
        page.say(part, HEAD.format(**row))


def place_of(c: ZambaConfig, a: int) -> str:
    return f"invocation {a}" if c.n_invocations else f"layer {a}"


def states(m: Material) -> Page | None:
    """How long each head's state lasts and how large it is."""
    c = m.model.config
    if c.mixer == "attention":
        return None
    page = Page("States and half-lives", "A state that is written to no more halves in so many tokens; what stands in it after each token.")
    logs = lens.decay(m.model, m.ids).half_life.double().log().mean(2)  # (i, b, h): of each document
    low, high = (end.exp() for end in lens.bootstrap(logs.transpose(0, 1)))
    middle, depths, columns = logs.mean(1).exp(), [str(i) for i in range(c.n_layers)], [str(h) for h in range(logs.shape[-1])]
    words = (
        "Half-life of each head's state",
        "depth",
        "head",
        "half-life (tokens)",
        "by the formula ln 2 / (dt |A|), geometric mean over tokens",
    )
    top = float(middle.double().quantile(0.95))
    figure = viz.table(middle, depths, columns, *words, top=top, low=low, high=high)
    page.show(
        figure,
        f"{len(m.ids)} documents of {m.ids.shape[1]} tokens; 95 % bootstrap interval over documents in the hover text.",
        "lens.decay(model, ids).half_life",
    )
    norms = lens.state_norms(m.model, m.drawn)[:, 0].mean(-1)
    figure = viz.heatmap(
        norms, m.tokens, depths, "How much each layer's state holds", value_label="norm of the state", subtitle="mean over heads"
    )
    page.show(figure, f"One text of {len(m.tokens)} tokens; exact.", "lens.state_norms(model, ids)")
    for i in range(c.n_layers):
        page.say(
            f"layer.{i}",
            f"half-lives of its heads: {', '.join(f'{v:.3g}' for v in middle[i].tolist()[:16])} tokens (n = {len(m.ids)} documents)",
        )
    return page


def adapters(m: Material) -> Page | None:
    """What each invocation's own matrices are."""
    c = m.model.config
    parts = lens.lora_parts(c)
    if not parts:
        return None
    page = Page("Adapters", "What lets one invocation of a block differ from another.")
    labels = [f"invocation {k} of block {block_name(block)}" for k, block in enumerate(c.blocks_by_invocation)]
    for part in parts:
        change = lens.lora_change(m.model, part)
        figure = viz.bars(
            change.norm, labels, f"How large the adapters on {part} are", "norm of the change / norm of the shared matrix", "adapter of"
        )
        page.show(figure, "Of the weights alone: exact, no interval.", f"lens.lora_change(model, {part!r}).norm")
        for k, norm in enumerate(change.norm.tolist()):
            page.say(f"invocation.{k}", f"its adapter on {part}: {norm:.3f} of the shared matrix's norm")
        pairs = torch.combinations(torch.arange(min(4, c.n_invocations)))
        if len(pairs):
            overlaps = torch.stack([change.reads[i, j] for i, j in pairs])
            words = [f"invocations {i} and {j}" for i, j in pairs.tolist()], change.random_reads(), f"What two adapters on {part} both read"
            page.show(
                viz.principal_angles(overlaps, *words),
                "Of the weights alone; the band is that of random subspaces.",
                f"lens.lora_change(model, {part!r}).reads",
            )
    return page


def concat(m: Material) -> Page | None:
    """Which half of [x, x0] moves the attention."""
    c = m.model.config
    if not (c.n_invocations and c.concat_embedding):
        return None
    page = Page("Stream and embeddings", "Each invocation reads the stream beside the token embeddings. Which half moves its attention?")
    shares = lens.concat_shares(m.model, m.ids).scores.mean(-1).flatten(0, 1)  # (4, k, b)
    low, high = lens.bootstrap(shares.movedim(-1, 0))
    rows = [f"query: {q}, key: {k}" for q in ("stream", "embedding") for k in ("stream", "embedding")]
    words = "What moves the attention", "source", "invocation", "share of the scores' variation"
    figure = viz.table(shares.mean(-1), rows, [str(k) for k in range(c.n_invocations)], *words, signed=True, low=low, high=high)
    page.show(
        figure,
        f"Mean over heads and {len(m.ids)} documents; 95 % bootstrap intervals over documents in the hover text.",
        "lens.concat_shares(model, ids).scores",
    )
    return page


def costs(m: Material) -> Page:
    """What the model costs beside a transformer of its size."""
    c, page = m.model.config, Page("Costs", "By formula; tests hold the formulas to built models.")
    rivals = {m.name or "this model": c}
    if c.mixer != "attention":
        rivals["a transformer of its size"] = transformer(c)
    for what, title in (("memory", "Weights, states, keys and values"), ("traffic", "What a decoded token reads and writes")):
        lines = {name: (CONTEXTS, [getattr(cost(one, n), what) / 1e6 for n in CONTEXTS]) for name, one in rivals.items()}
        note = ""
        if len(rivals) == 2:
            at = crossover(c, transformer(c), what)
            note = f"less than the transformer's from {at:,} tokens on" if at else "never less than the transformer's up to 2^20 tokens"
        figure = viz.curves(lines, title, "context (tokens)", "MB in bfloat16", note)
        figure.update_xaxes(type="log").update_yaxes(type="log")
        page.show(figure, "By formula: exact, no interval. Both axes are logarithmic.", f"zl.cost(model.config, context).{what}")
    return page


def transformer(c: ZambaConfig) -> ZambaConfig:
    """A transformer of the config's width and vocabulary whose number of layers brings it nearest in parameters."""
    head = dict(attn_head_dim=None, attn_heads=max(1, c.d_model // 64), attn_kv_heads=None, d_mlp=4 * c.d_model)
    bare = replace(c, mixer="attention", n_shared_blocks=0, hybrid_layers=(), block_order=None, lora_rank=0, lora_rank_qkv=0, **head)
    one, two = (replace(bare, n_layers=layers).n_params for layers in (1, 2))
    return replace(bare, n_layers=max(1, round(1 + (c.n_params - one) / (two - one))))
