"""`atlas`: every page measured, kept when it is done, and all of them in one file."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from zamba_lab.atlases import experiments, pages
from zamba_lab.atlases.html import whole
from zamba_lab.atlases.material import FULL, Material, Size, material
from zamba_lab.model import Zamba
from zamba_lab.writing import write

PAGES: dict[str, Callable[[Material], pages.Page | None]] = {
    "depth": pages.plan,
    "heads": pages.heads,
    "worth": experiments.worths,
    "states": pages.states,
    "memory": experiments.memory,
    "adapters": pages.adapters,
    "concat": pages.concat,
    "costs": pages.costs,
}


def atlas(
    model: Zamba,
    folder: str | Path,
    texts: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    size: Size = FULL,
    name: str = "",
    progress: bool = False,
    seed: int = 0,
) -> Path:
    """Measure a model and write FOLDER/atlas.html, one file that needs nothing beside it; a few minutes for two million parameters.

    Each page is kept in FOLDER/pages when it is done. A call with the same weights, texts, sizes and version goes on with the first
    page that is missing.

    Args:
        model: with a tokenizer that has a start token. What it lacks is left out, and named.
        texts: texts, of which alternate stretches are measured on and give the means; or two kinds by name, the first to measure on;
            None: `specimens.held_out()`.
        name: for the title. progress: say on standard error which page is measured. seed: of random strings, needles and controls.

    Returns: the file. Raises ValueError if there is no tokenizer or too little text, OSError if there is no room.
    """
    folder = Path(folder)
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    bench = material(model, texts, size, name, seed)
    key, done = bench.key(), {}
    for i, (title, measure) in enumerate(PAGES.items()):
        file, started = folder / "pages" / f"{title}.json", time.monotonic()
        done[title] = kept(file, key)
        if done[title] is None:
            if progress:
                print(f"{i + 1} of {len(PAGES)}: {title} ...", end=" ", file=sys.stderr, flush=True)
            page = measure(bench)
            seconds = time.monotonic() - started
            done[title] = {"key": key, "seconds": round(seconds, 1), "page": None if page is None else asdict(page)}
            write(file, json.dumps(done[title]).encode())
            if progress:
                print(f"{seconds:.1f} s", file=sys.stderr)
    write(file := folder / "atlas.html", whole(bench, {title: entry["page"] for title, entry in done.items()}).encode())
    return file


def kept(file: Path, key: str) -> dict | None:
    """A page that was measured on the same; None if there is none."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("key") == key else None
