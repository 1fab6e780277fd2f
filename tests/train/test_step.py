"""Laws of one step: pieces give the joined batch's gradient, documents stand alone, memory is saved without a change."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from train.tiny import periodic, tiny_model, with_documents

from zamba_lab import native
from zamba_lab.train import Mixture, TrainConfig
from zamba_lab.train.batches import micro_batches, split_documents
from zamba_lab.train.config import KINDS as RATE_KINDS
from zamba_lab.train.config import kind_of, resolve_precision
from zamba_lab.train.step import adamw, autocast_for, decayed_parameters, gradient, train_step

CONFIG = TrainConfig(batch=6, length=23, lr=1e-2, seed=3)
DATA = Mixture.of(with_documents(600))
KINDS = [{}, {"mixer": "mamba1"}, {"n_shared_blocks": 2}, {"n_shared_blocks": 0, "mixer": "attention"}]


def gradients(model: nn.Module, pieces, autocast=None) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = gradient(model, pieces, *([] if autocast is None else [autocast]))
    return float(loss), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def equal(found, expected, **more) -> None:
    assert found[0] == pytest.approx(expected[0], rel=more.get("rtol", 1e-12))
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, msg=lambda text, name=name: f"{name}: {text}", **more)


@pytest.mark.parametrize("accumulate", [2, 4, 6])
def test_pieces_give_the_loss_and_gradient_of_the_joined_batch(accumulate):
    model = tiny_model().double()
    whole = gradients(model, micro_batches(DATA, 2, CONFIG, 1))
    assert whole[0] == pytest.approx(
        float(F.cross_entropy(model(DATA.batch(2, CONFIG)[0]).flatten(0, 1), DATA.batch(2, CONFIG)[1].flatten()).detach())
    )
    equal(gradients(model, micro_batches(DATA, 2, replace(CONFIG, accumulate=accumulate), 1)), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("with_native", [True, False])
def test_each_document_of_a_window_is_as_if_it_were_alone(changes, with_native):
    """State, convolution and attention: every logit, and the gradient of the sum of all losses."""
    model = tiny_model(**changes).double()
    ids, targets = DATA.batch(1, CONFIG)
    alone, logits = 0.0, []
    with native.off() if not with_native else torch.enable_grad():
        for row, aims in zip(ids, targets):
            starts = [0, *[k for k in range(1, len(row)) if row[k] == 1], len(row)]
            for a, b in zip(starts, starts[1:]):
                found = model(row[None, a:b])[0]
                logits.append((row[a:b], found.detach()))
                alone = alone + F.cross_entropy(found, aims[a:b], reduction="sum")
        alone = alone / ids.numel()
        alone.backward()
        expected = alone.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        pieces = split_documents(ids, targets, 1)
        assert len(pieces) > 1
        equal(gradients(model, pieces), expected, rtol=1e-10, atol=1e-12)
        logits.sort(key=lambda one: -len(one[0]))
        at = 0
        for rows, _ in pieces:
            for found in model(rows):
                torch.testing.assert_close(found[: len(logits[at][0])], logits[at][1], rtol=1e-10, atol=1e-12)
                at += 1
        assert at == len(logits)


def test_without_cutting_documents_do_see_each_other():
    model = tiny_model().double()
    cut, whole = (gradients(model, micro_batches(DATA, 1, replace(CONFIG, documents=on), 1)) for on in (True, False))
    assert abs(cut[0] - whole[0]) > 1e-6


@pytest.mark.parametrize("changes", KINDS)
@pytest.mark.parametrize("with_native", [True, False])
def test_checkpointing_changes_no_value_and_no_gradient(changes, with_native):
    model = tiny_model(**changes).double()
    with native.off() if not with_native else torch.enable_grad():
        plain = gradients(model, micro_batches(DATA, 0, CONFIG, 1))
        model.recompute = True
        equal(gradients(model, micro_batches(DATA, 0, CONFIG, 1)), plain, rtol=0, atol=0)


def test_checkpointing_keeps_only_what_enters_a_layer():
    """Counted in numbers that autograd keeps between the passes: those of one layer's input for each layer, and the ends'."""
    model, kept = tiny_model(n_layers=12, hybrid_layers=(2, 5, 8, 11)), {}
    ids = DATA.batch(0, CONFIG)[0]
    owned = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(t):
        if t.data_ptr() not in owned:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    sizes = []
    for on in (False, True):
        model.recompute = on
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model(ids).sum().backward()
        sizes.append(sum(kept.values()))
    assert sizes[1] * 2 < sizes[0], sizes


def test_a_cache_is_carried_though_checkpointing_is_on():
    model = tiny_model()
    ids = DATA.batch(0, CONFIG)[0]
    model.recompute = True
    _, cache = model.extend(ids[:, :9])
    torch.testing.assert_close(model.extend(ids[:, 9:], cache)[0], model(ids)[:, 9:], rtol=1e-4, atol=1e-4)


def test_autocast_is_near_and_leaves_weights_and_gradients_in_float32():
    model = tiny_model()
    exact = gradients(model, micro_batches(DATA, 0, CONFIG, 1))
    near = gradients(model, micro_batches(DATA, 0, CONFIG, 1), autocast_for("bf16", torch.device("cpu")))
    assert near[0] == pytest.approx(exact[0], rel=2e-2) and near[0] != exact[0]
    for name, value in exact[1].items():
        assert near[1][name].dtype == torch.float32
        assert (near[1][name] - value).norm() < 0.1 * value.norm() + 1e-3, name


def test_auto_is_float32_on_a_cpu():
    assert resolve_precision("auto", torch.device("cpu")) == "float32" and resolve_precision("bf16", torch.device("cpu")) == "bf16"


def test_a_step_learns_and_one_without_a_number_changes_nothing():
    model = tiny_model()
    optimiser = adamw(model, CONFIG)
    pieces = micro_batches(Mixture.of(periodic(400)), 0, CONFIG, 1)
    losses = [train_step(model, optimiser, pieces, 1e-2, 1.0)[0] for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(map(math.isnan, train_step(model, optimiser, pieces, 1e-2, 1.0)))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("changes", [{}, {"mixer": "mamba1"}, {"proj_bias": True, "mlp_bias": True}], ids=str)
def test_decay_spares_norms_biases_embeddings_and_the_ssm_s_rates(changes):
    """In Mamba-1 A_log and D are matrices, and yet no weights to be made small."""
    model = tiny_model(**changes)
    names, every = decayed_parameters(model), dict(model.named_parameters())
    spared = (
        "embedding.weight",
        "norm.weight",
        "norm_in.weight",
        "norm_mid.weight",
        "norm_weight",
        "bias",
        "A_log",
        "D",
        "dt_bias",
        "conv_weight",
    )
    assert names == {name for name in every if not name.endswith(spared)}
    assert {"layers.0.mamba.in_proj.weight", "layers.1.invocation.link.weight", "shared_blocks.0.attention.q.weight"} <= names
    assert {"layers.0.mamba.A_log", "layers.0.mamba.D", "layers.0.mamba.dt_bias"} <= every.keys() - names


def test_the_optimiser_has_each_parameter_once():
    model = tiny_model()
    groups = adamw(model, CONFIG).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())


def test_the_shared_path_has_its_share_of_the_learning_rate():
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimiser = adamw(model, replace(CONFIG, shared_lr=0.25))
    train_step(model, optimiser, micro_batches(DATA, 0, CONFIG, 1), lr=1e-3, clip=1.0)
    for group in optimiser.param_groups:
        ours = {".invocation." in names[id(p)] or names[id(p)].startswith("shared_blocks.") for p in group["params"]}
        assert ours == {group["lr"] == 2.5e-4} and group["lr"] in (1e-3, 2.5e-4)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-3, 2.5e-4}


def test_a_kind_of_matrix_has_its_own_rate_and_decay():
    model = tiny_model(lora_rank=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimiser = adamw(model, replace(CONFIG, rates="qk=0.5/0 link=0.25/1 lora=2/0.3", weight_decay=0.1))
    of = {names[id(p)]: (group["share"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]}
    assert of["shared_blocks.0.attention.q.weight"] == of["shared_blocks.0.attention.k.weight"] == (0.5, 0)
    assert of["layers.1.invocation.link.weight"] == (0.25, 1)
    assert {of[name] for name in of if ".adapters." in name} == {(2, 0.3)}
    assert of["shared_blocks.0.mlp.down.weight"] == of["layers.0.mamba.in_proj.weight"] == (1, 0.1)
    assert of["shared_blocks.0.norm_in.weight"] == of["embedding.weight"] == (1, 0)


def test_every_matrix_of_the_shared_path_is_of_one_kind():
    model = tiny_model(lora_rank=2)
    shared = [name for name, p in model.named_parameters() if p.ndim > 1 and (name.startswith("shared_blocks.") or ".invocation." in name)]
    assert {kind_of(name) for name in shared} == set(RATE_KINDS) and kind_of("layers.0.mamba.in_proj.weight") is None


@pytest.mark.parametrize("text", ["qk", "qk=1", "qk=0/1", "qk=1/-1", "qk=nan/1", "of=1/1", "qk=1/0 qk=1/0", "qk=inf/0"])
def test_rates_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r"rates are KIND=SHARE/DECAY, each kind once, of lora, qk, vo, .*: got "):
        replace(CONFIG, rates=text)
