"""The maps of a shared block are those of its invocations, and of no other block's."""

import pytest
import torch

from zamba_lab import lens
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

CONFIG = ZambaConfig(vocab_size=50, d_model=16, n_layers=6, d_state=4, headdim=8, hybrid_layers=(0, 2, 3, 5),
                     block_order=(0, 1, 1, 0), attn_heads=4, d_mlp=24, lora_rank=3)


@pytest.mark.parametrize(("block", "depths"), [(0, (0, 5)), (1, (2, 3))])
def test_each_map_is_the_one_traced_at_its_depth(block, depths):
    torch.manual_seed(0)
    model, ids = Zamba(CONFIG).double(), torch.randint(0, 50, (2, 9))
    found = lens.attention_by_invocation(model, ids, block)
    assert found.depths == depths
    assert found.probs.shape == (2, 2, 4, 9, 9)
    trace = lens.run(model, ids, keep=["layers.*.shared.attn_probs"])
    for depth, probs in zip(depths, found.probs):
        torch.testing.assert_close(probs, trace[f"layers.{depth}.shared.attn_probs"])
    torch.testing.assert_close(found.probs.sum(-1), torch.ones(2, 2, 4, 9, dtype=torch.float64))


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="got 2, n_shared_blocks 2"):
        lens.attention_by_invocation(Zamba(CONFIG), torch.zeros(1, 3, dtype=torch.long), block=2)
