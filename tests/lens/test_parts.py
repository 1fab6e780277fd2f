"""What can be changed is there to be traced, and there are as many of it as is said."""

import pytest
from lens_cases import case
from variants import BASE, VARIANTS

from zamba_lab import lens
from zamba_lab.lens.parts import PARTS, numbers


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_counted_shows_in_a_trace_and_none_that_is_not(name):
    model, ids = case(name)
    c, trace = model.config, lens.run(model, ids, keep=["*"])
    assert lens.parts(c) == tuple(part for part in PARTS if lens.count(c, part))
    for part in lens.parts(c):
        where = numbers(c, part, None)
        assert where == tuple(range(lens.count(c, part))) and numbers(c, part, where[-1]) == where[-1:]
        points = [PARTS[part].points(c, i) for i in where]
        assert all(point in trace for i, some in zip(where, points) for point in (*some, PARTS[part].outlet(c, i)))
        assert len({point for some in points for point in some}) == len(where) * len(points[0])


def test_the_parts_of_a_small_hybrid_are_counted_by_hand():
    assert {part: lens.count(BASE, part) for part in PARTS} == {
        "invocation": 3,
        "head": 3,
        "adapter": 3,
        "concat": 3,
        "mixer": 5,
        "convolution": 5,
        "steps": 5,
    }
    assert {part: lens.count(VARIANTS["transformer"], part) for part in PARTS} == dict.fromkeys(PARTS, 0) | {"head": 5}


def test_a_part_of_no_model_is_refused():
    with pytest.raises(ValueError, match="part must be one of invocation, head, .*: got 'link'"):
        lens.count(BASE, "link")
