"""How time and memory grow with the length: linear but for attention, and a constant state.

First T(2l) / T(l) of a forward pass at d_model 256, 4 layers: pure Mamba-2 and Mamba-1, a hybrid with one invocation,
and a transformer. 2 is linear growth, 4 quadratic. Then Zamba2-1.2B's shape in bfloat16, random weights: prefill, with
the time spent in attention itself (every call of `ops.attention.attend` in that very pass) taken off, and whole;
decoding at each of these contexts, and the slope of a token's time in the context, as a straight line of least squares,
beside the time that reading the keys and values of one more position takes at the machine's bandwidth; and the bytes of
the cache, the states apart from the keys and values.
"""

import statistics
import tempfile
import time
from dataclasses import replace

import torch
from floors import kv_bytes_per_position, read_bandwidth
from harness import OURS, interleaved, median, milliseconds, repeats
from pairs import TINY, make

import zamba_lab as zl
from zamba_lab.blocks import attention

BASE = zl.ZambaConfig(vocab_size=256, d_model=256, n_layers=4, hybrid_layers=(2,), n_shared_blocks=1, attn_heads=8)
PURE = replace(BASE, n_shared_blocks=0)
ARMS = {
    "Mamba-2": PURE,
    "Mamba-1": replace(PURE, mixer="mamba1", d_state=16),
    "hybrid": BASE,
    "transformer": replace(PURE, mixer="attention"),
}
LENGTHS, QUICK, STEPS = (512, 1024, 2048, 4096, 8192), (32, 64), 4


class AttentionClock:
    """Seconds that pass inside attention, torch's or our own, while it is on, and how often that was called.

    It stands in the function's place: a mode of torch's would see it too, but what a mode sees goes other ways (`ops.linear`).
    """

    def __init__(self):
        self.seconds, self.calls, self._own = 0.0, 0, attention.attend

    def __enter__(self):
        attention.attend = self._timed
        return self

    def __exit__(self, *error):
        attention.attend = self._own

    def _timed(self, *args, **kwargs):
        start = time.perf_counter()
        result = self._own(*args, **kwargs)
        self.seconds, self.calls = self.seconds + time.perf_counter() - start, self.calls + 1
        return result


def arms(lengths: tuple[int, ...], count: int) -> list[dict]:
    rows = []
    for name, config in ARMS.items():
        torch.manual_seed(0)
        model, ids = zl.Zamba(config), torch.randint(256, (1, lengths[-1]))

        def forward(l):
            with torch.inference_mode():
                return model.extend(ids[:, :l], last_only=True)

        times = interleaved({str(l): lambda l=l: forward(l) for l in lengths}, count)
        rows.append(growth_row(f"forward, d_model 256, {name}", {l: times[str(l)] for l in lengths}))
    return rows


def growth_row(work: str, times: dict[int, list[float]], target: str = "") -> dict:
    """T at each length, T(2l) / T(l) between neighbours: the median over the pairs that were run one after the other."""
    ratios = {l: [two / one for one, two in zip(times[l], times[2 * l])] for l in list(times)[:-1]}
    steps = {f"T({2 * l})/T({l})": f"{median(several):.2f}" for l, several in ratios.items()}
    return {
        "work": work,
        "target": target,
        **steps,
        **{f"{l}": milliseconds(several) for l, several in times.items()},
        "seconds": {str(l): several for l, several in times.items()},
    }


@torch.inference_mode()
def prefill(model: zl.Zamba, ids: torch.Tensor, lengths: tuple[int, ...], count: int) -> tuple[list[dict], dict]:
    """Rows of time against length, and the cache at each length. The first of `count` rounds takes every length, the second
    leaves the longest out, and so on: minutes go where a short time's scatter is in the ratio, and each has a neighbour.
    """
    model.extend(ids[:, : lengths[0]], last_only=True)  # the warm-up: it reads every weight
    whole, inside, caches = {l: [] for l in lengths}, {l: [] for l in lengths}, {}
    for turn in range(count):
        for l in lengths[: max(2, len(lengths) - turn)]:
            with AttentionClock() as clock:
                start = time.perf_counter()
                caches[l] = model.extend(ids[:, :l], last_only=True)[1]
                whole[l].append(time.perf_counter() - start)
            if not clock.calls:
                raise RuntimeError("no call of attention was seen: its time cannot be taken off")
            inside[l].append(clock.seconds)
    rest = {l: [one - other for one, other in zip(whole[l], inside[l])] for l in lengths}
    label = "prefill, 1.2B shape"
    return [
        growth_row(f"{label}, but for attention", rest, "<= 2.1"),
        growth_row(f"{label}, whole", whole),
        growth_row(f"{label}, attention alone", inside),
    ], caches


@torch.inference_mode()
def decoding(model: zl.Zamba, caches: dict, count: int, quick: bool) -> list[dict]:
    """Rows of a token's time at each context, and its slope."""
    caches = {l: cache.clone() for l, cache in caches.items()}
    token = torch.tensor([[5]])

    def steps(l: int) -> None:
        for _ in range(STEPS):
            logits, caches[l] = model.extend(token, caches[l], last_only=True)
            logits.argmax(-1).item()

    times = interleaved({str(l): lambda l=l: steps(l) for l in caches}, count)
    times = {l: [seconds / STEPS for seconds in times[str(l)]] for l in caches}
    slope = statistics.linear_regression(list(times), [median(several) for several in times.values()]).slope
    speed, _ = read_bandwidth(quick)
    size = kv_bytes_per_position(model.config, model.embedding.weight.dtype)
    label = "decoding a token, 1.2B shape"
    return [
        {
            "work": f"{label}, by context",
            **{str(l): milliseconds(several) for l, several in times.items()},
            "seconds": {str(l): several for l, several in times.items()},
        },
        {
            "work": f"{label}, slope in context",
            "target": "<= 2",
            "ours": OURS,
            "ratio": f"{slope / (size / speed):.2f} of reading {size:,} bytes at {speed / 1e9:.1f} GB/s",
            "ours took": f"{1e9 * slope:.0f} ns a position",
            "floor": f"{1e9 * size / speed:.0f} ns a position",
        },
    ]


def memory(caches: dict) -> list[dict]:
    rows = []
    for name, parts in (("states", ("ssm", "conv")), ("keys and values", ("k", "v"))):
        sizes = {
            str(l): sum(layer.tensors()[part].nbytes for layer in cache.layers for part in parts if part in layer.tensors())
            for l, cache in caches.items()
        }
        rows.append(
            {
                "work": f"cache, 1.2B shape, {name}",
                "target": "constant" if name == "states" else "",
                **{l: f"{size / 1e6:.3f} MB" for l, size in sizes.items()},
            }
        )
    return rows


def run(quick: bool = False) -> list[dict]:
    rows = arms(*((QUICK, 1) if quick else (LENGTHS[1:], repeats(3))))
    with tempfile.TemporaryDirectory() as folder:
        make(TINY if quick else zl.ZambaConfig.preset("zamba2-1.2b"), folder)
        model = zl.load(folder)
        lengths = QUICK if quick else LENGTHS
        ids = torch.randint(model.config.vocab_size, (1, lengths[-1]), generator=torch.Generator().manual_seed(0))
        prefilled, caches = prefill(model, ids, lengths, repeats(3, quick))
        return [*rows, *prefilled, *memory(caches), *decoding(model, caches, repeats(5, quick), quick)]
