"""Other libraries can hold a model of ours, and find in it what our own names say.

Optional: without the extra `neighbours` these tests are skipped, and pytest's summary names each and what it lacks.
"""

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.checkpoints import save
from zamba_lab.lens.terms import names_of_inputs, ssm_rows, terms

TOLERANCE = 1e-5  # of the largest value: they calculate in float32


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


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()))


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
@pytest.mark.parametrize(
    "make",
    [lambda: (nano(torch.float32), nano_ids(2)), lambda: (make_model(VARIANTS["pure mamba2"]).float(), random_ids(BASE))],
    ids=["zamba2-nano", "pure mamba2"],
)
@torch.no_grad()
def test_transformer_lens_makes_the_same_matrices_and_states_of_the_same_weights(make, tmp_path):
    bridges = pytest.importorskip("transformer_lens.model_bridge", reason="transformer_lens is not installed")
    from parity.reference import reopen

    model, ids = make()
    save(model, tmp_path)
    bridge = bridges.TransformerBridge.boot_transformers(str(tmp_path), hf_model=reopen(tmp_path), device="cpu")
    depths = [i for i in range(model.config.n_layers) if i not in model.config.hybrid_layers]  # it sees no other mixers
    for depth in depths:
        # On its other route transformers reads the convolution's weights past the module that would be recorded.
        bridge.blocks[depth].mixer.eager_scan = True
    logits, cache = bridge.run_with_cache(ids, use_cache=False)
    close(model(ids), logits)
    trace = lens.run(model, ids, keep=names_of_inputs(depths))
    for depth in depths:
        mixer = bridge.blocks[depth].mixer
        theirs = mixer.compute_effective_attention(cache, depth, include_dt_scaling=True)
        close(ssm_rows(terms(model, trace, depth), slice(None))[:, :, 0], theirs)
        skip = torch.diag_embed(model.layers[depth].mamba.D[:, None].expand(-1, ids.shape[1]))
        close(lens.mixer_matrix(model, ids, depth).ssm[:, :, 0], theirs + skip)
        close(lens.ssm_states(model, trace, depth), mixer.compute_ssm_state(cache, depth).movedim(1, 2))
