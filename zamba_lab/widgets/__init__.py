"""Panels for notebooks: read a control, call `lens`, show `viz`. Nothing is computed or drawn here.

    states_panel      the norm of the SSM states over tokens and depth, head by head
    attention_panel   one shared block's attention at each of its invocations
    decay_panel       how long each head of a layer remembers
    switch_panel      what switching a part off does to each token's loss
    lens_panel        what the model would say at each site
    intervention_panel  what replacing a part does, beside random changes of its size
    recall_panel      who remembers a needle

All take a model and (1, l) token ids, and labels for the tokens if the model has no tokenizer. All are plain
ipywidgets: reachable by the tab key, moved by the arrow keys. Why the figures are not FigureWidgets: see `panel`.
"""

from zamba_lab.widgets.causal import intervention_panel, lens_panel, recall_panel
from zamba_lab.widgets.panel import Panel
from zamba_lab.widgets.panels import attention_panel, decay_panel, states_panel, switch_panel

__all__ = ["Panel", "attention_panel", "decay_panel", "intervention_panel", "lens_panel", "recall_panel", "states_panel",
           "switch_panel"]
