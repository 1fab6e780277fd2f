"""Panels for notebooks: read a control, call `lens`, show `viz`. Nothing is computed or drawn here.

    states_panel      the norm of the SSM states over tokens and depth, head by head
    attention_panel   one shared block's attention at each of its invocations
    decay_panel       how long each head of a layer remembers
    switch_panel      what holding a part at its mean does to each token's loss
    dimensions_panel  in how many directions the states are filled
    contents_panel    which tokens a state is made of
    mixer_panel       a mixer as attention: what each token adds to each
    drift_panel       a shared block: other inputs or other adapters
    xray_panel        attention scores by the halves of [x, x0] that made them
    lens_panel        what the model would say at each site
    intervention_panel  what replacing a part does, beside random changes of its size
    recall_panel      who remembers a needle
    TrainingPanel     a run's loss and held-out text, while it trains
    study_panel       an ablation study: effects, learning curves and costs, by axis and number of seeds

All but the last two take a model and (1, l) token ids, and labels for the tokens if the model has no tokenizer; where the model
lacks the part, a sentence (`Absent`) stands in the panel's place. All are plain ipywidgets: reachable by the tab key, moved by
the arrow keys. Why the figures are not FigureWidgets: see `panel`.
"""

from zamba_lab.widgets.causal import intervention_panel, lens_panel, recall_panel, switch_panel
from zamba_lab.widgets.look import (
    SOURCES,
    attention_panel,
    contents_panel,
    decay_panel,
    dimensions_panel,
    drift_panel,
    mixer_panel,
    states_panel,
    xray_panel,
)
from zamba_lab.widgets.panel import Absent, Panel
from zamba_lab.widgets.runs import TrainingPanel, study_panel

# fmt: off
__all__ = [
    "SOURCES", "Absent", "Panel", "TrainingPanel", "attention_panel", "contents_panel", "decay_panel", "dimensions_panel", "drift_panel",
    "intervention_panel", "lens_panel", "mixer_panel", "recall_panel", "states_panel", "study_panel", "switch_panel", "xray_panel",
]
