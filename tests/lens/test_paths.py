"""What goes along every edge together is the whole; what goes along one is what that projection makes of it."""

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens

CASES = {
    "mamba2": (make_model(BASE), random_ids(BASE), ("z", "x", "B", "C", "dt")),
    "mamba1": (make_model(VARIANTS["mamba1"]), random_ids(BASE), ("x", "z")),
    "biases": (make_model(VARIANTS["biases"]), random_ids(BASE), ("z", "x", "B", "C", "dt")),
    "nano": (nano(), nano_ids(2, 19), ("z", "x", "B", "C", "dt")),
}
each_case = pytest.mark.parametrize("model, ids, edges", CASES.values(), ids=CASES.keys())


@each_case
@torch.no_grad()
def test_all_edges_together_are_the_invocation_replaced(model, ids, edges):
    other = ids.flip(1)
    for k in (0, 2):
        for path, whole in (
            (lens.path(k, edges), lens.zero("invocation", k)),
            (lens.path(k, edges, other), lens.resample("invocation", k, other)),
        ):
            torch.testing.assert_close(lens.intervene(model, path)(ids), lens.intervene(model, whole)(ids), rtol=0, atol=1e-10)


@each_case
@torch.no_grad()
def test_an_edge_changes_its_own_term_to_what_the_whole_patch_makes_of_it_and_no_other(model, ids, edges):
    depth = model.config.hybrid_layers[1]
    points = [f"layers.{depth}.mamba.{name}" for name in ("z", "x", "B", "C", "dt")]
    own, whole = (lens.run(m, ids, keep=points) for m in (model, lens.intervene(model, lens.zero("invocation", 1))))
    for edge in edges:
        found = lens.run(lens.intervene(model, lens.path(1, edge)), ids, keep=points)
        for point in points:
            follows = model.config.mixer == "mamba1" and edge == "x" and not point.endswith("z")  # made of x
            expected = whole if follows or point.endswith(f".{edge}") else own
            torch.testing.assert_close(found[point], expected[point], rtol=0, atol=1e-10)


@each_case
@torch.no_grad()
def test_a_path_from_the_same_text_changes_nothing(model, ids, edges):
    torch.testing.assert_close(lens.intervene(model, lens.path(1, edges[:1], ids))(ids), model(ids), rtol=0, atol=1e-10)


@each_case
@torch.no_grad()
def test_one_donor_serves_all_rows_and_another_number_is_refused(model, ids, edges):
    one, three = ids[:1].flip(1), ids[:1].flip(1).expand(3, -1)
    shared, apart = (lens.intervene(model, lens.path(1, edges, donor))(ids) for donor in (one, one.expand(len(ids), -1)))
    torch.testing.assert_close(shared, apart, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=f"for {len(ids)} rows of"):
        lens.intervene(model, lens.path(1, edges, three))(ids)


@torch.no_grad()
def test_two_paths_compose():
    model, ids, _ = CASES["mamba2"]
    both = lens.intervene(model, lens.path(0, ("z", "x")))(ids)
    torch.testing.assert_close(lens.intervene(model, lens.path(0, "z"), lens.path(0, "x"))(ids), both, rtol=0, atol=1e-11)
