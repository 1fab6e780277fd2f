"""Matched arms agree in what they were matched by, counted on the built model; what cannot agree is said."""

from dataclasses import replace

import pytest
import torch
from ablate.tiny import WIDE, study
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab import native
from zamba_lab.ablate import Match, match
from zamba_lab.ablate.arms import changed
from zamba_lab.ablate.matching import quantity, table
from zamba_lab.model import Zamba

ARMS = {
    "mamba1": ("mixer", "mamba1"),
    "one block": ("sharing", 1),
    "transformer": ("sharing", "transformer"),
    "unshared": ("sharing", "unshared"),
    "no concat": ("concat", False),
    "no conv": ("conv", False),
    "every 4": ("period", 4),
    "much memory": ("d_state", 8),
}


@pytest.mark.parametrize("arm", ARMS)
def test_matched_parameters_agree_within_one_percent_counted_on_the_models(arm):
    found = match(changed(WIDE, *ARMS[arm]), WIDE, Match("params"), context=8)
    counts = [sum(p.numel() for p in Zamba(config).parameters()) for config in (found.config, WIDE)]
    assert found.ok and abs(counts[0] / counts[1] - 1) <= 0.01
    assert found.off == pytest.approx(counts[0] / counts[1] - 1, abs=1e-12)


@pytest.mark.parametrize("arm", ["one block", "transformer", "no concat", "no conv"])
def test_matched_flops_agree_within_two_percent_by_torchs_counter(arm):
    """Element-wise work of the state, which the counter does not see, is added by the config's formula."""
    found = match(changed(WIDE, *ARMS[arm]), WIDE, Match("flops"), context=8)
    counts = []
    for config in (found.config, WIDE):
        model, ids = Zamba(config), torch.zeros(1, 8, dtype=torch.int64)
        with torch.no_grad(), native.off():
            _, cache = model.extend(ids[:, :-1])
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model.extend(ids[:, -1:], cache)
        unseen = 0 if config.mixer == "attention" else config.n_layers * 4 * config.d_inner * config.d_state
        counts.append(counter.get_total_flops() + unseen)
    assert found.ok and abs(counts[0] / counts[1] - 1) <= 0.02


@pytest.mark.parametrize("arm", ["no concat", "every 4", "much memory"])
def test_matched_state_agrees_within_two_percent_by_nbytes(arm):
    found = match(changed(WIDE, *ARMS[arm]), WIDE, Match("state"), context=8)
    sizes = [Zamba(config).extend(torch.zeros(1, 8, dtype=torch.int64))[1].nbytes for config in (found.config, WIDE)]
    assert found.ok and abs(sizes[0] / sizes[1] - 1) <= 0.02


def test_an_arm_that_agrees_already_is_left_as_it_is():
    for arm in (changed(WIDE, "rope", False), changed(WIDE, "link", "stream"), WIDE):
        found = match(arm, WIDE, Match("params"), context=8)
        assert found.config == arm and found.adjusted == {} and found.off == 0


def test_what_cannot_agree_comes_nearest_and_says_so():
    pure = changed(WIDE, "sharing", 0)
    found = match(pure, WIDE, Match("params", tolerance=0.001, knobs=("d_model",)), context=8)
    assert not found.ok and 0.001 < abs(found.off) < 0.1
    others = [replace(pure, d_model=value, headdim=value // 2) for value in range(20, 60, 2)]
    nearest = min(abs(quantity(one, "params", 8) / WIDE.n_params - 1) for one in others)
    assert abs(found.off) <= nearest + 1e-12, "another width comes nearer"
    row = table([("pure", found)], "params", 8)[0]
    assert row["ok"] is False and row["params"] == found.config.n_params and "d_model 32 ->" in row["adjusted"]


def test_a_study_trains_its_arms_as_matched():
    made = study(base=WIDE, axes={"concat": [False], "sharing": [0]}, match=Match("params"))
    assert made.matched["concat=off"].ok and made.matched["base"].config == made.base
    assert made.matched["concat=off"].config.d_mlp != made.base.d_mlp


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(by="width"), "params, flops, state"),
        (dict(by="params", tolerance=0), "above 0"),
        (dict(by="params", knobs=("colour",)), "widths that may be adjusted"),
    ],
)
def test_a_match_of_nothing_known_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Match(**wrong)
