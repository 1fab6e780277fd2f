"""Arrays and labels in, a plotly Figure out. Knows nothing of models; the caller shows the figure.

Every figure has a title, named axes with units and hover text that says in words what a point is. The look is in
`theme`; positions along a sequence carry their tokens' labels (`tokens`).
"""

from zamba_lab.viz.agreement import agreement
from zamba_lab.viz.angles import principal_angles
from zamba_lab.viz.architecture import depth_diagram
from zamba_lab.viz.attention import attention_grid
from zamba_lab.viz.bars import bars
from zamba_lab.viz.curves import curves
from zamba_lab.viz.decay import half_life_ranges
from zamba_lab.viz.effects import effects
from zamba_lab.viz.grid import lens_map, table
from zamba_lab.viz.heatmap import heatmap
from zamba_lab.viz.questions import questions
from zamba_lab.viz.shares import stacked_shares
from zamba_lab.viz.study import intervals, learning, trade_off
from zamba_lab.viz.token_effect import token_effect

__all__ = [
    "agreement",
    "attention_grid",
    "bars",
    "curves",
    "depth_diagram",
    "effects",
    "half_life_ranges",
    "heatmap",
    "intervals",
    "learning",
    "lens_map",
    "principal_angles",
    "questions",
    "stacked_shares",
    "table",
    "token_effect",
    "trade_off",
]
