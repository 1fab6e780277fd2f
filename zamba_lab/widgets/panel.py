"""Controls above one figure that is drawn again whenever a control changes, and what all panels share.

The figure is a plain one in an `Output` widget, whose `outputs` are set as a value: whatever order messages arrive
in, the page ends up showing the last one, drawn by the Plotly renderer that JupyterLab has loaded once.

Not plotly's FigureWidget, because of a race. Each instance brings the whole of plotly.js (5 MB) as an anywidget module,
and its traces follow in a second message. anywidget 0.11 holds messages back until the module is ready; if its 2-second
deadline comes first, it drops them and every later one, and the figure stays blank, whatever its controls say. Figures
that stayed so, four to a page, two cores under a load of 6 to 10 (modules took 2 to 8 s; the deadline's own timer often
fires late as well, which saves the others):

    FigureWidget                                3 of 36 in 9 page loads, ready after 40 to 100 s
    FigureWidget, deadline shortened to 20 ms   8 of 8
    this panel's way                            0 of 40 in 10 page loads, ready after 13 to 18 s
"""

import html
import json
import re
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import plotly.graph_objects as go
from torch import Tensor

from zamba_lab.config import ZambaConfig, block_name
from zamba_lab.model import Zamba

PLOTLY = "application/vnd.plotly.v1+json"
EVERY = "every"  # not None: a Dropdown takes that for "nothing chosen"
BUSY = "computing …"


class Panel(widgets.VBox):
    """A row of controls and the figure that `draw` makes of their values; while it does, a word beside the controls says so.

        panel = Panel(lambda head: viz.heatmap(norms[..., head], ...), head=slider("head", 8, "which head"))
        panel.controls["head"].value = 3             # draws again; panel.figure is the new one

    Args:
        draw: takes the value of each control by name, returns a figure.
        controls: widgets with a `value`.
    """

    def __init__(self, draw: Callable[..., go.Figure], **controls: widgets.ValueWidget):
        self.draw, self.controls = draw, controls
        self.output, self.busy = figure_output(), widgets.Label(layout=widgets.Layout(width="100px"))
        self.figure = go.Figure()
        layout = widgets.Layout(flex_flow="row wrap", grid_gap="4px 28px", padding="6px 16px 2px")
        super().__init__([widgets.HBox([*controls.values(), self.busy], layout=layout), self.output])
        self.add_class("zamba-panel")
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, change=None) -> None:
        self.busy.value = BUSY
        try:
            self.figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            show_figure(self.output, self.figure)
        finally:
            self.busy.value = ""


class Absent(widgets.HTML):
    """In the place of a panel: the sentence that says which part the model lacks."""

    def __init__(self, sentence: str):
        super().__init__(f"<p>{html.escape(sentence)}</p>")
        self.sentence = sentence


def figure_output(width: str = "100%") -> widgets.Output:
    """A place for `show_figure`."""
    return widgets.Output(layout=widgets.Layout(width=width))


def show_figure(output: widgets.Output, figure: go.Figure) -> None:
    """Put a figure in the place of the one that is there."""
    # As high as the figure from the start, so that the page does not jump while it is drawn.
    output.layout.min_height = f"{figure.layout.height or 360}px"
    words = html.unescape(re.sub("<[^>]*>", "", figure.layout.title.text or "figure"))
    output.outputs = ({"output_type": "display_data", "data": {PLOTLY: json.loads(figure.to_json()), "text/plain": words}, "metadata": {}},)


def slider(name: str, count: int, help: str, value: int = 0) -> widgets.IntSlider:
    """Choose one of `count` things numbered from 0. One change for each step of a key, one at the end of a drag."""
    look = dict(continuous_update=False, style={"description_width": "initial"}, layout=widgets.Layout(width="300px"))
    return widgets.IntSlider(value=value, min=0, max=count - 1, description=name, tooltip=help, **look)


def choice(name: str, options: list[tuple[str, object]], help: str) -> widgets.Dropdown:
    """Choose one of a few named things; each has its value."""
    look = dict(style={"description_width": "initial"}, layout=widgets.Layout(width="max-content"))
    return widgets.Dropdown(options=options, description=name, tooltip=help, **look)


def block_choice(config: ZambaConfig) -> widgets.Dropdown:
    """Choose one of the shared blocks."""
    return choice("shared block", [(block_name(i), i) for i in range(config.n_shared_blocks)], "which set of shared weights")


def labels(model: Zamba, ids: Tensor, tokens: Sequence[str] | None) -> list[str]:
    """A label for each token of a (1, l) sequence: those given, or the tokenizer's, or the ids themselves.

    Raises ValueError if ids hold more than one sequence.
    """
    if ids.ndim != 2 or len(ids) != 1:
        raise ValueError(f"a panel shows one sequence, ids of shape (1, length): got {tuple(ids.shape)}")
    if tokens is None:
        tokens = map(str, ids[0].tolist()) if model.tokenizer is None else model.tokenizer.pieces(ids[0].tolist())
    return list(tokens)


def invocation_names(config: ZambaConfig) -> list[str]:
    """Each invocation, its block and its depth in words."""
    owners = zip(config.blocks_by_invocation, config.hybrid_layers)
    return [f"invocation {k} of block {block_name(block)}, depth {depth}" for k, (block, depth) in enumerate(owners)]


def without_blocks(model: Zamba) -> Absent | None:
    """What stands in place of a panel on shared blocks if the model has none."""
    return None if model.config.n_invocations else Absent("This model has no shared attention block: there is nothing to show here.")


def without_states(model: Zamba) -> Absent | None:
    """What stands in place of a panel on SSM states if the model has none."""
    return Absent("This model is a transformer: it has no SSM states to show here.") if model.config.mixer == "attention" else None
