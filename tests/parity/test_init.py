"""init="reference" draws what transformers draws for a Zamba and a Zamba2: moments and range of each kind of parameter."""

import math
import re
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from parity import reference
from torch import Tensor

from zamba_lab.model import Zamba

# large enough that a moment says something: the rarest kind, dt_bias, has 96 values
LARGER = {"zamba2": dict(n_mamba_heads=16), "zamba": {}}


def by_kind(model: Zamba) -> dict[str, Tensor]:
    """All values of each kind of parameter, over layers, blocks and invocations. The reference leaves padding's row at 0."""
    found = defaultdict(list)
    for name, value in model.named_parameters():
        value = value[1:] if name == "embedding.weight" else value
        found[re.sub(r"\.\d+(?=\.)", "", name)].append(value.detach().flatten())
    return {kind: torch.cat(values) for kind, values in found.items()}


@pytest.mark.parametrize("model_type", ["zamba2", "zamba"])
def test_each_kind_of_parameter_is_drawn_alike(model_type, tmp_path):
    torch.manual_seed(0)
    theirs = reference.checkpoint(
        reference.fresh(model_type, hidden_size=64, mamba_d_state=16, intermediate_size=128, vocab_size=300, **LARGER[model_type]), tmp_path
    )
    torch.manual_seed(1)
    ours = by_kind(Zamba(replace(theirs.config, init="reference")))
    for kind, wanted in by_kind(theirs).items():
        found, n, spread = ours[kind], len(wanted), float(wanted.std())
        if spread < 1e-6 or kind.endswith("A_log"):  # constants, or a fixed table
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=lambda said: f"{kind}: {said}")
            continue
        # five standard errors of a difference of means and of standard deviations: of a normal, 1 / sqrt(2 n); others have less
        assert abs(float(found.mean() - wanted.mean())) < 5 * spread * math.sqrt(2 / n), kind
        assert abs(float(found.std()) / spread - 1) < 5 / math.sqrt(n), kind
        assert float(found.abs().max()) < 1.7 * float(wanted.abs().max()), kind
