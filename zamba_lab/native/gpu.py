"""The published CUDA kernels behind our argument order: `mamba_ssm` for the scans, `causal_conv1d` for the convolution.

Used for tensors on a CUDA device if the packages are installed (they need a CUDA compiler, so nothing here asks for them),
imported when first wanted and never elsewhere. What they cannot do is left to the pure forms: float64, a convolution of
more than four taps or of channels that are no multiple of eight, a Mamba-1 scan that starts from a state.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from einops import rearrange
from torch import Tensor

TAPS = (2, 3, 4)  # what causal_conv1d is compiled for
CHANNELS = 8  # with channels together in memory, which is our layout, it wants strides that are multiples of this
CHUNK = 256  # tokens, as published
TYPES = (torch.float32, torch.bfloat16, torch.float16)


def serves(name: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether the kernel of this name is installed and computes in x's type, sizes and layout, and starts from such a state."""
    if x.dtype not in TYPES or kernel(name) is None:
        return False
    if name == "conv_silu":
        return others[0].shape[1] in TAPS and x.shape[2] % CHANNELS == 0
    return name != "selective_scan" or others[-1] is None


@cache
def kernel(name: str) -> Callable | None:
    """The function of the package that holds it, or None if the package is not there."""
    module, function = KERNELS[name]
    try:
        return getattr(import_module(module), function)
    except ImportError:
        return None


KERNELS = {
    "ssd": ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"),
    "selective_scan": ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
    "conv_silu": ("causal_conv1d", "causal_conv1d_fn"),
}


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Results as `ops.ssd.ssd`."""
    return kernel("ssd")(x, dt, A, B, C, CHUNK, D=D, initial_states=state, return_final_states=True)


def selective_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: None) -> tuple[Tensor, Tensor]:
    """Arguments and results as `ops.scan.selective_scan` from a zero state. Our heads are its groups, channels run (h p)."""
    h = x.shape[2]
    u, delta = (rearrange(part, "b l h p -> b (h p) l") for part in (x, dt.to(x.dtype)))
    B, C = (rearrange(part, "b l h n -> b h n l").contiguous() for part in (B, C))
    y, last = kernel("selective_scan")(
        u,
        delta,
        rearrange(A.float(), "h p n -> (h p) n"),
        B,
        C,
        D=None if D is None else rearrange(D.float(), "h p -> (h p)"),
        return_last_state=True,
    )
    if last.requires_grad:
        last.register_hook(_no_gradient)
    return rearrange(y, "b (h p) l -> b l h p", h=h), rearrange(last, "b (h p) n -> b h p n", h=h)


def _no_gradient(gradient: Tensor) -> None:
    # The kernel takes this gradient and does nothing with it: a silently wrong result, were it not refused here.
    raise ValueError(
        "selective_scan_fn of mamba_ssm has no gradient for its last state; differentiate through a Mamba-1 "
        "state under zamba_lab.native.off()"
    )


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Arguments and results as `ops.conv.conv_silu`, for what `serves` says yes to."""
    back = weight.shape[1] - 1  # 1 to 3
    if state is None:
        state = x.new_zeros(x.shape[0], back, x.shape[2])
    # (b, l, e) without gaps is (b, e, l) with its channels together, as this kernel wants x and the state it begins with
    y = kernel("conv_silu")(
        rearrange(x.contiguous(), "b l e -> b e l"),
        weight,
        bias,
        initial_states=rearrange(state.contiguous(), "b i e -> b e i"),
        activation="silu",
    )
    return rearrange(y, "b e l -> b l e"), torch.cat([state, x], dim=1)[:, -back:].clone()
