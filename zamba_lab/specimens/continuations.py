"""What a model writes after the beginning of a program: does Python parse it, and does it repeat itself?

A prompt is the beginning of a file that ends with a whole line and parses. 64 sampled tokens follow; what comes after their last line
end is cut off. The file's own continuation, cut in the same way, is the control: it does not always parse either, as it may stop
within a bracket or before a block.
"""

import ast
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from zamba_lab.generation import generate
from zamba_lab.model import Zamba
from zamba_lab.specimens.estimates import estimate
from zamba_lab.tokenizer import Tokenizer

TOKENS, TEMPERATURE, GRAM = 64, 0.7, 4


def continuations(model: Zamba, texts: Sequence[str], count: int, prompt: int = 192, batch: int = 16, seed: int = 0) -> dict[str, Any]:
    """The share of continuations that parse, and of their 4-grams that are distinct, of the model and of the files themselves.

    One prompt from each text, of at most `prompt` tokens, up to `count`; a text without one is passed over. Raises ValueError if all are.
    """
    tokenizer = model.tokenizer
    pairs = [pair for text in texts if (pair := beginning(text, tokenizer, prompt))][:count]
    if not pairs:
        raise ValueError(f"no text begins with whole lines that Python parses, within {prompt} tokens: got {len(texts)} texts")
    written = []
    for at in range(0, len(pairs), batch):
        written += sampled(model, [tokenizer.encode(start) for start, _ in pairs[at : at + batch]], seed + at)
    own = [tokenizer.encode(rest, add_bos=False)[:TOKENS] for _, rest in pairs]
    return {
        "prompts": len(pairs),
        "tokens": TOKENS,
        "temperature": TEMPERATURE,
        **{
            name: {
                "parse": estimate(torch.tensor([float(parses(start, tokenizer.decode(ids))) for (start, _), ids in zip(pairs, some)])),
                "distinct 4-grams": estimate(torch.tensor([distinct(ids) for ids in some])),
            }
            for name, some in (("model", written), ("the files", own))
        },
        "examples": [[start[-200:], tokenizer.decode(ids)] for (start, _), ids in zip(pairs[:3], written)],
    }


def beginning(text: str, tokenizer: Tokenizer, prompt: int) -> tuple[str, str] | None:
    """The longest beginning of whole lines that parses and is at most `prompt` tokens, without its last line end; and the rest."""
    ids = tokenizer.encode(text[: 40 * prompt], add_bos=False)
    start = tokenizer.decode(ids[: prompt - 1])
    if not text.startswith(start) or len(ids) < prompt + TOKENS:
        return None
    while (end := start.rfind("\n")) > 0:
        start = start[:end]
        if start.strip() and accepted(start):
            return start, text[end:]
    return None


def sampled(model: Zamba, prompts: list[list[int]], seed: int) -> list[list[int]]:
    """The tokens that follow each prompt, up to the document's end if one comes."""
    width, bos = max(map(len, prompts)), model.tokenizer.bos_id
    device = model.embedding.weight.device
    ids = torch.tensor([[bos] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    new = generate(model, ids, TOKENS, TEMPERATURE, mask=mask, stop=[bos], seed=seed).tolist()
    return [row[: row.index(bos)] if bos in row else row for row in new]


def parses(start: str, continuation: str) -> bool:
    """Whether Python accepts the prompt with the continuation's whole lines; without a whole line, no."""
    lines = continuation[: continuation.rfind("\n")] if "\n" in continuation else ""
    return bool(lines.strip()) and accepted(start + lines)


def accepted(source: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def distinct(ids: Sequence[int]) -> float:
    """How many different runs of 4 tokens there are, as a share of all of them; NaN for fewer than 4 tokens."""
    grams = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")
