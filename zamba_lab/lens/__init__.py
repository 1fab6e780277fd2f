"""From a model and tokens to numbers: what its states hold, where its attention looks, what a part is worth.

Everything here returns tensors, alone or in a small dataclass, and draws nothing. Sequences are (b, l) ids; results
keep the batch axis. The SSM states are not recorded but recomputed from their recorded inputs (`states`).

Reading order:

    passes.py                                   one forward pass, looked into
    states.py decay.py attention.py             what is inside
    logits.py tuned.py attribution.py           what it would say, and which part said it
    parts.py interventions.py                   what can be changed, and how a change is put in force
    replace.py rewire.py hold.py paths.py       the changes: a part, the structure, a memory, an edge
    effect.py                                   what a change does, beside random ones of its size
    timetravel.py recall.py                     caches as moments; who remembers what

What other libraries call these things: NAMES.md, beside this file.
"""

from zamba_lab.lens.attention import AttentionMaps, attention_by_invocation
from zamba_lab.lens.attribution import Attribution, attribution, frozen_mixer
from zamba_lab.lens.decay import Decay, decay
from zamba_lab.lens.effect import SWITCHED, Effect, bootstrap, divergence_from, effect, switch_off_each
from zamba_lab.lens.hold import freeze, overwrite, wipe
from zamba_lab.lens.interventions import Intervened, Intervention, intervene
from zamba_lab.lens.logits import LensReading, lens_sites, logit_lens, unembed
from zamba_lab.lens.parts import count, parts
from zamba_lab.lens.passes import next_token_loss, run, token_losses
from zamba_lab.lens.paths import path
from zamba_lab.lens.recall import MEMORIES, Recall, needles, who_carries, who_remembers
from zamba_lab.lens.replace import drop_concat, mean, resample, zero
from zamba_lab.lens.rewire import one_block, permute_adapters, swap_blocks, untie
from zamba_lab.lens.states import ssm_states, state_norms
from zamba_lab.lens.timetravel import Timeline, fork, transplant
from zamba_lab.lens.tuned import TunedLens, fit_tuned_lens

__all__ = ["Attribution", "AttentionMaps", "Decay", "Effect", "Intervened", "Intervention", "LensReading", "MEMORIES",
           "Recall", "SWITCHED", "Timeline", "TunedLens", "attention_by_invocation", "attribution", "bootstrap", "count",
           "decay", "divergence_from", "drop_concat", "effect", "fit_tuned_lens", "fork", "freeze", "frozen_mixer", "intervene",
           "lens_sites", "logit_lens", "mean", "needles", "next_token_loss", "one_block", "overwrite", "parts", "path",
           "permute_adapters", "resample", "run", "ssm_states", "state_norms", "swap_blocks", "switch_off_each",
           "token_losses", "transplant", "unembed", "untie", "who_carries", "who_remembers", "wipe",
           "zero"]
