"""Every figure says what it shows: title, axes, units, labels; and shows the numbers it was given."""

import json
from functools import cache

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from zamba_lab import viz
from zamba_lab.viz import theme
from zamba_lab.viz.labels import token_label
from zamba_lab.viz.sequences import LETTERS
from zamba_lab.viz.theme import MAX_TICKS, token_axis

TOKENS = ["def", "·f", "(x", "):", "⏎", "<s>", "a_rather_long_name"]
RNG = np.random.default_rng(0)


@cache
def every_figure() -> dict[str, go.Figure]:
    maps = np.tril(RNG.uniform(size=(4, 7, 7)))
    return {
        "heatmap": viz.heatmap(RNG.uniform(size=(3, 7)), TOKENS, ["0", "1", "2"], "norms", value_label="norm"),
        "attention_grid": viz.attention_grid(maps, TOKENS, ["one", "two", "three", "four"], "maps"),
        "half_life_ranges": viz.half_life_ranges(RNG.uniform(1, 90, size=(7, 5)), TOKENS, 2, "half-lives"),
        "bars": viz.bars([0.3, -0.1], ["first", "second"], "worth", "change (nats)", "part"),
        "token_effect": viz.token_effect(RNG.normal(size=7), TOKENS, "effect", "change (nats)"),
        "effects": viz.effects([[0.3, 0.1], [-0.1, np.nan]], np.full((2, 2, 2), np.nan), ["first", "second"], "effects", "nats"),
        "table": viz.table([[0.3, -0.1]], ["ssm"], ["0", "1"], "memories", "memory", "depth", "loss (nats)", signed=True),
        "lens_map": viz.lens_map([TOKENS, TOKENS], RNG.uniform(size=(2, 7)), TOKENS, ["embed", "end"], "lens", "KL (nats)"),
        "stacked_shares": viz.stacked_shares([[0.4, 1.2], [0.6, -0.2]], ["1", "3"], ["x", "x0"], "shares", "depth"),
        "principal_angles": viz.principal_angles(RNG.uniform(size=(2, 3)), ["0 and 2", "1 and 3"], RNG.uniform(size=(9, 3)), "angles"),
        "agreement": viz.agreement([1, 20.0], [2, 18.0], ["one", "other"], [0, 1], "two", "formula (tokens)", "measured (tokens)", "depth"),
        "questions": viz.questions(["k1", "v2", "k1"], [None, None, "v2"], "an example"),
        "intervals": viz.intervals(
            [0.1, -0.2], [0.0, -0.3], [0.2, -0.1], ["one", "other"], ["no verdict", "less"], "effects", "difference", margin=0.05
        ),
        "learning": viz.learning({"base": ([1, 2], [[0.1, 0.9], [0.2, np.nan]])}, "learning", "accuracy", {"chance": 0.1}),
        "trade_off": viz.trade_off([10, 100], [0.1, 0.9], ["one", "other"], "memory", "bytes", "accuracy", [0.0, 0.8], [0.2, 1.0]),
        "curves": viz.curves({"one": ([1, 2], [0.5, np.nan]), "none": ([], [])}, "loss", "step", "nats", marks={"phase 2": 1.5}),
    }


@pytest.mark.parametrize("name", list(every_figure()))
def test_titles_and_axes_are_named_and_the_look_is_the_theme(name):
    fig = every_figure()[name]
    layout = fig.to_plotly_json()["layout"]
    assert fig.layout.title.text.startswith("<b>")
    assert fig.layout.height > 200
    assert layout["template"]["layout"]["font"]["family"] == theme.FONT
    for letter in "xy":
        axes = [axis for key, axis in layout.items() if key.startswith(f"{letter}axis")]
        assert all(axis.get("visible") is False for axis in axes) or any(axis["title"]["text"] for axis in axes if "title" in axis)


@pytest.mark.parametrize("name", list(every_figure()))
def test_a_figure_travels_as_strict_json(name):
    json.loads(every_figure()[name].to_json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_heatmap_shows_each_value_at_its_token_and_row():
    values = torch.rand(3, 7, dtype=torch.bfloat16)
    fig = viz.heatmap(values, TOKENS, ["4", "5", "6"], "norms", row_label="depth", value_label="norm")
    (trace,) = fig.data
    np.testing.assert_array_equal(trace.z, values.double().numpy())
    assert trace.y == (0, 1, 2) and fig.layout.yaxis.ticktext == ("4", "5", "6")
    assert list(trace.customdata[2]) == ["depth 6"] * 7
    assert trace.x[1] == "token 1 «·f»"
    assert (trace.zmin, trace.zmax) == (0, float(values.max()))
    assert fig.layout.yaxis.title.text == "depth"


def test_signed_colours_are_centred_on_zero():
    values = [[-1.0, 3.0]]
    (trace,) = viz.heatmap(values, TOKENS[:2], ["0"], "signed", signed=True).data
    assert (trace.zmin, trace.zmax) == (-3, 3)
    marker = viz.token_effect([-1.0, 3.0], TOKENS[:2], "signed", "nats").data[0].marker
    assert (marker.cmin, marker.cmax) == (-3, 3)
    assert trace.colorscale[1][0] == marker.colorscale[1][0] == 0.5


def test_attention_maps_are_coloured_against_an_even_one_on_one_scale_and_hide_what_lies_ahead():
    even = np.tril(np.ones((20, 20))) / np.arange(1, 21)[:, None]
    sharp = np.eye(20)  # of a weight of 1, the first row has an even one
    fig = viz.attention_grid([even, sharp], list("abcdefghijklmnopqrst"), ["invocation 0", "invocation 2"], "maps")
    assert [(trace.zmin, trace.zmax, trace.showscale) for trace in fig.data] == [(0, np.log2(17), True), (0, np.log2(17), False)]
    lower = np.tril_indices(20)
    for probs, trace in zip((even, sharp), fig.data):
        assert np.isnan(np.asarray(trace.z)[np.triu_indices(20, 1)]).all()
        np.testing.assert_allclose(np.asarray(trace.customdata)[lower], probs[lower], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(fig.data[0].z)[lower], 1)
    np.testing.assert_allclose(np.diag(fig.data[1].z), np.log2(1 + np.arange(1, 21)))
    assert [note.text for note in fig.layout.annotations] == ["invocation 0", "invocation 2"]
    assert "against an even one, up to 16 times" in fig.layout.title.subtitle.text


@pytest.mark.parametrize(
    "count, asked, across, down", [(1, None, 1, 1), (2, None, 2, 1), (4, None, 2, 2), (5, None, 3, 2), (7, None, 3, 3), (8, 4, 4, 2)]
)
def test_maps_are_spread_evenly_and_none_covers_another(count, asked, across, down):
    fig = viz.attention_grid(np.ones((count, 2, 2)), ["a", "a"], ["map"] * count, "maps", across=asked)
    assert len({trace.x[0] for trace in fig.data}) == across and len({trace.y[0] for trace in fig.data}) == down
    cells = {(x, y) for trace in fig.data for x in trace.x for y in trace.y}
    assert len(cells) == 4 * count and cells <= {(x, y) for x in fig.layout.xaxis.categoryarray for y in fig.layout.yaxis.categoryarray}


def test_signed_maps_diverge_from_zero():
    fig = viz.attention_grid([[[1.0, 0], [-4, 2]]], ["a", "b"], ["one"], "maps", value_label="share", signed=True)
    (trace,) = fig.data
    assert (trace.zmin, trace.zmax) == (-4, 4) and trace.colorbar.title.text == "share"


def test_half_life_ranges_show_percentiles_and_the_head_asked_for():
    half_lives = RNG.uniform(1, 90, size=(7, 5))
    fig = viz.half_life_ranges(half_lives, TOKENS, 2, "half-lives")
    thin, thick, dots, course = fig.data
    np.testing.assert_allclose(dots.y, np.median(half_lives, axis=0))
    np.testing.assert_allclose(np.add(np.asarray(thick.base, dtype=float), thick.y), np.percentile(half_lives, 75, axis=0))
    np.testing.assert_allclose(np.asarray(thin.base, dtype=float), np.percentile(half_lives, 5, axis=0))
    np.testing.assert_array_equal(course.y, half_lives[:, 2])
    assert [color == theme.ACCENT for color in thin.marker.color] == [False, False, True, False, False]
    assert fig.layout.yaxis.type == "log"


def test_token_effect_reads_in_lines_of_whole_tokens_and_leaves_the_unpredicted_white():
    tokens = [f"token{i}" for i in range(40)]
    change = np.arange(40.0)
    change[0] = np.nan
    (trace,) = viz.token_effect(change, tokens, "effect", "nats").data
    assert list(trace.text) == tokens
    ends = np.add(trace.base, trace.x)
    lines = np.asarray(trace.y)
    assert (ends <= LETTERS).all() and set(lines) == set(range(max(lines) + 1)) and (np.diff(lines) >= 0).all()
    same = np.diff(lines) == 0  # no token begins before the one before it ends
    assert (np.asarray(trace.base)[1:][same] > ends[:-1][same]).all() and (np.asarray(trace.x) >= [len(token) for token in tokens]).all()
    assert trace.marker.color[0] == 0 and "no prediction" in trace.customdata[0]
    assert trace.marker.color[5] == 5 and trace.customdata[5] == "token 5 «token5»<br>nats <b>+5.000</b>"


def test_a_token_longer_than_a_line_of_text_is_cut_and_keeps_its_line():
    (trace,) = viz.token_effect([1.0, 2.0], ["x" * 500, "y"], "effect", "nats").data
    assert len(trace.text[0]) == 24 and list(trace.y) == [0, 0] and "x" * 80 in trace.customdata[0]


def test_an_effect_of_nothing_can_be_drawn():
    json.loads(viz.token_effect([float("nan"), 0.0], ["a", "b"], "nothing", "nats").to_json())
    json.loads(viz.bars([0.0], ["nothing"], "nothing", "nats", "part").to_json())
    json.loads(viz.bars([], [], "nothing", "nats", "part").to_json())


def test_effects_stand_above_their_controls_with_their_intervals():
    means, ends = np.array([[0.5, 0.1], [-0.2, np.nan]]), np.array([[[0.4, 0.7], [0.0, 0.2]], [[-0.3, 0.1], [np.nan, np.nan]]])
    done, control = viz.effects(means, ends, ["first", "second"], "effects", "nats").data
    np.testing.assert_array_equal(done.x, [0.5, -0.2])
    np.testing.assert_allclose(done.error_x.array, [0.2, 0.3])
    np.testing.assert_allclose(done.error_x.arrayminus, [0.1, 0.1])
    assert (np.asarray(done.y) < np.asarray(control.y)).all() and control.error_x.array[1] == 0
    assert "interval +0.0000 to +0.2000" in control.customdata[0] and "interval" not in control.customdata[1]


def test_effects_of_two_texts_are_named_by_them():
    both = viz.effects([[0.3, 0.1]], np.full((1, 2, 2), np.nan), ["a"], "t", "bits", series=("code", "prose"), row_label="change").data
    assert [trace.name for trace in both] == ["code", "prose"] and both[1].marker.color != theme.FAINT


def test_curves_lie_over_their_faint_ones_and_few_points_are_marked():
    fig = viz.curves(
        {"mean": (range(50), range(50)), "held out": ([0, 49], [3, 1])},
        "t",
        "step",
        "nats",
        faint={"each": (range(50), range(50))},
        marks={"anneal": 25},
        x_range=(0, 60),
    )
    assert [(trace.name, trace.mode) for trace in fig.data] == [("each", "lines"), ("mean", "lines"), ("held out", "lines+markers")]
    assert fig.layout.xaxis.range == (0, 60) and fig.layout.shapes[0].x0 == 25 and fig.layout.annotations[0].text == "anneal"


def test_a_table_shows_every_number_at_its_row_and_column():
    values = RNG.uniform(size=(2, 3))
    fig = viz.table(values, ["r", "r"], ["c0", "c1", "c2"], "table", "input", "adapters", "distance")
    (trace,) = fig.data
    np.testing.assert_array_equal(trace.z, values)
    assert trace.text[1][2] == f"{values[1, 2]:.3f}" and trace.customdata[1][2] == "input r<br>adapters c2"
    assert (trace.zmin, trace.zmax) == (0, values.max()) and trace.y == (0, 1)  # equal labels are two rows
    assert fig.layout.yaxis.autorange == "reversed" and fig.layout.xaxis.ticktext == ("c0", "c1", "c2")
    (wide,) = viz.table(np.zeros((1, 20)), ["r"], ["c"] * 20, "table", "a", "b", "c").data
    assert wide.texttemplate is None and wide.zmax == 1
    cells, words = viz.table([[np.nan, 2.0]], ["r"], ["c", "d"], "table", "a", "b", "c", top=3.0).data
    assert cells.text[0][1] == "2.000" and cells.zmax == 3
    assert words.text == ("nan",) and (words.x, words.y) == ((0,), (0,)) and words.customdata == ("a r<br>b c",)


def test_a_signed_table_is_centred_on_zero_and_bold_where_the_interval_leaves_zero_out():
    (trace,) = viz.table(
        [[0.5, -0.2]], ["ssm"], ["0", "1"], "t", "memory", "depth", "nats", signed=True, low=[[0.1, -0.4]], high=[[0.9, 0.1]]
    ).data
    assert (trace.zmin, trace.zmax) == (-0.5, 0.5)
    assert list(trace.text[0]) == ["<b>+0.500</b>", "-0.200"]
    assert trace.customdata[0][1] == "memory ssm<br>depth 1<br>interval -0.400 to +0.100"
    (plain,) = viz.table([[0.0, 0.0]], ["kv"], ["0", "1"], "t", "memory", "depth", "nats", signed=True).data
    assert list(plain.text[0]) == ["0", "0"] and plain.zmax == 1 and plain.customdata[0][0] == "memory kv<br>depth 0"


def test_a_lens_map_says_each_sites_word_at_its_token():
    values = RNG.uniform(size=(2, 7))
    fig = viz.lens_map([TOKENS, TOKENS[::-1]], values, TOKENS, ["embed", "end"], "lens", "nats")
    (trace,) = fig.data
    assert trace.text[1][1] == "&lt;s&gt;" and fig.layout.yaxis.ticktext == ("embed", "end")
    assert trace.x[1] == "token 1 «·f»" and trace.customdata[1][1] == "end: «&lt;s&gt;»"
    np.testing.assert_array_equal(trace.z, values)
    assert (trace.z > trace.zmax).mean() == pytest.approx(0.15, abs=0.08)
    for count, text in ((20, "a_lo…"), (40, "a…"), (90, "")):  # never more than fits into a cell
        many = viz.lens_map([["a_long_word"] * count], np.ones((1, count)), ["t"] * count, ["end"], "lens", "nats").data[0]
        assert many.text[0][0] == text and "a_long_word" in many.customdata[0][0]


def test_a_lens_map_says_from_which_value_on_its_colours_are_the_same_and_only_if_there_is_such_a_value():
    values = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 9.0], [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 8.0]])
    for z, top in ((values, 8), (np.full((2, 7), 0.3), 0.3), (0 * values, 1), (np.eye(14, 7)[[0, 13]], 1)):
        fig = viz.lens_map([TOKENS, TOKENS], z, TOKENS, ["embed", "end"], "lens", "nats", subtitle="the stream")
        assert fig.data[0].zmax == top
        said = "the stream. The strongest colour: 8 and more." if (z > top).any() else "the stream"
        assert fig.layout.title.subtitle.text == said


def test_signed_maps_with_one_large_value_say_from_where_their_colours_are_the_same():
    maps = np.tril(RNG.uniform(0.01, 0.1, size=(1, 20, 20)))
    maps[0, 0, 0] = 1.0
    fig = viz.attention_grid(maps, list("abcdefghijklmnopqrst"), ["one"], "maps", signed=True)
    assert fig.data[0].zmax < 0.1 and f"The strongest colour: {fig.data[0].zmax:.3g} and more" in fig.layout.title.subtitle.text


def test_stacked_shares_put_parts_side_by_side_and_negative_ones_left():
    shares = np.array([[0.4, 1.2], [0.6, -0.2]])
    fig = viz.stacked_shares(shares, ["1", "3"], ["x", "x0"], "shares", "depth")
    assert fig.layout.barmode == "relative" and fig.layout.showlegend
    for trace, values, part in zip(fig.data, shares, ("x", "x0")):
        np.testing.assert_array_equal(trace.x, values)
        assert trace.name == part
    low, high = fig.layout.xaxis.range
    assert low < -0.2 and high > 1.2


def test_principal_angles_stand_over_the_band_of_chance():
    overlaps, chance = RNG.uniform(size=(2, 3)), RNG.uniform(size=(50, 3))
    band, mean, *pairs = viz.principal_angles(overlaps, ["0 and 2", "1 and 3"], chance, "angles").data
    np.testing.assert_allclose(band.y[:3], np.percentile(chance, 97.5, axis=0))
    np.testing.assert_allclose(band.y[3:], np.percentile(chance, 2.5, axis=0)[::-1])
    np.testing.assert_allclose(mean.y, chance.mean(0))
    for trace, values, name in zip(pairs, overlaps, ("0 and 2", "1 and 3")):
        np.testing.assert_array_equal(trace.y, values)
        assert trace.name == name


def test_agreement_has_a_diagonal_and_one_scale():
    fig = viz.agreement([1, 20.0], [2, 18.0], ["one", "other"], [0, 1], "two", "formula", "measured", "depth")
    line, points = fig.data
    assert line.x == line.y and line.x[0] < 1 and line.x[1] > 20
    assert fig.layout.xaxis.range == fig.layout.yaxis.range and fig.layout.xaxis.type == "log"
    np.testing.assert_array_equal(points.y, [2, 18])


def test_tokens_are_text_and_never_markup():
    fig = viz.heatmap(np.ones((1, 7)), TOKENS, ["0"], "norms")
    assert fig.layout.xaxis.ticktext[5] == "&lt;s&gt;"
    assert fig.data[0].x[5] == "token 5 «&lt;s&gt;»"
    assert fig.layout.xaxis.ticktext[6] == "a_rather_l…"
    assert token_label("):⏎············") == "):⏎·¹²"


def test_long_sequences_get_fewer_labels():
    axis = token_axis([str(i) for i in range(10 * MAX_TICKS)])
    assert len(axis["tickvals"]) == MAX_TICKS
    assert axis["ticktext"][1] == "10" and round(axis["tickvals"][1]) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.heatmap(np.ones((2, 7)), TOKENS[:3], ["0", "1"], "t"), "tokens needs one label .* 3 labels, 7 entries"),
        (lambda: viz.heatmap(np.ones((2, 7)), TOKENS, ["0"], "t"), "rows needs one label .* 1 labels, 2 entries"),
        (lambda: viz.heatmap(np.ones(7), TOKENS, ["0"], "t"), r"values must have 2 axes: got shape \(7,\)"),
        (lambda: viz.attention_grid(np.ones((2, 7, 7)), TOKENS, ["one"], "t"), "names needs one label"),
        (lambda: viz.half_life_ranges(np.ones((7, 2)), TOKENS, 2, "t"), "head must be in 0..1: got 2"),
        (lambda: viz.token_effect(np.ones(6), TOKENS, "t", "nats"), "tokens needs one label"),
        (lambda: viz.effects(np.ones((1, 2)), np.ones((1, 2)), ["a"], "t", "nats"), "intervals must have 3 axes"),
        (lambda: viz.effects(np.ones((1, 3)), np.ones((1, 3, 2)), ["a"], "t", "nats"), r"got \(1, 3\) and \(1, 3, 2\)"),
        (lambda: viz.effects(np.ones((1, 2)), np.ones((1, 2, 2)), ["a", "b"], "t", "nats"), "names needs one label"),
        (lambda: viz.table(np.ones((1, 2)), ["a"], ["b"], "t", "r", "c", "v"), "columns needs one label"),
        (lambda: viz.table(np.ones((1, 1)), ["a"], ["b"], "t", "r", "c", "v", low=np.ones((1, 2))), "columns .* of low: got 1 labels, 2"),
        (lambda: viz.lens_map([TOKENS[:3]], np.ones((1, 7)), TOKENS, ["a"], "t", "v"), "words of a site needs one label"),
        (lambda: viz.lens_map([], np.ones((1, 7)), TOKENS, ["a"], "t", "v"), "words needs one label"),
        (lambda: viz.bars([1.0], ["a", "b"], "t", "nats", "part"), "names needs one label"),
        (lambda: viz.table(np.ones((2, 2)), ["a"], ["b", "c"], "t", "r", "c", "v"), "rows needs one label"),
        (lambda: viz.stacked_shares(np.ones((2, 2)), ["a", "b"], ["c"], "t", "depth"), "parts needs one label"),
        (lambda: viz.principal_angles(np.ones((1, 3)), ["a"], np.ones((4, 2)), "t"), "chance must have the angles .* 2 and 3"),
        (lambda: viz.agreement([1.0], [1.0], ["a"], [0, 1], "t", "x", "y", "g"), "names needs one label for each entry of groups"),
        (lambda: viz.curves({"a": ([1, 2], [1])}, "t", "x", "y"), r"'a' has \(2,\) and \(1,\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_questions_show_what_was_answered_and_a_legend_says_what_each_colour_means():
    tokens, answers = [f"t{i}" for i in range(20)], [None] * 17 + ["a", "b", None]
    plain = viz.questions(tokens, answers, "an example")
    assert [trace.name for trace in plain.data] == ["read, nothing is asked", "asked; below it the right answer"]
    asked = plain.data[1]
    assert list(zip(asked.x, asked.y)) == [(1, 1), (2, 1)] and asked.text == ("t17<br><b>a</b>", "t18<br><b>b</b>")

    judged = viz.questions(tokens, answers, "an example", predicted=[None] * 17 + ["a", "c", None])
    read, right, wrong = judged.data
    assert judged.layout.showlegend and len({trace.marker.color for trace in judged.data}) == 3
    assert right.name.startswith("✓ right") and right.text == ("t17<br><b>a</b>",)
    # what the model said stands in the wrong cell, not what it should have said
    assert wrong.name.startswith("✗ wrong") and wrong.text == ("t18<br><b>c</b><br>(b)",)
    assert "the right answer is <b>b</b>" in wrong.customdata[0] and "the model says <b>c</b>: wrong" in wrong.customdata[0]
    with pytest.raises(ValueError, match="answers needs one label for each entry"):
        viz.questions(tokens, answers[:3], "an example")


def test_intervals_have_a_legend_of_their_verdicts():
    fig = viz.intervals(
        [0.1, -0.2, 0.3],
        [0.0, -0.3, 0.2],
        [0.2, -0.1, 0.4],
        list("abc"),
        ["no verdict (5 seeds)", "less", "more"],
        "t",
        "nats",
        margin=0.05,
    )
    assert [trace.name for trace in fig.data] == ["no verdict", "less than the base", "more than the base"] and fig.layout.showlegend
    assert len({trace.marker.color for trace in fig.data}) == 3
    assert fig.layout.shapes[0].name == "too small to matter" and fig.layout.shapes[0].showlegend
    with pytest.raises(ValueError, match="a verdict begins with one of .*: got 'perhaps'"):
        viz.intervals([0.1], [0.0], [0.2], ["a"], ["perhaps"], "t", "nats")


def test_of_many_learning_curves_only_the_first_has_a_colour_and_a_band():
    many = {f"arm {k}": ([1, 2], [[0.1, 0.9], [0.2, 0.8]]) for k in range(9)}
    lines = [trace for trace in viz.learning(many, "learning", "accuracy").data if trace.mode == "lines" and trace.name]
    assert [line.line.color for line in lines] == [theme.SERIES[0]] + [theme.FAINT] * 8
    assert [line.showlegend for line in lines] == [True] + [False] * 8
    assert sum(trace.fill == "toself" for trace in viz.learning(many, "learning", "accuracy").data) == 1
    few = viz.learning({name: many[name] for name in list(many)[:6]}, "learning", "accuracy")
    assert sum(trace.fill == "toself" for trace in few.data) == 6


def test_names_of_a_trade_off_stand_apart_and_all_are_in_the_hover_text():
    points = viz.trade_off([10, 10.1, 100, 1000], [0.5, 0.501, 0.5, 0.9], ["base", "hidden", "far", "top"], "t", "bytes", "accuracy")
    assert points.data[0].text == ("base", "", "far", "top")
    assert points.data[0].customdata == ("base", "hidden", "far", "top") and "customdata" in points.data[0].hovertemplate
