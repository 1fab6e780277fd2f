"""What the tensors of a native form must be: a C function is given addresses, and would read past the end of what does not fit."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

Tensors = tuple[Tensor | None, ...]
_DTYPES = {"any": "any", "int8": torch.int8, "float32": torch.float32}


class Needs:
    """Dtypes and sizes, and what must hold between them.

        Needs("b l h p, any b l h, h?", lambda size, tensors: size["h"] > 1)

    For each tensor its axes as letters, of which each is one size ("..." any axes), with a "?" if it may be None. Before them
    stands its dtype: none for that of the first tensor, "any" for any floating-point type, or a type's name. The rule is given the
    sizes by letter, numbers among them, and the tensors.
    """

    def __init__(self, tensors: str, rule: Callable[[dict, Tensors], bool] = lambda size, tensors: True):
        self.text, self.rule = tensors, rule
        self.parts = []
        for part in tensors.split(", "):
            axes = part.rstrip("?").split()
            self.parts.append((_DTYPES.get(axes[0]), tuple(axes[axes[0] in _DTYPES :]), part.endswith("?")))

    def fit(self, tensors: Tensors, numbers: dict[str, int]) -> bool:
        """Whether the tensors are so, lie on one device, and none but an optional one is empty."""
        x, size = tensors[0], dict(numbers)
        for (dtype, axes, optional), t in zip(self.parts, tensors):
            if t is None:
                if optional:
                    continue
                return False
            if t.device != x.device or not ordinary(t) or (t.numel() == 0 and not optional):
                return False
            if not (t.dtype.is_floating_point if dtype == "any" else t.dtype == (dtype or x.dtype)):
                return False
            shape = t.shape
            if axes[0] == "...":
                first = t.ndim - len(axes) + 1
                shape = (shape[:first], *shape[first:]) if first >= 0 else ()
            if len(shape) != len(axes) or any(size.setdefault(letter, n) != n for letter, n in zip(axes, shape)):
                return False
        return self.rule(size, tensors)

    def require(self, name: str, tensors: Tensors, numbers: dict[str, int]) -> None:
        """Raise ValueError if they do not fit."""
        if not self.fit(tensors, numbers):
            got = ", ".join("None" if t is None else f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.") for t in tensors)
            raise ValueError(f"{name} takes tensors ({self.text}), not empty, that fit each other: got {got} {numbers or ''}".rstrip())


def ordinary(t: Tensor) -> bool:
    """Whether this is a tensor in memory and nothing more: no subclass, no zero without memory, no view that negates.

    What a compiler sees is so, or it goes round the native operators by itself.
    """
    if torch.compiler.is_compiling():
        return True
    return type(t) in (Tensor, Parameter) and t.layout == torch.strided and not t.is_neg() and not t._is_zerotensor()
