"""A fitted initial state does what a prompt does, of which the model then reads nothing; and no weight moves."""

from pydoc_data.topics import topics

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.train.initial_state import empty_state, fit_state


def distance(model, ids, cache, prompt):
    """KL(after the prompt || from the cache), nats a token."""
    with torch.no_grad():
        wanted, _ = model.extend(ids, lens.fork(model.extend(prompt)[1], len(ids)))
        got, _ = model.extend(ids, lens.fork(cache, len(ids)))
    return (wanted.softmax(-1) * (wanted.log_softmax(-1) - got.log_softmax(-1))).sum(-1).mean().item()


PROMPT = 'colours = {"grass": "green", "sky": "blue"}\nassert colours["grass"] == "green"\nassert colours["sky"] == "blue"\n'


def test_it_learns_what_a_prompt_says(tmp_path):
    model = zl.load("zamba2-nano")
    prompt, text = (torch.tensor(model.tokenizer.encode(t)) for t in (PROMPT, "".join(topics[key] for key in sorted(topics)[:12])))
    windows, before = text[: 112 * 16].view(-1, 16), {key: t.clone() for key, t in model.state_dict().items()}
    state, losses = fit_state(model, windows[:96].split(8), prompt[None])
    zeros, fitted = (distance(model, windows[96:], cache, prompt[None]) for cache in (empty_state(model), state))
    assert fitted < 0.6 * zeros and len(losses) == 12  # on texts that the fit has not seen
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    again = zl.Cache.load(state.save(tmp_path / "state"), model)
    assert again.length == 0 and again.batch == 1
    with torch.no_grad():
        assert torch.equal(model.extend(windows[:1], again)[0], model.extend(windows[:1], state)[0])
    assert zl.generate(model, windows[:1], 3, cache=again).shape == (1, 3)


@pytest.mark.parametrize("name", ["base", "pure mamba1"])
def test_it_learns_what_follows_from_targets_alone(name):
    config = VARIANTS[name]
    model, ids = make_model(config).float(), random_ids(config, 8, 6)
    targets = torch.full_like(ids, 17)
    targets[:, ::2] = -100
    state, losses = fit_state(model, [(ids, targets)] * 15, lr=0.1)
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        logits, _ = model.extend(ids, lens.fork(state, 8))
    assert -logits.log_softmax(-1)[:, 1::2, 17].mean() < losses[0]


def test_what_cannot_be_fitted_is_refused():
    config = VARIANTS["base"]
    model, ids = make_model(config).float(), random_ids(config)
    with pytest.raises(ValueError, match="mixer='attention' has none"):
        fit_state(make_model(VARIANTS["transformer"]), [])
    with torch.no_grad():
        _, read = model.extend(ids)
    with pytest.raises(ValueError, match="one row that has read no tokens: got 2 rows and 19 tokens"):
        fit_state(model, [], start=read)
    with pytest.raises(ValueError, match=r"without a prompt each batch is \(ids, targets\)"):
        fit_state(model, [ids])
    with pytest.raises(ValueError, match="the loss of batch 0 is nan: every batch needs targets"):
        fit_state(model, [(ids, torch.full_like(ids, -100))])
    assert all(p.requires_grad for p in model.parameters())
