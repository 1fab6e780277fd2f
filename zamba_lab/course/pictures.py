"""Drawings for the lessons, each from the numbers that it shows."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from zamba_lab.viz import theme


def state_path(states: Tensor, decay: Tensor, x: Tensor, title: str, subtitle: str = "") -> go.Figure:
    """A state of two components as a point that moves: it shrinks by its decay (dotted), then an input is added (arrow).

    states: (l, 2), after each position. decay: (2,). x: (l,) the inputs, for the hover text. A slider shows the first k positions;
    those with an input are numbered.
    """
    before = np.vstack([np.zeros(2), states.numpy()[:-1]]) * decay.numpy()
    after, old, l = states.numpy(), np.vstack([np.zeros(2), states.numpy()[:-1]]), len(states)
    gap = np.full((l, 2), np.nan)
    fades = np.stack([old, before, gap], axis=1)  # (l, 3, 2)
    writes = np.where((x.numpy() != 0)[:, None, None], np.stack([before, after, gap], axis=1), np.nan)
    arrow = dict(symbol="arrow", angleref="previous", size=[0, 12, 0] * l, color=theme.ACCENT)
    fade_look = dict(name="decay", mode="lines", line=dict(color=theme.QUIET, dash="dot"), hoverinfo="skip")
    write_look = dict(name="write: B x", mode="lines+markers", line_color=theme.ACCENT, marker=arrow, hoverinfo="skip")
    state_look = dict(name="the state after each position", mode="markers+text", textposition="top left", hoverinfo="text")
    numbers, words = [str(t) if x[t] != 0 else "" for t in range(l)], [f"position {t}: x = {x[t]:.2f}" for t in range(l)]

    def traces(k: int) -> list[go.Scatter]:
        (fx, fy), (wx, wy), (sx, sy) = fades[:k].reshape(-1, 2).T, writes[:k].reshape(-1, 2).T, after[:k].T
        dots = go.Scatter(x=sx, y=sy, text=numbers[:k], hovertext=words[:k], marker=dict(size=7, color=theme.SERIES[1]), **state_look)
        return [go.Scatter(x=fx, y=fy, **fade_look), go.Scatter(x=wx, y=wy, **write_look), dots]

    fig = go.Figure(traces(l), frames=[go.Frame(data=traces(k), name=str(k)) for k in range(1, l + 1)])
    fig.update_xaxes(title_text="first component of the state", range=ends(fades, writes, axis=0), **theme.ZERO)
    fig.update_yaxes(title_text="second component", range=ends(fades, writes, axis=1), **theme.ZERO)
    fig = theme.titled(fig, title, subtitle, 520, showlegend=True)
    return fig.update_layout(sliders=[slider([str(k) for k in range(1, l + 1)], "positions read: ")], margin_b=150)


def ends(*arrays: np.ndarray, axis: int) -> list[float]:
    values = np.concatenate([array[..., axis].ravel() for array in arrays] + [np.zeros(1)])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return [low - 0.12 * (high - low), high + 0.12 * (high - low)]


def slider(names: Sequence[str], label: str) -> dict:
    """A slider over a figure's frames; it begins at the last."""
    how = dict(mode="immediate", frame=dict(duration=0, redraw=True), transition=dict(duration=0))
    steps = [dict(method="animate", label=name, args=[[name], how]) for name in names]
    return dict(
        active=len(names) - 1,
        currentvalue=dict(prefix=label, font=dict(color=theme.INK)),
        steps=steps,
        pad=dict(t=46),
        font=dict(color=theme.QUIET),
    )


def memories(x: Tensor, marked: Tensor, lines: dict[str, Tensor], title: str, subtitle: str = "") -> go.Figure:
    """Inputs as bars, those that matter in colour, and what some memories hold after each position as steps.

    x, marked: (l,). lines: name -> (l,).
    """
    fig, places = go.Figure(), np.arange(len(x))
    for name, kind, color in (("worth keeping", marked, theme.SERIES[1]), ("noise", ~marked, theme.FAINT)):
        fig.add_trace(
            go.Bar(x=places[kind.numpy()], y=x[kind].numpy(), name=f"input: {name}", marker=dict(color=color, line_width=0), width=0.5)
        )
    for i, (name, values) in enumerate(lines.items()):
        line = dict(color=theme.SERIES[(0, 2, 3)[i % 3]], width=2.2, shape="hv")
        fig.add_trace(go.Scatter(x=places, y=values.numpy(), mode="lines", name=name, line=line))
    fig.update_xaxes(title_text="position")
    fig.update_yaxes(title_text="value", **theme.ZERO)
    return theme.titled(fig, title, subtitle, 400, showlegend=True, hovermode="x unified")


def chunks(fig: go.Figure, l: int, chunk_size: int) -> go.Figure:
    """Draw the chunks on a heatmap of an (l, l) matrix whose first row is on top: squares on the diagonal, blocks below."""
    for start in range(0, l, chunk_size):
        end = min(start + chunk_size, l)
        low, high = l - end - 0.5, l - start - 0.5
        fig.add_shape(type="rect", x0=start - 0.5, x1=end - 0.5, y0=low, y1=high, line=dict(color=theme.SERIES[1], width=3))
        if start:
            fig.add_shape(type="rect", x0=-0.5, x1=start - 0.5, y0=low, y1=high, line=dict(color=theme.SERIES[2], width=2, dash="dot"))
    return fig


def cloud(values: Tensor, title: str, subtitle: str = "") -> go.Figure:
    """Vectors as points of a plane: across, along their mean; up, along what differs most among them. Both axes have one scale.

    values: (m, d), m >= 2.
    """
    mean = values.mean(0)
    along = mean / mean.norm().clamp(min=1e-12)
    rest = values - mean
    rest = rest - (rest @ along)[:, None] * along
    up = torch.linalg.svd(rest, full_matrices=False)[2][0]
    share = float(mean.square().sum() / values.square().sum(1).mean())
    fig = go.Figure(
        go.Scatter(x=values @ along, y=values @ up, mode="markers", name="one token", marker=dict(color=theme.ACCENT, size=5, opacity=0.5))
    )
    for name, x, y, symbol, color in (
        ("zero", 0.0, 0.0, "circle-open", theme.SERIES[3]),
        ("the mean", float(mean.norm()), float(mean @ up), "x", theme.SERIES[1]),
    ):
        fig.add_trace(go.Scatter(x=[x], y=[y], mode="markers", name=name, marker=dict(color=color, symbol=symbol, size=14, line_width=3)))
    fig.update_xaxes(title_text="along the mean of all tokens", **theme.ZERO)
    fig.update_yaxes(title_text="along what differs most", scaleanchor="x", **theme.ZERO)
    note = f"the mean vector has {share:.0%} of the mean square"
    return theme.titled(fig, title, subtitle or note, 420, showlegend=True)
