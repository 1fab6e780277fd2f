"""The atlas describes the product of the factors without forming it; exchanged adapters are exchanged, and go back."""

import copy

import pytest
import torch
from lens_cases import ADAPTED, TRAINED, case

from zamba_lab import lens
from zamba_lab.lens.lora import orders, overlaps, product_spectrum

CASES = [*ADAPTED, TRAINED]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CASES)
def test_spectrum_norm_and_stable_rank_are_those_of_the_dense_product(name):
    model, _ = case(name)
    for part in lens.lora_parts(model.config):
        found = lens.lora_change(model, part)
        for k, (depth, block) in enumerate(zip(found.depths, found.blocks)):
            adapter, shared = model.layers[depth].invocation.adapters[part], model.shared_blocks[block]
            base = (shared.mlp.gate_up if part == "mlp" else getattr(shared.attention, part)).weight.detach()
            dense = (adapter.up.weight @ adapter.down.weight).detach()
            assert dense.shape == base.shape
            values = torch.linalg.svdvals(dense)[: found.spectrum.shape[1]]
            torch.testing.assert_close(found.spectrum[k], values)
            torch.testing.assert_close(found.norm[k], dense.norm() / base.norm())
            torch.testing.assert_close(found.stable_rank[k], dense.norm() ** 2 / values[0] ** 2)


@pytest.mark.parametrize("name", CASES)
def test_angles_are_between_what_is_read_and_what_is_written(name):
    model, _ = case(name)
    part = lens.lora_parts(model.config)[0]
    found = lens.lora_change(model, part)
    one, other = (model.layers[depth].invocation.adapters[part] for depth in found.depths[:2])
    for cosines, width, bases in (
        (found.reads, "reads_by_chance", (one.down.weight.mT, other.down.weight.mT)),
        (found.writes, "writes_by_chance", (one.up.weight, other.up.weight)),
    ):
        first, second = (basis.detach() @ torch.linalg.pinv(basis.detach()) for basis in bases)  # projections
        torch.testing.assert_close(cosines[0, 1].sum(), torch.trace(first @ second))
        torch.testing.assert_close(cosines.diagonal().min(), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(cosines, cosines.transpose(0, 1))
        assert (cosines <= 1).all()
        rank = model.config.lora_rank if part == "mlp" else model.config.lora_rank_qkv
        assert getattr(found, width) == pytest.approx(rank / len(first))
    assert torch.equal(found.random_reads(), lens.chance_overlaps(len(one.down.weight.mT), rank))


def test_the_mean_of_what_is_read_is_over_each_kind_of_pair_and_only_over_kinds_that_there_are():
    found = {name: lens.lora_change(case(name)[0]) for name in ("AAB", "one block", "unshared")}
    r = found["AAB"].reads.mean(-1)
    assert found["AAB"].mean_reads() == pytest.approx({"of one block": float(r[0, 1]), "of different blocks": float(r[0, 2] + r[1, 2]) / 2})
    r = found["one block"].reads.mean(-1)
    assert found["one block"].mean_reads() == pytest.approx({"of one block": float(r[0, 1] + r[0, 2] + r[1, 2]) / 3})
    assert list(found["unshared"].mean_reads()) == ["of different blocks"]


def test_principal_angles_of_known_subspaces():
    axes = torch.eye(5, dtype=torch.float64)
    tilted = torch.stack([axes[0], (axes[1] + axes[3]) / 2**0.5], dim=1)
    found = overlaps([axes[:, :2], axes[:, 2:4], tilted])
    torch.testing.assert_close(found[0], torch.tensor([[1.0, 1], [0, 0], [1, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(found[1, 2], torch.tensor([0.5, 0], dtype=torch.float64))


@pytest.mark.parametrize("d_out, d_in, rank", [(9, 7, 3), (7, 9, 8), (4, 5, 1)])
def test_the_spectrum_of_a_product_comes_from_its_factors(d_out, d_in, rank):
    out_of, into = rand(d_out, rank), rand(d_in, rank, seed=1)
    found = product_spectrum(out_of, into)
    torch.testing.assert_close(found, torch.linalg.svdvals(out_of @ into.mT)[: len(found)])
    assert len(found) == min(rank, d_out, d_in)


@pytest.mark.parametrize("d, rank", [(16, 3), (40, 8), (12, 1), (7, 7)])
def test_random_subspaces_overlap_by_r_over_d(d, rank):
    found = lens.chance_overlaps(d, rank, draws=400)
    assert found.shape == (400, rank) and (found[:, :-1] >= found[:, 1:]).all() and (found <= 1).all()
    assert float(found.mean()) == pytest.approx(rank / d, rel=0.03 if rank > 1 else 0.15)
    torch.testing.assert_close(found, lens.chance_overlaps(d, rank, draws=400))
    assert rank == d or not torch.equal(found, lens.chance_overlaps(d, rank, draws=400, seed=1))


@pytest.mark.parametrize("name", CASES)
def test_no_adapters_equal_adapters_switched_off(name):
    model, ids = case(name)
    effects = {effect.name: effect for effect in lens.lora_effects(model, ids, how="zero")}
    for k in range(model.config.n_invocations):
        expected = lens.next_token_loss(lens.intervene(model, lens.zero("adapter", k)), ids)
        torch.testing.assert_close(effects[f"zero {k}"].changed, expected)
    expected = lens.next_token_loss(lens.intervene(model, lens.zero("adapter")), ids)
    torch.testing.assert_close(effects["zero all"].changed, expected)


@pytest.mark.parametrize("name", CASES)
def test_adapters_are_removed_by_their_mean_if_nothing_is_said_and_by_others_if_that_is(name):
    model, ids = case(name)
    other = ids.flip(1)
    by_mean = {effect.name: effect for effect in lens.lora_effects(model, ids, reference=other)}
    by_other = {effect.name: effect for effect in lens.lora_effects(model, ids, "resample", other)}
    for where, number in ((1, "1"), (None, "all")):
        for effects, make, how in ((by_mean, lens.mean, "mean"), (by_other, lens.resample, "resample")):
            expected = lens.next_token_loss(lens.intervene(model, make("adapter", where, other)), ids)
            torch.testing.assert_close(effects[f"{how} {number}"].changed, expected)


@pytest.mark.parametrize("name", ["base", "lora on qkv", TRAINED])
def test_swapped_adapters_equal_a_model_with_their_weights_swapped(name):
    model, ids = case(name)
    k = next(k for k in range(1, 3) if model.config.blocks_by_invocation[k] == model.config.blocks_by_invocation[0])
    effect = next(e for e in lens.lora_effects(model, ids) if e.name == f"swap 0 and {k}")
    stand_in = copy.deepcopy(model)
    first, last = (stand_in.layers[model.config.hybrid_layers[i]].invocation.adapters for i in (0, k))
    kept = copy.deepcopy(first.state_dict())
    first.load_state_dict(last.state_dict())
    last.load_state_dict(kept)
    assert torch.equal(effect.changed, lens.next_token_loss(stand_in, ids))
    assert torch.equal(effect.baseline, lens.next_token_loss(model, ids))
    assert effect.change.abs().max() > 0


def test_exchanges_leave_the_model_as_it_is_bit_by_bit():
    model, ids = case("lora on qkv")
    before = model(ids)
    assert any(effect.change.abs().max() > 0 for effect in lens.lora_effects(model, ids))
    assert torch.equal(model(ids), before)


def test_the_exchanges_stay_within_a_block():
    model, _ = case(TRAINED)
    assert orders(model.config) == {
        "mean 0": (None, 1, 2, 3),
        "mean 1": (0, None, 2, 3),
        "mean 2": (0, 1, None, 3),
        "mean 3": (0, 1, 2, None),
        "mean all": (None,) * 4,
        "swap 0 and 2": (2, 1, 0, 3),
        "swap 1 and 3": (0, 3, 2, 1),
        "permute": (2, 3, 0, 1),
    }
    one = orders(case("one block")[0].config)
    assert one["permute"] == (1, 2, 0)
    assert [name for name in one if name.startswith("swap")] == ["swap 0 and 1", "swap 0 and 2", "swap 1 and 2"]
    assert one["swap 0 and 1"] == (1, 0, 2)


def test_blocks_used_once_have_nobody_to_exchange_with():
    effects = {effect.name: effect for effect in lens.lora_effects(*case("unshared"))}
    assert list(effects) == ["mean 0", "mean 1", "mean 2", "mean all", "permute"]
    assert torch.equal(effects["permute"].changed, effects["permute"].baseline)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: lens.lora_change(case("no lora")[0]), "got 'mlp', this config has none"),
        (lambda: lens.lora_change(case("base")[0], "q"), r"got 'q', this config has mlp \(lora_rank 3, lora_rank_qkv 0\)"),
        (lambda: lens.lora_effects(*case("no lora")), "lora_rank 0 and lora_rank_qkv 0"),
        (lambda: lens.lora_effects(*case("pure mamba2")), "no shared block"),
        (lambda: lens.chance_overlaps(4, 5), r"rank must be in 1..4 \(the dimension d\): got 5"),
    ],
)
def test_what_is_not_there_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
