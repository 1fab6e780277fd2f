"""From a model and tokens to numbers: what its states hold, where its attention looks, what a part is worth.

Everything here returns tensors, alone or in a small dataclass, and draws nothing. Sequences are (b, l) ids; results
keep the batch axis. The SSM states are not recorded but recomputed from their recorded inputs (`states`). In reading order:

    passes.py       one pass, looked into, and its next-token loss
    terms.py        an SSM's terms in one form for both mixers, and the matrix they make
    states.py       how full a state is, in how many directions, and of which tokens
    decay.py        step sizes and the half-life of the formula;  horizons.py  beside it the memory as it is measured
    mixers.py       a mixer as a matrix from tokens to tokens, convolution, D and gate included
    rollout.py      mixer and attention composed within a layer, layers down the depth
    attention.py    the maps of a shared block at each invocation, and what they are like
    drift.py        other inputs or other adapters: why a block's uses differ
    lora.py         the adapters as matrices, and what exchanging them does
    concat.py       which half of [x, x0] the attention uses
    switches.py     what a part is worth: off, and the loss compared
"""

from zamba_lab.lens.attention import (AttentionHabits, AttentionMaps, attention_by_invocation, attention_habits,
                                      divergence)
from zamba_lab.lens.concat import ConcatShares, ScoreParts, concat_shares, score_parts
from zamba_lab.lens.decay import Decay, decay
from zamba_lab.lens.drift import Drift, drift
from zamba_lab.lens.horizons import Horizons, horizons
from zamba_lab.lens.lora import (LoraChange, LoraEffect, adapters_of, chance_overlaps, lora_change, lora_effects,
                                 lora_parts)
from zamba_lab.lens.mixers import MixerMatrix, mixer_matrix
from zamba_lab.lens.passes import next_token_loss, run
from zamba_lab.lens.rollout import Flow, Rollout, layer_flow, rollout, through_attention
from zamba_lab.lens.states import (Contents, contents, effective_rank, participation_ratio, ssm_states, state_dimensions,
                                   state_norms)
from zamba_lab.lens.switches import Effect, parts, switch_edits, switch_off, switch_off_each

__all__ = ["AttentionHabits", "AttentionMaps", "ConcatShares", "Contents", "Decay", "Drift", "Effect", "Flow", "Horizons",
           "LoraChange", "LoraEffect", "MixerMatrix", "Rollout", "ScoreParts", "adapters_of", "attention_by_invocation",
           "attention_habits", "chance_overlaps", "concat_shares", "contents", "decay", "divergence", "drift",
           "effective_rank", "horizons", "layer_flow", "lora_change", "lora_effects", "lora_parts", "mixer_matrix",
           "next_token_loss", "participation_ratio", "parts", "rollout", "run", "score_parts", "ssm_states",
           "state_dimensions", "state_norms", "switch_edits", "switch_off", "switch_off_each", "through_attention"]
