"""When the native kernels answer."""

import pytest
import torch
from ops.inputs import ssd_inputs

from zamba_lab import native
from zamba_lab.ops.conv import conv_silu

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


def test_off_means_off_and_only_there():
    x, dt, A, B, C, _ = ssd_inputs()
    with native.off():
        assert not native.find("ssd", x, dt, A, B, C, None, None)
        with native.off():
            pass
        assert not native.find("ssd", x, dt, A, B, C, None, None)
    assert native.find("ssd", x, dt, A, B, C, None, None)
    assert conv_silu(x.flatten(2), torch.ones(40, 4).double(), None)[0].shape == (2, 37, 40)


def test_off_ends_with_the_last_of_several_threads_that_asked_for_it():
    x = torch.ones(2)
    one, other = native.off(), native.off()  # as two threads hold them: the first to begin ends first
    with one:
        other.__enter__()
        assert not native.find("rms_norm", x, None, x, groups=1)
    assert not native.find("rms_norm", x, None, x, groups=1)
    other.__exit__(None, None, None)
    assert native.find("rms_norm", x, None, x, groups=1)
