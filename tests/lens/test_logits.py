"""The lens reads at the end what the model says, and with a translator what the translator says."""

import pytest
import torch
from lens_cases import TRAINED, case
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.lens.logits import SHARES, TunedLens, translated


@pytest.mark.parametrize("name", [*VARIANTS, TRAINED])
@torch.no_grad()
def test_the_last_site_reads_what_the_model_says_and_every_site_a_distribution(name):
    model, ids = case(name)
    config = model.config
    found = lens.logit_lens(model, ids, top=config.vocab_size)
    torch.testing.assert_close(found.probs.sum(-1), torch.ones_like(found.probs.sum(-1)))
    assert found.sites[0] == "embed" and found.sites[-1] == f"layers.{config.n_layers - 1}.resid_out"
    assert len(found.sites) == 1 + config.n_layers * (3 if config.mixer == "attention" else 2) + config.n_invocations
    assert found.divergence[-1].abs().max() < 1e-11 and (found.divergence > -1e-11).all() and found.divergence[0].min() > 0
    torch.testing.assert_close(found.loss[-1], lens.next_token_loss(model, ids))
    assert torch.equal(lens.logit_lens(model, ids, top=1).tokens, found.tokens[..., :1])
    probs = model(ids).softmax(-1)
    torch.testing.assert_close(probs.gather(-1, found.tokens[-1]), found.probs[-1])
    assert (found.probs[..., :-1] >= found.probs[..., 1:]).all()
    said = torch.zeros_like(found.probs[0]).scatter(-1, found.tokens[0], found.probs[0])  # by the embedding
    torch.testing.assert_close(found.divergence[0], (probs * (probs / said).log()).sum(-1))


@torch.no_grad()
def test_the_stream_before_a_layer_is_that_after_the_one_before():
    model, ids = make_model(BASE), random_ids(BASE)
    ins, outs = (
        lens.logit_lens(model, ids, [f"layers.{i + shift}.resid_{end}" for i in range(4)]) for shift, end in ((1, "in"), (0, "out"))
    )
    assert torch.equal(ins.divergence, outs.divergence)
    assert torch.equal(lens.logit_lens(model, ids, ["layers.0.resid_in"]).probs, lens.logit_lens(model, ids, ["embed"]).probs)


@torch.no_grad()
def test_later_sites_of_the_shipped_model_know_more():
    found = lens.logit_lens(nano(), nano_ids(1, 60), lens.lens_sites(nano().config, added=False))
    course = found.divergence.mean((1, 2))
    assert course[0] > 2 * course[-2] > 0 and course[-1] < 1e-9


@torch.no_grad()
def test_unembedding_the_end_of_the_stream_gives_the_logits():
    for variant in ("base", "untied"):
        model, ids = make_model(VARIANTS[variant]), random_ids(BASE)
        end = lens.run(model, ids, keep=["layers.4.resid_out"])["layers.4.resid_out"]
        assert torch.equal(lens.unembed(model, end), model(ids))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(top=0), "top must be in 1..29"),
        (dict(top=30), "got 30"),
        (dict(sites=["layers.0.mamba.z"]), r"layers.0.mamba.z has shape \(2, 19, 32\), d_model is 16"),
        (dict(sites=["layers.9.resid_out"]), "no trace point"),
        (dict(sites=()), "one trace point or more: got none"),
    ],
)
def test_what_is_no_site_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lens.logit_lens(make_model(BASE), random_ids(BASE), **options)


# --- tuned ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["base", "mamba1", "transformer", "untied"])
def test_on_held_out_text_no_site_is_worse_than_the_logit_lens_and_the_numbers_are_those_of_the_lens(variant):
    model, ids, held_out = make_model(VARIANTS[variant]), random_ids(BASE, b=3), random_ids(BASE, b=2, seed=9)
    tuned = lens.fit_tuned_lens(model, ids, held_out, steps=20, tokens=40)
    assert tuned.sites == lens.lens_sites(model.config, added=False)[:-1]
    assert (tuned.after <= tuned.before).all() and (tuned.after < tuned.before).any()
    plain, better = (lens.logit_lens(model, held_out, tuned.sites, translate=t).divergence.mean((1, 2)) for t in (None, tuned))
    torch.testing.assert_close(plain, tuned.before)
    torch.testing.assert_close(better, tuned.after)


def test_fitting_longer_fits_the_text_better_and_the_same_seed_fits_the_same():
    model, ids = make_model(BASE), random_ids(BASE, b=3)
    found = [lens.fit_tuned_lens(model, ids, ids, ["embed"], steps=steps, rate=3e-3) for steps in (1, 60, 60)]
    assert found[0].after > found[1].after and torch.equal(found[1].weight, found[2].weight)
    assert found[1].share.tolist() == [1]  # on the text it was fitted to nothing is taken back
    seeded = [lens.fit_tuned_lens(model, ids, ids, ["embed"], steps=1, tokens=2, seed=seed).weight for seed in (0, 1)]
    assert torch.equal(lens.fit_tuned_lens(model, ids, ids, ["embed"], steps=1, tokens=2).weight, seeded[0])
    assert not torch.equal(*seeded)
    assert all(p.grad is None for p in model.parameters())


def test_the_shipped_models_tuned_lens_is_better_on_text_that_chose_nothing():
    model, text = nano(torch.float32), nano_ids(4, 64)
    tuned = lens.fit_tuned_lens(model, text[:2], text[2:3], ["embed", "layers.3.resid_out"], steps=40)
    plain, better = (lens.logit_lens(model, text[3:], tuned.sites, translate=t).divergence.mean() for t in (None, tuned))
    assert better < plain


@torch.no_grad()
def test_a_translator_of_share_0_is_the_logit_lens_bitwise_and_other_sites_are_left_alone():
    model, ids = make_model(BASE), random_ids(BASE)
    noise = torch.randn(1, 16, 16, dtype=torch.float64)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    sites = ["embed", "layers.2.resid_out"]
    plain = lens.logit_lens(model, ids, sites)
    for share, same in ((zero, [True, True]), (one, [False, True])):
        tuned = TunedLens(("embed",), noise, noise[:, 0], share, zero, zero)
        found = lens.logit_lens(model, ids, sites, translate=tuned)
        assert [torch.equal(a, b) for a, b in zip(found.divergence, plain.divergence)] == same


def test_the_rate_of_a_fit_falls_in_a_line_to_0():
    """Adam's first step is its rate, and no step of two alike is longer."""
    model, ids = make_model(BASE), random_ids(BASE, b=3)
    one, two = (lens.fit_tuned_lens(model, ids, ids, ["embed"], steps=n, rate=1e-4).weight.abs().max() for n in (1, 2))
    assert float(one) == pytest.approx(1e-4, rel=1e-3) and float(two) == pytest.approx(1.5e-4, rel=1e-2)


def test_a_bias_is_fitted_in_units_of_what_it_is_added_to():
    model, ids = make_model(BASE), random_ids(BASE, b=3)
    sites = ["embed", "layers.3.resid_out"]
    found, trace = lens.fit_tuned_lens(model, ids, ids, sites, steps=1, rate=1e-4), lens.run(model, ids, keep=sites)
    for bias, site in zip(found.bias, sites):
        assert float(bias.abs().max()) == pytest.approx(1e-4 * float(trace[site].square().mean().sqrt()), rel=1e-3)


def test_shares_of_a_translation_go_from_none_to_all_of_it():
    assert SHARES[0] == 0 and SHARES[-1] == 1 and list(SHARES) == sorted(set(SHARES))


def test_a_translation_is_affine():
    weight, bias = torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([0.5, -1.0])
    torch.testing.assert_close(translated(torch.tensor([3.0, 4.0]), weight, bias, 0.5), torch.tensor([3 + 4.25, 4 - 0.5]))


def test_a_fit_of_no_step_or_token_is_refused_and_of_one_is_none():
    model, ids = make_model(BASE), random_ids(BASE)
    assert lens.fit_tuned_lens(model, ids, ids, ["embed"], steps=1, tokens=1).sites == ("embed",)
    assert lens.fit_tuned_lens(model, ids[:1, :9], ids, ["embed"], steps=1).bias.shape == (1, 16)  # fewer tokens than width
    for options, message in ((dict(steps=0), "0 and 256"), (dict(tokens=0), "200 and 0")):
        with pytest.raises(ValueError, match=f"1 or more: got {message}"):
            lens.fit_tuned_lens(model, ids, ids, **options)
    with pytest.raises(ValueError, match="one trace point or more: got none"):
        lens.fit_tuned_lens(model, ids, ids, sites=[])
