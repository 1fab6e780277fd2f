"""Models whose memory of a needle was put there by hand: the lens finds it there, and nowhere else."""

import pytest
import torch
from lens_planted import V, remembers_by_attention, remembers_by_state

from zamba_lab import lens


@pytest.mark.parametrize(
    "make, part, depth", [(remembers_by_state, "ssm", 0), (remembers_by_attention, "kv", 1)], ids=["state", "attention"]
)
def test_a_needle_is_lost_with_the_memory_that_it_was_put_into_and_with_no_other(make, part, depth):
    found = lens.who_remembers(make(), torch.arange(V).repeat(3), distances=(3, 12), count=8, lead=6)
    recall = found.recall.mean(-1)
    assert (recall > 3).all(), recall
    row = found.parts.index(part)
    lost = found.loss.mean(-1) / recall[:, None, None]  # (distance, part, depth)
    torch.testing.assert_close(lost[:, row, depth], torch.ones(2).double(), rtol=0, atol=0.1)
    lost[:, row, depth] = 0
    assert lost.abs().max() < 0.1, lost
    low, _ = found.interval()
    assert (low[:, row, depth] > 1).all()
