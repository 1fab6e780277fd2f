"""Memory that is used again: never while anybody can see it."""

import gc
import weakref

import pytest
import torch
from ops.inputs import ssd_inputs

from zamba_lab import native
from zamba_lab.native import memory

LIKE = torch.empty(0)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(memory, "LEAST", 64)
    monkeypatch.setattr(memory, "_kept", {})
    monkeypatch.setattr(memory, "_uncut", {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(100,), (3, 5, 7), (2, 0, 9), (64, 1, 2)])
def test_it_is_a_tensor_like_any_other(dtype, shape):
    t, usual = memory.empty(LIKE, *shape, dtype=dtype), torch.empty(shape, dtype=dtype)
    assert t.shape == usual.shape and t.dtype == dtype and t.stride() == usual.stride() and t.is_contiguous()
    t.fill_(2)
    assert torch.equal(t.sum(), torch.full(shape, 2.0, dtype=dtype).sum()) and not t._is_view()


def test_what_nobody_holds_is_used_again():
    t = memory.empty(LIKE, 100)
    place = t.data_ptr()
    assert memory.empty(LIKE, 100).data_ptr() != place
    del t
    assert memory.empty(LIKE, 100).data_ptr() == place


@pytest.mark.parametrize(
    "keep",
    [
        lambda t: t[3:],
        lambda t: t.view(10, 10).T,
        lambda t: t.numpy(),
        lambda t: [t],
        lambda t: t.detach(),
        lambda t: t.untyped_storage(),
        lambda t: t.view(torch.int32),
    ],
)
def test_a_view_of_any_kind_keeps_it(keep):
    t = memory.empty(LIKE, 100).fill_(7)
    place, held = t.data_ptr(), keep(t)
    del t
    for _ in range(4):
        assert memory.empty(LIKE, 100).fill_(0).data_ptr() != place
    del held
    gc.collect()
    assert place in {u.data_ptr() for u in [memory.empty(LIKE, 100) for _ in range(4)]}


def test_what_autograd_saved_keeps_it():
    t = memory.empty(LIKE, 100).fill_(3)
    w = torch.ones(100, requires_grad=True)
    loss = (t * w).sum()
    del t
    for _ in range(4):
        memory.empty(LIKE, 100).fill_(0)
    loss.backward()
    assert (w.grad == 3).all()


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 2000)
    held = [memory.empty(LIKE, 100) for _ in range(20)]
    assert sum(len(queue) for queue in memory._kept.values()) == 5 and len({t.data_ptr() for t in held}) == 20
    del held
    memory.empty(LIKE, 400)  # another size pushes out what nobody uses
    assert sum(size * len(queue) for size, queue in memory._kept.items()) <= 2000 and len(memory._kept[1600]) == 1


def test_making_room_bears_that_another_thread_takes_what_was_there(monkeypatch):
    assert len([memory.empty(LIKE, 100) for _ in range(3)]) == 3  # and nobody holds them
    (queue,), count = memory._kept.values(), memory._references

    def meanwhile(one):
        queue.clear()
        return count(one)

    monkeypatch.setattr(memory, "_references", meanwhile)
    monkeypatch.setattr(memory, "MOST", 1000)
    assert memory.empty(LIKE, 200).shape == (200,)


def test_blocks_of_one_size_share_huge_pages_and_none_overlaps():
    held = [memory.empty(LIKE, 400_000).fill_(k) for k in range(15)]  # 1.6 MB each, 10 to a slab
    assert all((t == k).all() for k, t in enumerate(held))
    starts = [t.data_ptr() for t in held]
    assert starts[0] % memory._HUGE_PAGE == starts[10] % memory._HUGE_PAGE == 0
    assert {b - a for a, b in zip(starts[:9], starts[1:10])} == {-(-1_600_000 // memory._PAGE) * memory._PAGE}
    assert memory.empty(LIKE, 5_000_000).data_ptr() % memory._HUGE_PAGE == 0


@pytest.mark.parametrize("most", [memory.MOST, 0])
def test_where_huge_pages_are_not_wanted_none_is_asked_for(most, monkeypatch):
    monkeypatch.setattr(memory, "MOST", most)
    monkeypatch.setattr(memory, "_in_huge_pages", lambda nbytes: pytest.fail("asked for"))
    assert (memory.empty(LIKE, 400_000, huge=False).fill_(1) == 1).all()


def test_a_slab_goes_with_the_last_that_looks_at_it(monkeypatch):
    t = memory.empty(LIKE, 400_000).fill_(3)
    slab = weakref.ref(memory._uncut[t.nbytes].base)
    monkeypatch.setattr(memory, "MOST", t.nbytes + 4_000)
    other = memory.empty(LIKE, 1_000)
    assert other.nbytes in memory._kept and (t == 3).all()
    memory.empty(LIKE, 2_000)  # no room: what is uncut goes
    assert not memory._uncut and slab() is not None
    del t
    memory.empty(LIKE, 2_000)
    gc.collect()
    assert slab() is None


@pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")
def test_results_of_one_call_outlive_the_next():
    x, dt, A, B, C, state = ssd_inputs()
    first = native.ssd(x, dt, A, B, C, None, state)
    copies = [t.clone() for t in first]
    for _ in range(5):
        native.ssd(torch.randn_like(x), dt, A, B, C, None, state)
    assert all(torch.equal(a, b) for a, b in zip(first, copies))
