"""Recording and editing activations by name. A trace is an argument of every forward, never a hook.

A shared block runs many times a pass, so a module path does not say *which* time. Here the caller says it:
`trace.at("layers.12")` is the same trace for the names below depth 12; inside, `trace("z", z)` records
`layers.12.z`, applies its edit if there is one, and returns what the computation goes on with.

Every point is a tensor of its own: an edit gets a copy, so what it writes in place reaches nothing but its own point,
and what is kept is a node of its own on the graph of gradients, which the computation goes on from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor

Edit = Callable[[Tensor], Tensor]
WILD = frozenset("*?[")  # what makes a name a pattern


class _Off:
    """The trace that records nothing: each call returns its tensor."""

    def one_pass(self) -> AbstractContextManager:
        return nullcontext()

    def at(self, path: str, alias: str | None = None) -> _Off:
        return self

    def wants(self, name: str) -> bool:
        return False

    def editor(self, name: str) -> Edit | None:
        return None

    def record(self, name: str, value: Tensor) -> Tensor:
        return value

    def __call__(self, name: str, value: Tensor) -> Tensor:
        return value

    def __repr__(self) -> str:
        return "OFF"


OFF = _Off()


def unless_idle(trace):
    """OFF in place of a trace that keeps and edits nothing, so that it costs nothing; any other as it is."""
    return OFF if isinstance(trace, Trace) and not trace.keep and not trace.edit else trace


class _Scope:
    """A trace for the names below a path, or below two paths that name the same part of the model."""

    def __init__(self, trace: Trace, *paths: str):
        self.trace, self.paths = trace, paths

    def at(self, path: str, alias: str | None = None) -> _Scope:
        first, *others = self._names(path)
        return _Scope(self.trace, first, *([alias] if alias else others))

    def _names(self, name: str) -> list[str]:
        return [f"{path}.{name}" if path else name for path in self.paths]

    def _matching(self, name: str, patterns: Collection[str]) -> list[str]:
        if not patterns:
            return []
        names = self._names(name)
        self.trace._points.update(names)
        wild = self.trace._wild  # most patterns are names, and comparing is quick
        matches = [p for p in patterns if p in names or p in wild and any(fnmatchcase(full, p) for full in names)]
        self.trace._unmatched.difference_update(matches)
        return matches

    def wants(self, name: str) -> bool:
        """Whether the point is kept or edited: for values that are costly to compute."""
        return bool(self._matching(name, self.trace.keep) or self._matching(name, self.trace.edit))

    def editor(self, name: str) -> Edit | None:
        """The point's edits as one function, or None. For points whose edit must feed back, as the SSM state's."""
        matches = self._matching(name, self.trace.edit)
        return partial(_apply, name, [self.trace.edit[p] for p in matches]) if matches else None

    def record(self, name: str, value: Tensor) -> Tensor:
        """Keep the value if asked for, without editing it. Returns what the computation is to go on with."""
        if self._matching(name, self.trace.keep):
            value = value.view_as(value)  # a node of its own: the same tensor may be known under another name, too
            full, *aliases = self._names(name)
            self.trace.values[full] = value
            self.trace._alias.update(dict.fromkeys(aliases, full))
        return value

    def __call__(self, name: str, value: Tensor) -> Tensor:
        edit = self.editor(name)
        return self.record(name, value if edit is None else edit(value.clone()))


class Trace(_Scope):
    """Keep and change activations of one pass, by name (the README has the table of names).

        trace = Trace(keep=["layers.*.mamba.dt"], edit={"invocation.2.link_out": torch.zeros_like})
        model(ids, trace=trace)
        trace["layers.6.mamba.dt"]                       # (b, l, h)

    Names are shell patterns (`*` crosses dots). A shared block's points answer to their depth and to their
    invocation: `layers.18.shared.q` and `invocation.2.q` are one point. What is kept is what the model went on
    with, after the edit, and stays attached to autograd if gradients are on.

    Args:
        keep: names or patterns to record.
        edit: name or pattern -> function of the activation, returning a tensor of the same shape. Several
            matching edits run in the order given. A function may write in place to what it is given.

    A trace holds one pass: the next one begins by forgetting it, and a pass that fails leaves nothing. A pattern that
    matched no point of the pass raises `ValueError` at its end, so that a misspelt name is not read as "no effect".
    """

    # pyrefly: ignore[bad-override]  read like a scope's
    trace = property(lambda self: self)  # no attribute: a trace that held itself would outlive its last user

    def __init__(self, keep: Iterable[str] = (), edit: dict[str, Edit] | None = None):
        self.paths = ("",)
        self.keep = (keep,) if isinstance(keep, str) else tuple(keep)
        self.edit = dict(edit or {})
        self._wild = {p for p in (*self.keep, *self.edit) if not WILD.isdisjoint(p)}
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.values: dict[str, Tensor] = {}
        self._alias: dict[str, str] = {}
        self._unmatched: set[str] = {*self.keep, *self.edit}
        self._points: set[str] = set()  # every name the pass has met

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Around a pass. A pattern that matched nothing is an error at its end that lists the nearest points."""
        self.clear()
        try:
            yield
            if self._unmatched:
                near = "; ".join(f"{name!r}, nearest are {nearest(name, self._points)}" for name in sorted(self._unmatched))
                raise ValueError(
                    f"no trace point of this pass matches {near}. Points are named like "
                    "'layers.6.mamba.dt', 'layers.6.shared.attn_probs' or 'invocation.2.attn_probs'"
                )
        except BaseException:
            self.clear()
            raise

    def __getitem__(self, name: str) -> Tensor:
        name = self._alias.get(name, name)
        if name not in self.values:
            raise KeyError(
                f"{name!r} was not kept; nearest are {nearest(name, {*self.values, *self._alias})}, kept are {sorted(self.values)}"
            )
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return self._alias.get(name, name) in self.values

    def __iter__(self):
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Trace(keep={list(self.keep)}, edit={list(self.edit)}, {len(self.values)} recorded)"


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that are spelt most like `name`."""
    return get_close_matches(name, sorted(names), n=3, cutoff=0.4)


def _apply(name: str, edits: list[Edit], value: Tensor) -> Tensor:
    for edit in edits:
        changed = edit(value)
        if not isinstance(changed, Tensor) or changed.shape != value.shape:
            got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise ValueError(
                f"an edit returns a tensor of its input's shape: {name} has shape {tuple(value.shape)}, the edit returned {got}"
            )
        value = changed.to(value.dtype)
    return value
