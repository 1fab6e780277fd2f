"""The measured half-life is that of the model's own state, and the formula's where the step is constant."""

import copy
import math

import pytest
import torch
from lens_cases import SSM, TRAINED, case

from zamba_lab import lens
from zamba_lab.lens.decay import decaying_norms, halving, reach
from zamba_lab.lens.terms import Terms, names_of_inputs


def constant(name: str, dt: float = 0.05):
    """The model with one constant step size, and one decay rate in each head, in every layer."""
    model, ids = case(name)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer in model.layers:
            m = layer.mamba
            if model.config.mixer == "mamba2":
                m.in_proj.weight[-model.config.ssm_heads :] = 0
                if m.in_proj.bias is not None:
                    m.in_proj.bias[-model.config.ssm_heads :] = 0
            else:
                m.dt_proj.zero_()
                m.A_log.copy_(m.A_log.mean((1, 2), keepdim=True).expand_as(m.A_log))
            m.dt_bias.fill_(math.log(math.expm1(dt)))
    return model, ids


@pytest.mark.parametrize("name", ["base", "mamba1", "mamba1 one head", "biases", "pure mamba2", TRAINED])
@pytest.mark.parametrize("dt", [0.01, 0.05, 0.9])
def test_with_a_constant_step_the_measured_half_life_is_the_formula_s(name, dt):
    model, ids = constant(name, dt)
    found = lens.horizons(model, ids)
    for i, layer in enumerate(model.layers):
        rate = layer.mamba.A_log.detach().exp().flatten(1)[:, 0] if model.config.mixer == "mamba1" else layer.mamba.A_log.exp()
        expected = (math.log(2) / (dt * rate.detach())).expand_as(found.measured[i])
        torch.testing.assert_close(found.measured[i], expected, rtol=1e-6, atol=0)  # a thousand times better than 1 %
        torch.testing.assert_close(found.analytic[i], expected, rtol=1e-6, atol=0)
        assert torch.equal(found.halved[i], expected <= found.window)
    assert found.discrepancy.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["base", "mamba1", "dt clamp", TRAINED])
def test_left_alone_a_state_is_what_a_change_of_it_leaves_in_the_model_s_own_pass(name):
    model, ids = case(name)
    t, window, depth = 4, 5, model.config.n_layers - 1

    def doubled(states):
        return torch.cat([states[:, :t], 2 * states[:, t : t + 1], states[:, t + 1 :]], dim=1)

    point = f"layers.{depth}.mamba.state"
    plain = lens.run(model, ids, keep=[*names_of_inputs([depth]), point])
    changed = lens.run(model, ids, keep=[point], edit={point: doubled})
    difference = torch.linalg.matrix_norm(changed[point] - plain[point])  # (b, l, h)
    norms = decaying_norms(model, plain, depth, (2, t), window)[:, 1]
    torch.testing.assert_close(norms.movedim(0, 1), difference[:, t : t + window + 1])
    assert difference[:, :t].abs().max() == 0


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_horizons_of_every_model_are_positive_and_the_last_possible_token_is_looked_at(name):
    model, ids = case(name)
    found = lens.horizons(model, ids)
    l, c = ids.shape[1], model.config
    assert found.window == l // 2 and found.positions[-1] == l - l // 2 - 1 and len(found.positions) == 4
    shape = (c.n_layers, 4, len(ids), c.ssm_heads)
    for part in (found.analytic, found.measured, found.reach, found.discrepancy, found.halved):
        assert part.shape == shape
    half_life = lens.decay(model, ids).half_life  # (i, b, l, h)
    for m, t in enumerate(found.positions):
        torch.testing.assert_close(found.analytic[:, m], half_life[:, :, t + 1])
        assert (found.reach[:, m] > 0).all() and (found.reach[:, m] <= t + 1).all()
    assert torch.equal(found.halved, found.measured <= found.window)
    torch.testing.assert_close(found.discrepancy, (found.measured / found.analytic).log() / math.log(2))


def test_halving_interpolates_logarithms_and_goes_on_at_the_mean_rate():
    steps = torch.arange(9, dtype=torch.float64)
    half_lives = torch.tensor([0.3, 1.0, 2.5, 7.5, 40.0], dtype=torch.float64)
    found, halved = halving(7 * 2 ** (-steps[:, None] / half_lives))
    torch.testing.assert_close(found, half_lives)
    assert halved.tolist() == [True, True, True, True, False]
    uneven, _ = halving(torch.tensor([8.0, 6.0, 3.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(float(uneven), 1 + math.log(6 / 4) / math.log(6 / 3))


def test_a_state_that_never_falls_never_halves_and_one_that_vanishes_has_halved():
    found, halved = halving(torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 0, 0]]))
    assert halved.tolist() == [False, False, True] and found[:2].tolist() == [math.inf] * 2 and 0 < found[2] < 0.1


def test_the_horizons_of_a_position_do_not_depend_on_the_others_and_two_tokens_are_enough():
    model, ids = case("base")
    alone, among = (lens.horizons(model, ids, positions, window=4) for positions in ([3], [0, 3, 6]))
    assert (alone.positions, among.positions) == ((3,), (0, 3, 6))
    for part in ("analytic", "measured", "reach"):
        torch.testing.assert_close(getattr(alone, part)[:, 0], getattr(among, part)[:, 1])
    shortest = lens.horizons(model, ids[:, :2])
    assert (shortest.positions, shortest.window) == ((0,), 1)


@pytest.mark.parametrize("half_life", [3.0, 20.0])
def test_constant_reading_reaches_half_its_weight_in_a_half_life(half_life):
    l, one = 400, torch.ones(1, 400, 1, 1, dtype=torch.float64)
    found = Terms(one, one, torch.full((1, 1, 1), -math.log(2) / half_life, dtype=torch.float64), one, -one)
    assert float(reach(found, l - 1)) == pytest.approx(half_life, rel=0.01)


def test_reach_is_the_number_of_latest_tokens_with_half_of_the_weight():
    x = torch.ones(1, 5, 1, 2, dtype=torch.float64)
    B = torch.tensor([7.0, 2.0, -1.0, 1.0, 9.0], dtype=torch.float64).reshape(1, 5, 1, 1)
    found = Terms(x, x[..., :1], torch.full((1, 1, 1), -1e-14, dtype=torch.float64), B, torch.ones_like(B))
    # token 3 reads 1, 1, 2, 7, latest first, 11 in all: 5.5 lies 1.5 / 7 into the fourth
    assert float(reach(found, 3)) == pytest.approx(3 + 1.5 / 7)
    assert float(reach(found, 0)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(window=0), r"window must be in 1..10 \(the text has 11 tokens\): got 0"),
        (dict(window=11), "got 11"),
        (dict(window=4, positions=[2, 7]), r"positions must be some of 0..6 \(length 11 - window 4\): got \(2, 7\)"),
        (dict(positions=[-1]), r"got \(-1,\)"),
        (dict(positions=[]), r"got \(\)"),
    ],
)
def test_positions_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lens.horizons(*case("base"), **arguments)
