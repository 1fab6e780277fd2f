"""The one look of all figures: fonts, colours, spacing. Change it here and it changes everywhere."""

from __future__ import annotations

import plotly.graph_objects as go

INK, QUIET, RULE, PAPER = "#1f2a37", "#64748b", "#e5e9ef", "#ffffff"
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
MONO = "'JetBrains Mono', 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# Categories: the first two are the shared blocks A and B, wherever they appear.
SERIES = ("#0d7f8c", "#e08a1e", "#7a5bb5", "#c2456b", "#4f7d3a", "#3d6fb6")
ACCENT, FAINT = SERIES[0], "#b9c6d3"

# Magnitudes: white is little, dark is much. Signed values: blue below 0, white at 0, red above.
SEQUENTIAL = [[0.0, "#f7fafb"], [0.2, "#cfe6e6"], [0.4, "#8fc6c8"], [0.6, "#459ea8"], [0.8, "#146d83"], [1.0, "#0b3a55"]]
DIVERGING = [[0.0, "#1d4e89"], [0.25, "#7fa9cf"], [0.5, "#f8f8f7"], [0.75, "#e79a7c"], [1.0, "#a4262c"]]

AXIS = dict(
    showgrid=False,
    zeroline=False,
    showline=True,
    linecolor=RULE,
    ticks="outside",
    ticklen=4,
    tickcolor=RULE,
    tickfont=dict(size=11, color=QUIET),
    title=dict(font=dict(size=12.5, color=INK), standoff=12),
    automargin=True,
)

TEMPLATE = go.layout.Template(
    layout=dict(
        font=dict(family=FONT, size=13, color=INK),
        title=dict(
            font=dict(size=17, color=INK),
            subtitle=dict(font=dict(size=12.5, color=QUIET)),
            x=0,
            xref="container",
            xanchor="left",
            pad=dict(l=18),
            y=1,
            yref="container",
            yanchor="top",
        ),
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        colorway=SERIES,
        xaxis=AXIS,
        yaxis=AXIS,
        margin=dict(l=72, r=24, t=84, b=64),
        hoverlabel=dict(bgcolor=INK, bordercolor=INK, font=dict(family=FONT, size=12.5, color="#ffffff"), align="left"),
        colorscale=dict(sequential=SEQUENTIAL, diverging=DIVERGING),
        modebar=dict(
            bgcolor="rgba(0,0,0,0)", color=FAINT, activecolor=QUIET, remove=["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]
        ),
        showlegend=False,
    )
)


def titled(fig: go.Figure, title: str, subtitle: str = "", height: int = 380) -> go.Figure:
    """Put the look, a title and a height on a figure; returns it."""
    fig.update_layout(template=TEMPLATE, height=height)
    # In pixels from the top edge, whatever the height: the title's place is a fraction of the container.
    fig.update_layout(title=dict(text=f"<b>{title}</b>", subtitle=dict(text=subtitle), y=1 - 20 / height))
    return fig


def color_bar(label: str, **more) -> dict:
    """A thin colour bar with its label along it."""
    return dict(
        title=dict(text=label, side="right", font=dict(size=12, color=QUIET)),
        thickness=11,
        outlinewidth=0,
        tickfont=dict(size=11, color=QUIET),
        ticks="",
        **more,
    )
