"""The SSM states after every token, recomputed from their recorded inputs: how large, how many directions, and of which tokens.

A state is many times larger than what it is made from, so the pass records x, dt, B and C, and the recurrence is run again,
step by step, for the layers asked for: the step that decoding takes and that defines the faster forms.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import INPUTS, STEP, Terms, decay_rates, names_of_inputs, require_index, require_ssm, terms
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace


@torch.no_grad()
def ssm_states(model: Zamba, trace: Trace, depth: int) -> Tensor:
    """The states of one layer after each token, (b, l, h, p, n).

    Args:
        trace: of a pass from the start of the sequence that kept `layers.{depth}.mamba.{x,dt,B,C}`.
        depth: the layer, 0 <= depth < n_layers.
    """
    require_ssm(model)
    b, l, h, p = trace[f"layers.{depth}.mamba.x"].shape
    states = decay_rates(model, depth).new_empty(b, l, h, p, model.config.d_state)  # filled: stacking would need two
    for t, state in enumerate(each_state(model, trace, [depth])):
        states[:, t] = state
    return states


def each_state(model: Zamba, trace: Trace, depths: Sequence[int]) -> Iterator[Tensor]:
    """The states of some layers after one token and the next, (b, i h, p, n): a layer's heads after those of the one before.

    A step is short, and most of it is the calling of it: layers that step together take little longer than one.
    """
    x, dt, B, C = (torch.cat([trace[f"layers.{i}.mamba.{name}"] for i in depths], dim=2) for name in INPUTS)
    A, state = torch.cat([decay_rates(model, i) for i in depths]), None
    for t in range(x.shape[1]):
        _, state = STEP[model.config.mixer](x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        yield state


def state_norms(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """The Frobenius norm of every head's (p, n) state after every token, over the depth.

    Args:
        ids: (b, l). mask: (b, l), see `passes`.

    Returns: (n_layers, b, l, h). Never is more held than one layer's states.
    """
    return over_depth(model, ids, mask, torch.linalg.matrix_norm)


def state_dimensions(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """The participation ratio of every head's state after every token. Arguments and shape as `state_norms`."""
    return over_depth(model, ids, mask, participation_ratio)


@torch.no_grad()
def over_depth(model: Zamba, ids: Tensor, mask: Tensor | None, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """A number of each head's state, (b, h, p, n) -> (b, h), after every token of every layer: (n_layers, b, l, h)."""
    require_ssm(model)
    trace, measured = run(model, ids, keep=names_of_inputs("*"), mask=mask), []
    together = max(1, ids.shape[1] // 64)  # layers: with what allocators keep of past steps, below one layer's states
    for depths in torch.arange(model.config.n_layers).split(together):
        numbers = torch.stack([measure(state) for state in each_state(model, trace, depths.tolist())], dim=1)
        measured.append(rearrange(numbers, "b l (i h) -> i b l h", i=len(depths)))
    return torch.cat(measured)


def participation_ratio(matrices: Tensor) -> Tensor:
    """How many directions a matrix is spread over: (sum sigma^2)^2 / sum sigma^4 over its singular values.

    k for k equal ones, from 1 up to min(p, n), 0 for a matrix of zeros. No decomposition is needed: both sums are traces.

    Args:
        matrices: (..., p, n).

    Returns: (...).
    """
    wide, tiny = matrices.shape[-2] > matrices.shape[-1], torch.finfo(matrices.dtype).tiny
    unit = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=tiny)  # or squares would underflow
    gram = unit.mT @ unit if wide else unit @ unit.mT
    return gram.diagonal(dim1=-2, dim2=-1).sum(-1).square() / gram.square().sum((-2, -1)).clamp(min=tiny)


def effective_rank(matrices: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values' shares of their sum (Roy & Vetterli 2007).

    Like the participation ratio 1 to min(p, n), but more ready to count small ones; 0 for a matrix of zeros. It needs a
    decomposition of each matrix: choose a layer and some tokens, `effective_rank(ssm_states(...)[:, ::16])`.

    Args:
        matrices: (..., p, n).

    Returns: (...).
    """
    values = torch.linalg.svdvals(matrices)
    total = values.sum(-1, keepdim=True)
    share = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    return torch.exp(torch.special.entr(share).sum(-1)) * (total[..., 0] > 0)


@dataclass(frozen=True)
class Contents:
    """What a layer's state after token `at` is made of, token by token: state = sum_s left_s."""

    depth: int
    at: int
    left: Tensor  # (b, s, h, p, n): what token s wrote, as much as is left of it; rank 1 in Mamba-2
    state: Tensor  # (b, h, p, n): by the recurrence
    share: Tensor  # (b, h, s): <left_s, state> / |state|^2, the part of the state that points along s's; sums to 1
    recall: Tensor  # (b, h, s): cosine of what reading with s's own B gives and what s left there; 1: no crosstalk
    error: float  # |sum_s left_s - state| / |state|


@torch.no_grad()
def contents(model: Zamba, ids: Tensor, depth: int, at: int = -1, mask: Tensor | None = None) -> Contents:
    """Take one layer's states after one token apart into what each token before it, and it itself, has left there.

        left_s = exp(A (dt_{s+1} + ... + dt_at)) dt_s x_s B_s^T

    Args:
        ids: (b, l). mask: (b, l), see `passes`.
        depth: the layer. at: the position, counted from the end if negative; of padding, the token before it is meant.

    Raises ValueError if there is no such layer or token, or no SSM.
    """
    require_ssm(model)
    require_index("depth", depth, model.config.n_layers)
    at = at + ids.shape[1] if at < 0 else at
    require_index("at", at, ids.shape[1])
    trace = run(model, ids[:, : at + 1], keep=names_of_inputs([depth]), mask=None if mask is None else mask[:, : at + 1])
    last = deque(each_state(model, trace, [depth]), maxlen=1).pop()  # a slice would keep the states of every token
    return Contents(depth, at, *apart(terms(model, trace, depth), last))


def apart(ssm: Terms, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """left, state, share, recall and error of `Contents`, for the state after the last token of `ssm`. (b, h, p, n)"""
    elapsed = (ssm.time[:, -1:] - ssm.time).to(state.dtype)[..., None]  # (b, s, h, p or 1, 1)
    left = torch.exp(elapsed * ssm.A) * (ssm.dt * ssm.x)[..., None] * ssm.B[..., None, :]
    share = torch.einsum("bshpn,bhpn->bhs", left, state) / state.square().sum((-2, -1))[..., None]
    read = torch.einsum("bhpn,bshn->bhsp", state, ssm.B)
    own = torch.einsum("bshpn,bshn->bhsp", left, ssm.B)
    error = torch.linalg.vector_norm(left.sum(1) - state) / torch.linalg.vector_norm(state)
    return left, state, share, torch.cosine_similarity(read, own, dim=-1), float(error)
