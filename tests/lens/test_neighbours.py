"""Other libraries can hold a model of ours, and find in it what our own names say. Optional: they need not be installed."""

import pytest
import torch
from variants import BASE, make_model, random_ids

from zamba_lab import lens


@torch.no_grad()
def test_nnsight_sees_and_changes_what_our_traces_and_interventions_do():
    nnsight = pytest.importorskip("nnsight")
    model, ids = make_model(BASE), random_ids(BASE)
    ours = lens.run(model, ids, keep=["layers.2.mamba.out", "invocation.1.link_out", "logits"])
    wrapped = nnsight.NNsight(model)
    with wrapped.trace(ids):
        out = wrapped.layers[2].mamba.output[0].save()
        logits = wrapped.output.save()
    torch.testing.assert_close(out, ours["layers.2.mamba.out"], rtol=0, atol=1e-11)
    torch.testing.assert_close(logits, ours["logits"], rtol=0, atol=1e-11)
    with wrapped.trace(ids):
        t = wrapped.layers[2].invocation.output[0].clone().save()
        wrapped.layers[2].invocation.output[0][:] = 0
        changed = wrapped.output.save()
    torch.testing.assert_close(t, ours["invocation.1.link_out"], rtol=0, atol=1e-11)
    torch.testing.assert_close(changed, lens.intervene(model, lens.zero("invocation", 1))(ids), rtol=0, atol=1e-11)
