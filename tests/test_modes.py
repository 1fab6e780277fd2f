"""Under every way in which torch runs or captures a program: the eager result, or a Python error; with native forms and without."""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from variants import make_model

import zamba_lab as zl
from zamba_lab import native

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute"),  # the compiler looks, nobody else
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]
# fmt: off
CONFIG = zl.ZambaConfig(
    vocab_size=64, d_model=16, n_layers=1, headdim=8, d_state=8, hybrid_layers=(0,), n_shared_blocks=1, attn_heads=2, attn_kv_heads=1,
    d_mlp=16, lora_rank=2,
)
# fmt: on
MODEL = make_model(CONFIG)
both_forms = pytest.mark.parametrize("forms", [nullcontext, native.off], ids=["native", "pure"])


def ids_of(b, l):
    return torch.randint(64, (b, l), generator=torch.Generator().manual_seed(10 * b + l))


@pytest.mark.parametrize("forms, gradients", [(nullcontext, True), (native.off, False)], ids=["native, gradients", "pure, none"])
def test_a_compiled_model_computes_the_same_at_lengths_and_batches_that_change(forms, gradients):
    torch.compiler.reset()
    compiled = torch.compile(MODEL, backend="aot_eager", fullgraph=True)
    with forms(), torch.set_grad_enabled(gradients):
        for b, l in ((2, 4), (2, 7), (2, 11)):
            torch.testing.assert_close(compiled(ids_of(b, l)), MODEL(ids_of(b, l)), rtol=0, atol=1e-10)


def test_masks_and_losses_compile_whole():
    torch.compiler.reset()
    compiled, ids, mask = torch.compile(MODEL, backend="aot_eager", fullgraph=True), ids_of(2, 6), torch.ones(2, 6)
    mask[0, :2] = 0
    torch.testing.assert_close(compiled(ids, mask)[mask.bool()], MODEL(ids, mask)[mask.bool()], rtol=0, atol=1e-10)
    torch.testing.assert_close(compiled(ids, targets=ids), MODEL(ids, targets=ids), rtol=0, atol=1e-9)


@both_forms
def test_an_exported_model_computes_the_same(forms):
    with forms(), torch.no_grad():
        exported = torch.export.export(MODEL, (ids_of(2, 9),)).module()
        torch.testing.assert_close(exported(ids_of(2, 9).flip(1)), MODEL(ids_of(2, 9).flip(1)), rtol=0, atol=1e-10)


@both_forms
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_model_traced_by_jit_computes_the_same(forms):
    """TensorBoard's add_graph does it, from its own threads."""
    with forms():
        traced = torch.jit.trace(MODEL, ids_of(2, 9), check_trace=False)
        torch.testing.assert_close(traced(ids_of(2, 9).flip(1)), MODEL(ids_of(2, 9).flip(1)), rtol=0, atol=1e-10)


def test_without_values_the_shapes_come_out():
    with FakeTensorMode():
        assert zl.Zamba(CONFIG)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 64)
    with torch.device("meta"):
        model = zl.Zamba(CONFIG)
    assert model(torch.zeros(2, 5, dtype=torch.long, device="meta")).shape == (2, 5, 64)


@both_forms
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_batch_of_models_is_each_of_them(forms):
    """torch.func's ensembles: vmap over the parameters."""
    models = [make_model(CONFIG, seed) for seed in (0, 1)]
    stacked = {
        name: torch.stack([dict(model.named_parameters())[name].detach() for model in models]) for name, _ in MODEL.named_parameters()
    }
    ids = ids_of(1, 5)
    with forms():
        together = torch.func.vmap(lambda parameters: torch.func.functional_call(MODEL, parameters, (ids,)))(stacked)
        for each, model in zip(together, models):
            torch.testing.assert_close(each, model(ids), rtol=0, atol=1e-10)


def test_inference_mode_is_no_gradient():
    with torch.inference_mode():
        inferred = MODEL(ids_of(2, 5))
    assert inferred.is_inference()
    with torch.no_grad():
        torch.testing.assert_close(inferred, MODEL(ids_of(2, 5)), rtol=0, atol=1e-10)


def test_a_map_over_ids_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match="the model takes a batch"):
        torch.func.vmap(MODEL)(torch.randint(3, MODEL.config.vocab_size, (3, 1, 4)))
