"""Controls above one figure that is drawn again whenever a control changes.

The figure is a plain one in an `Output` widget, whose `outputs` are set as a value: whatever order messages arrive
in, the page ends up showing the last one, drawn by the Plotly renderer that JupyterLab has loaded once.

Not plotly's FigureWidget, because of a race. Each instance brings the whole of plotly.js (5 MB) as an anywidget module,
and its traces follow in a second message. anywidget 0.11 holds messages back until the module is ready; if its 2-second
deadline comes first, it drops them and every later one, and the figure stays blank and deaf to its controls. Figures
that stayed so, four to a page, two cores under a load of 6 to 10 (modules took 2 to 8 s; the deadline's own timer often
fires late as well, which saves the others):

    FigureWidget                                3 of 36 in 9 page loads, ready after 40 to 100 s
    FigureWidget, deadline shortened to 20 ms   8 of 8
    this panel's way                            0 of 40 in 10 page loads, ready after 13 to 18 s
"""

from __future__ import annotations

import json
from collections.abc import Callable

import ipywidgets as widgets
import plotly.graph_objects as go

PLOTLY = "application/vnd.plotly.v1+json"


class Panel(widgets.VBox):
    """A row of controls and the figure that `draw` makes of their values.

        panel = Panel(lambda head: viz.heatmap(norms[..., head], ...), head=head_picker(8))
        panel.controls["head"].value = 3             # draws again; panel.figure is the new one

    Args:
        draw: takes the value of each control by name, returns a figure.
        controls: widgets with a `value`.
    """

    def __init__(self, draw: Callable[..., go.Figure], **controls: widgets.ValueWidget):
        self.draw, self.controls = draw, controls
        self.output = figure_output()
        self.figure = go.Figure()
        row = widgets.HBox(
            list(controls.values()), layout=widgets.Layout(flex_flow="row wrap", grid_gap="4px 28px", padding="6px 16px 2px")
        )
        super().__init__([row, self.output])
        self.add_class("zamba-panel")
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, change=None) -> None:
        self.figure = self.draw(**{name: control.value for name, control in self.controls.items()})
        show_figure(self.output, self.figure)


def figure_output(width: str = "100%") -> widgets.Output:
    """A place for `show_figure`."""
    return widgets.Output(layout=widgets.Layout(width=width))


def show_figure(output: widgets.Output, figure: go.Figure) -> None:
    """Put a figure in the place of the one that is there."""
    # As high as the figure from the start, so that the page does not jump while it is drawn.
    output.layout.min_height = f"{figure.layout.height or 360}px"
    data = {PLOTLY: json.loads(figure.to_json()), "text/plain": figure.layout.title.text or "figure"}
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def slider(name: str, count: int, help: str) -> widgets.IntSlider:
    """Choose one of `count` things numbered from 0. One change for each step of a key, one at the end of a drag."""
    return widgets.IntSlider(
        value=0,
        min=0,
        max=count - 1,
        description=name,
        tooltip=help,
        continuous_update=False,
        style={"description_width": "initial"},
        layout=widgets.Layout(width="300px"),
    )


def choice(name: str, options: list[tuple[str, object]], help: str) -> widgets.Dropdown:
    """Choose one of a few named things; each has its value."""
    return widgets.Dropdown(
        options=options, description=name, tooltip=help, style={"description_width": "initial"}, layout=widgets.Layout(width="max-content")
    )
