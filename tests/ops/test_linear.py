"""Products with int8 weights against those with the rounded weights, and rounding itself."""

import torch

from zamba_lab.ops.linear import dequantised, linear_int8, quantised


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_rounding_to_int8_moves_no_weight_by_more_than_half_a_step():
    weight = torch.cat([draw(9, 50), torch.zeros(1, 50)])
    values, scale = quantised(weight)
    moved = (dequantised(values, scale, torch.float32) - weight).abs()
    assert (moved <= weight.abs().amax(1, keepdim=True) / 254 * (1 + 1e-5)).all()
    assert values.abs().amax(1).tolist() == [127] * 9 + [0]


def test_int8_for_many_rows_is_the_product_with_the_rounded_weights():
    values, scale = quantised(draw(20, 64))
    x = draw(40, 64)
    torch.testing.assert_close(linear_int8(x, values, scale), x @ dequantised(values, scale, torch.float32).T)
    with torch.no_grad():
        torch.testing.assert_close(linear_int8(x[:3], values, scale), linear_int8(x, values, scale)[:3])
