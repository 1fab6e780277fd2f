"""What a look through the lens costs: each function on zamba2-nano and 256 tokens, and the memory of states at full size.

The memory is that of a model of 16 layers in the shape of Zamba2-2.7B (80 heads of 64 x 64) over 128 tokens: looking at
one layer's states, or at a summary over the depth, is to need no more than one layer's states beside what the pass takes.
Contents hand back what each token has left, as large as one layer's states, and copy it once on the way.
"""

import json
import sys
from dataclasses import replace

import torch
from harness import fresh, interleaved, megabytes, peak_growth, repeats, time_row

import zamba_lab as zl
from zamba_lab import lens

TARGET = "< 1 s"
TOKENS = 128
BIG = dict(n_layers=16, n_shared_blocks=0, vocab_size=512)


def calls(model: zl.Zamba, ids: torch.Tensor) -> dict:
    """One call of each function, by name."""
    states = lens.run(model, ids, keep=["layers.0.mamba.*"])
    last = model.config.hybrid_layers[-1]
    return {
        "state_norms": lambda: lens.state_norms(model, ids),
        "state_dimensions": lambda: lens.state_dimensions(model, ids),
        "effective_rank, one layer, 16 tokens": lambda: lens.effective_rank(
            lens.ssm_states(model, states, 0)[:, :: max(1, ids.shape[1] // 16)]
        ),
        "contents": lambda: lens.contents(model, ids, 0),
        "decay": lambda: lens.decay(model, ids),
        "horizons": lambda: lens.horizons(model, ids),
        "mixer_matrix": lambda: lens.mixer_matrix(model, ids, 0),
        "mixer_matrix.shares": lambda: lens.mixer_matrix(model, ids, 0).shares(),
        "mixer_matrix.channels": lambda: lens.mixer_matrix(model, ids, 0).channels(),
        "layer_flow": lambda: lens.layer_flow(model, ids, last),
        "rollout": lambda: lens.rollout(model, ids),
        "through_attention": lambda: lens.through_attention(model, ids, last, ids.shape[1] - 1),
        "attention_by_invocation": lambda: lens.attention_by_invocation(model, ids),
        "attention_habits": lambda: lens.attention_habits(model, ids),
        "drift": lambda: lens.drift(model, ids),
        "divergence": lambda: lens.divergence(lens.attention_by_invocation(model, ids).probs),
        "lora_change": lambda: lens.lora_change(model),
        "lora_effects": lambda: lens.lora_effects(model, ids),
        "score_parts": lambda: lens.score_parts(model, ids, 0),
        "concat_shares": lambda: lens.concat_shares(model, ids),
        "switch_off_each": lambda: lens.switch_off_each(model, ids),
    }


def at_full_size() -> dict:
    """Looks at a model of Zamba2-2.7B's shape, by name: each takes a number of tokens."""
    config = replace(zl.ZambaConfig.preset("zamba2-2.7b"), **BIG)
    torch.manual_seed(0)
    model = zl.Zamba(config)
    keep = [f"layers.0.mamba.{part}" for part in ("x", "dt", "B", "C")]

    def ids(l):
        return torch.arange(l)[None] % config.vocab_size

    return {
        "the pass alone": lambda l: passed(model, ids(l)),
        "contents of one layer": lambda l: lens.contents(model, ids(l), 0),
        "states of one layer": lambda l: lens.ssm_states(model, lens.run(model, ids(l), keep=keep), 0),
        "norms over the depth": lambda l: lens.state_norms(model, ids(l)),
    }


@torch.no_grad()
def passed(model: zl.Zamba, ids: torch.Tensor) -> torch.Tensor:
    return model(ids)


def run(quick: bool = False) -> list[dict]:
    l = 32 if quick else 256
    torch.manual_seed(0)
    model, ids = zl.load("zamba2-nano"), torch.randint(2048, (1, l))
    times = interleaved(calls(model, ids), repeats(5, quick))
    rows = [time_row(f"nano, {l} tokens", name, taken, target=TARGET) for name, taken in times.items()]
    if not quick:
        c = zl.ZambaConfig.preset("zamba2-2.7b")
        states = 4 * TOKENS * c.d_inner * c.d_state
        target = f"one layer's states: {megabytes(states)}"
        for name, most in {
            "the pass alone": "",
            "states of one layer": target,
            "norms over the depth": target,
            "contents of one layer": "",
        }.items():
            rows.append(
                {
                    "work": f"2.7B shape, {TOKENS} tokens: peak memory",
                    "ours": name,
                    "ours took": megabytes(fresh(__file__, name)),
                    "target": most,
                }
            )
    return rows


if __name__ == "__main__":
    look = at_full_size()[sys.argv[1]]
    print(json.dumps(peak_growth(lambda: look(TOKENS), warm=lambda: look(4))))
