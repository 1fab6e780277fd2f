"""Head scores are their definition, and find a head where it was planted; a constant share is 1 of a constant."""

import pytest
import torch
from lens_planted import remembers_by_attention
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens

WITH_ATTENTION = [name for name, c in VARIANTS.items() if c.n_invocations or c.mixer == "attention"]


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_scores_are_the_weights_that_the_definition_names(name, start):
    model, n = make_model(VARIANTS[name]), 6
    half = random_ids(model.config, b=3, l=n)
    ids = torch.cat([half[:, :start], half, half], 1)
    found = lens.head_scores(model, ids)
    at = "layers.{}.attention" if model.config.mixer == "attention" else "invocation.{}"
    for a in range(len(found.depths)):
        probs = lens.run(model, ids, keep=["*.attn_probs"])[f"{at.format(a)}.attn_probs"]
        second = range(start + n, start + 2 * n)
        for head in range(model.config.attn_heads):
            weight = lambda i, s: float(probs[:, head, i, s].mean())
            each = {
                "previous": [weight(i, i - 1) for i in range(start + 1, start + 2 * n)],
                "duplicate": [weight(i, i - n) for i in second],
                "induction": [weight(i, i - n + 1) for i in second],
            }
            for score, weights in each.items():
                assert float(getattr(found, score)[a, head]) == pytest.approx(sum(weights) / len(weights), abs=1e-12)
    assert found.even["induction"] == pytest.approx(sum(1 / (i + 1) for i in range(start + n, start + 2 * n)) / n)


def test_a_planted_induction_head_is_found_and_no_other_score_is_high():
    model = remembers_by_attention()
    found = lens.head_scores(model, lens.repeated_tokens(model, length=12, count=8))
    assert found.induction.shape == (1, 1) and found.induction[0, 0] > 0.9
    assert found.previous[0, 0] < 0.1 and found.duplicate[0, 0] < 0.1
    random = lens.head_scores(make_model(BASE), lens.repeated_tokens(make_model(BASE), length=12, count=8))
    assert random.induction.max() < 0.5


def test_random_strings_are_twice_the_same_and_without_special_tokens():
    import zamba_lab as zl

    model = zl.load("zamba2-nano")
    ids = lens.repeated_tokens(model, length=64, count=5)
    assert ids.shape == (5, 129) and (ids[:, 0] == model.tokenizer.bos_id).all()
    assert torch.equal(ids[:, 1:65], ids[:, 65:]) and ids[:, 1:].min() > 2
    assert all(len(row[1:65].unique()) == 64 for row in ids) and not torch.equal(ids[0], ids[1])
    assert torch.equal(ids, lens.repeated_tokens(model, 64, 5)) and not torch.equal(ids, lens.repeated_tokens(model, 64, 5, seed=1))
    small = lens.repeated_tokens(make_model(BASE), length=64, count=2)  # more than there are tokens
    assert small.shape[1] in (128, 129) and small.max() < BASE.vocab_size


def test_an_even_head_spreads_over_all_tokens_and_a_constant_output_is_all_constant():
    model, ids = make_model(VARIANTS["base"]), random_ids(BASE, l=20)
    with torch.no_grad():
        for block in model.shared_blocks:
            block.attention.q.weight.zero_()
    share, tokens = lens.head_spread(model, ids)
    torch.testing.assert_close(share, torch.ones(3, 4).double())
    torch.testing.assert_close(tokens, torch.full((3, 4), float(torch.arange(11, 21).double().log().mean().exp())).double())
    constant = lens.intervene(make_model(BASE), lens.mean("invocation", 1, random_ids(BASE, seed=7)))
    shares = lens.constant_shares(constant, ids)
    assert shares[1] == pytest.approx(1) and all(0 < share < 0.99 for share in (shares[0], shares[2]))
    assert lens.constant_shares(make_model(VARIANTS["pure mamba2"]), ids) == []


def test_without_attention_and_without_repetition_it_says_so():
    pure, base = make_model(VARIANTS["pure mamba2"]), make_model(BASE)
    for call in (lens.head_scores, lens.head_spread):
        with pytest.raises(ValueError, match="the model has no attention: mixer 'mamba2', n_shared_blocks 0"):
            call(pure, torch.tensor([[1, 2, 1, 2]]))
    with pytest.raises(ValueError, match="ids must be a string of 2 tokens or more, twice"):
        lens.head_scores(base, torch.tensor([[1, 2, 1, 3]]))
