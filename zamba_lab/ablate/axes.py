"""What an arm may change, in the words of the question: an axis turns a level into fields of ZambaConfig.

Every field is an axis of its own name, too (`d_state: 32`). A level that cannot be had with the base is a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from zamba_lab.checkpoints.config_read import meaning
from zamba_lab.config import ZambaConfig

THETA = 10000.0  # of rotary positions where the base has none
TAPS = 4  # of a convolution where the base has none


@dataclass(frozen=True)
class Axis:
    """levels: what may be asked for, in words. fields: of a base and a level, the fields that change."""

    levels: str
    fields: Callable[[ZambaConfig, Any], dict[str, Any]]


def sharing(base: ZambaConfig, level: Any) -> dict[str, Any]:
    """How attention is shared: the distinct blocks and their order over the base's invocations."""
    k = base.n_invocations
    if level == "transformer":
        return {"mixer": "attention", "n_shared_blocks": 0, "lora_rank": 0, "lora_rank_qkv": 0}
    if level == 0 and not isinstance(level, bool):
        return {"n_shared_blocks": 0}
    _rule(k > 0, f"there must be invocations to share a block, or none: the base has hybrid_layers=(), got {level!r}")
    if level == "unshared":
        return {"n_shared_blocks": k, "block_order": None}
    if isinstance(level, int) and not isinstance(level, bool):
        return {"n_shared_blocks": level, "block_order": None}
    _rule(
        isinstance(level, str) and level.isalpha() and level.isupper(),
        f"sharing must be 0, a number of blocks, an order such as ABAB or AABB, unshared or transformer: got {level!r}",
    )
    order = _order(level, k)
    names = sorted(set(order))
    return {"n_shared_blocks": len(names), "block_order": tuple(names.index(name) for name in order)}


def _order(level: str, k: int) -> str:
    """The block of each of k invocations: a pattern of that length, or ABAB alternating, or AABB in two halves."""
    if level == "ABAB":
        return ("AB" * k)[:k]
    if level == "AABB":
        _rule(k >= 4, f"AABB differs from ABAB from 4 invocations on: the base has {k}")
        return "A" * (k - k // 2) + "B" * (k // 2)
    _rule(len(level) == k, f"an order names the block of each invocation: got {level!r} for {k} invocations")
    return level


def _depths(base: ZambaConfig, depths: tuple[int, ...]) -> dict[str, Any]:
    """Invocations at these depths; where there are fewer than blocks, fewer blocks."""
    _rule(base.mixer != "attention", "a transformer has no shared block to place")
    return {"hybrid_layers": depths, "n_shared_blocks": min(max(1, base.n_shared_blocks), len(depths)), "block_order": None}


def period(base: ZambaConfig, level: Any) -> dict[str, Any]:
    _rule(isinstance(level, int) and 1 <= level <= base.n_layers, f"period must be a number of layers in 1..{base.n_layers}: got {level!r}")
    return _depths(base, tuple(range(level - 1, base.n_layers, level)))


def placement(base: ZambaConfig, level: Any) -> dict[str, Any]:
    k, n = base.n_invocations, base.n_layers
    if isinstance(level, list | tuple):
        return _depths(base, tuple(level))
    where = {"first": tuple(range(k)), "last": tuple(range(n - k, n)), "even": tuple((i + 1) * n // k - 1 for i in range(k)) if k else ()}
    _rule(
        level in where and k > 0,
        f"placement must be a list of depths, or of the base's {k} invocations the first, last or even places: got {level!r}",
    )
    return _depths(base, where[level])


def attention_scale(base: ZambaConfig, level: Any) -> dict[str, Any]:
    """ "usual": head_dim^-0.5, whether the embeddings are concatenated or not."""
    if level == "usual":
        return {"attn_gain": (base.d_model / base.d_attn) ** 0.5}
    _rule(
        level == "released" or isinstance(level, int | float) and level > 0,
        f"attention_scale must be released, usual, or a factor on the released one: got {level!r}",
    )
    return {"attn_gain": 1.0 if level == "released" else float(level)}


def _switch(name: str, on: Callable[[ZambaConfig], Any], off: Any) -> Callable[[ZambaConfig, Any], dict[str, Any]]:
    def fields_of(base: ZambaConfig, level: Any) -> dict[str, Any]:
        _rule(isinstance(level, bool), f"the axis is a switch, on or off: got {level!r}")
        return {name: on(base) if level else off}

    return fields_of


def norm_grouping(base: ZambaConfig, level: Any) -> dict[str, Any]:
    _rule(base.mixer == "mamba2", f"only Mamba-2 ends in a gated norm: the base's mixer is {base.mixer}")
    return {"norm_groups": {"one": 1, "heads": base.ssm_heads}.get(level, level)}


AXES: dict[str, Axis] = {
    "mixer": Axis("mamba2, mamba1", lambda base, level: {"mixer": level}),
    "sharing": Axis("0, 1, 2, ABAB, AABB, any order such as AAB, unshared, transformer", sharing),
    "concat": Axis("on, off", _switch("concat_embedding", lambda base: True, False)),
    "period": Axis("layers from one invocation to the next", period),
    "placement": Axis("depths, or first, last, even", placement),
    "rope": Axis("on, off", _switch("rope_theta", lambda base: base.rope_theta or THETA, None)),
    "conv": Axis("on, off", _switch("d_conv", lambda base: base.d_conv or TAPS, 0)),
    "link": Axis("mixer, stream", lambda base, level: {"link_into": level}),
    "attention_scale": Axis("released, usual, or a factor", attention_scale),
    "norm_grouping": Axis("one, heads, or a number of groups", norm_grouping),
}
FIELDS = tuple(one.name for one in fields(ZambaConfig))


def changed(base: ZambaConfig, axis: str, level: Any) -> ZambaConfig:
    """The base with one axis at a level. Raises ValueError if there is no such axis, or no such model."""
    if axis not in AXES and axis not in FIELDS:
        raise ValueError(f"no such axis: {axis!r}; there are {', '.join(AXES)}, and every field of a model: {', '.join(FIELDS)}")
    try:
        return replace(base, **(AXES[axis].fields(base, level) if axis in AXES else {axis: _plain(level)}))
    except TypeError as error:
        raise ValueError(f"{axis} cannot be {level!r}: {error}") from error


def _plain(level: Any) -> Any:
    return tuple(level) if isinstance(level, list) else level


def function(config: ZambaConfig) -> dict[str, Any]:
    """What the model computes and how it begins: equal for two configs that are one arm."""
    start = {"init": config.init}
    if config.init == "small" and config.hybrid_layers:
        start["link_gain"] = config.link_gain
    return meaning(config) | start


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
