import pytest
import torch

from zamba_lab.ops.conv import causal_conv


def inputs(w: int, l: int = 11, seed: int = 0):
    make = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)
    return draw(2, l, 6), draw(6, w), draw(6), draw(2, w - 1, 6)


@pytest.mark.parametrize("w", [1, 2, 3, 4])
def test_each_output_is_the_weighted_sum_of_its_last_inputs(w):
    x, weight, bias, state = inputs(w)
    y, after = causal_conv(x, weight, bias, state)
    window = torch.cat([state, x], 1)
    for t in range(11):
        torch.testing.assert_close(y[:, t], bias + sum(weight[:, j] * window[:, t + j] for j in range(w)))
    torch.testing.assert_close(after, window[:, 11:], rtol=0, atol=0)


@pytest.mark.parametrize("w", [1, 2, 4])
@pytest.mark.parametrize("cut", [1, 2, 10])
def test_two_pieces_equal_the_whole(w, cut):
    x, weight, bias, _ = inputs(w)
    first, state = causal_conv(x[:, :cut], weight, bias)
    second, state = causal_conv(x[:, cut:], weight, bias, state)
    whole, last = causal_conv(x, weight, bias)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(state, last, rtol=0, atol=0)


@pytest.mark.parametrize("w", [1, 2, 4])
def test_padding_is_skipped_wherever_it_stands(w):
    x, weight, bias, state = inputs(w)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0], [0] * 11]).bool()
    y, after = causal_conv(x, weight, bias, state, mask)
    alone, after_alone = causal_conv(x[:1, mask[0]], weight, bias, state[:1])
    torch.testing.assert_close(y[0, mask[0]], alone[0])
    torch.testing.assert_close(after, torch.cat([after_alone, state[1:]]), rtol=0, atol=0)


def test_the_state_does_not_keep_the_inputs_alive():
    x, weight, bias, _ = inputs(4, l=500)
    _, state = causal_conv(x, weight, bias)
    assert state.untyped_storage().nbytes() == state.nbytes
