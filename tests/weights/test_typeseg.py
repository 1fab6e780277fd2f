"""A Mamba-1 that nobody here trained: typeseg's labeller of bytes, by its own scan and by ours.

It is no language model: it reads a file in both directions and says of each byte which kind of text it belongs to. Its weights come
with the package typeseg (Apache-2.0), which the tests do not ask for: `pip install --no-deps typeseg==0.2.7`.
"""

from importlib.resources import files

import numpy as np
import pytest
import torch
from einops import rearrange

from zamba_lab import native
from zamba_lab.ops.scan import scan_chunked, scan_recurrence, selective_scan

typeseg = pytest.importorskip("typeseg", reason="optional weights: pip install --no-deps typeseg==0.2.7")

TEXT = (
    '# A heading\n\nprose, and then code:\n\n```python\ndef half(n: int) -> float:\n    return n / 2\n```\n\n{"name": [1, 2, null]}\n' * 3
)


def with_our_scan(form):
    """One of our forms as typeseg calls a scan: arrays (l, e), (l, n), (e, n), (e,); one head of e channels."""

    def scan(_, u, dt, B, C, A, D):
        x, dt = (rearrange(torch.tensor(np.ascontiguousarray(t)), "l e -> 1 l 1 e") for t in (u, dt))
        B, C = (rearrange(torch.tensor(np.ascontiguousarray(t)), "l n -> 1 l 1 n") for t in (B, C))
        y, _ = form(x, dt, torch.tensor(A)[None], B, C)
        return (y[0, :, 0] + x[0, :, 0] * torch.tensor(D)).numpy()

    return scan


@pytest.mark.parametrize("form", [scan_recurrence, scan_chunked, selective_scan], ids=lambda form: form.__name__)
@torch.no_grad()
def test_its_numbers_through_our_scan_are_its_own(form):
    from typeseg._mamba_kernel import mamba_forward

    weights = dict(np.load(str(files("typeseg") / "data" / "mamba_al.npz")))
    weights = {name.replace("__", "/"): value.astype(np.float32) for name, value in weights.items()}
    tokens = np.frombuffer(TEXT.encode(), dtype=np.uint8)
    own, ours = mamba_forward(np, weights, tokens), mamba_forward(np, weights, tokens, scan=with_our_scan(form))
    assert own.shape == ours.shape and len(own) == len(tokens) and len(np.unique(own.argmax(-1))) > 1
    assert np.abs(ours - own).max() < 1e-3 * np.abs(own).max()
    assert (ours.argmax(-1) == own.argmax(-1)).all()
    with native.off():
        assert (mamba_forward(np, weights, tokens, scan=with_our_scan(form)).argmax(-1) == own.argmax(-1)).all()
