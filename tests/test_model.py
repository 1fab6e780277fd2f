"""What a pass refuses, and how a model begins."""

from dataclasses import replace

import pytest
import torch
from variants import BASE, PURE, VARIANTS, make_model, random_ids

import zamba_lab as zl

MODEL, IDS = make_model(BASE), random_ids(BASE)


@pytest.mark.parametrize(
    "ids, message",
    [
        (IDS[0], r"ids must be int64 or int32 of shape \(batch, length\).*got \(19,\)"),
        (IDS.double(), "torch.float64"),
        *(
            (IDS.to(dtype), f"ids must be int64 or int32 .*{dtype}")
            for dtype in (torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool)
        ),
        (IDS[:, :0], "an empty prompt: begin with the bos token"),
        (IDS + 11, r"ids must lie in 0..28 \(vocab_size 29\): got 1[1-9]..3[0-9]"),
        (IDS - 40, "ids must lie in 0..28"),
    ],
)
def test_bad_ids_are_refused(ids, message):
    for run in (MODEL, MODEL.extend):
        with pytest.raises(ValueError, match=message):
            run(ids)


@pytest.mark.parametrize(
    "targets, message",
    [
        (IDS.double(), "targets must be a tensor, int64 or int32: got torch.float64"),
        (IDS.tolist(), "targets must be a tensor, int64 or int32: got list"),
        (IDS[:, 1:], r"targets must have the shape of ids, \(2, 19\): got \(2, 18\)"),
        (IDS + 11, r"targets must lie in 0..28 \(vocab_size 29\) or be -100: got \[29, "),
        (IDS - 40, "targets must lie in 0..28"),
    ],
)
def test_bad_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        MODEL(IDS, targets=targets)


def test_targets_of_32_bits_and_targets_that_ask_for_nothing_are_as_good():
    some = IDS.masked_fill(IDS % 3 == 0, -100)
    assert torch.equal(MODEL(IDS, targets=some.int()), MODEL(IDS, targets=some))
    assert MODEL(IDS, targets=torch.full_like(IDS, -100)) == 0


def test_ids_of_32_bits_are_as_good():
    assert torch.equal(MODEL(IDS.int()), MODEL(IDS))
    assert torch.equal(zl.generate(MODEL, IDS.int(), 4, stop=[3]), zl.generate(MODEL, IDS, 4, stop=[3]))


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.ones(2, 18), r"mask must have the shape of ids: got \(2, 18\), ids \(2, 19\)"),
        (torch.full((2, 19), 0.5), r"mask must hold 1 at tokens and 0 at padding and nothing else: got values \[0.5\]"),
    ],
)
def test_bad_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        MODEL(IDS, mask)


def test_a_cache_of_another_batch_is_refused():
    _, cache = MODEL.extend(IDS)
    with pytest.raises(ValueError, match="got 1 rows, the cache holds 2"):
        MODEL.extend(IDS[:1], cache)


def test_a_mask_that_hides_nothing_is_no_mask():
    for mask in (torch.ones(2, 19), torch.ones(2, 19, dtype=torch.long)):
        assert torch.equal(MODEL(IDS, mask), MODEL(IDS)) and MODEL.extend(IDS, mask=mask)[1].mask is None


def test_one_cache_row_can_be_taken_out():
    _, cache = MODEL.extend(IDS)
    row = cache.map(lambda t: t[1:])
    torch.testing.assert_close(MODEL.extend(IDS[1:, :3], row)[0], MODEL.extend(IDS[:, :3], cache)[0][1:])


@pytest.mark.parametrize("mixer", ["mamba2", "mamba1"])
@pytest.mark.parametrize("init", ["small", "matching", "authors", "reference"])
def test_initialisation_is_decided_by_the_seed_and_fills_everything(init, mixer):
    config = replace(BASE, init=init, mixer=mixer, tie_embeddings=False, proj_bias=True)
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(zl.Zamba(config).state_dict())
    same = [torch.equal(models[0][name], models[1][name]) for name in models[0]]
    differ = [name for name in models[0] if not torch.equal(models[0][name], models[2][name])]
    assert all(same) and len(differ) > len(same) / 2
    assert all(t.isfinite().all() and t.abs().max() < 30 for t in models[0].values())


def test_initial_step_sizes_and_decays_lie_in_the_documented_ranges():
    for init, low, high in (("authors", 1, 16), ("small", 1, 16), ("reference", 1, 8)):
        mixer = zl.Zamba(replace(PURE, init=init)).layers[0].mamba
        dt, A = torch.nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
        assert dt.min() > 0.9e-3 and dt.max() < 0.11
        assert A.min() > 0.99 * low and A.max() < 1.01 * high
    channels = zl.Zamba(replace(PURE, mixer="mamba1")).layers[0].mamba.A_log.exp()
    torch.testing.assert_close(channels[0, 0], torch.arange(1, 7).float())


@torch.no_grad()
def test_only_the_small_scheme_lets_the_shared_block_be_heard():
    """RMS(link out) / RMS(stream) at the first invocation: near 1 for "small", far below for the others."""
    ratio = {}
    for init in ("small", "authors", "reference"):
        torch.manual_seed(0)
        # fmt: off
        config = zl.ZambaConfig(
            vocab_size=64, d_model=64, n_layers=2, headdim=32, d_state=16, hybrid_layers=(1,), n_shared_blocks=1, attn_heads=2, d_mlp=128,
            lora_rank=4, init=init,
        )
        # fmt: on
        trace = zl.Trace(keep=["invocation.0.link_out", "layers.1.resid_in"])
        zl.Zamba(config)(torch.randint(64, (4, 32)), trace=trace)
        ratio[init] = (trace["invocation.0.link_out"].square().mean() / trace["layers.1.resid_in"].square().mean()).sqrt()
    assert 0.3 < ratio["small"] < 30
    assert ratio["reference"] < 0.1 < ratio["small"] / 3


@torch.no_grad()
@pytest.mark.parametrize("mixer", ["mamba2", "mamba1"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_small_scheme_saturates_no_softmax(tied, mixer):
    """Scores of a standard deviation of 30 attend to one position at random, learn slowly, and fill it with denormals."""
    torch.manual_seed(0)
    # fmt: off
    config = zl.ZambaConfig(
        vocab_size=64, d_model=128, n_layers=2, headdim=32, d_state=16, hybrid_layers=(1,), attn_heads=4, n_shared_blocks=1, d_mlp=64,
        mixer=mixer, tie_embeddings=tied, init="small",
    )
    # fmt: on
    trace = zl.Trace(keep=["invocation.0.attn_probs"])
    zl.Zamba(config)(torch.randint(64, (2, 64)), trace=trace)
    assert trace["invocation.0.attn_probs"][..., -1, :].amax(-1).mean() < 0.1  # 1/64 is even


@torch.no_grad()
def test_the_matching_scheme_begins_with_attention_to_like_tokens():
    """The repeated half reads the tokens that are its own, here and earlier, and other tokens hardly; "small" reads all alike."""
    like = {}
    for init in ("small", "matching"):
        torch.manual_seed(0)
        # fmt: off
        config = zl.ZambaConfig(
            vocab_size=256, d_model=128, n_layers=4, headdim=32, d_state=8, hybrid_layers=(1, 3), n_shared_blocks=2, attn_heads=4,
            d_mlp=64, rope_theta=None, init=init, link_gain=0.3,
        )
        # fmt: on
        model, ids = zl.Zamba(config), torch.randperm(256)[:32].repeat(1, 2)
        trace = zl.Trace(keep=["invocation.*.attn_probs"])
        model(ids, trace=trace)
        same = ids[0, :, None] == ids[0]
        like[init] = [trace[f"invocation.{k}.attn_probs"][0, :, 32:][:, same[32:]].mean() for k in (0, 1)]
        assert torch.equal(model.shared_blocks[0].attention.q.weight, model.shared_blocks[0].attention.k.weight) == (init == "matching")
    assert all(share < 0.03 for share in like["small"])
    assert like["matching"][0] > 0.08 and like["matching"][1] > 0.04, like
    with pytest.raises(ValueError, match="needs as many heads of both: got 4 and 2"):
        replace(config, attn_kv_heads=2)


@pytest.mark.parametrize("l", [5, 8, 13])
def test_a_long_prompt_is_taken_in_pieces(monkeypatch, l):
    model, ids = make_model(BASE), random_ids(BASE, l=l)
    whole, cache = model.extend(ids)
    monkeypatch.setattr("zamba_lab.model.PREFILL", 4)
    passes = []
    monkeypatch.setattr(model, "walk", lambda ids, *rest, walk=model.walk, **more: passes.append(ids.shape[1]) or walk(ids, *rest, **more))
    with torch.no_grad():
        logits, pieces = model.extend(ids, last_only=True)
    assert passes[-1] == 4 and max(passes) == 4 and sum(passes) == l
    torch.testing.assert_close(logits, whole[:, -1:])
    assert pieces.length == cache.length
    for a, b in zip(pieces.layers, cache.layers):
        for name, t in a.tensors().items():
            torch.testing.assert_close(t, b.tensors()[name])


PADDED = {
    "left, by more than a piece": ([[0] * 6 + [1] * 7, [1] * 13], 4),
    "in the midst of a piece and over one": ([[1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0], [1] * 12 + [0]], 4),
    "right, before the last piece": ([[1] * 8 + [0] * 5, [1] * 13], 13),
}


@pytest.mark.parametrize("variant", ["base", "mamba1"])
@pytest.mark.parametrize("rows, largest", PADDED.values(), ids=PADDED)
def test_a_padded_prompt_is_taken_in_pieces_if_its_last_tokens_are_in_one(monkeypatch, rows, largest, variant):
    model, mask = make_model(VARIANTS[variant]), torch.tensor(rows)
    ids = random_ids(VARIANTS[variant], b=2, l=13)
    with torch.no_grad():
        whole, cache = model.extend(ids, mask=mask, last_only=True)
        after, _ = model.extend(ids[:, :1], cache)
        monkeypatch.setattr("zamba_lab.model.PREFILL", 4)
        passes = []
        monkeypatch.setattr(
            model, "walk", lambda ids, *rest, walk=model.walk, **more: passes.append(ids.shape[1]) or walk(ids, *rest, **more)
        )
        logits, pieces = model.extend(ids, mask=mask, last_only=True)
        assert max(passes) == largest and sum(passes) == 13
        torch.testing.assert_close(logits, whole)
        torch.testing.assert_close(model.extend(ids[:, :1], pieces)[0], after)
    assert pieces.length == cache.length and torch.equal(pieces.mask, cache.mask)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks, nobody else
def test_a_compiled_model_computes_the_same_with_gradients():
    model, ids = make_model(BASE), random_ids(BASE)
    compiled, expected = torch.compile(model, backend="aot_eager"), model(ids)
    torch.testing.assert_close(compiled(ids), expected)
    wanted = torch.autograd.grad(expected.square().mean(), list(model.parameters()))
    for got, want in zip(torch.autograd.grad(compiled(ids).square().mean(), list(model.parameters())), wanted):
        torch.testing.assert_close(got, want)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(ids[:, :1]), model(ids[:, :1]))
