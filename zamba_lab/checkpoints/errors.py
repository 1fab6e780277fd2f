"""The one error of this folder."""

from collections.abc import Iterable

SHOWN = 20  # names of each list that the message spells out; the attributes hold all


class CheckpointError(ValueError):
    """A checkpoint that cannot be opened exactly. Nothing was built.

    `missing`: stored names that a parameter needs and the files lack. `left_over`: stored names that no parameter
    wants. `wrong_shape`: stored names whose shape differs. Empty where the trouble is of another kind.
    """

    def __init__(self, message: str, missing: Iterable[str] = (), left_over: Iterable[str] = (), wrong_shape: dict[str, str] | None = None):
        self.missing, self.left_over = tuple(sorted(missing)), tuple(sorted(left_over))
        shapes = dict(sorted((wrong_shape or {}).items()))
        self.wrong_shape = tuple(shapes)
        lists = (
            ("missing", self.missing),
            ("left over", self.left_over),
            ("of the wrong shape", [f"{name} {why}" for name, why in shapes.items()]),
        )
        super().__init__("".join([message, *(_listing(title, names) for title, names in lists if names)]))


def _listing(title: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"\n  {title} ({len(names)}): {', '.join(names[:SHOWN])}{more}"
