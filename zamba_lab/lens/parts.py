"""The parts of a model that can be changed by themselves, and where each shows in a trace.

    invocation    what an invocation of a shared block adds to its mixer's input (`link_out`)
    head          what one head of an invocation's attention reads (`attn_mixed`)
    adapter       what the LoRA adapters of an invocation add (`lora.*`)
    concat        the embedding half of an invocation's input (`input`); the block's own norm then rescales the other half
    mixer         what a layer's mixer writes to the stream (`out`)
    convolution   the output of a layer's convolution, activated: x, B and C (in Mamba-1 x, from which B and C are made)
    steps         a layer's step sizes; at 0 its state neither fades nor is written to

A part is addressed by its number down the depth: the first four by invocation (heads in the transformer arm by layer),
the others by layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zamba_lab.config import ZambaConfig

SSM_MIXERS = ("mamba1", "mamba2")


@dataclass(frozen=True)
class Part:
    """How many a model has, and for the i-th its trace points and the point where it enters the rest of the model."""

    count: Callable[[ZambaConfig], int]
    points: Callable[[ZambaConfig, int], tuple[str, ...]]
    outlet: Callable[[ZambaConfig, int], str]


def attention_depths(config: ZambaConfig) -> tuple[int, ...]:
    """The depths that hold keys and values: one for each invocation, or every layer of a transformer."""
    return tuple(range(config.n_layers)) if config.mixer == "attention" else config.hybrid_layers


def attention_path(config: ZambaConfig, i: int) -> str:
    """Where the trace points of the i-th attention down the depth are."""
    return f"layers.{i}.attention" if config.mixer == "attention" else f"invocation.{i}"


def mixer_depths(config: ZambaConfig) -> tuple[int, ...]:
    """The depths that have a convolution and an SSM state."""
    return tuple(range(config.n_layers)) if config.mixer in SSM_MIXERS else ()


def adapters(config: ZambaConfig) -> tuple[str, ...]:
    """The names of an invocation's adapters, of "mlp", "q", "k", "v"; none if the model has no shared block."""
    names = ("mlp",) * bool(config.lora_rank) + ("q", "k", "v") * bool(config.lora_rank_qkv)
    return names * bool(config.n_invocations)


def convolved(config: ZambaConfig) -> tuple[str, ...]:
    """The trace points of a mixer's convolution, activated. Mamba-1 makes B and C from its x."""
    return ("x", "B", "C") if config.mixer == "mamba2" else ("x",)


def _invocation(point: str):
    return lambda config, i: f"invocation.{i}.{point}"


def _mamba(point: str):
    return lambda config, i: f"layers.{i}.mamba.{point}"


def _mixers(config: ZambaConfig) -> int:
    return len(mixer_depths(config))


PARTS = {
    "invocation": Part(lambda c: c.n_invocations, lambda c, i: (f"invocation.{i}.link_out",), _invocation("link_out")),
    "head": Part(
        lambda c: len(attention_depths(c)),
        lambda c, i: (f"{attention_path(c, i)}.attn_mixed",),
        lambda c, i: f"{attention_path(c, i)}.attn_out",
    ),
    "adapter": Part(
        lambda c: c.n_invocations * bool(adapters(c)),
        lambda c, i: tuple(f"invocation.{i}.lora.{name}" for name in adapters(c)),
        _invocation("link_out"),
    ),
    "concat": Part(lambda c: c.n_invocations * c.concat_embedding, lambda c, i: (f"invocation.{i}.input",), _invocation("link_out")),
    "mixer": Part(_mixers, lambda c, i: (f"layers.{i}.mamba.out",), _mamba("out")),
    "convolution": Part(_mixers, lambda c, i: tuple(f"layers.{i}.mamba.{name}" for name in convolved(c)), _mamba("out")),
    "steps": Part(_mixers, lambda c, i: (f"layers.{i}.mamba.dt",), _mamba("y")),
}


def parts(config: ZambaConfig) -> tuple[str, ...]:
    """The parts that a model of this config has."""
    return tuple(name for name, part in PARTS.items() if part.count(config))


def count(config: ZambaConfig, part: str) -> int:
    """How many of a part the model has. Raises ValueError if there is no such part in any model."""
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}: got {part!r}")
    return PARTS[part].count(config)


def numbers(config: ZambaConfig, part: str, where: int | None) -> tuple[int, ...]:
    """The numbers of the parts meant: `where` alone, or every one if it is None.

    Raises ValueError if there is no such part, or the config has none, or not that many.
    """
    if part not in parts(config):
        raise ValueError(f"part must be one that the model has: got {part!r}, the model has {', '.join(parts(config)) or 'none'}")
    return numbered(part, where, PARTS[part].count(config))


def numbered(part: str, where: int | None, count: int) -> tuple[int, ...]:
    """(where,), or all of `count` numbers if it is None. Raises ValueError if it is no such number."""
    if where is not None and not 0 <= where < count:
        raise ValueError(f"where must be the number of a part: got {part} {where}, the model has {count} of them")
    return tuple(range(count)) if where is None else (where,)


def require_link_into_mixer(config: ZambaConfig) -> None:
    """Raise ValueError if a shared block's output stays in the stream: what splits a model at its mixers has no place for it."""
    if config.n_invocations and config.link_into != "mixer":
        raise ValueError(
            f"this splits a model whose shared blocks enter the stream through a mixer only: it has link_into={config.link_into!r}"
        )


def phrase(part: str, where: int | None) -> str:
    return f"every {part}" if where is None else f"{part} {where}"
