"""The depth of a hybrid as a picture: one stream of layers, the invocations of a few shared blocks, and what decoding carries.

A drawing, not a plotly figure: HTML that shows itself in a notebook or in a page. Its ink is the page's, its code is `depth.js`.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from zamba_lab.config import ZambaConfig, block_name
from zamba_lab.config.cost import adapter_params, attention_params, mixer_params, mlp_params
from zamba_lab.viz.labels import CONTROL
from zamba_lab.viz.theme import SERIES

LEFT, WIDTH = 84, 700  # pixels before the first layer, and of all layers
X0, BLOCKS, STREAM, FOOT = 34, 92, 184, 300  # heights of the rows: embeddings, blocks, layers, foot of the bars
TALL = 62  # pixels of the highest bar
CONTEXTS = (4, 12, 20)  # powers of two: the least context that can be chosen, the first one shown, the greatest
LAYER = "#b4c0cb"
TIP = " marker-end='url(#zl-tip)'"


@dataclass(frozen=True)
class Drawing:
    """HTML that a notebook shows; `html` is what a page takes."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def depth_diagram(
    config: ZambaConfig,
    title: str,
    subtitle: str = "",
    tokens: Sequence[str] = (),
    norms: Mapping[str, Sequence[float]] | None = None,
    itemsize: int = 4,
) -> Drawing:
    """Depth from left to right: the layers on their stream, each invocation above the layer it feeds, below them what decoding carries.

    Pointing at a part, or reaching it by the tab key, says its shapes and lights up all invocations of its block. With tokens and
    norms the arrows are as wide as what flows along them at one token; arrow keys go from token to token and down the depth.

    Args:
        tokens: one label for each position. norms: trace point -> (token,) RMS, as `lens.stream_norms` finds them.
        itemsize: bytes of a number of the keys, values and windows; states are in float32 or wider.

    Raises ValueError if norms do not have one number for each token.
    """
    norms = {name: [float(value) for value in values] for name, values in (norms or {}).items()}
    for name, values in norms.items():
        if len(values) != len(tokens):
            raise ValueError(f"norms need one number for each token: got {len(values)} of {name}, {len(tokens)} tokens")
    parts, edges = parts_of(config, itemsize), edges_of(config)
    shown = [str(token).translate(str.maketrans(CONTROL)).encode("utf-8", "replace").decode() for token in tokens]
    data = dict(parts=parts, edges=edges, tokens=shown, norms=norms, foot=FOOT, tall=TALL, contexts=CONTEXTS, last=config.n_layers)
    name = f"zl-depth-{secrets.token_hex(4)}"
    style, code = ((files("zamba_lab.viz") / f"depth.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # No `<` in the script: a token cannot end it.
    argument = json.dumps(data).replace("<", "\\u003c").replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    heading = f"<b>{escape(title)}</b>" + (f"<div class='zl-quiet'>{escape(subtitle)}</div>" if subtitle else "")
    return Drawing(
        f"<div class='zl-depth' id='{name}'><style>{style}</style>{heading}{svg(config, parts, edges)}"
        f"<div class='zl-said' aria-live='polite'></div><div class='zl-controls'></div><div class='zl-tokens'></div></div>"
        f"<script>({code})(document.getElementById('{name}'), {argument})</script>"
    )


def place(config: ZambaConfig, depth: float) -> float:
    """The middle of a layer, in pixels."""
    return round(LEFT + (depth + 0.5) * WIDTH / config.n_layers, 1)


def parts_of(c: ZambaConfig, itemsize: int) -> list[dict]:
    """Every box: where, its name and block, what is said of it, bytes that it carries whatever the context and for each token."""
    kv, alone = 2 * c.kv_heads * c.head_dim * itemsize, c.mixer == "attention"
    state = 0 if alone else c.d_inner * c.d_state * max(4, itemsize) + c.conv_state * c.conv_dim * itemsize
    look = dict(w=min(46.0, 0.68 * WIDTH / c.n_layers))
    layer = f"{layer_words(c)}; {kv if alone else state:,} bytes of " + ("keys and values a token" if alone else "state")
    carried = dict(fixed=state, token=kv if alone else 0)
    found = [
        dict(
            x=place(c, i), y=STREAM, name=str(i), key=f"layer.{i}", block=None, stage=i + 1, words=f"depth {i}: {layer}", **look, **carried
        )
        for i in range(c.n_layers)
    ]
    for k, (i, block) in enumerate(zip(c.hybrid_layers, c.blocks_by_invocation)):
        words = f"invocation {k} of block {block_name(block)}, at depth {i}: {block_words(c)}; {kv:,} bytes of keys and values a token"
        box = dict(x=place(c, i), y=BLOCKS, name=block_name(block), key=f"invocation.{k}", block=block, stage=i + 1)
        found.append(dict(**box, words=words, fixed=0, token=kv, **look))
    return found


def attention_words(c: ZambaConfig) -> str:
    fewer = f", {c.kv_heads} of keys and values" if c.kv_heads != c.attn_heads else ""
    return f"attention of {c.attn_heads} heads of {c.head_dim}{fewer}, an MLP {c.d_mlp} wide"


def layer_words(c: ZambaConfig) -> str:
    """What every layer is."""
    if c.mixer == "attention":
        return f"{attention_words(c)}, {attention_params(c) + mlp_params(c):,} parameters"
    return (
        f"{c.mixer} mixer, {c.d_model} → {c.d_inner} → {c.d_model}, {mixer_params(c):,} parameters; "
        f"state {c.ssm_heads} heads × {c.headdim} × {c.d_state}, window {c.conv_state} × {c.conv_dim}"
    )


def block_words(c: ZambaConfig) -> str:
    """What every invocation is."""
    ranks = [f"rank {rank} on {where}" for rank, where in ((c.lora_rank, "the MLP"), (c.lora_rank_qkv, "queries, keys and values")) if rank]
    adapter = f"an adapter of its own ({' and '.join(ranks)}, {adapter_params(c):,} parameters)" if ranks else "no adapter"
    reads = f"[x, x0], {c.d_attn} wide" if c.concat_embedding else f"x, {c.d_model} wide"
    into = "the input of the mixer" if c.link_into == "mixer" else "the stream before the mixer"
    shared = f"{attention_words(c)} ({attention_params(c) + mlp_params(c):,} shared parameters)"
    return f"reads {reads}; {shared}, {adapter}; its link, {c.d_model} × {c.d_model}, leads into {into}"


def edges_of(c: ZambaConfig) -> list[dict]:
    """Every arrow: its path, the trace point whose norm it carries, the block it belongs to, at which step of the depth it is."""
    half, above, step = 15, BLOCKS + 15, WIDTH / c.n_layers
    found = [dict(path=f"M{LEFT - 42},{STREAM} H{place(c, 0) - step / 2:.1f}", point="embed", block=None, stage=0)]
    for depth in range(c.n_layers):
        x = place(c, depth)
        path = f"M{x - step / 2:.1f},{STREAM} H{x + step / 2:.1f}"
        found.append(dict(path=path, point=f"layers.{depth}.resid_out", block=None, stage=depth + 1))
        if c.mixer != "attention":  # out of the box and back to the stream
            out = f"M{x:.1f},{STREAM + half} v9 H{x + step / 2 - 1:.1f} V{STREAM}"
            found.append(dict(path=out, point=f"layers.{depth}.mamba.out", block=None, stage=depth + 1))
    if c.concat_embedding and c.n_invocations:
        last = place(c, c.hybrid_layers[-1]) + 5
        found.append(dict(path=f"M{LEFT - 42},{STREAM} V{X0} H{last}", point="embed", block=None, stage=0))
    for depth, block in zip(c.hybrid_layers, c.blocks_by_invocation):
        x, own = place(c, depth), dict(block=block, stage=depth + 1)
        before = f"layers.{depth - 1}.resid_out" if depth else "embed"
        found.append(dict(path=f"M{x - step / 2:.1f},{STREAM} V{BLOCKS} H{x - min(23.0, 0.34 * step):.1f}", point=before, **own))
        found.append(dict(path=f"M{x},{above} V{STREAM - half}", point=f"layers.{depth}.shared.link_out", **own))
        if c.concat_embedding:
            found.append(dict(path=f"M{x + 5},{X0} V{BLOCKS - half}", point="embed", **own))
    return found


def svg(c: ZambaConfig, parts: list[dict], edges: list[dict]) -> str:
    """The picture as it is before anything is pointed at."""
    lines = [
        f"<path class='zl-edge{mark(edge['block'])}' data-edge='{i}' d='{edge['path']}'{TIP if edge['block'] is not None else ''}/>"
        for i, edge in enumerate(edges)
    ]
    every = max(1, -(-22 * c.n_layers // WIDTH))  # a number needs 22 pixels
    for i, part in enumerate(parts):
        x, y, w = part["x"], part["y"], part["w"]
        color = LAYER if part["block"] is None else SERIES[part["block"] % len(SERIES)]
        named = part["w"] > 11 if part["block"] is not None else i % every == 0
        text = f"<text x='{x}' y='{y + 4.5}'>{part['name']}</text>" if named else ""
        box = f"<rect x='{x - w / 2:.1f}' y='{y - 15}' width='{w:.1f}' height='30' rx='3' fill='{color}'/>"
        bar = f"<rect class='zl-bar' data-bar='{i}' x='{x - w / 2:.1f}' width='{w:.1f}' y='{FOOT}' height='0' fill='{color}'/>"
        said = escape(part["words"], quote=True)
        lines.append(
            f"<g class='zl-part{mark(part['block'])}' data-part='{i}' tabindex='0' role='img' aria-label=\"{said}\">{box}{text}</g>{bar}"
        )
    last = LEFT + WIDTH
    shared = bool(c.n_invocations)
    words = [
        (8, X0 - 8 if shared else STREAM - 14, "token embeddings x0" + ", handed to every invocation" * (c.concat_embedding and shared)),
        (8, STREAM + 34, "residual"),
        (8, STREAM + 47, "stream"),
        (last + 12, STREAM + 4, "norm, head"),
        (last + 12, STREAM + 18, f"{c.vocab_size:,} logits"),
        (8, FOOT - 14, "carried in"),
        (8, FOOT - 1, "decoding"),
    ]
    notes = "".join(f"<text class='zl-note' x='{x}' y='{y}'>{text}</text>" for x, y, text in words)
    top = 0 if shared else STREAM - 50
    tip = "<defs><marker id='zl-tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' markerUnits='userSpaceOnUse' "
    tip += "orient='auto'><path d='M0,0 L8,4 L0,8 Z' fill='#7f8a97'/></marker></defs>"
    return f"<svg viewBox='0 {top} 900 {FOOT + 6 - top}' role='group' aria-label='depth diagram'>{tip}{''.join(lines)}{notes}</svg>"


def mark(block: int | None) -> str:
    """A class for all that belongs to one block."""
    return "" if block is None else f" zl-b{block}"
