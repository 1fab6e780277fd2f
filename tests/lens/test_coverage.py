"""The coverage of a frozen mixer is the cosine and the difference of two Jacobians, which autograd has whole on a short text."""

import pytest
import torch
from lens_cases import case

from zamba_lab import lens
from zamba_lab.trace import Trace


@pytest.mark.parametrize("name", ["base", "mamba1"])
def test_it_is_that_of_the_whole_jacobian_to_the_frozen_one(name):
    model, ids = case(name)
    ids = ids[:1, :6]
    matrix = lens.mixer_matrix(model, ids, 2)

    def mixer(u):
        out = []
        edit = {"layers.2.mamba.input": lambda _: u, "layers.2.mamba.out": lambda y: out.append(y) or y}
        model(ids, None, Trace(edit=edit))
        return out[0]

    whole = torch.autograd.functional.jacobian(mixer, matrix.u)[0, :, :, 0]
    frozen = matrix.jacobian()[0]
    cosine = float((whole * frozen).sum() / whole.norm() / frozen.norm())
    difference = float((whole - frozen).norm() / whole.norm())
    found = lens.coverage(model, ids, 2, probes=200)
    assert found.cosine == pytest.approx(cosine, abs=0.03) and found.difference == pytest.approx(difference, abs=0.05)
    assert f"cosine {found.cosine:.2f}" in str(found)


def test_what_is_padding_is_left_out():
    model, ids = case("base")
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, :3] = False
    padded = lens.coverage(model, ids, 1, mask)
    ids[:, :3] = 1
    assert padded == lens.coverage(model, ids, 1, mask)
