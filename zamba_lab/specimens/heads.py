"""The heads' page of the sheet: scores on random strings, spread on text, constant shares, and what a repetition is worth."""

from typing import Any

from torch import Tensor

from zamba_lab import lens
from zamba_lab.config import block_name
from zamba_lab.model import Zamba
from zamba_lab.specimens.estimates import estimate

INDUCTION = 0.5  # top induction heads have at least this share of the best head's score, however low that is


def attention(model: Zamba, strings: Tensor, ids: Tensor) -> dict[str, Any]:
    """Every head's scores on strings read twice (`lens.repeated_tokens`) and its spread on (b, l) ids of text, as plain data."""
    c, scores = model.config, lens.head_scores(model, strings)
    share, tokens = lens.head_spread(model, ids)
    constant = lens.constant_shares(model, ids)
    rows = [
        {
            "attention": a,
            "layer": depth,
            "block": block_name(c.blocks_by_invocation[a]) if c.n_invocations else None,
            "head": head,
            **{name: round(float(getattr(scores, name)[a, head]), 4) for name in scores.even},
            "entropy_over_even": round(float(share[a, head]), 4),
            "tokens": round(float(tokens[a, head]), 2),
        }
        for a, depth in enumerate(scores.depths)
        for head in range(c.attn_heads)
    ]
    even = {name: round(value, 4) for name, value in scores.even.items()}
    return {"heads": rows, "even": even, "constant_share_of_link_out": [round(value, 5) for value in constant]}


def top_induction(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(attention, head) of those whose induction score is at least INDUCTION of the best one's; at most 4."""
    ordered = sorted(rows, key=lambda row: -row["induction"])
    best = ordered[0]["induction"]
    return [(row["attention"], row["head"]) for row in ordered[:4] if row["induction"] >= INDUCTION * best]


def repetition(model: Zamba, strings: Tensor) -> dict[str, Any]:
    """The loss of random strings in their first and second copy, in nats a token, without the first token of each copy."""
    n = strings.shape[1] // 2
    losses = lens.next_token_loss(model, strings)
    return {"first copy": estimate(losses[:, -2 * n + 1 : -n].mean(1)), "second copy": estimate(losses[:, -n + 1 :].mean(1))}
