"""A study that is killed again and again ends with each cell once, as if nothing had happened: one trial of tests/long/kill_study.py."""

import os
import random
import sys
from pathlib import Path

import pytest
from processes import only_long

sys.path.append(str(Path(__file__).parents[1] / "long"))
import kill_study


@only_long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills a group of processes by a signal")
def test_a_study_killed_at_random_moments_has_each_cell_once_with_its_outcome(tmp_path):
    kills, wrong = kill_study.trial(tmp_path, seeds=2, random_=random.Random(3), most=4)
    assert not wrong and kills > 0, (kills, wrong)
