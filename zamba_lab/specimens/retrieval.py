"""A needle in a text, asked for with all states, all windows or all keys and values wiped: which of them carried it.

`lens.who_remembers` wipes one layer's memory at a time. Here a kind of memory is gone from every layer, so that what several layers
carry, any of which would do, is counted, too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zamba_lab import lens
from zamba_lab.lens.parts import attention_depths, mixer_depths
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import token_nll
from zamba_lab.specimens.estimates import estimate, ratio


@torch.no_grad()
def retrieval(model: Zamba, filler: Tensor, distances: Sequence[int], count: int, lead: int = 32, seed: int = 0) -> list[dict[str, Any]]:
    """One row a distance: "recall", by how many nats having been told lowers the loss, and for each memory that the model has how much
    of that is "lost" without it, in nats and as a "share" of the recall; no share where the recall's interval is not above 0.

    filler: (n,) ids. count: needles of each distance. Arguments and errors as `lens.needles`.
    """
    rows = []
    for distance in distances:
        told, never = (without(model, ids) for ids in lens.needles(filler, distance, count, lead, seed))
        recall = never["nothing"] - told["nothing"]
        row: dict[str, Any] = {"distance": distance, "recall": estimate(recall)}
        known = (row["recall"]["low"] or 0) > 0
        for part in [part for part in told if part != "nothing"]:
            lost = recall - (never[part] - told[part])
            row[part] = {"lost": estimate(lost), "share": ratio(lost, recall) if known else None}
        rows.append(row)
    return rows


def without(model: Zamba, ids: Tensor) -> dict[str, Tensor]:
    """The loss of the last token, (b,), by what is wiped before the one that asks for it; "nothing" among them."""
    c, asked = model.config, ids.shape[1] - 2
    memories = [part for part in lens.MEMORIES if (attention_depths(c) if part == "kv" else mixer_depths(c))]
    if c.d_conv < 2 and "conv" in memories:
        memories.remove("conv")  # there is no window
    _, cache = model.extend(ids[:, :asked], last_only=True)
    changed = {"nothing": lens.intervene(model)} | {part: lens.intervene(model, lens.wipe(part, None, asked)) for part in memories}
    return {
        name: token_nll(one.extend(ids[:, asked : asked + 1], cache)[0][:, 0], ids[:, -1]).double().cpu() for name, one in changed.items()
    }
