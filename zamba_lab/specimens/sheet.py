"""The sheet itself: plain data, and the same as Markdown tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zamba_lab.specimens.estimates import Estimate
from zamba_lab.specimens.worth import TOP
from zamba_lab.writing import write

JSON, MARKDOWN = "specimen.json", "specimen.md"


@dataclass(frozen=True)
class Sheet:
    """A model's specimen sheet. `data` is what `specimen` found, by page; printing it gives the Markdown."""

    data: dict[str, Any]

    @staticmethod
    def load(folder: str | Path) -> "Sheet":
        """The sheet that `save` wrote into a folder."""
        return Sheet(json.loads((Path(folder) / JSON).read_text(encoding="utf-8")))

    def save(self, folder: str | Path) -> Path:
        """Write specimen.json and specimen.md into a folder, which is made if needed. Returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / JSON, (json.dumps(self.data, indent=1, ensure_ascii=False) + "\n").encode())
        write(folder / MARKDOWN, str(self).encode())
        return folder

    def worth(self, part: str, where: int | None = None, head: int | None = None, how: str = "mean") -> dict[str, Any]:
        """The row of a part (see `worth.worth`); where: its number down the depth, None: all. Raises ValueError if there is none."""
        for row in self.data["worth"]:
            if (row["part"], row["where"], row["head"], row["how"]) == (part, where, head, how):
                return row
        raise ValueError(f"the sheet has no row for part {part!r}, where {where}, head {head}, how {how!r}")

    def __str__(self) -> str:
        pages = (title, heads, parts, memories, text)
        return "\n\n".join(block for page in pages for block in page(self.data) if block) + "\n"


def title(data: dict[str, Any]) -> Iterable[str]:
    size, made = data["made"]["size"], data["made"]
    yield f"# Specimen sheet: {data['model'] or 'a model'}"
    yield (
        f"{data['parameters']:,} parameters, {describe(data['architecture'])}. Intervals are 95 % bootstrap intervals over documents or "
        f"prompts; {size['documents']} documents of {size['length']} tokens, seed {made['seed']}, {made.get('seconds', 0)} s, zamba_lab "
        f"{made['zamba_lab']}, torch {made['torch']}." + "".join(f" It has no {what}." for what in data["absent"])
    )


def describe(architecture: dict[str, Any]) -> str:
    kind = f"{architecture['layers']} layers of {architecture['mixer']}"
    n, blocks = architecture["invocations"], architecture["shared_blocks"]
    return kind + (f", {n} invocations of {blocks} shared block{'s' * (blocks > 1)}" if n else "")


def heads(data: dict[str, Any]) -> Iterable[str]:
    again = data["random string, read twice"]
    yield "## Heads"
    yield (
        f"A random string read twice costs {shown(again['first copy'], '.2f')} nats a token at first and "
        f"{shown(again['second copy'], '.2f')} the second time."
    )
    if "attention" not in data:
        return
    found = data["attention"]
    even = found["even"]
    table = [
        [
            f"{row['attention']}{'' if row['block'] is None else ' (' + row['block'] + ')'}, {row['head']}",
            *(f"{row[name]:.3f}" for name in ("previous", "duplicate", "induction", "entropy_over_even")),
            f"{row['tokens']:.1f}",
        ]
        for row in found["heads"]
    ]
    table.append(["an even head", *(f"{even[name]:.3f}" for name in ("previous", "duplicate", "induction")), "1", ""])
    yield markdown(
        ["attention, head", "previous token", "duplicate token", "induction", "entropy over even", "tokens it spreads over"], table
    )
    if found["constant_share_of_link_out"]:
        shares = ", ".join(f"{share:.2%}" for share in found["constant_share_of_link_out"])
        yield f"Share of each invocation's `link_out`, in energy, that is one constant vector: {shares}."


def parts(data: dict[str, Any]) -> Iterable[str]:
    yield "## What the parts are worth"
    yield (
        "Change of the loss, in nats a token. A part at its mean over other texts, or with its values on another text, says nothing about "
        "this one; beside each a random change as large, in any direction and along the difference of two of the part's own outputs. "
        "**Zeroed** is no measure of worth: it also takes away the constant that the layers behind expect."
    )
    by_place: dict[tuple, dict[str, Any]] = {}
    for row in data["worth"]:
        by_place.setdefault((row["part"], row["where"], row["head"]), {})[row["how"]] = row
    table = [[place(*key), *cells(by_how)] for key, by_how in by_place.items() if "rewired" not in by_how]
    yield markdown(["part", "at its mean", "random", "random, own", "from another text", "random", "random, own", "zeroed"], table)
    rewired = [row for row in data["worth"] if row["how"] == "rewired"]
    if rewired:
        table = [[row["part"], *controlled(row["loss"])] for row in rewired]
        yield "The same weights in other places; a block or an adapter that gives a constant vector brings it along:"
        yield markdown(["rewired", "change", "random", "random, own"], table)
    named = [row for row in data["worth"] if row["how"] == "mean" and (row["part"] == TOP or row["where"] is None)]
    if named:
        table = [[place(row["part"], row["where"], row["head"], row.get("heads")), *controlled(row["repeated names"])] for row in named]
        yield "Change of the loss on identifiers that come again, in nats a name, with the part at its mean:"
        yield markdown(["part", "change", "random", "random, own"], table)


def cells(by_how: dict[str, Any]) -> list[str]:
    zeroed = shown(by_how["zero"]["loss"]["change"]) if "zero" in by_how else ""
    return [*controlled(by_how["mean"]["loss"]), *controlled(by_how["resample"]["loss"]), zeroed]


def controlled(entry: dict[str, Any]) -> list[str]:
    return [shown(entry["change"]), *(shown(entry[kind]["change"]) if kind in entry else "" for kind in ("isotropic", "own"))]


def place(part: str, where: int | None, head: int | None, several: Sequence[Sequence[int]] | None = None) -> str:
    if several:
        return f"{part} ({', '.join(f'{a}.{h}' for a, h in several)})"
    if part == TOP:
        return part
    return f"head {where}.{head}" if part == "head" else f"every {part}" if where is None else f"{part} {where}"


def memories(data: dict[str, Any]) -> Iterable[str]:
    yield "## Memory"
    rows = data["retrieval"]
    kinds = [part for part in ("kv", "ssm", "conv") if part in rows[0]]
    names = {"kv": "keys and values", "ssm": "states", "conv": "convolution's windows"}
    table = [
        [str(row["distance"]), shown(row["recall"]), *(f"{shown(row[part]['lost'])}{percent(row[part]['share'])}" for part in kinds)]
        for row in rows
    ]
    yield "A needle, a key and its value, some tokens back: by how many nats it lowers the loss, and what a wiped memory takes of that."
    yield markdown(["distance", "told", *(f"lost without {names[part]}" for part in kinds)], table)
    first, again = data["names"]["first"], data["names"]["repeated"]
    yield (
        f"An identifier costs {shown(first['nats a name'], '.2f')} nats where it stands first in the window ({first['names']} of them) "
        f"and {shown(again['nats a name'], '.2f')} where it comes again ({again['names']})."
    )


def text(data: dict[str, Any]) -> Iterable[str]:
    yield "## Text"
    table = [
        [kind, str(row["documents"]), *(shown(row[what], ".3f") for what in ("model", "xz, same windows", "xz, file by file"))]
        for kind, row in data["bits a byte"].items()
    ]
    window = next(iter(data["bits a byte"].values()))["window"]
    yield f"Bits a byte, windows of {window} tokens moved by half of them."
    yield markdown(["text", "documents", "model", "xz -9, same windows", "xz -9, file by file"], table)
    found = data["continuations"]
    table = [[who, *(shown(found[who][what], ".2f") for what in ("parse", "distinct 4-grams"))] for who in ("model", "the files")]
    yield (
        f"Continuations of {found['tokens']} tokens after {found['prompts']} beginnings of files, temperature {found['temperature']}, "
        "cut to whole lines; beside them how the files go on."
    )
    yield markdown(["written by", "Python parses", "distinct 4-grams"], table)


def shown(value: Estimate, form: str = "+.4f") -> str:
    """A mean and its interval, formatted by `form`."""
    if value["mean"] is None:
        return "-"
    interval = "" if value["low"] is None else f" ({value['low']:{form}} .. {value['high']:{form}})"
    return f"{value['mean']:{form}}{interval}"


def percent(share: Estimate | None) -> str:
    return "" if share is None else f", {share['mean']:.0%}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
