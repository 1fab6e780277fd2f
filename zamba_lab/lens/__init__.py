"""From a model and tokens to numbers: what its states hold, which tokens its attention reads, what a part is worth.

Everything here returns tensors, alone or in a small dataclass, and draws nothing. Sequences are (b, l) ids, with a mask if
there is padding; results keep the batch axis. The SSM states are not recorded but recomputed from their recorded inputs
(`states`). In reading order:

    passes.py       one pass and its next-token loss; what a mask means
    terms.py        an SSM's terms in one form for both mixers, and the matrix they make
    states.py       how large a state is, how many directions it has, and which tokens it holds
    decay.py        step sizes and half-lives by the formula, and the memory as it is measured
    mixers.py       a mixer with frozen gates: a linear map, and a matrix from tokens to tokens
    coverage.py     how much of a mixer's answer that form has
    rollout.py      mixer and attention composed within a layer, layers down the depth
    attention.py    the maps of a shared block at each invocation, what they are like and why they differ
    heads.py        what each head looks for: the token before, a copy of this one, what followed it
    lora.py         the adapters as matrices, and what exchanging them does
    concat.py       which half of [x, x0] the attention uses
    logits.py       what the model would predict at each site: the logit lens, plain and tuned
    attribution.py  which part a logit comes from, through mixers with frozen gates
    parts.py        what can be changed;  interventions.py  how a change is put in force
    replace.py      changes of a part or an edge;  rewire.py  of the structure;  memory.py  of what is carried
    effect.py       what a change does, beside random ones of its size
    timetravel.py   caches as moments;  recall.py  which memory carries what

What other libraries call these things: NAMES.md, beside this file.
"""

from zamba_lab.lens.attention import (
    AttentionHabits,
    AttentionMaps,
    Drift,
    attention_by_invocation,
    attention_habits,
    constant_shares,
    divergence,
    drift,
    link_ratios,
)
from zamba_lab.lens.attribution import Attribution, attribution, frozen_mixer
from zamba_lab.lens.concat import ConcatShares, ScoreParts, concat_shares, score_parts
from zamba_lab.lens.coverage import Coverage, coverage
from zamba_lab.lens.decay import Decay, Horizons, decay, horizons
from zamba_lab.lens.effect import SWITCHED, Effect, bootstrap, divergence_from, effect, switch_off_each
from zamba_lab.lens.heads import HeadScores, head_scores, head_spread, repeated_tokens
from zamba_lab.lens.interventions import Intervened, Intervention, MemoryChange, Patch, Rewire, intervene
from zamba_lab.lens.logits import LensReading, TunedLens, fit_tuned_lens, lens_sites, logit_lens, unembed
from zamba_lab.lens.lora import LoraChange, LoraEffect, chance_overlaps, lora_change, lora_effects, lora_parts
from zamba_lab.lens.memory import freeze, overwrite, wipe
from zamba_lab.lens.mixers import MixerMatrix, mixer_matrix
from zamba_lab.lens.parts import count, parts
from zamba_lab.lens.passes import next_token_loss, run, stream_norms, token_losses
from zamba_lab.lens.recall import MEMORIES, Recall, needles, who_carries, who_remembers
from zamba_lab.lens.replace import drop_concat, mean, path, resample, zero
from zamba_lab.lens.rewire import one_block, permute_adapters, swap_blocks, untie
from zamba_lab.lens.rollout import Flow, Rollout, layer_flow, rollout, through_attention
from zamba_lab.lens.states import Contents, contents, effective_rank, participation_ratio, ssm_states, state_dimensions, state_norms
from zamba_lab.lens.timetravel import Timeline, fork, transplant

# fmt: off
__all__ = [
    "AttentionHabits", "AttentionMaps", "Attribution", "ConcatShares", "Contents", "Coverage", "Decay", "Drift", "Effect", "Flow",
    "HeadScores", "Horizons", "Intervened", "Intervention", "LensReading", "LoraChange", "LoraEffect", "MEMORIES", "MemoryChange",
    "MixerMatrix", "Patch", "Recall", "Rewire", "Rollout", "SWITCHED", "ScoreParts", "Timeline", "TunedLens", "attention_by_invocation",
    "attention_habits", "attribution", "bootstrap", "chance_overlaps", "concat_shares", "constant_shares", "contents", "count", "coverage",
    "decay", "divergence", "divergence_from", "drift", "drop_concat", "effect", "effective_rank", "fit_tuned_lens", "fork", "freeze",
    "frozen_mixer", "head_scores", "head_spread", "horizons", "intervene", "layer_flow", "lens_sites", "link_ratios", "logit_lens",
    "lora_change", "lora_effects", "lora_parts", "mean", "mixer_matrix", "needles", "next_token_loss", "one_block", "overwrite",
    "participation_ratio", "parts", "path", "permute_adapters", "repeated_tokens", "resample", "rollout", "run", "score_parts",
    "ssm_states", "state_dimensions", "state_norms", "stream_norms", "swap_blocks", "switch_off_each", "through_attention", "token_losses",
    "transplant", "unembed", "untie", "who_carries", "who_remembers", "wipe", "zero",
]
