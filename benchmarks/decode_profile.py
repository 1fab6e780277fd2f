"""Where the time of decoding a token goes after a prompt of 512, at the published shapes in bfloat16: kernel by kernel.

Each native call is timed, so a token's calls are made one by one from Python and not played from a tape (`blocks/replay.py`), as
decoding does without a profile. "the rest" is Python between the calls, and what torch does itself. A rate is of the weights that a
product reads: kinds are by the size of the matrix, since a small one ends before memory is at its full rate.
"""

import time
from collections import Counter
from unittest import mock

import torch
from decode import PROMPT, Decoder
from floors import read_bandwidth
from harness import OURS, median, percent, repeats, time_row
from prefill import at_published_shapes

import zamba_lab as zl
from zamba_lab.native import direct

TOKENS, LARGE = 8, 8 << 20
OTHERS = {"mamba": "Mamba mixers: convolution, scan and its states, gate, norm", "attend": "attention, keys and values", "norm": "norms"}
SMALL, REST = "sums, gates, joins", "the rest"


def product_kind(out: int, width: int) -> tuple[str, int]:
    """And the bytes of the matrix in bfloat16."""
    nbytes = out * width * 2
    return (f"products of matrices of {LARGE >> 20} MB and more" if nbytes >= LARGE else "products of smaller matrices"), nbytes


class Clock:
    """Seconds and calls of each kind of native call, and the bytes of weights that it read, while it stands before them."""

    def __init__(self):
        self.seconds, self.calls, self.nbytes, self._real = Counter(), Counter(), Counter(), direct._function

    def function(self, name: str, letters: str):
        real = self._real(name, letters)

        def timed(*arguments) -> int:
            start = time.perf_counter()
            result = real(*arguments)
            took = time.perf_counter() - start
            kind, nbytes = (
                product_kind(*arguments[2:4])
                if name.startswith("gemv")
                else (next((kind for start, kind in OTHERS.items() if name.startswith(start)), SMALL), 0)
            )
            self.seconds[kind] += took
            self.calls[kind] += 1
            self.nbytes[kind] += nbytes
            return result

        return timed


def rows_of(name: str, config: zl.ZambaConfig, folder: str, dtype: torch.dtype, quick: bool) -> list[dict]:
    model, turns = zl.load(folder), repeats(5, quick)
    torch.manual_seed(0)
    decoder = Decoder(
        lambda *given: model.extend(*given, last_only=True), torch.randint(config.vocab_size, (1, PROMPT + TOKENS * (turns + 1))), TOKENS
    )
    model.register_forward_hook(lambda *given: None)  # a hook: tokens are walked, not played
    decoder.run()
    clock, times = Clock(), []
    with mock.patch.object(direct, "_function", clock.function):
        for _ in range(turns):
            start = time.perf_counter()
            decoder.run()
            times.append((time.perf_counter() - start) / TOKENS)
    label, tokens, speed = f"decoding after {PROMPT}, {name}, a token", TOKENS * turns, read_bandwidth(quick)[0]
    whole = sum(times) * TOKENS
    clock.seconds[REST] = whole - sum(clock.seconds.values())
    rows = [time_row(f"{label}: all of it, walked", OURS, times)]
    for kind, seconds in clock.seconds.most_common():
        row = {
            "work": f"{label}: {kind}",
            "ratio": percent(seconds / whole),
            "ours": OURS,
            "ours took": f"{1e3 * seconds / tokens:.2f} ms",
            "calls": f"{clock.calls[kind] / tokens:.0f}" if clock.calls[kind] else "",
        }
        if nbytes := clock.nbytes[kind]:
            row |= {"rate": f"{nbytes / seconds / 1e9:.1f} of {speed / 1e9:.1f} GB/s", "reads": f"{nbytes / tokens / 1e9:.3g} GB"}
        rows.append(row)
    return rows


def run(quick: bool = False) -> list[dict]:
    return at_published_shapes(rows_of, quick)
