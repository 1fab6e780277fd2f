"""Our models as a model of lm-eval, registered there as `zamba_lab`: what lm-eval's own Hugging Face model (`hf`) computes.

Tokens, windows and scores are counted as `hf` counts them. Two things differ. The common beginning of several requests is read once
(`shared.py`). A request longer than the model's context is refused, or cut and counted if `too_long` is "window"; `hf` cuts it and
goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from zamba_lab.cache import Cache
from zamba_lab.checkpoints import check_tokenizer, load
from zamba_lab.evaluate.shared import Node, forest, left_padded, visit
from zamba_lab.generation import stream
from zamba_lab.model import Zamba, check_tokens
from zamba_lab.trace import OFF

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import Collator, handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tasks need lm-eval, which is not installed: pip install 'zamba-lab[eval]', or pip install lm-eval", name=error.name
    ) from error

PIECE = 1024  # positions whose logits are there at a time


class Row:
    """What a request asks to read: its tokens without the last, which nothing follows, and how many of the last ones are scored."""

    def __init__(self, ids: list[int], scored: int):
        self.ids, self.targets = ids[:-1], ids[-scored:]


def opened(source: str, dtype: str | torch.dtype | None, device: str | None) -> Zamba:
    """`load` with what lm-eval's command line gives: dtype "auto" means as stored, and a GPU that is not there the CPU."""
    there = device if device and (not device.startswith("cuda") or torch.cuda.is_available()) else "cpu"
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype must be 'auto' or the name of a floating torch.dtype: got {dtype!r}")
    kind = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else None if dtype == "auto" else dtype
    return load(source, kind, there)


@register_model("zamba_lab")
class ZambaLM(TemplateLM):
    """A model for `lm_eval.simple_evaluate(model=ZambaLM("zamba2-nano"), tasks=[...])`, or by name for lm-eval's command line."""

    def __init__(
        self,
        pretrained: str | Zamba,
        dtype: str | torch.dtype | None = None,
        device: str | None = None,
        batch_size: int = 16,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        too_long: str = "refuse",
        share: bool = True,
    ):
        """Args:
            pretrained: what `load` takes, or a model with a tokenizer.
            dtype: of the weights ("bfloat16"); None or "auto" as stored.
            device: None: the CPU, which is also taken where the GPU that lm-eval names by default is missing.
            batch_size: requests read together; more, while they are short (`shared.TOKENS`).
            max_batch_size: not used; lm-eval passes it to every model.
            max_length: tokens the model may read; None: the config's max_context.
            too_long: of a longer request, "refuse" raises ValueError; "window" reads the end, as `hf` does, and counts it in `windowed`.
            share: read common beginnings once.

        Raises ValueError if the model has no tokenizer with a start or end token, or an argument breaks a rule.
        """
        super().__init__()
        if too_long not in ("refuse", "window"):
            raise ValueError(f"too_long must be 'refuse' or 'window': got {too_long!r}")
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value is not None and not (str(value).isdecimal() and int(value) >= 1):
                raise ValueError(f"{name} must be a whole number of 1 or more: got {value!r}")
        pretrained = opened(pretrained, dtype, device) if isinstance(pretrained, str) else pretrained
        self.model, self.tokenizer = pretrained.eval(), pretrained.tokenizer
        if self.tokenizer is None or self.tokenizer.bos_id is self.tokenizer.eos_id is None:
            raise ValueError(
                "tasks need a tokenizer beside the weights, one with a start or an end token: this model has "
                f"{'none' if self.tokenizer is None else self.tokenizer}"
            )
        check_tokenizer(self.model, self.tokenizer, "the tokenizer of the tasks")
        self.batch_size, self.share, self.too_long = int(batch_size), share, too_long
        self.max_length = int(max_length or self.model.config.max_context)
        self.windowed = 0

    @property
    def eot_token_id(self) -> int:
        config, tokenizer = self.model.config, self.tokenizer
        return next(i for i in (config.eos_token_id, tokenizer.eos_id, tokenizer.bos_id) if i is not None)

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.pieces_hash

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside the results."""
        kind = str(self.model.embedding.weight.dtype).removeprefix("torch.")
        limits = {"max_length": self.max_length, "too_long": self.too_long, "windowed": self.windowed}
        return {"model_num_parameters": self.model.config.n_params, "model_dtype": kind, **limits}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_) -> list[int]:
        """The ids of a text, after the start token; one that opens with the start token's name has it already."""
        if add_special_tokens is not False and self.tokenizer.bos_id is not None:
            string = string.removeprefix(self.tokenizer.pieces([self.tokenizer.bos_id])[0])
        return self.tokenizer.encode(string, add_special_tokens is not False)

    # --- scores -----------------------------------------------------------------------------------------------------

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows of max_length tokens, each token once."""
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1)
            ]
            for (text,) in (request.args for request in requests)
        ]
        scores = iter(self._loglikelihood_tokens([window for some in windows for window in some], disable_tqdm))
        totals = [sum(next(scores)[0] for _ in some) for some in windows]
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _loglikelihood_tokens(self, requests: Sequence[tuple], disable_tqdm: bool = False, **_) -> list[tuple[float, bool]]:
        """Of each (text or None, context's ids, continuation's ids): log p of the continuation, and whether it is the likeliest."""
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        alike: dict[tuple, list[int]] = {}  # requests that differ in nothing but the last token are one row
        for i, row in enumerate(rows):
            alike.setdefault(tuple(row.ids), []).append(i)
        own = [max(len(rows[i].targets) for i in some) for some in alike.values()]
        groups, answers = list(alike.values()), [(0.0, False)] * len(rows)

        def score(leaves: list[Node], cache: Cache | None) -> None:
            asked = [groups[leaf.leaf] for leaf in leaves]
            targets = [[rows[i].targets for i in group] for group in asked]
            for group, found in zip(asked, self._score([leaf.ids for leaf in leaves], cache, targets)):
                for i, answer in zip(group, found):
                    answers[i] = answer
                    if requests[i][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[i][0], answer)
                bar.update(len(group))

        with tqdm(total=len(rows), desc="scoring", unit="request", disable=disable_tqdm) as bar:
            visit(self.model, [(0, node) for node in forest(list(alike), own, self.share)], None, self.batch_size, score)
        return answers

    def _row(self, context: list[int], continuation: list[int]) -> Row:
        if not context or not continuation:
            raise ValueError("a request needs a context and a continuation of at least a token each: one of them has none")
        length = self.max_length + 1  # the last token is scored and not read
        if len(continuation) > self.max_length or (len(context) + len(continuation) > length and self.too_long == "refuse"):
            raise ValueError(self._too_long(len(context) + len(continuation), f"{len(continuation)} of them to be scored"))
        self.windowed += len(context) + len(continuation) > length
        return Row((context + continuation)[-length:], len(continuation))

    def _too_long(self, tokens: int, which: str) -> str:
        return (
            f"a request has {tokens:,} tokens, {which}, and the model's context is {self.max_length:,}: give a larger max_length (no "
            "state-space layer has a limit, but the model was trained on no more), fewer few-shot examples, or too_long=window"
        )

    def _score(self, rows: list[list[int]], cache: Cache | None, targets: list[list[list[int]]]) -> list[list[tuple[float, bool]]]:
        """For each row, and each of its lists of targets, which are to follow its last positions: log p, and if likeliest."""
        device, longest = self.model.embedding.weight.device, max(map(len, rows))
        # padded at the end, which a causal model does not see, so that no mask is needed
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        check_tokens(ids, None, cache, self.model.config.vocab_size)
        x, _ = self.model.walk(ids, cache, None, OFF)
        scored = [max(map(len, lists)) for lists in targets]
        x = torch.cat([x[i, len(row) - n : len(row)] for i, (row, n) in enumerate(zip(rows, scored))])
        position = [end - len(one) + k for lists, end in zip(targets, accumulate(scored)) for one in lists for k in range(len(one))]
        flat = [token for lists in targets for one in lists for token in one]
        logp, likeliest = self._logp(x, torch.tensor(position, device=device), torch.tensor(flat, device=device))
        sizes = [len(one) for lists in targets for one in lists]
        answers = iter([(float(a.sum()), bool(b.all())) for a, b in zip(logp.split(sizes), likeliest.split(sizes))])
        return [[next(answers) for _ in lists] for lists in targets]

    def _logp(self, x: Tensor, position: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """log p of each target at its position of the stream x, (n, d), in float64; and whether no other is likelier."""
        logp, likeliest = torch.empty(len(target), dtype=torch.float64), torch.empty(len(target), dtype=torch.bool)
        for start in range(0, len(x), PIECE):
            logits = self.model.logits(x[None, start : start + PIECE])[0]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            inside = (position >= start) & (position < start + PIECE)
            at, what = position[inside] - start, target[inside]
            logp[inside.cpu()] = (logits[at, what] - logits.logsumexp(-1)[at]).cpu().double()
            likeliest[inside.cpu()] = (logits.argmax(-1)[at] == what).cpu()
        return logp, likeliest

    # --- texts ------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to the first of the texts in `until`, or the end token, or max_gen_toks tokens."""
        groups = Collator([request.args for request in requests], group_by="gen_kwargs", group_fn=lambda pair: pair[1])
        texts: list[str] = []
        with tqdm(total=len(requests), desc="generating", unit="request", disable=disable_tqdm) as bar:
            for group in groups.get_batched(n=len(requests)):
                texts += self._generate([context for context, _ in group], group[0][1], bar)
        return groups.get_original(texts)

    def _generate(self, contexts: list[str], given: dict, bar: tqdm) -> list[str]:
        """One text for each context, all with the same settings."""
        settings = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        until = handle_stop_sequences(settings.pop("until"), eos=self.tokenizer.pieces([self.eot_token_id])[0])
        count, room = settings["max_gen_toks"], self.max_length - settings.pop("max_gen_toks")
        sampled = settings.pop("do_sample")
        if unknown := settings.keys() - {"temperature", "top_k", "top_p", "min_p"}:
            raise ValueError(f"generation takes until, max_gen_toks, do_sample, temperature, top_k, top_p and min_p: got {sorted(unknown)}")
        if not sampled:
            settings = {}
        rows = [self.tok_encode(context) for context in contexts]
        if room < 1 or (self.too_long == "refuse" and max(map(len, rows)) > room):
            raise ValueError(self._too_long(max(map(len, rows)) + count, f"{count} of them to be written"))
        self.windowed += sum(len(row) > room for row in rows)
        rows, texts = [row[-room:] for row in rows], [""] * len(rows)

        def write(leaves: list[Node], cache: Cache | None) -> None:
            ids, mask = left_padded([leaf.ids for leaf in leaves], self.model)
            tokens = stream(self.model, ids, count, mask=mask, stop=(self.eot_token_id,), cache=cache, **settings)
            for leaf, text in zip(leaves, self._until(tokens, len(leaves), until)):
                texts[leaf.leaf] = text
                self.cache_hook.add_partial("generate_until", (contexts[leaf.leaf], given), text)
            bar.update(len(leaves))

        visit(self.model, [(0, node) for node in forest(rows, [1] * len(rows), self.share)], None, self.batch_size, write)
        return texts

    @property
    def max_gen_toks(self) -> int:
        """New tokens where a task does not say how many; as `hf`."""
        return 256

    def _until(self, tokens: Iterator[Tensor], count: int, until: list[str]) -> list[str]:
        """The texts of `count` rows of tokens as they come, until each holds one of some texts, without that and what follows it."""
        rows: list[list[int]] = [[] for _ in range(count)]
        ended, longest = set(), max(len(text.encode()) for text in until) + 4  # a token is a byte at least
        for step in tokens:
            for i, token in enumerate(step.tolist()):
                rows[i].append(token)
                if i not in ended and any(text and text in self.tokenizer.decode(rows[i][-longest:]) for text in until):
                    ended.add(i)
            if len(ended) == count:
                break
        return [postprocess_generated_text(self.tokenizer.decode(row), until, None) for row in rows]
