"""One forward pass, looked into: what every lens starts from, and what padding means to all of them.

Every function here that is given ids takes `mask`, (b, l), 1 at tokens and 0 at padding, which may stand anywhere; None: no
padding. Results at tokens are those of the text without padding. Results at padding mean nothing, and sums leave them out.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from zamba_lab.lens.interventions import Intervened
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import token_nll
from zamba_lab.trace import Trace


@torch.no_grad()
def run(
    model: Zamba | Intervened,
    ids: Tensor,
    keep: Iterable[str] = (),
    edit: dict[str, Callable[[Tensor], Tensor]] | None = None,
    mask: Tensor | None = None,
) -> Trace:
    """Run the model on (b, l) ids without gradients and return the trace of the points named by `keep`."""
    trace = Trace(keep=keep, edit=edit)
    model(ids, mask, trace)
    return trace


def stream_norms(model: Zamba | Intervened, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """How large what flows between the parts is at each token: its root mean square over channels.

    Args:
        ids: (b, l). mask: (b, l), see above.

    Returns: trace point -> (b, l), in order of depth: the embeddings, each layer's output and what its mixer adds; at an invocation
    what its attention, its MLP and its link give.
    """
    points = ("embed", "*.resid_out", "*.mamba.out", "*.shared.attn_out", "*.shared.mlp_out", "*.shared.link_out")
    c = model.config
    here = [p for p in points if ("mamba" not in p or c.mixer != "attention") and ("shared" not in p or c.n_invocations)]
    trace = run(model, ids, keep=here, mask=mask)
    return {name: value.float().square().mean(-1).sqrt() for name, value in trace.values.items()}


def fixed(value: Tensor) -> Callable[[Tensor], Tensor]:
    """A trace edit that gives `value` whatever the model computed."""
    return lambda computed: value


def next_token_loss(
    model: Zamba | Intervened, ids: Tensor, edit: dict[str, Callable[[Tensor], Tensor]] | None = None, mask: Tensor | None = None
) -> Tensor:
    """-log p(token t + 1 | tokens 0..t) in nats, for each token but the first.

    Args:
        ids: (b, l), l >= 2.
        edit: trace edits in force during the pass, as `Trace` takes them.

    Returns: (b, l - 1), float32 or wider: entry t belongs to position t + 1; 0 where that is padding or its row's first
    token: `predicted` says where. Raises ValueError if l < 2.
    """
    return token_losses(run(model, ids, keep=["logits"], edit=edit, mask=mask)["logits"], ids, mask)


def token_losses(logits: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """`next_token_loss` from (b, l, v) logits. A token is predicted from the last token before it, padding skipped."""
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"a next-token loss needs ids of shape (batch, length >= 2): got {tuple(ids.shape)}")
    if mask is None:
        return token_nll(logits[:, :-1], ids[:, 1:])
    positions = torch.arange(ids.shape[1], device=ids.device)
    previous = torch.where(mask.bool(), positions, 0).cummax(1).values[:, :-1]
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    return token_nll(logits[rows, previous], ids[:, 1:]).masked_fill(~predicted(mask), 0)


def predicted(mask: Tensor) -> Tensor:
    """Which positions but the first hold a token with another before it: (b, l) -> (b, l - 1) bool."""
    mask = mask.bool()
    return mask[:, 1:] & (mask.cumsum(1) > 0)[:, :-1]


def token_positions(mask: Tensor) -> Tensor:
    """Each token's number among its row's tokens, (b, l)."""
    return (mask.bool().cumsum(1) - 1).clamp(min=0)


def tokens_first(mask: Tensor) -> Tensor:
    """The positions of each row, (b, l): its tokens in their order, then its padding."""
    return mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
