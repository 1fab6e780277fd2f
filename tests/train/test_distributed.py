"""Two processes compute what one does: loss, gradient, runs, checkpoints, in float64; see ranks.py."""

import os
from pathlib import Path

import pytest
import torch
from processes import left_by
from train.ranks import MODELS, OPTIONS
from train.tiny import tiny_model

from zamba_lab.train.files import at_step

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not torch.distributed.is_available(), reason="forks gloo processes")


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    return left_by(HERE / "ranks.py", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_loss_and_gradient_are_those_of_one_process_on_the_joined_batch(left, way, option, kind):
    """A shared block's gradient is the sum over its invocations, once: it would be off by a factor otherwise."""
    two, one = (torch.load(left / f"{name}, {kind}, {option}.pt") for name in (way, "alone"))
    torch.testing.assert_close(two["loss"], one["loss"], rtol=1e-10, atol=0)
    torch.testing.assert_close(two["norm"], one["norm"], rtol=1e-10, atol=0)
    assert two["grads"].keys() == one["grads"].keys()
    for name, value in one["grads"].items():
        torch.testing.assert_close(
            two["grads"][name], value, rtol=1e-10, atol=1e-10 * float(value.abs().max()), msg=lambda said: f"{name}: {said}"
        )


@pytest.mark.parametrize("run", ["ddp", "fsdp", "one then two", "two then one"])
def test_a_run_ends_the_same_whoever_trains_and_whoever_goes_on(left, run):
    found, whole = (at_step(left / name, 6) for name in (run, "whole"))
    assert found["run"] == whole["run"]
    for name, value in whole["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-8, atol=1e-9, msg=lambda said: f"{name}: {said}")


@pytest.mark.parametrize("other", ["by two", "by one again"])
def test_saved_in_parts_by_one_it_loads_in_two_and_back_again(left, other):
    first, found = (torch.load(left / f"{name}.pt") for name in ("by one", other))
    torch.testing.assert_close(found, first, rtol=0, atol=0)


def test_a_shared_block_is_one_unit_and_so_is_each_layer(left):
    """Wrapped once, where it is owned: not once for each invocation."""
    layers, blocks = ([f"{name}.{k}" for k in range(count)] for name, count in (("layers", 3), ("shared_blocks", 2)))
    assert sorted(torch.load(left / "units.pt")) == sorted(["", *layers, *blocks])


def test_with_weights_cast_for_each_pass_loss_and_gradient_are_near(left):
    from train.ranks import CONFIG, DATA

    from zamba_lab.train.batches import micro_batches
    from zamba_lab.train.step import gradient

    found, model = torch.load(left / "mixed.pt"), tiny_model()
    assert float(found["loss"]) == pytest.approx(float(gradient(model, micro_batches(DATA, 0, CONFIG, 1))), rel=2e-2)
    for name, parameter in model.named_parameters():
        got = found["grads"][name]
        assert got.dtype == torch.float32 and (got - parameter.grad).norm() < 0.15 * parameter.grad.norm() + 1e-3, name


def test_without_torchrun_it_says_how_to_start(monkeypatch):
    from zamba_lab.train.distributed import from_torchrun

    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="torchrun --nproc-per-node N -m zamba_lab train"):
        from_torchrun("ddp")
