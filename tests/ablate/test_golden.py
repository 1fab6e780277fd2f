"""What cells of version CODE give. If this fails, results have changed: raise `ablate.cell.CODE`, and write the new numbers here.

Rounding differs from machine to machine, so the numbers hold to four digits; a change of what is computed shows far above that.
"""

from dataclasses import replace

import pytest
from ablate.test_cell import CELL

from zamba_lab.ablate import run_cell
from zamba_lab.ablate.cell import CODE
from zamba_lab.config import ZambaConfig

ARMS = {
    "hybrid": {},
    "mamba1": {"mixer": "mamba1"},
    "transformer": {"mixer": "attention", "n_shared_blocks": 0, "lora_rank": 0},
    "stream, no taps": {"link_into": "stream", "d_conv": 0},
}
LOSSES = {
    1: {
        "hybrid": (2.64253953, 2.29446481),
        "mamba1": (3.47289477, 2.89191671),
        "transformer": (2.59565075, 2.24367272),
        "stream, no taps": (2.38200438, 2.35508988),
    }
}


@pytest.mark.parametrize("arm", ARMS)
def test_a_cell_gives_what_it_gave(arm, tmp_path):
    config: ZambaConfig = replace(CELL.config, **ARMS[arm])
    record, _ = run_cell(replace(CELL, config=config), tmp_path)
    found = tuple(point["held_out_loss"] for point in record["curve"])
    assert found == pytest.approx(LOSSES[CODE][arm], rel=1e-4)
