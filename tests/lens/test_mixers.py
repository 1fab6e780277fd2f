"""The mixer's matrix is the mixer: it rebuilds its output, and it is the Jacobian of the mixer with its steering held."""

import pytest
import torch
import torch.nn.functional as F
from lens_cases import SSM, TRAINED, case
from lens_frozen import frozen_mixer

import zamba_lab as zl
from zamba_lab import lens


def rand(like: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_the_factors_rebuild_the_output(name):
    model, ids = case(name)
    for depth in range(model.config.n_layers):
        found = lens.mixer_matrix(model, ids, depth)
        trace = lens.run(model, ids, keep=["*.mamba.*"])
        torch.testing.assert_close(found.out, trace[f"layers.{depth}.mamba.out"])
        torch.testing.assert_close(found.rebuilt, found.out)
        torch.testing.assert_close(found.convolved(found.source()), trace[f"layers.{depth}.mamba.x"])
        assert found.error < 1e-9
        assert found.ssm.triu(1).abs().max() == 0


def test_the_error_says_how_far_off_a_matrix_is():
    from dataclasses import replace

    found = lens.mixer_matrix(*case("base"), 2)
    assert replace(found, out=found.rebuilt / 2).error == pytest.approx(1)
    assert replace(found, out=found.out * 1.25).error == pytest.approx(0.2)


@pytest.mark.parametrize("name", SSM)
def test_the_matrix_is_the_jacobian_of_the_mixer_with_its_steering_held(name):
    model, ids = case(name)
    ids = ids[:1, :6]
    found = lens.mixer_matrix(model, ids, 2)
    frozen = frozen_mixer(model, ids, 2)
    torch.testing.assert_close(frozen(found.u), found.out)
    expected = torch.autograd.functional.jacobian(frozen, found.u, vectorize=True)[0, :, :, 0]  # (l, d, s, d)
    torch.testing.assert_close(found.jacobian()[0], expected)


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_shares_and_gradient_are_autograds_gradient_and_the_gradient_times_the_input(name):
    model, ids = case(name)
    found, at = lens.mixer_matrix(model, ids, 1), 5
    toward, u = rand(found.out), found.u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((frozen_mixer(model, ids, 1)(u) * toward)[:, at].sum(), u)
    torch.testing.assert_close(found.gradient(at, toward), gradient)
    torch.testing.assert_close(found.shares(toward)[:, :, at].sum(1), (gradient * found.u).sum(-1))
    torch.testing.assert_close(found.gradient(at), found.gradient(at, found.along()))


@pytest.mark.parametrize("name", [*SSM, TRAINED])
def test_shares_and_constants_sum_to_one_and_along_any_direction_to_the_output(name):
    model, ids = case(name)
    for depth in (0, model.config.n_layers - 1):
        found = lens.mixer_matrix(model, ids, depth)
        assert found.shares().shape == (len(ids), model.config.ssm_heads, ids.shape[1], ids.shape[1])
        total = found.shares().sum((1, 3)) + found.constant_share()
        torch.testing.assert_close(total, torch.ones_like(total))
        toward = rand(found.out, 1)
        torch.testing.assert_close(found.shares(toward).sum((1, 3)) + found.constant_share(toward), (toward * found.out).sum(-1))
        assert found.shares().triu(1).abs().max() == 0


def test_shares_of_parts_of_the_input_add_up():
    found = lens.mixer_matrix(*case("base"), 1)
    part = rand(found.u)
    torch.testing.assert_close(found.shares(part=part) + found.shares(part=found.u - part), found.shares())


@pytest.mark.parametrize("name", ["base", "mamba1", "conv of one tap", "biases"])
def test_channels_hold_convolution_skip_and_gate(name):
    """K applied to the convolution's input, and the constants, give what goes into the output projection."""
    model, ids = case(name)
    found, mixer = lens.mixer_matrix(model, ids, 1), model.layers[1].mamba
    inner = torch.einsum("bhpls,bshp->blhp", found.channels(), found.source())
    zero = found.convolved(torch.zeros_like(found.source()))
    constant = torch.einsum("bhqlr,brhqi->blhqi", found.ssm, found.grouped(zero)).flatten(-2) * found.after
    out = mixer.out_proj((inner + constant).flatten(2)).detach()
    torch.testing.assert_close(out, found.out)


def test_a_head_s_matrix_is_the_dual_form_with_the_skip_on_its_diagonal():
    model, ids = case("base")
    trace = lens.run(model, ids, keep=["layers.3.mamba.*"])
    dt, B, C = (trace[f"layers.3.mamba.{name}"] for name in ("dt", "B", "C"))
    mixer, h, t, s = model.layers[3].mamba, 5, 7, 2
    g = h // (model.config.ssm_heads // model.config.n_groups)
    decay = torch.exp(-mixer.A_log[h].exp() * dt[0, s + 1 : t + 1, h].sum())
    found = lens.mixer_matrix(model, ids, 3).ssm[0, h, 0]
    torch.testing.assert_close(found[t, s], ((C[0, t, g] @ B[0, s, g]) * decay * dt[0, s, h]).detach())
    torch.testing.assert_close(found[t, t], ((C[0, t, g] @ B[0, t, g]) * dt[0, t, h] + mixer.D[h]).detach())


def test_the_first_taps_of_a_text_shorter_than_the_convolution():
    model, ids = case("base")
    found = lens.mixer_matrix(model, ids[:, :2], 1)
    assert found.error < 1e-9 and found.channels().shape[-2:] == (2, 2)
    torch.testing.assert_close(found.shares().sum((1, 3)) + found.constant_share(), torch.ones(2, 2, dtype=torch.float64))
    torch.testing.assert_close(found.gradient(1), torch.einsum("bo,bosd->bsd", found.along()[:, 1], found.jacobian()[:, 1]))


def test_int8_weights_and_narrow_types_give_matrices_too():
    model, ids = zl.load(TRAINED), case(TRAINED)[1]
    assert lens.mixer_matrix(zl.quantize(model, keep=()), ids, 1).error < 1e-4
    found = lens.mixer_matrix(zl.load(TRAINED, dtype=torch.bfloat16), ids, 1)
    assert found.ssm.dtype == torch.float32 and found.error < 0.05


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="depth must be in 0..4: got 7"):
        lens.mixer_matrix(*case("base"), 7)


def test_the_reference_itself_is_not_linear_where_nothing_is_held():
    """What the matrix leaves out is there: the mixer's true derivative is another."""
    model, ids = case("base")
    point = "layers.1.mamba.input"
    u = lens.run(model, ids, keep=[point])[point].requires_grad_()
    trace = zl.Trace(keep=["layers.1.mamba.out"], edit={point: lambda own: u})
    model(ids, trace=trace)
    out = trace["layers.1.mamba.out"]
    toward = rand(out.detach())
    (true,) = torch.autograd.grad((out * toward)[:, 5].sum(), u)
    assert not torch.allclose(true, lens.mixer_matrix(model, ids, 1).gradient(5, toward), rtol=1e-2)
    assert F.cosine_similarity(true.flatten(), lens.mixer_matrix(model, ids, 1).gradient(5, toward).flatten(), dim=0) < 0.999
