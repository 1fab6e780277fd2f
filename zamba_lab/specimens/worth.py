"""What each part is worth: the loss with it replaced, less the loss without, beside random changes as large.

Replaced by its **mean** over other texts, or by its values on **another text**, a part says nothing about this text, but gives the
vector that it always gives. **Zero** takes that vector, too, so it measures how much the layers behind have come to expect it, not
what the part is worth; it is there because others report it. Controls: at each token the part's output is moved as far in a random
direction: "isotropic", any; "own", along the difference between its outputs at two other tokens (`lens.effect`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from zamba_lab import lens
from zamba_lab.lens.effect import DIRECTIONS, Nudge, Replacement
from zamba_lab.lens.parts import PARTS
from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba
from zamba_lab.specimens.estimates import estimates
from zamba_lab.specimens.names import Names

MEASURED = ("invocation", "adapter", "concat", "head", "mixer")
TOP = "top induction heads"
HOWS = ("mean", "resample", "zero")
CONTROLLED = ("mean", "resample", "rewired")
Row = tuple[dict[str, Any], Sequence[lens.Intervention]]


def worth(
    model: Zamba,
    ids: Tensor,
    others: Tensor,
    names: Names,
    induction: Sequence[tuple[int, int]] = (),
    controls: int = 1,
    progress: bool = False,
    hows: Sequence[str] = HOWS,
    measured: Sequence[str] = MEASURED,
) -> list[dict[str, Any]]:
    """One row for each part, how it is replaced, and change of the structure.

    Args:
        ids: (b, l) documents. others: (b, l), other texts: their mean is the mean, row i gives document i its values on another text.
        names: `names` of ids. induction: (attention, head) of the heads that are replaced together.
        controls: random changes of each kind; 0: none. hows, measured: of HOWS and MEASURED, those to measure.

    Returns: dicts of "part", "where" (its number down the depth; None: all), "head", "how", "loss" (nats a token) and "repeated names"
    (nats a name). The last two hold estimates over documents: "change", and for each of DIRECTIONS its {"change", "beyond"}.
    """
    table = list(rows(model, ids, others, induction, hows, measured))
    outlets = {point for _, several in table for one in several for point in one.outlets(model.config)}
    before = run(lens.intervene(model), ids, keep=("logits", *outlets))
    measure = Measure(ids, names, before["logits"])
    for row, several in tqdm(table, desc="parts", disable=not progress):
        changed = lens.intervene(model, *several)
        points = tuple(dict.fromkeys(point for one in several for point in one.outlets(changed.config)))
        after = run(changed, ids, keep=("logits", *points))
        measure.add(row, "change", [after["logits"]])
        for direction in DIRECTIONS if controls and row["how"] in CONTROLLED else ():
            nudges = (Nudge.between(before, after, points, seed, direction) for seed in range(controls))
            measure.add(row, direction, (run(lens.intervene(model, nudge), ids, keep=["logits"])["logits"] for nudge in nudges))
    measure.finish()
    return [row for row, _ in table]


class Measure:
    """Collects changes by document, and makes estimates of all of them together at the end."""

    def __init__(self, ids: Tensor, names: Names, logits: Tensor):
        self.ids, self.names, self.columns = ids, names, {}
        self.before = self.of(logits)

    def of(self, logits: Tensor) -> dict[str, Tensor]:
        """(b,) nats by measure."""
        losses = lens.token_losses(logits, self.ids).cpu()
        return {"loss": losses.double().mean(1), "repeated names": self.names.cost(losses.double())["repeated"]}

    def add(self, row: dict[str, Any], what: str, passes) -> None:
        """The mean change of some passes, by document."""
        found = [self.of(logits) for logits in passes]
        for name, whole in self.before.items():
            change = sum(one[name] for one in found) / len(found) - whole
            entry = row.setdefault(name, {})
            self.columns[id(entry), what] = (entry, what, change)
            if what != "change":
                own = self.columns[id(entry), "change"][2]
                entry[what] = {}
                self.columns[id(entry), what] = (entry[what], "change", change)
                self.columns[id(entry), what, "beyond"] = (entry[what], "beyond", own - change)

    def finish(self) -> None:
        found = estimates([values for _, _, values in self.columns.values()])
        for (entry, what, _), one in zip(self.columns.values(), found):
            entry[what] = one


def rows(
    model: Zamba, ids: Tensor, others: Tensor, induction: Sequence[tuple[int, int]], hows: Sequence[str], measured: Sequence[str]
) -> Iterator[Row]:
    """Every row without its numbers, and its interventions."""
    c = model.config
    measured = [part for part in measured if part in lens.parts(c)]
    for how in hows:
        replaced = Replacement(model, ids, how, measured, None if how == "zero" else others, None, None)
        for part, where, head in places(model, measured):
            yield dict(part=part, where=where, head=head, how=how), [replaced(part, where, head)]
        if induction and how != "zero":
            several = [replaced("head", a, head) for a, head in induction]
            yield dict(part=TOP, where=None, head=None, how=how, heads=[list(pair) for pair in induction]), several
    for name, one in structures(model):
        yield dict(part=name, where=None, head=None, how="rewired"), [one]


def places(model: Zamba, measured: Sequence[str]) -> Iterator[tuple[str, int | None, int | None]]:
    """(part, where, head) of each part, and of all of a kind together."""
    for part in measured:
        count = PARTS[part].count(model.config)
        for where in range(count):
            yield from ((part, where, head) for head in (range(model.config.attn_heads) if part == "head" else (None,)))
        if part != "head" and count > 1:
            yield part, None, None


def structures(model: Zamba) -> Iterator[tuple[str, lens.Intervention]]:
    """The same weights in other places: what each invocation's own block and adapters are worth over another's."""
    c, n = model.config, model.config.n_invocations
    if "adapter" in lens.parts(c) and n > 1:
        blocks = c.blocks_by_invocation
        yield "adapters moved on by one", lens.permute_adapters([(k + 1) % n for k in range(n)])
        peers = {k: [j for j in range(n) if blocks[j] == blocks[k]] for k in range(n)}
        within = [peers[k][(peers[k].index(k) + 1) % len(peers[k])] for k in range(n)]
        if within != list(range(n)) and len(set(blocks)) > 1:
            yield "adapters exchanged within a block", lens.permute_adapters(within)
    if c.n_shared_blocks > 1:
        yield "blocks A and B swapped", lens.swap_blocks()
