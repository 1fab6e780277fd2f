import pytest
import torch
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab.generation import filtered_probs, sample

PROBS = torch.tensor([[0.4, 0.05, 0.3, 0.2, 0.05]]).double()


@pytest.mark.parametrize("variant", ["base", "mamba1", "pure mamba2", "transformer"])
def test_greedy_takes_the_likeliest_token_of_the_full_forward(variant):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE, l=5)
    new = zl.generate(model, ids, 8)
    for _ in range(8):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(new, ids[:, 5:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_continue_as_if_alone(side):
    model, ids = make_model(BASE), random_ids(BASE, b=3, l=9)
    lengths, place = torch.tensor([9, 4, 1])[:, None], torch.arange(9)[None]
    mask = place >= 9 - lengths if side == "left" else place < lengths
    together = zl.generate(model, ids, 6, mask=mask)
    for row in range(3):
        assert torch.equal(together[row], zl.generate(model, ids[row, mask[row]][None], 6)[0])


def test_filters_keep_what_they_say():
    logits = PROBS.log()
    for how, kept in (
        (dict(top_k=2), {0, 2}),
        (dict(top_p=0.69), {0, 2}),
        (dict(top_p=0.71), {0, 2, 3}),
        (dict(top_p=1.0), {0, 1, 2, 3, 4}),
        (dict(top_p=0.01), {0}),
        (dict(min_p=0.6), {0, 2}),
        (dict(min_p=0.0), {0, 1, 2, 3, 4}),
        (dict(top_k=99), {0, 1, 2, 3, 4}),
        (dict(top_k=3, top_p=0.5, min_p=0.5), {0, 2}),
    ):
        probs = filtered_probs(logits, 1.0, **how)
        assert set(probs[0].nonzero()[:, 0].tolist()) == kept, how
        survivors = PROBS[0, sorted(kept)]
        torch.testing.assert_close(probs[0, sorted(kept)], survivors / survivors.sum())


def test_temperature_sharpens_and_flattens():
    torch.testing.assert_close(filtered_probs(PROBS.log(), 0.5), PROBS**2 / (PROBS**2).sum())


def test_draws_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    draws = sample(PROBS.log().expand(20_000, -1), 1.0, top_k=3, generator=generator)
    share = torch.bincount(draws, minlength=5) / 20_000
    torch.testing.assert_close(share.double(), filtered_probs(PROBS.log(), 1.0, top_k=3)[0], rtol=0, atol=0.012)


def test_a_seed_decides_and_leaves_the_global_generator_alone():
    model, ids = make_model(BASE), random_ids(BASE)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (zl.generate(model, ids, 12, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.rand(1), expected)


def test_a_row_that_stopped_stays_stopped_and_all_stopped_ends():
    model, ids = make_model(BASE), random_ids(BASE, b=4)
    free = zl.generate(model, ids, 30)
    stop = free[0, 3].item()
    held = zl.generate(model, ids, 30, stop=[stop])
    for row in range(4):
        hits = (free[row] == stop).nonzero()
        end = hits[0].item() if len(hits) else len(held[row]) - 1
        assert torch.equal(held[row, : end + 1], free[row, : end + 1])
        assert (held[row, end + 1 :] == held[row, end]).all()
    alone = zl.generate(model, ids[:1], 30, stop=[stop])
    assert alone.shape[1] == (free[0] == stop).nonzero()[0].item() + 1


def test_streaming_yields_what_generate_returns():
    model, ids = make_model(BASE), random_ids(BASE)
    tokens = list(zl.stream(model, ids, 7, temperature=0.8, seed=3))
    assert torch.equal(torch.stack(tokens, 1), zl.generate(model, ids, 7, temperature=0.8, seed=3))
    assert zl.generate(model, ids, 0).shape == (2, 0)
    for token in zl.stream(model, ids, 3):
        token += 1  # the caller's own: generation goes on as before
        assert not token.is_inference()
    assert torch.equal(token - 1, zl.generate(model, ids, 3)[:, -1])


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-46, 1e-320])
def test_the_smallest_temperature_is_greedy_and_the_largest_draws(temperature):
    logits = torch.tensor([[3.0, 80.0, -80.0], [0.0, -1e30, 0.5]])
    assert sample(logits, temperature).tolist() == [1, 2]
    assert filtered_probs(logits, 1e38).isfinite().all()


class Pieces:
    vocab_size = 9


def test_no_id_beyond_the_tokenizers_pieces_is_written():
    """A published vocabulary is padded to a multiple of 64; the rows that pad it have logits too."""
    model, ids = make_model(VARIANTS["untied"]), random_ids(BASE, l=5) % 9
    with torch.no_grad():
        model.head.weight[9:] += 20 * model.final_norm.weight.sign()
    for how in (dict(), dict(temperature=5.0, seed=0), dict(temperature=5.0, seed=0, top_k=3)):
        assert (zl.generate(model, ids, 12, **how) >= 9).any()
        model.tokenizer = Pieces()
        assert (zl.generate(model, ids, 12, **how) < 9).all()
        assert (zl.generate(model.float(), ids, 12, **how) < 9).all()
        model.double().tokenizer = None


@pytest.mark.parametrize(
    "how, rule",
    [
        (dict(temperature=-1), "temperature must be 0 .* got -1"),
        (dict(temperature=float("inf")), "temperature must be 0 .* got inf"),
        (dict(temperature="hot"), "temperature must be 0 .* got 'hot'"),
        (dict(top_k=0), "top_k must be an integer of 1 or more"),
        (dict(top_k=2.5), "top_k must be an integer of 1 or more.* got 2.5"),
        (dict(top_p=0), r"top_p must lie in \(0, 1\]"),
        (dict(top_p="most"), r"top_p must lie in \(0, 1\], .* got 'most'"),
        (dict(min_p=1.5), r"min_p must lie in \[0, 1\]"),
        (dict(max_new_tokens=-1), "max_new_tokens must be an integer of 0 or more"),
        (dict(max_new_tokens=2.5), "max_new_tokens must be an integer of 0 or more: got 2.5"),
        (dict(seed="x"), "seed must be an integer of 64 bits, or None: got 'x'"),
        (dict(seed=1 << 70), "seed must be an integer of 64 bits"),
        (dict(stop=[99]), r"stop must be a list of token ids, each in 0..28: got \[99\]"),
        (dict(stop=2), "stop must be a list of token ids, .* got 2"),
        (dict(stop="</s>"), "stop must be a list of token ids, .* got '</s>'"),
        (dict(stop=[1.0]), "stop must be a list of token ids"),
    ],
)
def test_bad_sampling_is_refused_before_any_work(how, rule):
    with pytest.raises(ValueError, match=rule):
        zl.stream(None if "stop" not in how else make_model(BASE), None, **{"max_new_tokens": 1, **how})


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    "ids, mask, rule",
    [
        ("Once upon a time", None, "ids must be a tensor of token ids .* got str"),
        ([[1, 2]], None, "ids must be a tensor of token ids .* got list"),
        (random_ids(BASE), [[1] * 19] * 2, "mask must have the shape of ids: got list"),
        (random_ids(BASE)[0], None, "shape"),
        (random_ids(BASE).short(), None, "torch.int16"),
        (random_ids(BASE) + 29, None, "0..28"),
        (random_ids(BASE)[:, :0], None, "begin with the bos token"),
        (random_ids(BASE), torch.ones(2, 3), "shape of ids"),
    ],
)
def test_bad_prompts_are_refused_when_called_whatever_is_asked_for(ids, mask, rule, count):
    for ask in (zl.stream, zl.generate):
        with pytest.raises(ValueError, match=rule):
            ask(make_model(BASE), ids, count, mask=mask)
