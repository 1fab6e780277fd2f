"""The page: one file from its parts."""

import html
import json
import re
from importlib.resources import files
from pathlib import Path

import torch

from zamba_lab.model import Zamba
from zamba_lab.pages.packing import config_of, means, packed
from zamba_lab.pages.words import EXAMPLE, library, vocabulary, windows
from zamba_lab.writing import write

DTYPES = {"float32": torch.float32, "float16": torch.float16}
MOST_BYTES = 2**28  # of the weights; a browser's longest string has about twice that
MOST_TOKENS = 1024  # of a text in the page
LINKED = re.compile(r"""<link rel="stylesheet" href="(?P<css>[\w.]+)">|<script src="(?P<js>[\w.]+)"></script>""")


def page(
    model: Zamba, path: str | Path, text: str | None = None, reference: str | None = None, dtype: str = "float32", name: str | None = None
) -> Path:
    """Write a page that holds a model and runs it: type and see its attention, states and predictions, and switch parts off.

    Args:
        model: with a tokenizer.json of byte-level BPE beside its weights, not quantised.
        path: of the file; its folder is made. text: that the page begins with; None: a few lines of Python.
        reference: a text over which a part's mean is taken, which stands in the part's place while it is switched off;
            None: two modules of Python's standard library.
        dtype: of the weights in the page. "float32": logits as in Python; "float16": half the size, and weights rounded to it.
        name: of the model, as the page calls it; None: "model".

    Returns: the path. Raises ValueError if the page cannot hold the model, or run it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}: got {dtype!r}")
    tensors = {key: value for key, value in model.state_dict().items() if not key.startswith("rotary")}
    if {key for key, _ in model.named_parameters()} != set(tensors) or any(not value.is_floating_point() for value in tensors.values()):
        raise ValueError("a page holds the weights as they are: give the model before it was quantised")
    if (size := model.config.n_params * DTYPES[dtype].itemsize) > MOST_BYTES:
        raise ValueError(f"the weights in a page may have {MOST_BYTES:,} bytes: got {size:,} in {dtype}")
    words = vocabulary(model.tokenizer)
    average = means(model, windows(model.tokenizer, library() if reference is None else reference))
    shapes, weights = packed(tensors | average, DTYPES[dtype])
    data = {
        "name": name or "model",
        "parameters": model.config.n_params,
        "bytes": DTYPES[dtype].itemsize,
        "limit": min(model.config.max_context, MOST_TOKENS),
        "text": EXAMPLE if text is None else text,
        "config": config_of(model.config),
        "tokenizer": words,
        "shapes": shapes,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, assembled(data, weights).encode())
    return path


def assembled(data: dict, weights: str) -> str:
    """page.html with the files it links to inside it, and the data."""
    folder = files("zamba_lab.pages")

    def inside(link: re.Match) -> str:
        tag, name = ("style", link["css"]) if link["css"] else ("script", link["js"])
        return f"<{tag}>\n{(folder / name).read_text(encoding='utf-8')}</{tag}>"

    document = LINKED.sub(inside, (folder / "page.html").read_text(encoding="utf-8"))
    content = {"NAME": html.escape(data["name"]), "DATA": json.dumps(data).replace("<", "\\u003c"), "WEIGHTS": weights}
    return re.sub("{{(NAME|DATA|WEIGHTS)}}", lambda hole: content[hole[1]], document)
