"""The maps of a shared block are those of its invocations, and of no other block's; their summaries are what they say."""

import math

import pytest
import torch
from lens_cases import HYBRID, TRAINED, case

from zamba_lab import lens
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.attention import habits
from zamba_lab.model import Zamba

# fmt: off
CONFIG = ZambaConfig(
    vocab_size=50, d_model=16, n_layers=6, d_state=4, headdim=8, hybrid_layers=(0, 2, 3, 5), block_order=(0, 1, 1, 0), attn_heads=4,
    d_mlp=24, lora_rank=3,
)
# fmt: on


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


@pytest.mark.parametrize("name", [*HYBRID, TRAINED])
def test_habits_are_those_of_every_invocation_in_order_of_depth(name):
    model, ids = case(name)
    c, found = model.config, lens.attention_habits(model, ids)
    assert (found.blocks, found.depths) == (c.blocks_by_invocation, c.hybrid_layers)
    trace = lens.run(model, ids, keep=["*.attn_probs"])
    place = torch.arange(ids.shape[1], dtype=torch.float64)
    for k in range(c.n_invocations):
        probs = trace[f"invocation.{k}.attn_probs"]
        assert found.entropy[k].shape == (len(ids), c.attn_heads, ids.shape[1])
        torch.testing.assert_close(found.distance[k], (probs * (place[:, None] - place)).sum(-1))
        torch.testing.assert_close(found.sink[k], probs[..., 0])
        torch.testing.assert_close(found.entropy[k], -(probs * probs.clamp(min=1e-300).log()).sum(-1))
        assert (found.entropy[k] <= torch.log(place + 1) + 1e-9).all() and (found.distance[k] <= place + 1e-9).all()


def test_known_maps_have_known_habits():
    l = 5
    even = torch.ones(l, l, dtype=torch.float64).tril() / torch.arange(1, l + 1)[:, None]
    own, first = torch.eye(l, dtype=torch.float64), torch.eye(l, dtype=torch.float64)[[0] * l]
    entropy, distance, sink = habits(torch.stack([even, own, first]))
    place = torch.arange(l, dtype=torch.float64)
    torch.testing.assert_close(entropy, torch.stack([torch.log(place + 1), 0 * place, 0 * place]))
    torch.testing.assert_close(distance, torch.stack([place / 2, 0 * place, place]))
    torch.testing.assert_close(sink, torch.stack([1 / (place + 1), own[0], place * 0 + 1]))


def test_divergence_is_zero_between_equals_and_log_2_between_strangers():
    own = torch.eye(4, dtype=torch.float64)[[1, 1, 2, 3]].expand(1, 2, 4, 4)
    other = torch.eye(4, dtype=torch.float64)[[0, 0, 0, 0]].expand(1, 2, 4, 4)
    found = lens.divergence(torch.stack([own, other, own]))
    assert found.shape == (3, 3, 1, 2)
    expected = math.log(2) * torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected[..., None, None].expand_as(found))


def test_divergence_is_never_below_zero_where_rounding_is_all_there_is():
    own = torch.rand(40, 1, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = lens.divergence(torch.cat([own, own * (1 + 1e-15)]))
    assert (found >= 0).all() and (found[:40, 40:].diagonal(dim1=0, dim2=1) < 1e-14).all()


@pytest.mark.parametrize("name", ["base", "one block", TRAINED])
def test_divergence_is_symmetric_and_the_mean_of_the_two_from_their_middle(name):
    model, ids = case(name)
    probs = lens.attention_by_invocation(model, ids).probs
    found = lens.divergence(probs)
    torch.testing.assert_close(found, found.transpose(0, 1))
    assert found.diagonal().abs().max() < 1e-12 and (found <= math.log(2)).all()
    p, q = probs[0, 0, 1].clamp(min=1e-300), probs[1, 0, 1].clamp(min=1e-300)
    m = (p + q) / 2
    torch.testing.assert_close(found[0, 1, 0, 1], ((p * (p / m).log() + q * (q / m).log()).sum(-1) / 2).mean())


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="got 2, n_shared_blocks 2"):
        lens.attention_by_invocation(Zamba(CONFIG), torch.zeros(1, 3, dtype=torch.long), block=2)


@pytest.mark.parametrize("name", ["pure mamba2", "transformer"])
def test_a_model_without_shared_blocks_is_refused(name):
    with pytest.raises(ValueError, match="no shared block to look at: n_shared_blocks 0"):
        lens.attention_habits(*case(name))


@pytest.mark.parametrize("name", ["base", "link into the stream", "pure mamba2", "transformer", TRAINED])
def test_a_link_ratio_is_that_of_the_traced_sizes_at_its_layer(name):
    model, ids = case(name)
    c = model.config
    trace = lens.run(model, ids, keep=[f"layers.{i}.{point}" for i in c.hybrid_layers for point in ("resid_in", "shared.link_out")])
    sizes = [[trace[f"layers.{i}.{point}"].norm() for point in ("shared.link_out", "resid_in")] for i in c.hybrid_layers]
    assert lens.link_ratios(model, ids) == pytest.approx([float(link / stream) for link, stream in sizes])
