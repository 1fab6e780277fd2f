"""Lines over a common axis: curves, learning over seeds, overlaps angle by angle, half-lives over heads and tokens."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from zamba_lab.viz import theme
from zamba_lab.viz.labels import array, must_match, not_drawn, positions, short, wrapped

Curve = tuple[Sequence[float], Sequence[float]]  # x and y
FEW = 20  # points up to which each is marked
BAND = (2.5, 97.5)  # percentiles of what random pairs of subspaces do
SPREAD = (5, 25, 50, 75, 95)  # percentiles of a head's half-life over a text


def curves(
    lines: Mapping[str, Curve],
    title: str,
    x_label: str,
    y_label: str,
    subtitle: str = "",
    faint: Mapping[str, Curve] | None = None,
    marks: Mapping[str, float] | None = None,
    x_range: tuple[float, float] | None = None,
    height: int = 380,
) -> go.Figure:
    """One line a name; hovering shows all lines at that x.

    Args:
        lines: name -> (x, y), each of one length; one without points is only named in the legend.
        faint: the same, drawn thin and grey, e.g. the loss of every step under its mean.
        marks: name -> x of a dotted vertical line.
        x_range: the ends of the x axis; those of the data if left out.

    Raises ValueError if a curve's x and y differ in length.
    """
    points = [(name, *curve_points(name, *curve), None) for name, curve in (faint or {}).items()]
    points += [(name, *curve_points(name, *curve), theme.SERIES[i % len(theme.SERIES)]) for i, (name, curve) in enumerate(lines.items())]
    fig = go.Figure()
    for name, x, y, color in points:
        look = dict(mode="lines", line=dict(color=theme.FAINT, width=1), hoverinfo="skip")
        if color is not None:
            hovered = theme.hover(name, "%{y:.4g}") + "<extra></extra>"
            mode = "lines+markers" if len(x) <= FEW else "lines"
            look = dict(mode=mode, line=dict(color=color, width=2.2), marker_size=6, cliponaxis=False, hovertemplate=hovered)
        fig.add_trace(go.Scatter(name=short(name), x=x, y=np.where(np.isfinite(y), y, np.nan), **look))
    for name, x in (marks or {}).items():
        note = dict(text=short(name), yref="paper", y=1, yanchor="top", xanchor="left", font=dict(size=11.5, color=theme.QUIET))
        fig.add_vline(x, line=dict(color=theme.QUIET, width=1, dash="dot"), annotation=note)
    fig.update_xaxes(title_text=wrapped(x_label), range=None if x_range is None else list(x_range))
    fig.update_yaxes(title_text=wrapped(y_label, 40), **theme.GRID)
    note = not_drawn(*(values for _, x, y, _ in points for values in (x, y)))
    return theme.titled(fig, title, subtitle, height, note, hovermode="x unified", showlegend=True)


def curve_points(name: str, x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The two as arrays; raises ValueError if they are not of one length."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a curve needs as many x as y: {name!r} has {x.shape} and {y.shape}")
    return x, y


def learning(
    curves: Mapping[str, tuple], title: str, y_label: str, levels: Mapping[str, float] | None = None, subtitle: str = ""
) -> go.Figure:
    """A line for each arm, the median over seeds, in a band from the least to the greatest seed.

    Of more arms than there are colours only the first has one; the others are grey and named where the pointer is.

    Args:
        curves: arm -> (steps (n,), values (seed, n)); NaN where a seed was not measured any more.
        levels: name -> a dashed line, such as chance.

    Raises ValueError if the shapes do not fit.
    """
    fig, crowded, numbers = go.Figure(), len(curves) > len(theme.SERIES), []
    for k, (name, (steps, values)) in enumerate(curves.items()):
        steps, values = array(steps, "steps", 1), array(values, "values", 2)
        must_match("values", values.T, len(steps))
        numbers.append(values)
        values = np.where(np.isfinite(values), values, np.nan)
        measured = ~np.isnan(values).all(0)
        steps, values, grey = steps[measured], values[:, measured], crowded and k > 0
        color = theme.FAINT if grey else theme.SERIES[k]
        if not grey:
            add_band(fig, steps, np.nanmin(values, 0), np.nanmax(values, 0), fillcolor=color, opacity=0.15, legendgroup=str(k))
        hovered = f"{wrapped(name)}<br>step %{{x}}: <b>%{{y:.3f}}</b><extra></extra>"
        look = dict(line=dict(color=color, width=1.3 if grey else 2), zorder=0 if grey else 1, hovertemplate=hovered, mode="lines")
        named = dict(name=short(name), legendgroup=str(k), showlegend=not grey)
        fig.add_trace(go.Scatter(x=steps, y=np.nanmedian(values, 0), **look, **named))
    for name, level in (levels or {}).items():
        line = dict(dash="dash", color=theme.QUIET, width=1)
        fig.add_hline(y=level, line=line, annotation_text=short(name), annotation_position="bottom right")
    fig.update_xaxes(title_text="step")
    fig.update_yaxes(title_text=wrapped(y_label, 40), **theme.GRID)
    return theme.titled(fig, title, subtitle, 460, not_drawn(*numbers, missing="not measured"), showlegend=True)


def add_band(fig: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look) -> None:
    """A filled band from low to high; in the legend only if it has a name."""
    outline = dict(x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines", line_width=0)
    fig.add_trace(go.Scatter(**outline, hoverinfo="skip", showlegend="name" in look, **look))


def principal_angles(overlaps, names: Sequence[str], chance, title: str, subtitle: str = "") -> go.Figure:
    """cos^2 of the principal angles of each pair, the closest first, over the band of random pairs.

    Args:
        overlaps: (pair, angle), 0 to 1, falling.
        names: one for each pair.
        chance: (draw, angle): the same for pairs of random subspaces of the same size.

    Raises ValueError if names or angles do not fit.
    """
    overlaps, chance = array(overlaps, "overlaps", 2), array(chance, "chance", 2)
    must_match("names", names, overlaps.shape[0])
    if chance.shape[1] != overlaps.shape[1]:
        raise ValueError(f"chance must have the angles of overlaps: got {chance.shape[1]} and {overlaps.shape[1]}")
    angles = np.arange(1, overlaps.shape[1] + 1)
    random = np.where(np.isfinite(chance), chance, 0)
    low, high = np.percentile(random, BAND, axis=0)
    fig = go.Figure()
    add_band(fig, angles, low, high, fillcolor=theme.RULE, name="95 % of random pairs")
    mean = dict(x=angles, y=random.mean(0), mode="lines", line=dict(color=theme.QUIET, width=1.2, dash="dot"), name="random pairs, mean")
    fig.add_trace(go.Scatter(**mean, hovertemplate="angle %{x}<br>random pairs, mean <b>%{y:.3f}</b><extra></extra>"))
    for i, (name, values) in enumerate(zip(names, overlaps)):
        color, dash = theme.SERIES[i % len(theme.SERIES)], ["solid", "dash"][i // len(theme.SERIES) % 2]
        look = dict(mode="lines+markers", marker_size=6, line=dict(color=color, width=1.8, dash=dash), name=short(name))
        hovered = f"{wrapped(name)}<br>angle %{{x}}<br>cos² <b>%{{y:.3f}}</b><extra></extra>"
        fig.add_trace(go.Scatter(x=angles, y=np.where(np.isfinite(values), values, np.nan), hovertemplate=hovered, **look))
    top = 1.08 * max(theme.largest(overlaps), high.max(initial=0))
    fig.update_xaxes(title_text="principal angle, the closest first", dtick=max(1, len(angles) // 16))
    fig.update_yaxes(title_text="overlap, cos² of the angle", range=[-0.02, top], **theme.GRID)
    return theme.titled(fig, title, subtitle, 460, not_drawn(overlaps, chance), showlegend=True)


def half_life_ranges(half_lives, tokens: Sequence[str], head: int, title: str, subtitle: str = "") -> go.Figure:
    """Left: each head's half-life over the text, median, half and nine tenths of it. Right: one head, token by token.

    Args:
        half_lives: (token, head), in tokens, > 0; drawn on a logarithmic axis.
        tokens: one label for each position.
        head: the head on the right, 0 <= head < heads; marked on the left.

    Raises ValueError if an argument does not fit.
    """
    half_lives = array(half_lives, "half_lives", 2)
    must_match("tokens", tokens, half_lives.shape[0])
    if not 0 <= head < half_lives.shape[1]:
        raise ValueError(f"head must be in 0..{half_lives.shape[1] - 1}: got {head}")
    drawn = np.where(np.isfinite(half_lives) & (half_lives > 0), half_lives, np.nan)
    headings = ["all heads: spread over the text", f"head {head}, token by token"]
    fig = make_subplots(1, 2, column_widths=[0.34, 0.66], horizontal_spacing=0.09, shared_yaxes=True, subplot_titles=headings)
    add_spreads(fig, drawn, head)
    hovered = "%{x}<br>half-life <b>%{y:.3g}</b> tokens<extra></extra>"
    look = dict(mode="lines+markers", line=dict(color=theme.ACCENT, width=1.6), marker=dict(size=5, color=theme.ACCENT))
    fig.add_trace(go.Scatter(x=positions(tokens), y=drawn[:, head], hovertemplate=hovered, **look), row=1, col=2)
    fig.update_xaxes(title_text="head", dtick=max(1, half_lives.shape[1] // 16), row=1, col=1)
    fig.update_xaxes(title_text="token", tickangle=-90, **theme.token_axis(tokens, most=64), row=1, col=2)
    fig.update_yaxes(type="log", dtick=1, range=theme.log_range(drawn), **theme.GRID)
    fig.update_yaxes(title_text="half-life of the state (tokens)", row=1, col=1)
    fig.update_annotations(font=dict(size=13, color=theme.INK), yshift=4)
    note = theme.sentences(not_drawn(half_lives, positive=True), "Dot: median over the text, thick: half of it, thin: nine tenths")
    return theme.titled(fig, title, subtitle, 404, note, heading=26, barmode="overlay")


def add_spreads(fig: go.Figure, half_lives: np.ndarray, head: int) -> None:
    """A thin bar, a thick bar and a dot for each head: percentiles on a logarithmic axis need no density estimate."""
    heads = [h for h in range(half_lives.shape[1]) if not np.isnan(half_lives[:, h]).all()]
    low, lower, middle, upper, high = np.nanpercentile(half_lives[:, heads], SPREAD, axis=0) if heads else np.zeros((5, 0))
    words = [
        f"head {h}<br>median <b>{m:.3g}</b> tokens<br>half of the text {a:.3g} to {b:.3g}<br>nine tenths {c:.3g} to {d:.3g}"
        for h, m, a, b, c, d in zip(heads, middle, lower, upper, low, high)
    ]
    look = dict(marker=dict(color=[theme.ACCENT if h == head else theme.FAINT for h in heads], line_width=0), textposition="none")
    for name, width, bottom, top in (("nine tenths of the text", 0.12, low, high), ("half of it", 0.5, lower, upper)):
        bar = go.Bar(
            name=name, x=heads, base=bottom, y=top - bottom, width=width, text=words, hovertemplate="%{text}<extra></extra>", **look
        )
        fig.add_trace(bar, row=1, col=1)
    dot = dict(size=8, color=theme.LIGHT, line=dict(color=theme.DARK, width=1.6))
    fig.add_trace(go.Scatter(x=heads, y=middle, mode="markers", hoverinfo="skip", marker=dot), row=1, col=1)
