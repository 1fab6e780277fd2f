"""The pages of an atlas that change the model: what a part is worth, and which memory carries what."""

from zamba_lab import lens, viz
from zamba_lab.atlases.material import Material
from zamba_lab.atlases.pages import Page
from zamba_lab.lens.parts import attention_depths
from zamba_lab.specimens.names import names
from zamba_lab.specimens.retrieval import retrieval
from zamba_lab.specimens.sheet import place
from zamba_lab.specimens.worth import MEASURED, worth

MEMORY = {"ssm": "SSM states", "conv": "convolution's windows", "kv": "keys and values"}


def worths(m: Material) -> Page:
    """What each part is worth: held at its mean over other texts, beside random changes of the same size."""
    c = m.model.config
    measured = [part for part in MEASURED if part != "head" or c.attn_heads * len(attention_depths(c)) <= m.size.most_heads]
    rows = worth(m.model, m.ids, m.others, names(m.ids.cpu(), m.model.tokenizer), (), m.size.controls, hows=("mean",), measured=measured)
    page = Page(
        "What each part is worth",
        "Each part held at its mean over other texts, beside a random change as large along the part's own outputs. "
        "Right of the line: the part helps.",
    )
    caption = (
        f"Mean over {len(m.ids)} documents of {m.ids.shape[1]} tokens, 95 % bootstrap interval over documents; "
        f"random changes of each part: {m.size.controls}."
    )
    call = "specimens.worth.worth(model, ids, others, names, hows=('mean',))"
    kinds = {
        "Invocations, adapters and concatenation": ("invocation", "adapter", "concat"),
        "Mixers": ("mixer",),
        "Attention heads": ("head",),
    }
    for title, parts in kinds.items():
        some = [row for row in rows if row["part"] in parts and row["how"] == "mean"]
        if some:
            page.show(effects(some, title), caption, call)
    if rewired := [row for row in rows if row["how"] == "rewired"]:
        page.show(effects(rewired, "The same weights in other places"), caption, call)
    for row in rows:
        if row["part"] in ("invocation", "adapter", "concat", "mixer") and row["where"] is not None:
            part = "layer" if row["part"] == "mixer" else "invocation"
            change, control = row["loss"]["change"], row["loss"].get("own", {}).get("change")
            said = f"{row['part']} at its mean: {number(change)} nats a token (n = {change['n']}; a random change: {number(control)})"
            page.say(f"{part}.{row['where']}", said)
    return page


def effects(rows: list[dict], title: str):
    """Change and control of some rows of worth."""
    pairs = [(row["loss"]["change"], row["loss"].get("own", {}).get("change")) for row in rows]
    means = [[value(one, "mean") for one in pair] for pair in pairs]
    ends = [[[value(one, "low"), value(one, "high")] for one in pair] for pair in pairs]
    labels = [row["part"] if row["how"] == "rewired" else place(row["part"], row["where"], row["head"]) for row in rows]
    return viz.effects(means, ends, labels, title, "change of loss (nats a token)", row_label="part")


def value(estimate: dict | None, name: str) -> float:
    return float("nan") if not estimate or estimate[name] is None else estimate[name]


def number(estimate: dict | None) -> str:
    return "none" if not estimate else f"{value(estimate, 'mean'):+.4f} [{value(estimate, 'low'):+.4f}, {value(estimate, 'high'):+.4f}]"


def memory(m: Material) -> Page:
    """Who remembers what: a needle asked for with memories wiped."""
    page = Page(
        "Who remembers what",
        "A key and its value stand some tokens back. How much of what having been told them is worth is lost with a memory wiped?",
    )
    filler, distances = m.ids.flatten(), m.size.distances
    found = retrieval(m.model, filler, distances, m.size.needles, seed=m.seed)
    kinds = [kind for kind in MEMORY if kind in found[0]]
    table = {
        end: [[value(row["recall"], end) for row in found], *([value(row[kind]["lost"], end) for row in found] for kind in kinds)]
        for end in ("mean", "low", "high")
    }
    rows = ["what being told is worth", *(f"lost without {MEMORY[kind]}" for kind in kinds)]
    words = "All layers' memories wiped", "", "distance (tokens)", "nats"
    ends = dict(signed=True, low=table["low"], high=table["high"])
    caption = f"{m.size.needles} prompts a distance, 95 % bootstrap intervals over prompts in the hover text; bold where they leave 0 out."
    page.show(
        viz.table(table["mean"], rows, [str(d) for d in distances], *words, **ends),
        caption,
        f"specimens.retrieval.retrieval(model, ids, {distances}, {m.size.needles}, seed={m.seed})",
    )
    middle = distances[len(distances) // 2]
    recall = lens.who_remembers(m.model, filler, (middle,), m.size.needles, seed=m.seed)
    low, high = recall.interval()
    depths = [str(i) for i in range(m.model.config.n_layers)]
    words = f"One layer's memory wiped, {middle} tokens back", "memory", "depth", "recall lost (nats)"
    lost = recall.loss[0].mean(-1)
    figure = viz.table(lost, [MEMORY[part] for part in recall.parts], depths, *words, signed=True, low=low[0], high=high[0])
    page.show(figure, caption, f"lens.who_remembers(model, ids, ({middle},), {m.size.needles}, seed={m.seed})")
    for i in range(len(depths)):
        for p, part in enumerate(recall.parts):
            if lost[p, i] != 0:
                ends = f"[{low[0, p, i]:+.3f}, {high[0, p, i]:+.3f}] (n = {m.size.needles})"
                page.say(f"layer.{i}", f"without its {MEMORY[part]} a needle {middle} tokens back costs {lost[p, i]:+.3f} nats {ends}")
    return page
