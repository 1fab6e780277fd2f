"""What a large run would need, computed: memory of each process, the roofline of its speed, what it sends. Nothing is measured.

    print(plan(ZambaConfig.preset("zamba2-1.2b"), gpus=64, gpu="H100").table())
    python -m zamba_lab.recipes.plan > zamba_lab/recipes/PLAN.md

Counted are FSDP2 as `train/distributed.py` sets it up, weights and moments in float32, passes and activations in bfloat16. Shapes
are exact; the speed is a bound: the slowest of arithmetic, memory and links, each at its data sheet's peak and all overlapped.
No run reaches it; `share` is the part of it to hope for.
"""

from __future__ import annotations

from dataclasses import dataclass

from zamba_lab.config import ZambaConfig, cost


@dataclass(frozen=True)
class Gpu:
    """Peaks from a data sheet. memory: bytes; flops: dense bfloat16 a second; the others bytes a second, one direction."""

    memory: float
    flops: float
    bandwidth: float
    link: float  # to another of its node
    network: float  # to another node, for each GPU
    per_node: int = 8


GPUS = {"H100": Gpu(80e9, 989e12, 3.35e12, 450e9, 50e9), "A100": Gpu(80e9, 312e12, 2.04e12, 300e9, 25e9)}
FLOAT, BF16 = 4, 2


def unit_params(c: ZambaConfig) -> dict[str, list[int]]:
    """Parameters of each FSDP unit: the layers down the depth, the shared blocks, and the rest as one."""
    d, parts = c.d_model, cost.params_by_part(c)
    plain = (parts["transformer layers"] if c.mixer == "attention" else parts["mixers"]) // c.n_layers
    own = cost.adapter_params(c) + d * d
    layers = [plain + own * (depth in c.hybrid_layers) for depth in range(c.n_layers)]
    blocks = [parts["shared blocks"] // c.n_shared_blocks] * c.n_shared_blocks if c.n_shared_blocks else []
    return {"layers": layers, "blocks": blocks, "rest": [parts["embedding"] + parts["head"] + parts["final norm"]]}


def kept_per_token(c: ZambaConfig) -> dict[str, float]:
    """Numbers that autograd keeps for a token: in a Mamba-2 layer, in an invocation besides, and after the last layer.

    A mixer keeps what its convolution, step size, scan and norm are given; attention what goes in and out of it, never a table.
    """
    d, e, width, kv = c.d_model, c.d_inner, c.attn_heads * c.head_dim, c.kv_heads * c.head_dim
    layer = 2 * d + (e + c.conv_dim + c.ssm_heads)  # norm's two ends; in_proj's output
    layer += c.conv_dim + 2 * c.ssm_heads + e + e  # the scan's x, B, C, the step size before and after softplus; the norm's two ends
    attention = 2 * c.d_attn + 2 * width + 2 * kv + width + c.attn_heads
    ranks = (c.lora_rank > 0) * c.lora_rank + 3 * c.lora_rank_qkv
    mlp = 2 * d + 4 * c.d_mlp + d  # norm's two ends; gate, up, act, product; link's input
    return {"layer": layer, "invocation": attention + ranks + mlp, "end": 2 * d}


@dataclass(frozen=True)
class Plan:
    """Bytes are of one process (one GPU), times of one step."""

    config: ZambaConfig
    gpus: int
    gpu: str
    length: int
    windows: int  # of one process in one micro-batch
    checkpointing: bool
    share: float

    @property
    def tokens(self) -> int:
        """Of one process in a step."""
        return self.windows * self.length

    # --- memory ---------------------------------------------------------------------------------------------------
    @property
    def state_bytes(self) -> dict[str, float]:
        """What stays: the process's part of weights, gradients and both moments."""
        n = self.config.n_params / self.gpus
        return {"weights": FLOAT * n, "gradients": FLOAT * n, "moments": 2 * FLOAT * n}

    @property
    def gathered_bytes(self) -> float:
        """At most at once: the rest and the blocks, which stay; two layers, one on its way; a unit's gradient to be sent."""
        units = unit_params(self.config)
        whole = sum(units["rest"]) + sum(units["blocks"]) + 2 * max(units["layers"])
        return BF16 * whole + FLOAT * max(*units["layers"], *units["blocks"], *units["rest"])

    @property
    def activation_bytes(self) -> float:
        """At the end of the forward pass, the logits not counted; with checkpointing that of the one layer computed again."""
        c, kept = self.config, kept_per_token(self.config)
        all_kept = c.n_layers * kept["layer"] + c.n_invocations * kept["invocation"]
        recomputed = kept["layer"] + (kept["invocation"] if c.n_invocations else 0)
        return BF16 * self.tokens * (kept["end"] + (c.n_layers * c.d_model + recomputed if self.checkpointing else all_kept))

    @property
    def logit_bytes(self) -> float:
        """The logits in bfloat16, and in float32 themselves, their logarithms of probabilities and their gradient."""
        return (BF16 + 3 * FLOAT) * self.tokens * self.config.vocab_size

    @property
    def total_bytes(self) -> float:
        return sum(self.state_bytes.values()) + self.gathered_bytes + self.activation_bytes + self.logit_bytes

    # --- time ---------------------------------------------------------------------------------------------------------
    @property
    def flops(self) -> float:
        """Of one process in a step: forward, twice that backward, and forward again with checkpointing."""
        return (4 if self.checkpointing else 3) * self.tokens * self.config.flops_per_token((self.length + 1) / 2)

    @property
    def memory_traffic(self) -> float:
        """Bytes to and from the GPU's memory: activations and their gradients written and read, weights read in each pass,
        and the optimiser's reading of four and writing of three arrays."""
        kept, c = kept_per_token(self.config), self.config
        numbers = c.n_layers * kept["layer"] + c.n_invocations * kept["invocation"] + kept["end"]
        passes = 4 + 2 * self.checkpointing
        weights = BF16 * c.n_params * (3 + self.checkpointing)
        return BF16 * passes * self.tokens * numbers + weights + 7 * FLOAT * c.n_params / self.gpus + 2 * self.logit_bytes

    @property
    def sent_bytes(self) -> float:
        """What a process receives, and sends, in a step: weights gathered in bfloat16 forward and again backward (a block for
        each of its invocations, the rest not again), gradients summed in float32."""
        units, c = unit_params(self.config), self.config
        block = units["blocks"][0] if units["blocks"] else 0
        gathered = c.n_params + sum(units["layers"]) + c.n_invocations * block
        return (self.gpus - 1) / self.gpus * (BF16 * gathered + FLOAT * c.n_params)

    @property
    def seconds(self) -> dict[str, float]:
        """The least that each part of a step takes."""
        gpu = GPUS[self.gpu]
        link = gpu.link if self.gpus <= gpu.per_node else gpu.network
        return {"arithmetic": self.flops / gpu.flops, "memory": self.memory_traffic / gpu.bandwidth, "links": self.sent_bytes / link}

    @property
    def tokens_per_second(self) -> float:
        """The bound of all processes together."""
        return self.gpus * self.tokens / max(self.seconds.values())

    def rows(self) -> dict[str, str]:
        gb, state, seconds = (lambda size: f"{size / 1e9:.2f} GB"), self.state_bytes, self.seconds
        bound, days = self.tokens_per_second, 1e12 / 86400
        speeds = f"at most speed / at {100 * self.share:.0f} % of it"
        return {
            "GPUs": f"{self.gpus} {self.gpu}",
            "activation checkpointing": "yes" if self.checkpointing else "no",
            "tokens in a step": f"{self.gpus * self.tokens:,} ({self.windows} x {self.length} each)",
            **{f"{name}, this GPU's part": gb(size) for name, size in state.items()},
            "gathered weights, a gradient to send": gb(self.gathered_bytes),
            "activations": gb(self.activation_bytes),
            "logits and their gradient": gb(self.logit_bytes),
            "together": f"{gb(self.total_bytes)} of {GPUS[self.gpu].memory / 1e9:.0f}",
            "sent by each GPU in a step": gb(self.sent_bytes),
            **{f"least time of a step: {name}": f"{1e3 * value:.1f} ms" for name, value in seconds.items()},
            "bound by": max(seconds, key=seconds.get),
            "tokens a second, at most": f"{bound:,.0f}",
            f"days for 10^12 tokens, {speeds}": f"{days / bound:.1f} / {days / bound / self.share:.1f}",
        }

    def table(self) -> str:
        return _table([self])


def plan(
    config: ZambaConfig, gpus: int, gpu: str = "H100", length: int = 4096, windows: int = 4, checkpointing: bool = True, share: float = 0.4
) -> Plan:
    """The plan of a run of a Zamba2-like model on that many GPUs, 1 or more; windows: of each of them in a step.

    Raises ValueError for a GPU that is not in GPUS, a Mamba-1 or attention mixer, or a number below 1.
    """
    if gpu not in GPUS:
        raise ValueError(f"gpu must be one of {', '.join(GPUS)}: got {gpu!r}")
    if config.mixer != "mamba2":
        raise ValueError(f"a plan is for Mamba-2 layers, whose operators keep what is counted here: got mixer={config.mixer!r}")
    if min(gpus, length, windows) < 1 or not 0 < share <= 1:
        raise ValueError(f"gpus, length and windows must be 1 or more, share in (0, 1]: got {gpus}, {length}, {windows}, {share}")
    return Plan(config, gpus, gpu, length, windows, checkpointing, share)


def page() -> str:
    """`PLAN.md`: a 1.2B run on 8 and on 64 GPUs."""
    c = ZambaConfig.preset("zamba2-1.2b")
    plans = [plan(c, gpus, windows=windows, checkpointing=on) for gpus in (8, 64) for on, windows in ((True, 4), (False, 1))]
    layers, (block,), (rest,) = unit_params(c).values()
    peaks = "\n".join(
        f"- {name}: {g.flops / 1e12:.0f} TFLOP/s in dense bfloat16, memory {g.bandwidth / 1e12:.2f} TB/s, links "
        f"{g.link / 1e9:.0f} GB/s within a node and {g.network / 1e9:.0f} GB/s between nodes, one direction"
        for name, g in GPUS.items()
    )
    return f"""# What a Zamba2-1.2B run needs

Computed by `zamba_lab/recipes/plan.py`, not measured: this project has run on no GPU. `python -m zamba_lab.recipes.plan`
writes this page; a test holds the two together.

{c.n_params:,} parameters: {c.n_layers} layers of {min(layers):,} to {max(layers):,}, one shared block of
{block:,} invoked {c.n_invocations} times, and the embedding with the final norm, {rest:,}. FSDP2 over all GPUs: each
layer with what its invocation owns is a unit, the shared block is one unit, wrapped once. Weights and moments are
float32, passes bfloat16.

{_table(plans)}
The data sheets' peaks:

{peaks}

Memory is what the tensors take, without the allocator's losses. Speed is a bound that no run reaches: the slowest of
arithmetic, memory and links at their peaks, all three overlapped. Where the links are slow, they decide as soon as a
GPU has few tokens in a step; more windows, or more micro-batches in a step (`accumulate`), make them matter less. Tensor- and
context-parallel training are out of scope.
"""


def _table(plans: list[Plan]) -> str:
    columns = [plan.rows() for plan in plans]
    first, *others = columns[0]
    lines = [f"| {first} | " + " | ".join(column[first] for column in columns) + " |", "|" + "---|" * (len(columns) + 1)]
    lines += [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in others]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
