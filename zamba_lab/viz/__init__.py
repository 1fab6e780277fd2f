"""Arrays and labels in, a plotly Figure out. Knows nothing of models; the caller shows the figure.

Every figure has a title, named axes with units and hover text that says in words what a point is. Any label is shown letter
for letter, numbers that are not finite are said, and signed colours have 0 in their middle (`labels`, `theme`).

    maps.py          heatmap, table, lens_map
    squares.py       attention_grid
    rows.py          bars, stacked_shares, effects, intervals
    lines.py         curves, learning, principal_angles, half_life_ranges
    points.py        agreement, trade_off
    sequences.py     token_effect, questions
    architecture.py  depth_diagram
"""

from zamba_lab.viz.architecture import Drawing as Drawing
from zamba_lab.viz.architecture import depth_diagram
from zamba_lab.viz.lines import curves, half_life_ranges, learning, principal_angles
from zamba_lab.viz.maps import heatmap, lens_map, table
from zamba_lab.viz.points import agreement, trade_off
from zamba_lab.viz.rows import bars, effects, intervals, stacked_shares
from zamba_lab.viz.sequences import questions, token_effect
from zamba_lab.viz.squares import attention_grid

# fmt: off
__all__ = [
    "agreement", "attention_grid", "bars", "curves", "depth_diagram", "effects", "half_life_ranges", "heatmap", "intervals", "learning",
    "lens_map", "principal_angles", "questions", "stacked_shares", "table", "token_effect", "trade_off",
]
