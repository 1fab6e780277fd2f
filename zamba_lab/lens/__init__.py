"""From a model and tokens to numbers: what its states hold, where its attention looks, what a part is worth.

Everything here returns tensors, alone or in a small dataclass, and draws nothing. Sequences are (b, l) ids; results
keep the batch axis. The SSM states are not recorded but recomputed from their recorded inputs (`states`).
"""

from zamba_lab.lens.attention import AttentionMaps, attention_by_invocation
from zamba_lab.lens.decay import Decay, decay
from zamba_lab.lens.passes import next_token_loss, run
from zamba_lab.lens.states import ssm_states, state_norms
from zamba_lab.lens.switches import Effect, parts, switch_edits, switch_off, switch_off_each

__all__ = ["AttentionMaps", "Decay", "Effect", "attention_by_invocation", "decay", "next_token_loss", "parts", "run",
           "ssm_states", "state_norms", "switch_edits", "switch_off", "switch_off_each"]
