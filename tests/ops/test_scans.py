"""Both SSMs: all four forms agree, with values and gradients, at awkward sizes and at the edges of float32."""

from functools import partial

import pytest
import torch
from ops.inputs import scan_inputs, ssd_inputs
from ops.witness import scan_quadratic

from zamba_lab.ops import scan, ssd

SSD = (ssd.ssd_recurrence, ssd.ssd_chunked, ssd.ssd_quadratic, ssd.ssd_step, ssd_inputs)
SCAN = (scan.scan_recurrence, scan.scan_chunked, scan_quadratic, scan.scan_step, scan_inputs)
both = pytest.mark.parametrize("recurrence, chunked, quadratic, step, inputs", [SSD, SCAN], ids=["mamba2", "mamba1"])


@both
@pytest.mark.parametrize("l", [1, 2, 37, 64])
@pytest.mark.parametrize("chunk_size", [1, 7, 37, 100])
def test_chunked_equals_recurrence(recurrence, chunked, quadratic, step, inputs, l, chunk_size):
    *args, state = inputs(l=l)
    for start in (None, state):
        y, last = chunked(*args, start, chunk_size=chunk_size)
        y_ref, states_ref = recurrence(*args, start)
        torch.testing.assert_close(y, y_ref, rtol=0, atol=1e-11)
        torch.testing.assert_close(last, states_ref[:, -1], rtol=0, atol=1e-11)


@both
def test_quadratic_equals_recurrence(recurrence, chunked, quadratic, step, inputs):
    args = inputs()
    y, last = quadratic(*args)
    y_ref, states_ref = recurrence(*args)
    torch.testing.assert_close(y, y_ref, rtol=0, atol=1e-11)
    torch.testing.assert_close(last, states_ref[:, -1], rtol=0, atol=1e-11)


def test_recurrence_is_the_equation_written_out():
    x, dt, A, B, C, state = ssd_inputs()
    y, states = ssd.ssd_recurrence(x, dt, A, B, C, state)
    for t in range(3):
        for head in range(8):
            group = head // 4
            wrote = dt[1, t, head] * torch.outer(x[1, t, head], B[1, t, group])
            state[1, head] = torch.exp(dt[1, t, head] * A[head]) * state[1, head] + wrote
            torch.testing.assert_close(states[1, t, head], state[1, head])
            torch.testing.assert_close(y[1, t, head], state[1, head] @ C[1, t, group])


def test_selective_scan_is_the_equation_written_out():
    x, dt, A, B, C, state = scan_inputs()
    y, states = scan.scan_recurrence(x, dt, A, B, C, state)
    channel = state[1, 2, 4]
    for t in range(3):
        channel = torch.exp(dt[1, t, 2, 4] * A[2, 4]) * channel + dt[1, t, 2, 4] * x[1, t, 2, 4] * B[1, t, 2]
        torch.testing.assert_close(states[1, t, 2, 4], channel)
        torch.testing.assert_close(y[1, t, 2, 4], channel @ C[1, t, 2])


@both
def test_steps_equal_recurrence(recurrence, chunked, quadratic, step, inputs):
    x, dt, A, B, C, state = inputs()
    y_ref, states_ref = recurrence(x, dt, A, B, C, state)
    for t in range(x.shape[1]):
        y, state = step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        torch.testing.assert_close(y, y_ref[:, t], rtol=0, atol=1e-12)
        torch.testing.assert_close(state, states_ref[:, t], rtol=0, atol=1e-12)


@both
def test_gradients_of_every_form_equal_the_recurrence(recurrence, chunked, quadratic, step, inputs):
    def gradients(form):
        args = [a.detach().requires_grad_() for a in inputs(l=17)]
        y, state = form(*args)
        last = state if state.ndim == 4 else state[:, -1]
        ((y * torch.linspace(0, 1, y.numel()).reshape(y.shape).double()).sum() + last.square().sum()).backward()
        return [a.grad for a in args]

    expected = gradients(recurrence)
    for form in (quadratic, partial(chunked, chunk_size=5), partial(chunked, chunk_size=17)):
        for got, want in zip(gradients(form), expected):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@both
def test_zero_step_sizes_leave_the_state_alone(recurrence, chunked, quadratic, step, inputs):
    x, dt, A, B, C, state = inputs()
    _, last = chunked(x, torch.zeros_like(dt), A, B, C, state, chunk_size=7)
    torch.testing.assert_close(last, state, rtol=0, atol=0)


@both
def test_huge_and_tiny_decays_stay_finite_in_float32(recurrence, chunked, quadratic, step, inputs):
    x, dt, A, B, C, state = (part.float() for part in inputs(l=64))
    dt = torch.where(torch.arange(64).reshape(1, 64, *[1] * (dt.ndim - 2)) % 2 == 0, dt * 1e3, dt * 1e-6)
    args = [part.requires_grad_() for part in (x, dt.detach(), A, B, C, state)]
    y, last = chunked(*args, chunk_size=64)
    (y.sum() + last.sum()).backward()
    y_ref, states_ref = recurrence(*(part.detach() for part in args))
    torch.testing.assert_close(y, y_ref, rtol=1e-4, atol=1e-2)
    assert all(part.grad.isfinite().all() for part in args)


@both
def test_states_are_float32_and_outputs_keep_the_input_dtype(recurrence, chunked, quadratic, step, inputs):
    x, dt, A, B, C, _ = (part.float() for part in inputs())
    for form in (recurrence, chunked, quadratic):
        y, state = form(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16())
        assert y.dtype == torch.bfloat16 and state.dtype == torch.float32


@both
def test_an_edit_of_the_state_is_carried_on(recurrence, chunked, quadratic, step, inputs):
    x, dt, A, B, C, state = inputs(l=9)

    def erase_after_token_4(states):
        assert states.shape[1] == 9
        states = states.clone()
        states[:, 4] = 0
        return states

    y, states = recurrence(x, dt, A, B, C, state, edit=erase_after_token_4)
    y_ref, states_ref = recurrence(x, dt, A, B, C, state)
    after, _ = recurrence(x[:, 5:], dt[:, 5:], A, B[:, 5:], C[:, 5:])
    torch.testing.assert_close(y[:, :4], y_ref[:, :4])
    assert y[:, 4].abs().max() == 0 and states[:, 4].abs().max() == 0
    torch.testing.assert_close(y[:, 5:], after)


@pytest.mark.parametrize("chunk_size", [16, 64, 256])
def test_chunked_is_as_exact_as_the_recurrence_where_decays_are_strong(chunk_size):
    make = torch.Generator().manual_seed(0)
    x, B, C = (torch.randn(1, 512, heads, 16, generator=make) for heads in (4, 1, 1))
    dt, A = 2 * torch.rand(1, 512, 4, generator=make), -16 * torch.rand(4, generator=make)
    exact, _ = ssd.ssd_recurrence(*(part.double() for part in (x, dt, A, B, C)))
    y, _ = ssd.ssd_chunked(x, dt, A, B, C, chunk_size=chunk_size)
    assert (y - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1, 3, 4], ids=["x", "dt", "B", "C"])
@pytest.mark.parametrize("at", [0, 5, 20, 36])
@pytest.mark.parametrize("name", ["ssd", "ssd quadratic", "scan", "scan quadratic"])
def test_what_is_not_finite_reaches_no_earlier_token_and_only_what_the_recurrence_lets_it_reach(name, at, which, value):
    form, recurrence, inputs = {
        "ssd": (partial(ssd.ssd_chunked, chunk_size=16), ssd.ssd_recurrence, ssd_inputs()),
        "ssd quadratic": (ssd.ssd_quadratic, ssd.ssd_recurrence, ssd_inputs()),
        "scan": (partial(scan.scan_chunked, chunk_size=16), scan.scan_recurrence, scan_inputs()),
        "scan quadratic": (scan_quadratic, scan.scan_recurrence, scan_inputs()),
    }[name]
    clean = form(*inputs)[0]
    inputs[which][1, at].view(-1)[1] = value
    y, want = form(*inputs)[0], recurrence(*inputs)[0]
    assert torch.equal(y[0], clean[0]) and torch.equal(y[1, :at], clean[1, :at])
    assert not y[1][~want[1].isfinite()].isfinite().any()
    torch.testing.assert_close(y[1][y[1].isfinite()], want[1][y[1].isfinite()])
