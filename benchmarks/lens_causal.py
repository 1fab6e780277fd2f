"""Every causal lens on the shipped nano and 256 tokens: one call each, with its controls. The aim: under a second.

An effect is a pass of the whole model, one of the changed one and three of its controls, with their points kept. Fitting a
tuned lens is training, and is counted by the step. Who remembers what is asked at one distance, of 4 prompts of 64 tokens.
"""

import torch
from harness import interleaved, repeats, time_row

import zamba_lab as zl
from zamba_lab import lens

TARGET = "< 1000 ms"


def calls(model: zl.Zamba, ids: torch.Tensor) -> dict:
    """One call of each lens."""
    l = ids.shape[1]
    other, half, filler = ids.flip(1), l // 2, ids[0].repeat(2)
    _, donor = model.extend(other[:, :half], last_only=True)
    _, own = model.extend(ids[:, :half], last_only=True)
    interventions = {
        "an invocation zeroed": lens.zero("invocation", 2),
        "every mixer at its mean": lens.mean("mixer", None, other),
        "a head resampled": lens.resample("head", 1, other, head=0),
        "an adapter zeroed": lens.zero("adapter", 3),
        "a convolution zeroed": lens.zero("convolution", 4),
        "the concat dropped": lens.drop_concat(),
        "blocks swapped": lens.swap_blocks(),
        "AAAA": lens.one_block(),
        "untied": lens.untie(),
        "adapters permuted": lens.permute_adapters(range(4)[::-1]),
        "a path patched": lens.path(1, ("dt", "z"), other),
        "a state wiped halfway": lens.wipe("ssm", 3, half),
        "a state frozen halfway": lens.freeze("ssm", 3, half),
        "a window frozen halfway": lens.freeze("conv", 3, half),
        "keys frozen halfway": lens.freeze("kv", 1, half),
        "a state overwritten halfway": lens.overwrite("ssm", 3, half, donor),
    }
    found = {f"effect: {name}": (lambda one=one: lens.effect(model, ids, one)) for name, one in interventions.items()}
    return found | {
        "switch_off_each": lambda: lens.switch_off_each(model, ids),
        "logit_lens, every site": lambda: lens.logit_lens(model, ids),
        "attribution, total, of the next token": lambda: lens.attribution(model, ids, ids.roll(-1, 1)),
        "attribution, direct, of every token": lambda: lens.attribution(model, ids, direct=True),
        "fit_tuned_lens, one step": lambda: lens.fit_tuned_lens(model, ids, other, steps=1),
        "who_remembers, one distance": lambda: lens.who_remembers(model, filler, (l // 4 - 12,), 4, 8),
        "who_carries": lambda: lens.who_carries(model, ids, other),
        "bootstrap, 256 numbers of 24 prompts": lambda: lens.bootstrap(torch.randn(24, 256)),
        "transplant and go on": lambda: model.extend(ids[:, half:], lens.transplant(own, donor)),
        "Timeline, back to the middle and on": lambda: lens.Timeline.start(model, ids).rewind(half).extend(ids[:, half:]),
    }


@torch.no_grad()
def run(quick: bool = False) -> list[dict]:
    model = zl.load("zamba2-nano")
    l = 64 if quick else 256
    ids = torch.randint(2, 2048, (1, l), generator=torch.Generator().manual_seed(0))
    rows = []
    for name, call in calls(model, ids).items():
        times = interleaved({name: call}, repeats(5, quick))[name]
        rows.append(time_row(f"nano, {l} tokens", name, times, target="" if "step" in name else TARGET))
    return rows
