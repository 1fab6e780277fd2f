"""What the models of both hybrids are held to."""

from pathlib import Path

import pytest
import torch
from parity.reference import Pair, PreTrainedModel, assert_same, build, cached, checkpoint, distance, prompt
from torch import Tensor

from zamba_lab.generation import generate
from zamba_lab.trace import Trace


def pairs(model_type: str, cases: dict[str, dict]):
    """The fixture `pair` of a test file: a model of the reference's for each case, and what we read from its checkpoint."""

    @pytest.fixture(scope="module", params=cases)
    def pair(request, tmp_path_factory) -> Pair:
        theirs = build(model_type, **cases[request.param])
        return Pair(theirs, checkpoint(theirs, tmp_path_factory.mktemp(model_type)))

    return pair


class HybridLaws:
    """A test file has its own `pair`, and a class of its own of these tests."""

    @torch.no_grad()
    def test_every_depth_and_every_invocation(self, pair):
        ids = prompt(pair.theirs)
        theirs = pair.theirs(ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        trace = Trace(keep=["*.resid_in", "layers.*.resid_out", "final_norm", "*.attn_probs"])
        assert_same(pair.ours(ids, trace=trace), theirs.logits, "logits")
        *streams, last = theirs.hidden_states
        for i, stream in enumerate(streams):
            assert_same(trace[f"layers.{i}.resid_in"], stream, f"stream into depth {i}")
            if i:
                assert_same(trace[f"layers.{i - 1}.resid_out"], stream, f"stream out of depth {i - 1}")
        assert_same(trace["final_norm"], last, "final norm")
        assert len(theirs.attentions) == pair.ours.config.n_invocations
        for k, probs in enumerate(theirs.attentions):
            assert_same(trace[f"invocation.{k}.attn_probs"], probs, f"attention of invocation {k}")

    @torch.no_grad()
    def test_cache_after_a_prompt(self, pair):
        ids = prompt(pair.theirs)
        theirs = cached(pair.theirs, ids)[1]
        cache = pair.ours.extend(ids)[1]
        for i, layer in enumerate(cache.layers):
            assert_same(layer.ssm, theirs.get_recurrent_state(i), f"SSM state of depth {i}")
            window = theirs.get_conv_state(i)[..., -layer.conv.shape[1] :]  # theirs holds one input more
            assert_same(layer.conv, window.mT, f"convolution's state of depth {i}")
            if layer.k is not None:
                assert_same(layer.k, theirs.layers[i].keys, f"keys of depth {i}")
                assert_same(layer.v, theirs.layers[i].values, f"values of depth {i}")

    @torch.no_grad()
    def test_step_by_step_after_a_prompt(self, pair):
        ids = prompt(pair.theirs, l=24)
        past, cache = cached(pair.theirs, ids[:, :9])[1], pair.ours.extend(ids[:, :9])[1]
        for t in range(9, 24):
            theirs, past = cached(pair.theirs, ids[:, t : t + 1], past)
            ours, cache = pair.ours.extend(ids[:, t : t + 1], cache)
            assert_same(ours, theirs, f"logits of token {t}")
        for i, layer in enumerate(cache.layers):
            assert_same(layer.ssm, past.get_recurrent_state(i), f"SSM state of depth {i}")

    @torch.no_grad()
    def test_greedy_continuation(self, pair):
        ids = prompt(pair.theirs, l=12)
        theirs = pair.theirs.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[:, 12:]
        assert generate(pair.ours, ids, max_new_tokens=8).tolist() == theirs.tolist()


@torch.no_grad()
def rows_without_padding(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Hold each row of a batch padded on the left to the reference without padding. Returns ids, mask and our logits."""
    ids, lengths = prompt(pair.theirs, b=3, l=20), (20, 13, 1)
    mask = torch.stack([(torch.arange(20) >= 20 - n).long() for n in lengths])
    ours = pair.ours(ids, mask=mask)
    for row, n in enumerate(lengths):
        alone = pair.theirs(ids[row : row + 1, 20 - n :], use_cache=False).logits[0]
        assert_same(ours[row, 20 - n :], alone, f"row of {n} tokens, against the reference without padding")
    return ids, mask, ours


@torch.no_grad()
def unnoticed(theirs: PreTrainedModel, folder: Path) -> dict[str, float]:
    """The parameters of ours that may change by 2 % and leave the logits near the reference's: how far, in tolerances."""
    ours, ids, generator = checkpoint(theirs, folder), prompt(theirs), torch.Generator().manual_seed(0)
    reference, near = theirs(ids).logits, {}
    for name, p in ours.named_parameters():
        before = p.clone()
        p.mul_(1 + 0.02 * torch.randn(p.shape, generator=generator))
        if (far := distance(ours(ids), reference)) < 5:
            near[name] = round(far, 2)
        p.copy_(before)
    return near
