"""The choice of a native form: whatever tensors there are and whatever torch is doing, the pure form's result or its error."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from zamba_lab import native
from zamba_lab.ops.conv import conv_silu
from zamba_lab.ops.linear import linear, linear_int8
from zamba_lab.ops.norm import gated_rms_norm, rms_norm
from zamba_lab.ops.scan import selective_scan
from zamba_lab.ops.ssd import ssd

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native forms: {native.why_not()}")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# name: (operation of tensors alone, its tensors); dt is positive and A negative.
OPERATIONS: dict[str, tuple[Callable, list[Tensor]]] = {
    "ssd": (
        lambda x, dt, A, B, C, state, D: ssd(x, dt, A, B, C, state, chunk_size=4, D=D),
        [draw(2, 9, 4, 3), draw(2, 9, 4).exp(), -draw(4).exp(), draw(2, 9, 2, 5), draw(2, 9, 2, 5, seed=1), draw(2, 4, 3, 5), draw(4)],
    ),
    "selective_scan": (
        lambda x, dt, A, B, C, state, D: selective_scan(x, dt, A, B, C, state, chunk_size=4, D=D),
        [
            draw(2, 9, 4, 3),
            draw(2, 9, 4, 3).exp(),
            -draw(4, 3, 5).exp(),
            draw(2, 9, 4, 5),
            draw(2, 9, 4, 5, seed=1),
            draw(2, 4, 3, 5),
            draw(4, 3),
        ],
    ),
    "conv_silu": (conv_silu, [draw(2, 9, 6), draw(6, 4), draw(6), draw(2, 3, 6)]),
    "rms_norm": (lambda x, weight: rms_norm(x, weight, 1e-5, 2), [draw(2, 9, 6), draw(6)]),
    "gated_rms_norm": (lambda y, z, weight: gated_rms_norm(y, z, weight, 1e-5, 3), [draw(2, 9, 6), draw(2, 9, 6, seed=1), draw(6)]),
    "linear": (linear, [draw(2, 3, 6).float(), draw(5, 6).float(), draw(5).float()]),
    "linear_int8": (linear_int8, [draw(2, 3, 6).float(), (draw(5, 6) * 50).to(torch.int8), draw(5).float().abs(), draw(5).float()]),
}
OPTIONAL = {"ssd": (5, 6), "selective_scan": (5, 6), "conv_silu": (2, 3), "linear": (2,), "linear_int8": (3,)}
by_operation = pytest.mark.parametrize("name", OPERATIONS)


def outcome(function: Callable, tensors) -> list[Tensor] | str:
    """The results, or the kind of error."""
    try:
        result = function(*tensors)
    except Exception as error:
        return type(error).__name__
    return list(result) if isinstance(result, tuple) else [result]


def assert_as_pure(function: Callable, tensors) -> None:
    with native.off():
        want = outcome(function, tensors)
    got = outcome(function, tensors)
    if isinstance(want, str):
        assert got == want
        return
    assert not isinstance(got, str), got
    if len({t.device for t in tensors if t is not None}) > 1:
        return  # torch itself reads what is not there
    coarsest = max(torch.finfo(t.dtype).eps for t in (*tensors, torch.ones(1).double()) if t is not None and t.dtype.is_floating_point)
    tolerance = 1e-9 if coarsest < 1e-10 else 1e-4 if coarsest < 1e-4 else 5e-2
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.device == b.device and a.shape == b.shape
        if not a.is_meta:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


SIZES: dict[str, Callable[[Tensor, int], Tensor]] = {  # of an axis
    "longer": lambda t, axis: torch.cat([t, t.narrow(axis, 0, 1)], axis),
    "shorter": lambda t, axis: t.narrow(axis, 0, t.shape[axis] - 1),
    "one": lambda t, axis: t.narrow(axis, 0, 1),
    "twice": lambda t, axis: torch.cat([t, t], axis),
    "empty": lambda t, axis: t.narrow(axis, 0, 0),
    "no axis": lambda t, axis: t.select(axis, 0),
    "one axis more": lambda t, axis: t.unsqueeze(axis),
    "axes in another order": lambda t, axis: t.transpose(axis, 0),
    "one value in memory": lambda t, axis: t.select(axis, 0).unsqueeze(axis).expand_as(t),
}
KINDS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "none": lambda t: None,
    "a scalar": lambda t: t.flatten()[0],
    "meta": lambda t: t.to("meta"),
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float32": lambda t: t.float(),
    "float64": lambda t: t.double(),
    "integers": lambda t: t.long(),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "gaps": lambda t: torch.stack([t, t], -1)[..., 0],
    "backwards in memory": lambda t: t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim))),
    "negated on reading": lambda t: torch.complex(torch.zeros_like(t), -t).conj().imag if t.dtype.is_floating_point else t,
    "zeros without memory": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
}
MISFITS = [*SIZES.values(), *(lambda t, axis, kind=kind: kind(t) for kind in KINDS.values())]


@by_operation
@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_each_misfit_gives_the_pure_forms_result_or_its_error(name, inference):
    function, tensors = OPERATIONS[name]
    with torch.inference_mode(inference):
        for k, t in enumerate(tensors):
            changed = [change(t, axis) for change in SIZES.values() for axis in range(t.ndim)] + [change(t) for change in KINDS.values()]
            for other in changed:
                assert_as_pure(function, [*tensors[:k], other, *tensors[k + 1 :]])


@by_operation
@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_several_misfits_at_once_do_too(name, data):
    function, tensors = OPERATIONS[name]
    tensors = list(tensors)
    for _ in range(data.draw(st.integers(2, 4))):
        k = data.draw(st.integers(0, len(tensors) - 1))
        if tensors[k] is None or tensors[k].ndim == 0:
            continue
        change = data.draw(st.sampled_from(MISFITS))
        axis = data.draw(st.integers(0, tensors[k].ndim - 1))
        try:
            tensors[k] = change(tensors[k], axis)
        except Exception:
            continue  # that tensor cannot be changed so
    if tensors[0] is not None:
        assert_as_pure(function, tensors)


@pytest.mark.parametrize("groups", [-2, -1, 0, 4, 7])
@pytest.mark.parametrize("gated", [True, False])
def test_groups_that_do_not_divide_are_the_pure_forms_error(groups, gated):
    x, weight = draw(2, 6), draw(6)
    norm = partial(gated_rms_norm, x, x, weight, 1e-5) if gated else partial(rms_norm, x, weight, 1e-5)
    with native.off():
        want = outcome(norm, [groups])
    assert isinstance(want, str) and outcome(norm, [groups]) == want


@pytest.mark.parametrize("operator", ["ssd", "selective_scan", "conv_silu", "rms_norm"])
def test_the_operators_themselves_refuse_what_does_not_fit(operator):
    given = {
        "ssd": lambda x: (x, *OPERATIONS["ssd"][1][1:5], None, None),
        "selective_scan": lambda x: (x, *OPERATIONS["selective_scan"][1][1:5], None, None, True),
        "conv_silu": lambda x: (x, draw(6, 17), None, None),
        "rms_norm": lambda x: (x, None, draw(6), 1e-5, 0, True),
    }[operator](OPERATIONS[operator][1][0][:1])
    with pytest.raises(ValueError, match=f"{operator} takes tensors"):
        getattr(torch.ops.zamba_lab, operator)(*given)


# --- what torch may be doing ------------------------------------------------------------------------------------------------------

DIFFERENTIABLE = [name for name in OPERATIONS if not name.startswith("linear")]


def total(function: Callable, *tensors: Tensor) -> Tensor:
    """One number that all results have a part in."""
    results = function(*tensors)
    return sum(
        (t * torch.arange(t.numel(), dtype=t.dtype).view(t.shape).sin()).sum()
        for t in (results if isinstance(results, tuple) else (results,))
    )


def pure(transform: Callable, *arguments):
    with native.off():
        return transform(*arguments)


def forward_mode(function, tensors):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, draw(*t.shape, seed=5 + i)) for i, t in enumerate(tensors)]
        return forward_ad.unpack_dual(total(function, *duals)).tangent


def checkpointed(function, tensors):
    tensors = [t.clone().requires_grad_() for t in tensors]
    value = torch.utils.checkpoint.checkpoint(partial(total, function), *tensors, use_reentrant=False)
    return torch.autograd.grad(value, tensors)


TRANSFORMS: dict[str, Callable] = {
    "grad": lambda f, ts: torch.func.grad(partial(total, f))(*ts),
    "vjp": lambda f, ts: torch.func.vjp(partial(total, f), *ts)[1](torch.tensor(1.0).double())[-1],
    "jvp": lambda f, ts: torch.func.jvp(partial(total, f), tuple(ts), tuple(torch.ones_like(t) for t in ts))[1],
    "jvp of one": lambda f, ts: torch.func.jvp(lambda w: total(f, *ts[:-1], w), (ts[-1],), (torch.ones_like(ts[-1]),))[1],
    "jacrev": lambda f, ts: torch.func.jacrev(lambda w: total(f, *ts[:-1], w))(ts[-1]),
    "jacfwd": lambda f, ts: torch.func.jacfwd(lambda w: total(f, *ts[:-1], w))(ts[-1]),
    "hessian": lambda f, ts: torch.func.hessian(lambda w: total(f, *ts[:-1], w))(ts[-1][..., :1]),
    "forward mode": forward_mode,
    "vmap": lambda f, ts: torch.vmap(lambda w: total(f, *ts[:-1], w))(torch.stack([ts[-1], 2 * ts[-1]])),
    "checkpoint": checkpointed,
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.filterwarnings("ignore")
def test_under_each_transform_it_is_the_pure_result(name, transform):
    function, tensors = OPERATIONS[name]
    if transform == "hessian" and tensors[-1].ndim and tensors[-1].shape[-1] > 1 and name != "rms_norm":
        function = (lambda f: lambda *ts: f(*ts[:-1], ts[-1].expand_as(tensors[-1])))(function)
    if transform == "hessian" and name == "rms_norm":
        function = (lambda f: lambda *ts: f(*ts[:-1], ts[-1].expand_as(tensors[-1])))(function)
    want = pure(TRANSFORMS[transform], function, tensors)
    torch.testing.assert_close(TRANSFORMS[transform](function, tensors), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_second_derivative_is_an_error_that_says_what_to_do(name):
    function, tensors = OPERATIONS[name]
    tensors = [t.clone().requires_grad_() for t in tensors]
    squares = lambda: sum(g.square().sum() for g in torch.autograd.grad(total(function, *tensors), tensors, create_graph=True))
    with pytest.raises(RuntimeError, match=r"second derivatives.*native\.off\(\)"):
        squares().backward()
    with native.off():
        squares().backward()
    assert tensors[0].grad.isfinite().all()


@by_operation
@pytest.mark.filterwarnings("ignore")
def test_a_traced_call_is_the_eager_one(name):
    function, tensors = OPERATIONS[name]
    with torch.no_grad():
        traced = torch.jit.trace(function, tuple(tensors), check_trace=False)
        got, want = traced(*tensors), function(*tensors)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


class Marked(Tensor):
    """A subclass that torch's own functions hand on."""


class Counting(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@by_operation
def test_subclasses_modes_and_inference_tensors_are_served_right(name):
    function, tensors = OPERATIONS[name]
    with torch.no_grad():
        want = function(*tensors)
        marked = function(tensors[0].as_subclass(Marked), *tensors[1:])
        assert type(marked[0] if isinstance(marked, tuple) else marked) is Marked
        torch.testing.assert_close(marked, want, rtol=1e-5, atol=1e-5, check_dtype=True)
        with Counting():
            torch.testing.assert_close(function(*tensors), want, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(function(*(t.clone() for t in tensors)), want)


@by_operation
def test_fake_and_meta_tensors_have_the_shapes_of_real_ones(name):
    function, tensors = OPERATIONS[name]
    with torch.no_grad():
        want = function(*tensors)
        meta = function(*(t.to("meta") for t in tensors))
        with FakeTensorMode() as mode:
            fake = function(*(mode.from_tensor(t) for t in tensors))
    for got in (meta, fake):
        for a, b in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype


@by_operation
@pytest.mark.parametrize("gradients", [True, False])
def test_compiled_for_lengths_that_change_it_is_the_eager_result(name, gradients):
    """The scans' and the convolution's length is axis 1; of other operations any axis but the last is one of rows."""
    function, tensors = OPERATIONS[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    along = [i for i, t in enumerate(tensors) if t.ndim >= 3 and t.shape[1] == tensors[0].shape[1]]
    for l in (tensors[0].shape[1], 2, 3, 1):
        shorter = [t[:, :l].clone().requires_grad_(gradients and i == 0) if i in along else t for i, t in enumerate(tensors)]
        torch.testing.assert_close(compiled(*shorter), function(*shorter), rtol=1e-6, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.filterwarnings("ignore")
def test_compiled_transforms_are_the_pure_result(name):
    function, tensors = OPERATIONS[name]
    torch._dynamo.reset()
    compiled = torch.compile(lambda *ts: TRANSFORMS["jvp of one"](function, ts), backend="aot_eager")
    want = pure(TRANSFORMS["jvp of one"], function, tensors)
    try:
        got = compiled(*tensors)
    except Exception as error:
        assert isinstance(error, RuntimeError)
    else:
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch._dynamo.reset()


@by_operation
def test_exported_it_is_the_eager_result(name):
    function, tensors = OPERATIONS[name]

    class Module(torch.nn.Module):
        def forward(self, *given):
            return function(*given)

    with torch.no_grad():
        program = torch.export.export(Module(), tuple(tensors))
        torch.testing.assert_close(program.module()(*tensors), function(*tensors), rtol=1e-6, atol=1e-6)
