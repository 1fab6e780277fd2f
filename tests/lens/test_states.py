"""The recomputed SSM states are the model's own; their dimensions and contents are what was put there."""

import pytest
import torch
from lens_cases import SSM, TRAINED, case
from variants import random_ids

from zamba_lab import lens
from zamba_lab.lens.states import apart
from zamba_lab.lens.terms import Terms, names_of_inputs, ssm_rows, terms
from zamba_lab.ops.ssd import ssd_recurrence


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_recomputed_states_equal_those_of_the_pass(name):
    model, ids = case(name)
    trace = lens.run(model, ids, keep=[*names_of_inputs("*"), "*.state"])
    for depth in range(model.config.n_layers):
        torch.testing.assert_close(lens.ssm_states(model, trace, depth), trace[f"layers.{depth}.mamba.state"])


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_the_last_norm_and_dimension_are_those_of_the_cached_state(name):
    model, ids = case(name)
    norms, dimensions = lens.state_norms(model, ids), lens.state_dimensions(model, ids)
    assert norms.shape == dimensions.shape == (model.config.n_layers, *ids.shape, model.config.ssm_heads)
    with torch.no_grad():
        _, cache = model.extend(ids)
    cached = torch.stack([layer.ssm for layer in cache.layers])  # (i, b, h, p, n)
    torch.testing.assert_close(norms[:, :, -1], cached.flatten(-2).norm(dim=-1))
    squares = torch.linalg.svdvals(cached).square()
    torch.testing.assert_close(dimensions[:, :, -1], squares.sum(-1).square() / squares.square().sum(-1))


@pytest.mark.parametrize("name", ["base", "mamba1", "pure mamba2"])
def test_layers_that_step_together_give_what_each_gives_alone(name):
    model, _ = case(name)
    ids = random_ids(model.config, b=2, l=67)  # two at a time, of five
    trace = lens.run(model, ids, keep=names_of_inputs("*"))
    states = torch.stack([lens.ssm_states(model, trace, depth) for depth in range(model.config.n_layers)])
    torch.testing.assert_close(lens.state_norms(model, ids), torch.linalg.matrix_norm(states))
    torch.testing.assert_close(lens.state_dimensions(model, ids), lens.participation_ratio(states))


@pytest.mark.parametrize("p, n", [(7, 5), (5, 7), (6, 6)])
def test_k_equal_orthogonal_pairs_have_k_dimensions_and_rank_k(p, n):
    q, r = torch.linalg.qr(rand(p, p))[0], torch.linalg.qr(rand(n, n, seed=1))[0]
    for k in range(1, 6):
        state = 3e-9 * q[:, :k] @ r[:k]
        torch.testing.assert_close(lens.participation_ratio(state), torch.tensor(float(k), dtype=torch.float64))
        torch.testing.assert_close(lens.effective_rank(state), torch.tensor(float(k), dtype=torch.float64))


def test_unequal_ones_count_for_less_and_nothing_counts_for_nothing():
    values = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(lens.participation_ratio(values.diag()), torch.tensor(196 / 98, dtype=torch.float64))
    share = values / 6
    torch.testing.assert_close(lens.effective_rank(values.diag()), (-(share * share.log()).sum()).exp())
    for measure in (lens.participation_ratio, lens.effective_rank):
        assert measure(torch.zeros(2, 3, 4)).tolist() == [0, 0]


def toy(B: torch.Tensor, rate: float = 1e-12, seed: int = 0) -> tuple[Terms, torch.Tensor]:
    """One head that writes a token with each key; its terms and the state after the last. B: (l, n)"""
    l = len(B)
    found = Terms(
        rand(1, l, 1, 6, seed=seed),
        torch.full((1, l, 1, 1), 0.5, dtype=torch.float64),
        torch.full((1, 1, 1), -rate, dtype=torch.float64),
        B[None, :, None],
        B[None, :, None],
    )
    x, dt, A = found.x, found.dt[..., 0], found.A[:, 0, 0]
    return found, ssd_recurrence(x, dt, A, found.B, found.C)[1][:, -1]


def test_writing_k_orthogonal_pairs_makes_a_state_of_rank_k_that_reads_each_back():
    keys = torch.linalg.qr(rand(7, 7))[0]
    for k in (1, 3, 6):
        found, state = toy(keys[:k])
        assert torch.linalg.matrix_rank(state[0, 0], rtol=1e-9) == k
        assert lens.effective_rank(state)[0, 0] <= k + 1e-9
        left, _, share, recall, error = apart(found, state)
        torch.testing.assert_close(recall, torch.ones_like(recall))
        sizes = left.square().sum((-2, -1))[:, :, 0]
        torch.testing.assert_close(share[:, 0], sizes / sizes.sum(-1, keepdim=True))
        assert error < 1e-9


def test_the_error_says_how_far_what_is_left_is_from_the_state():
    found, state = toy(torch.linalg.qr(rand(4, 4))[0])
    assert apart(found, 2 * state)[-1] == pytest.approx(0.5)


def test_elapsed_time_is_summed_in_double_precision_whatever_the_model_s():
    found, _ = toy(rand(3, 4))
    assert Terms(*(part.float() for part in (found.x, found.dt, found.A, found.B, found.C))).time.dtype == torch.float64


def test_a_key_used_twice_reads_back_the_mixture():
    keys = torch.linalg.qr(rand(7, 7))[0][[0, 1, 0]]
    found, state = toy(keys)
    _, _, _, recall, _ = apart(found, state)
    x = found.x[0, :, 0]
    expected = torch.cosine_similarity(x[0] + x[2], x[0], dim=0)
    torch.testing.assert_close(recall[0, 0, 0], expected)
    assert recall[0, 0, 0] < 0.99 and abs(recall[0, 0, 1] - 1) < 1e-9


def test_what_is_left_of_a_token_has_decayed_since():
    found, state = toy(torch.linalg.qr(rand(4, 4))[0], rate=0.7)
    left = apart(found, state)[0]
    for s in range(4):
        written = 0.5 * found.x[0, s, 0][:, None] * found.B[0, s, 0]
        torch.testing.assert_close(left[0, s, 0], torch.tensor(-0.7 * 0.5 * (3 - s)).double().exp() * written)


@pytest.mark.parametrize("name", [*SSM, TRAINED])
@pytest.mark.parametrize("at", [0, 5, -1])
def test_the_contents_of_a_state_sum_to_it(name, at):
    model, ids = case(name)
    depth = model.config.n_layers - 1
    found = lens.contents(model, ids, depth, at)
    assert found.at == at % ids.shape[1] and found.error < 1e-9
    assert found.left.shape[1] == found.share.shape[2] == found.at + 1
    with torch.no_grad():
        _, cache = model.extend(ids[:, : found.at + 1])
    torch.testing.assert_close(found.left.sum(1), cache.layers[depth].ssm)
    torch.testing.assert_close(found.share.sum(-1), torch.ones_like(found.share[..., 0]))
    assert found.recall.abs().max() <= 1 + 1e-9


@pytest.mark.parametrize("name", ["base", "mamba1", TRAINED])
def test_contents_keep_no_state_but_the_last(name):
    found = lens.contents(*case(name), 1)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in (found.left, found.state, found.share, found.recall))


def test_the_contents_are_those_after_the_last_token_if_nothing_is_said():
    model, ids = case("base")
    assert lens.contents(model, ids, 1).at == ids.shape[1] - 1


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_the_ssm_s_matrix_gives_its_output_from_its_input_row_by_row(name):
    model, ids = case(name)
    trace = lens.run(model, ids, keep=["layers.1.mamba.*"])
    found, D = terms(model, trace, 1), model.layers[1].mamba.D.detach()
    M = ssm_rows(found, slice(None))
    y = torch.einsum("bhpls,bshp->blhp", M.expand(-1, -1, found.x.shape[3], -1, -1), found.x)
    torch.testing.assert_close(y + (D if D.ndim == 2 else D[:, None]) * found.x, trace["layers.1.mamba.y"])
    assert M.triu(1).abs().max() == 0
    for t in (0, 4, ids.shape[1] - 1):
        torch.testing.assert_close(ssm_rows(found, slice(t, t + 1)), M[..., t : t + 1, :])


@pytest.mark.parametrize(
    "call",
    [
        lens.state_norms,
        lens.state_dimensions,
        lens.decay,
        lens.horizons,
        lens.rollout,
        *(lambda model, ids, f=f: f(model, ids, 0) for f in (lens.contents, lens.mixer_matrix, lens.layer_flow)),
    ],
)
def test_a_model_without_states_is_refused(call):
    with pytest.raises(ValueError, match="mixer='attention'"):
        call(*case("transformer"))


@pytest.mark.parametrize(
    "arguments, message",
    [((5,), r"depth must be in 0..4: got 5"), ((-1,), "got -1"), ((0, 11), r"at must be in 0..10: got 11"), ((0, -12), "got -1")],
)
def test_a_layer_or_token_that_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lens.contents(*case("base"), *arguments)
