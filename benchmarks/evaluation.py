"""Tasks: requests scored or answered by our model for lm-eval and by its own of transformers, on the same weights and the same batch size.

Four kinds of work of the lab's suite: whole texts, of which nothing is shared; four answers to a question; the same after 5 and after
25 examples, which all questions share, as in the few-shot tasks of the published tables; and texts written after examples. Both are
given the requests as lm-eval makes them, in one thread's turn each; their scores are compared first.
"""

import logging
import tempfile

import torch
from harness import OURS, interleaved, ratio_row, repeats
from pairs import PEER, quiet

import zamba_lab as zl

BATCH, NEAR = 16, 1e-4
# documents, what the project set itself
WORK = {
    "whole texts": (16, ">= 2x"),
    "4 answers": (40, ">= 2x"),
    "4 answers after 5 examples": (40, ">= 5x"),
    "4 answers after 25 examples": (15, ">= 5x"),
    "written after 3 examples": (16, ">= 2x"),
}


def requests(work: str, documents: int) -> tuple[str, list]:
    """The name of the method that is asked, and what it is asked."""
    from lm_eval.api.instance import Instance

    from zamba_lab.evaluate import generated

    if work == "whole texts":
        kind, pairs = "loglikelihood_rolling", [(row["text"],) for row in generated.text()["test"]][:documents]
    elif work.startswith("written"):
        rows = list(generated.write()["test"])
        shots = "".join(row["text"] + row["target"] + "\n\n" for row in rows[-3:])
        kind, pairs = "generate_until", [(shots + row["text"], {"until": ["\n"], "max_gen_toks": 16}) for row in rows[:documents]]
    else:
        rows, count = list(generated.choice()["test"]), int((work.split()[3:] or [0])[0])
        shots = "".join(row["text"] + row["choices"][row["target"]] + "\n\n" for row in rows[len(rows) - count :])
        pairs = [(shots + row["text"], choice) for row in rows[:documents] for choice in row["choices"]]
        kind = "loglikelihood"
    return kind, [Instance(kind, {}, arguments, i) for i, arguments in enumerate(pairs)]


def must_be_alike(work: str, ours: list, theirs: list) -> None:
    for one, other in zip(ours, theirs, strict=True):
        one, other = (value[0] if isinstance(value, tuple) else value for value in (one, other))
        if one != other if isinstance(one, str) else abs(one - other) > NEAR:
            raise SystemExit(f"{work}: {OURS} {one!r}, {PEER} {other!r}")


def run(quick: bool = False) -> list[dict]:
    from lm_eval.api.registry import get_model

    from zamba_lab.evaluate.lm import ZambaLM

    quiet()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        zl.save(zl.load("zamba2-nano"), folder)
        more = dict(device="cpu", dtype="float32", max_length=1024)
        both = {OURS: ZambaLM(folder, batch_size=BATCH), PEER: get_model("hf")(pretrained=folder, batch_size=BATCH, **more)}
        for work, (documents, target) in WORK.items():
            kind, asked = requests(work, 2 if quick else documents)
            calls = {name: lambda lm=lm: getattr(lm, kind)(asked, disable_tqdm=True) for name, lm in both.items()}
            with torch.no_grad():
                must_be_alike(work, *(call() for call in calls.values()))
                times = interleaved(calls, repeats(5, quick), warm=False)
            rows.append(ratio_row(f"{work}, zamba2-nano, {len(asked)} requests", times, OURS, PEER, target))
    return rows
