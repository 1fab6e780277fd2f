from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import native

b, l, d, e, h, p, n, g = 2, 19, 16, 32, 8, 4, 6, 2
MAMBA2 = {
    "input": (b, l, d),
    "projected": (b, l, 2 * e + 2 * g * n + h),
    "z": (b, l, e),
    "x": (b, l, h, p),
    "B": (b, l, g, n),
    "C": (b, l, g, n),
    "dt": (b, l, h),
    "state": (b, l, h, p, n),
    "y": (b, l, h, p),
    "out": (b, l, d),
}
MAMBA1 = {**MAMBA2, "B": (b, l, h, n), "C": (b, l, h, n), "dt": (b, l, h, p), "projected": (b, l, 2 * e)}
SHARED = {
    "input": (b, l, 2 * d),
    "q": (b, 4, l, 8),
    "k": (b, 4, l, 8),
    "v": (b, 4, l, 8),
    "attn_scores": (b, 4, l, l),
    "attn_probs": (b, 4, l, l),
    "attn_mixed": (b, l, 4, 8),
    "attn_out": (b, l, d),
    "mlp_in": (b, l, d),
    "mlp_out": (b, l, d),
    "lora.mlp": (b, l, 24),
    "link_out": (b, l, d),
}


def run(model, ids, **kwargs):
    trace = zl.Trace(**kwargs)
    with torch.no_grad():
        return model(ids, trace=trace), trace


@pytest.mark.parametrize("variant, mamba", [("base", MAMBA2), ("mamba1", MAMBA1)])
def test_every_point_of_the_contract_is_there_with_its_shape_and_nothing_else(variant, mamba):
    _, trace = run(make_model(VARIANTS[variant]), random_ids(BASE), keep=["*"])
    expected = {"embed": (b, l, d), "final_norm": (b, l, d), "logits": (b, l, 29)}
    for i in range(5):
        expected |= {f"layers.{i}.resid_in": (b, l, d), f"layers.{i}.resid_out": (b, l, d)}
        expected |= {f"layers.{i}.mamba.{name}": shape for name, shape in mamba.items()}
    expected |= {f"layers.{i}.shared.{name}": shape for i in (1, 2, 4) for name, shape in SHARED.items()}
    assert {name: tuple(trace[name].shape) for name in trace} == expected
    assert list(trace)[:3] == ["embed", "layers.0.resid_in", "layers.0.mamba.input"] and list(trace)[-1] == "logits"


def test_qkv_adapters_have_points():
    _, trace = run(make_model(VARIANTS["lora on qkv"]), random_ids(BASE), keep=["invocation.0.lora.*"])
    assert list(trace) == [f"layers.1.shared.lora.{part}" for part in ("q", "k", "v", "mlp")]


def test_depth_and_invocation_name_one_point_in_keep_edit_and_lookup():
    model, ids = make_model(BASE), random_ids(BASE)
    _, by_depth = run(model, ids, keep=["layers.4.shared.q"])
    _, by_invocation = run(model, ids, keep=["invocation.2.q"])
    for trace in (by_depth, by_invocation):
        assert torch.equal(trace["layers.4.shared.q"], trace["invocation.2.q"]) and "invocation.2.q" in trace
    one, _ = run(model, ids, edit={"layers.2.shared.link_out": torch.zeros_like})
    other, _ = run(model, ids, edit={"invocation.1.link_out": torch.zeros_like})
    plain, _ = run(model, ids)
    assert torch.equal(one, other) and not torch.allclose(one, plain)


def test_the_stream_is_the_sum_of_what_the_mixers_wrote():
    _, trace = run(make_model(BASE), random_ids(BASE), keep=["embed", "*.mamba.out", "*.resid_out"])
    total = trace["embed"] + sum(trace[f"layers.{i}.mamba.out"] for i in range(5))
    torch.testing.assert_close(trace["layers.4.resid_out"], total)


def test_kept_attention_is_causal_and_sums_to_one():
    _, trace = run(make_model(BASE), random_ids(BASE), keep=["*.attn_probs"])
    for k in range(3):
        probs = trace[f"invocation.{k}.attn_probs"]
        torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs.sum(-1)))
        assert probs.triu(1).abs().max() == 0


@pytest.mark.parametrize("variant", ["base", "mamba1"])
def test_every_point_can_be_edited_and_the_edit_reaches_the_logits(variant):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE)
    plain, trace = run(model, ids, keep=["*"])
    for name in trace:
        edited, _ = run(model, ids, edit={name: lambda value: value * 0.5})
        same = torch.allclose(edited, plain, rtol=1e-9, atol=1e-9)
        # dead by construction: norms undo a common factor of their input ...
        scale_free = name.endswith(("shared.input", "attn_out")) and same
        assert not same or scale_free, f"halving {name} changed nothing"


@pytest.mark.parametrize("variant", ["base", "mamba1", "transformer"])
def test_edits_act_in_extend_as_in_the_full_forward(variant):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE)
    edit = {"*.mlp_out": lambda value: 0.7 * value, "layers.1.*out": lambda value: value - 0.1}
    full, _ = run(model, ids, edit=edit)
    cache, pieces = None, []
    with torch.no_grad():
        for piece in ids.split([9, 1, 9], dim=1):
            logits, cache = model.extend(piece, cache, trace=zl.Trace(edit=edit))
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), full)


@pytest.mark.parametrize("variant", ["base", "mamba1"])
def test_an_edit_of_the_state_propagates_and_goes_into_the_cache(variant):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE)

    def erase_at_9(states):
        return states.index_fill(1, torch.tensor([9]), 0.0)

    plain, before = run(model, ids, keep=["layers.3.mamba.state"])
    edited, after = run(model, ids, keep=["layers.3.mamba.state"], edit={"layers.3.mamba.state": erase_at_9})
    states, changed = before["layers.3.mamba.state"], after["layers.3.mamba.state"]
    assert torch.equal(changed[:, :9], states[:, :9]) and changed[:, 9].abs().max() == 0
    assert not torch.allclose(changed[:, 10:], states[:, 10:])
    assert torch.equal(edited[:, :9], plain[:, :9]) and not torch.allclose(edited[:, 10:], plain[:, 10:])
    with torch.no_grad():
        _, cache = model.extend(ids[:, :10], trace=zl.Trace(edit={"layers.3.mamba.state": erase_at_9}))
        assert cache.layers[3].ssm.abs().max() == 0
        torch.testing.assert_close(model.extend(ids[:, 10:], cache)[0], edited[:, 10:])


def test_recorded_states_end_in_the_cache():
    model, ids = make_model(BASE), random_ids(BASE)
    trace = zl.Trace(keep=["*.state"])
    with torch.no_grad():
        _, cache = model.extend(ids, trace=trace)
    for i, layer in enumerate(cache.layers):
        torch.testing.assert_close(trace[f"layers.{i}.mamba.state"][:, -1], layer.ssm)


LOOKED_AT = {name: VARIANTS[name] for name in ("base", "mamba1", "link into the stream", "lora on qkv", "no concat", "transformer")}
every_kind = pytest.mark.parametrize("config", LOOKED_AT.values(), ids=LOOKED_AT.keys())


def in_place(value):
    return value.mul_(0.7).add_(0.05)


@every_kind
def test_an_edit_in_place_is_an_edit_of_a_copy_at_every_point(config):
    """One tensor has two names where nothing was computed between them: `embed`, `layers.0.resid_in` and x0."""
    model, ids = make_model(config), random_ids(config, l=7)
    _, trace = run(model, ids, keep=["*"])
    for name in list(trace):
        got, written = run(model, ids, keep=["*"], edit={name: in_place})
        want, copied = run(model, ids, keep=["*"], edit={name: lambda value: in_place(value.clone())})
        assert torch.equal(got, want), name
        assert [other for other in copied if not torch.equal(written[other], copied[other])] == [], name


@every_kind
def test_what_is_kept_does_not_change_afterwards(config, monkeypatch):
    model, ids, then = make_model(config), random_ids(config, l=7), {}
    record = type(zl.Trace().at("")).record

    def copying(self, name, value):
        value = record(self, name, value)
        then[self._names(name)[0]] = value.clone()
        return value

    monkeypatch.setattr(type(zl.Trace().at("")), "record", copying)
    _, trace = run(model, ids, keep=["*"], edit={"*": in_place})
    assert set(then) == set(trace) and all(torch.equal(trace[name], then[name]) for name in trace)


@every_kind
@pytest.mark.parametrize("edit", [{}, {"*.state": lambda states: 1.1 * states}], ids=["kept", "kept and edited"])
def test_the_gradient_of_a_kept_value_is_what_a_small_edit_of_it_does(config, edit):
    """At every point, of the mixers' states too: each is on the graph between what comes before it and what comes after."""
    if edit and config.mixer == "attention":
        pytest.skip("no states")
    model, ids = make_model(config), random_ids(config, l=6)
    weights = torch.randn(config.vocab_size, generator=torch.Generator().manual_seed(5)).double()
    score = lambda logits: (logits.tanh() @ weights).sum()
    trace = zl.Trace(keep=["*"], edit=edit)
    gradients = torch.autograd.grad(score(model(ids, trace=trace)), [trace[name] for name in trace])
    for name, gradient in zip(trace, gradients):
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(6)).double()
        direction = direction.masked_fill(trace[name].isinf(), 0)
        moved = lambda by: float(score(run(model, ids, edit={**edit, name: lambda value: value + by * direction})[0]))
        wide, narrow = ((moved(by) - moved(-by)) / (2 * by) for by in (4e-6, 2e-6))
        slope = (4 * narrow - wide) / 3  # free of the error of third order
        assert abs(slope - float((gradient * direction).nansum())) < 1e-6 * max(1, abs(slope)), name


@pytest.mark.parametrize("variant", ["pure mamba2", "pure mamba1"])
def test_kept_states_are_on_the_graph_to_every_order_and_from_what_made_them(variant):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE, l=5)
    mixer, name = model.layers[2].mamba, "layers.2.mamba.state"

    def second(trace):
        with native.off():  # its forms have first derivatives
            y = model(ids, trace=trace).square().sum()
        (first,) = torch.autograd.grad(y, mixer.A_log, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [mixer.A_log, mixer.D], retain_graph=True)

    trace = zl.Trace(keep=[name])
    for with_states, without in zip(second(trace), second(zl.OFF)):
        torch.testing.assert_close(with_states, without)
    (gradient,) = torch.autograd.grad(trace[name].sum(), mixer.A_log)
    assert gradient.abs().max() > 0


def test_a_trace_holds_one_pass():
    deep, ids = make_model(BASE), random_ids(BASE)
    shallow = make_model(VARIANTS["pure mamba2"])
    trace = zl.Trace(keep=["*.resid_out", "*.link_out"])
    with torch.no_grad():
        deep(ids, trace=trace)
    first = trace.values
    assert "invocation.2.link_out" in trace
    trace.keep = ("*.resid_out",)
    with torch.no_grad():
        shallow.layers = shallow.layers[:2]
        shallow.config = replace(shallow.config, n_layers=2)
        shallow(ids, trace=trace)
    assert list(trace) == ["layers.0.resid_out", "layers.1.resid_out"] and "invocation.2.link_out" not in trace
    assert len(first) == 8  # what the caller took from the first pass is the caller's


def test_a_pass_that_fails_leaves_nothing_in_its_trace():
    model, ids = make_model(BASE), random_ids(BASE)

    def fails(value):
        raise RuntimeError("no")

    trace = zl.Trace(keep=["*"])
    for broken, edit, error in (
        (ids, {"layers.3.mamba.dt": fails}, RuntimeError),
        (ids + 29, {}, ValueError),
        (ids, {"x": fails}, ValueError),
    ):
        model(ids, trace=trace)
        trace.edit = edit
        with pytest.raises(error):
            model(broken, trace=trace)
        assert len(trace) == 0 and "invocation.0.q" not in trace
        trace.edit = {}


def test_off_records_nothing_and_is_one_object():
    place = zl.OFF.at("layers.3").at("shared", alias="invocation.0")
    assert place is zl.OFF and not place.wants("q") and place.editor("q") is None


@pytest.mark.parametrize("make", [zl.Trace, lambda: zl.Trace(keep=[], edit={})])
@torch.no_grad()
def test_a_trace_that_keeps_and_edits_nothing_is_none_at_all_bitwise(make, monkeypatch):
    model, ids = nano(torch.float32), nano_ids(2)
    (logits, cache), step, trace = model.extend(ids), ids[:, :1], make()
    expected = model.extend(step, cache)[0]
    monkeypatch.setattr(zl.Trace, "at", lambda *_: pytest.fail("a layer was told of the trace"))
    assert torch.equal(model(ids, trace=trace), logits) and len(trace) == 0
    assert torch.equal(model.extend(ids, trace=trace)[0], logits)
    assert torch.equal(model.extend(step, cache, trace=trace)[0], expected)


@pytest.mark.parametrize(
    "names", [dict(keep=["layers.0.shared.q"]), dict(edit={"invocation.3.q": torch.zeros_like}), dict(keep=["layers.1.mamba.Delta"])]
)
def test_a_name_that_matches_no_point_is_an_error(names):
    with pytest.raises(ValueError, match="no trace point of this pass matches"):
        run(make_model(BASE), random_ids(BASE), **names)


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("layers.0.shared.q", "layers.1.shared.q"),
        ("invocation.1.attn_prob", "invocation.1.attn_probs"),
        ("layers.3.mamba.Dt", "layers.3.mamba.dt"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest_ones(wrong, right):
    model, ids = make_model(BASE), random_ids(BASE)
    with pytest.raises(ValueError, match=f"'{wrong}', nearest are .*'{right}'"):
        run(model, ids, keep=["embed", wrong])
    _, trace = run(model, ids, keep=["*"])
    with pytest.raises(KeyError, match=f"nearest are .*'{right}'"):
        trace[wrong]


def test_an_edit_that_changes_the_shape_is_an_error():
    with pytest.raises(ValueError, match=r"dt has shape \(2, 19, 8\), the edit returned \(2, 18, 8\)"):
        run(make_model(BASE), random_ids(BASE), edit={"layers.0.mamba.dt": lambda dt: dt[:, 1:]})


def test_looking_up_what_was_not_kept_says_what_was():
    _, trace = run(make_model(BASE), random_ids(BASE), keep=["embed"])
    with pytest.raises(KeyError, match="was not kept; nearest are .*, kept are .*embed"):
        trace["logits"]
