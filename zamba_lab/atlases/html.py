"""The pages of an atlas as one HTML file: its style, its code and plotly's own are inside."""

import json
from html import escape
from importlib.resources import files
from typing import Any

from zamba_lab.atlases.material import Material
from zamba_lab.version import __version__


def whole(m: Material, pages: dict[str, dict[str, Any] | None]) -> str:
    """The file's text."""
    from plotly.offline import get_plotlyjs

    style, code = ((files("zamba_lab.atlases") / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    there = {name: page for name, page in pages.items() if page}
    facts: dict[str, list[str]] = {}
    for page in there.values():
        for part, sentences in page["facts"].items():
            facts.setdefault(part, []).extend(sentences)
    absent = ", ".join(name for name in pages if name not in there)
    title = f"Atlas of {m.name or 'a model'}"
    size = f"{len(m.ids)} documents of {m.ids.shape[1]} tokens, seed {m.seed}, zamba_lab {__version__}"
    links = "".join(f"<a href='#{name}'>{escape(page['title'])}</a>" for name, page in there.items())
    sections = "".join(section(name, page) for name, page in there.items())
    lacks = f" It lacks what these pages show: {absent}." if absent else ""
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{style}</style></head><body><header><h1>{escape(title)}</h1>"
        f"<p>{size}. Intervals are 95 % bootstrap intervals.{escape(lacks)}</p><nav>{links}</nav></header>{sections}"
        f"<script>{get_plotlyjs()}</script><script>({code})({inside(facts)})</script></body></html>\n"
    )


def section(name: str, page: dict[str, Any]) -> str:
    """A page: its figures, each with its caption and its call."""
    blocks = []
    for block in page["blocks"]:
        shown = (
            block["html"]
            if "html" in block
            else f"<div class='figure'><script type='application/json'>{safe(block['figure'])}</script></div>"
        )
        call = f"<details><summary>the call</summary><code>{escape(block['call'])}</code></details>"
        below = f"<figcaption>{escape(block['caption'])}{call}</figcaption>"
        blocks.append(f"<figure>{shown}{below}</figure>")
        if "html" in block:
            blocks.append("<aside class='facts' aria-live='polite'></aside>")
    return f"<section id='{name}'><h2>{escape(page['title'])}</h2><p>{escape(page['intro'])}</p>{''.join(blocks)}</section>"


def inside(data: object) -> str:
    """JSON that a script may hold."""
    return safe(json.dumps(data))


def safe(text: str) -> str:
    """JSON without `<`, which only stands in its strings: it cannot end the script it is in."""
    return text.replace("<", "\\u003c")
