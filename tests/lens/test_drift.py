"""The table of inputs by adapters has the model on its diagonal, and its sums of squares add up."""

import copy

import pytest
import torch
from lens_cases import HYBRID, TRAINED, case

from zamba_lab import lens
from zamba_lab.lens.attention import POINTS, two_way

CASES = [*HYBRID, TRAINED]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("point", POINTS)
def test_the_diagonal_is_the_model_and_the_squares_add_up(name, point):
    model, ids = case(name)
    for block in range(model.config.n_shared_blocks):
        found = lens.drift(model, ids, block, point)
        trace = lens.run(model, ids, keep=[f"*.{point}"])
        for i, (k, depth) in enumerate(zip(found.invocations, found.depths)):
            assert model.config.blocks_by_invocation[k] == block and model.config.hybrid_layers[k] == depth
            torch.testing.assert_close(found.values[i, i], trace[f"layers.{depth}.shared.{point}"])
        torch.testing.assert_close(found.inputs + found.adapters + found.both, found.total)
        assert found.total.shape == (len(ids),)
        torch.testing.assert_close(found.distance.diagonal().abs().max(), torch.tensor(0.0, dtype=torch.float64))


def test_rows_are_inputs_and_columns_are_adapters():
    model, ids = case("lora on qkv")
    found = lens.drift(model, ids, 0, "link_out")
    stand_in = copy.deepcopy(model)
    first, last = (stand_in.layers[depth].invocation for depth in found.depths)
    first.load_state_dict(last.state_dict())  # the first use, adapted as the last
    trace = lens.run(stand_in, ids, keep=["*.link_out"])
    torch.testing.assert_close(found.values[0, 1], trace[f"layers.{found.depths[0]}.shared.link_out"])
    expected = (found.values[0, 1] - found.values[0, 0]).flatten(1).norm(dim=1) / found.values[0, 0].flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distance[0, 1], expected)


@pytest.mark.parametrize("name, point", [("no lora", "mlp_out"), ("base", "attn_probs"), (TRAINED, "attn_out")])
def test_adapters_that_do_not_reach_the_point_change_nothing_there(name, point):
    found = lens.drift(*case(name), 0, point)
    scale = float(found.total.max())
    assert found.adapters.max() < 1e-20 * scale and found.both.max() < 1e-20 * scale
    torch.testing.assert_close(found.inputs, found.total)


def test_the_first_block_s_output_is_what_is_looked_at_if_nothing_is_said():
    model, ids = case("base")
    assert torch.equal(lens.drift(model, ids).values, lens.drift(model, ids, 0, "mlp_out").values)


def test_adapters_that_do_reach_it_change_something():
    found = lens.drift(*case("base"), 0, "mlp_out")
    assert (found.adapters > 1e-3 * found.total).all() and (found.both > 0).all()


def test_equal_inputs_leave_only_the_adapters():
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 1, 2, 4, 5), (1, 3, 2, 4, 5)
    row, column = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    total, rows, columns, rest = two_way(column.expand(3, 3, 2, 4, 5))
    assert rows.max() < 1e-20 and rest.max() < 1e-20
    torch.testing.assert_close(columns, total)
    total, rows, columns, rest = two_way(row + column)
    assert rest.max() < 1e-20
    torch.testing.assert_close(rows, 3 * (row - row.mean(0)).square().sum((0, 1, 3, 4)))
    torch.testing.assert_close(columns, 3 * (column - column.mean(1, keepdim=True)).square().sum((0, 1, 3, 4)))


def test_a_block_used_once_does_not_drift():
    found = lens.drift(*case("unshared"), 1)
    assert found.values.shape[:2] == (1, 1) and found.total.abs().max() == 0


@pytest.mark.parametrize("arguments, message", [((3,), "got 3, n_shared_blocks 2"), ((0, "q"), "point must be one of .*: got 'q'")])
def test_a_block_or_point_that_is_not_there_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lens.drift(*case("base"), *arguments)
