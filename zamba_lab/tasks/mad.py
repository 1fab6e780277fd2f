"""The six tasks of Mechanistic Architecture Design (Poli et al. 2024, arXiv 2403.17844); the sixth, selective copying, is in
copying.py.

`paper` is the baseline of the public code (mad-lab, `configs/tasks`), whose generators these follow but for what each docstring
says. One difference is common to the recall tasks: there training predicts every next token and only scoring looks at keys
that came before; here those are the only labels, in training too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zamba_lab.tasks.task import IGNORE, Task, distinct, rule


@dataclass(frozen=True, kw_only=True)
class InContextRecall(Task):
    """Keys, each followed by its value, which stays the same through the sequence; asked wherever a key comes again.

    The first half of the vocabulary without the noise are keys, the second half values, the last `noise_tokens` noise, which
    takes the place of each pair with probability `noise`. The last pair repeats an earlier key.
    """

    vocab_size: int
    length: int
    noise_tokens: int = 0
    noise: float = 0.0

    def check(self) -> None:
        rule(self.keys >= 2, f"two keys or more are needed: got vocab_size={self.vocab_size}, noise_tokens={self.noise_tokens}")
        rule(self.length >= 4 and self.length % 2 == 0, f"length must be even, 4 or more: got {self.length}")
        rule(
            0 <= self.noise < 1 and (self.noise == 0 or self.noise_tokens > 0),
            f"noise is a share in [0, 1) and needs tokens: got noise={self.noise}, noise_tokens={self.noise_tokens}",
        )

    @property
    def keys(self) -> int:
        return (self.vocab_size - self.noise_tokens) // 2

    @property
    def answers(self) -> range:
        return range(self.keys, self.vocab_size - self.noise_tokens)

    @property
    def plateau(self) -> float:
        """The share of earlier pairs that have the key asked for, or its value by luck; over all questions, the last one is sure
        to be asked."""
        before, paired = np.arange(1, self.length // 2), 1 - self.noise
        asked = paired * (1 - (1 - paired / self.keys) ** before)  # by the number of pairs before
        same = paired * (1 - self.noise**before) / self.keys
        asked[-1], same[-1] = 1, 1 / (paired * before[-1]) + (1 - 1 / (paired * before[-1])) / self.keys
        share = same.sum() / asked.sum()
        return float(share + (1 - share) * self.chance)

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        pairs, row = self.length // 2, np.arange(n)
        keys = rng.integers(self.keys, size=(n, pairs))
        noisy = rng.random((n, pairs)) < self.noise
        known = rng.integers(pairs - 1, size=n)
        noisy[row, known] = noisy[:, -1] = False
        keys[:, -1] = keys[row, known]
        values = np.take_along_axis(rng.integers(self.keys, self.vocab_size - self.noise_tokens, (n, self.keys)), keys, axis=1)
        again, seen = np.zeros((n, pairs), dtype=bool), np.zeros((n, self.keys), dtype=bool)
        for k in range(pairs):
            again[:, k] = seen[row, keys[:, k]] & ~noisy[:, k]
            seen[row, keys[:, k]] |= ~noisy[:, k]
        ids = np.stack([keys, values], axis=2)
        first_noise = self.vocab_size - self.noise_tokens
        ids = np.where(noisy[:, :, None], rng.integers(first_noise, first_noise + max(1, self.noise_tokens), ids.shape), ids)
        labels = np.full(ids.shape, IGNORE)
        labels[:, :, 0] = np.where(again, values, IGNORE)
        return ids.reshape(n, -1), labels.reshape(n, -1)

    def word(self, token: int) -> str:
        first_noise = self.vocab_size - self.noise_tokens
        return f"k{token}" if token < self.keys else f"v{token - self.keys}" if token < first_noise else f"~{token - first_noise}"


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall(Task):
    """In-context recall where a key is a motif of 1..`motif` different key tokens, and a value one of value tokens.

    Each token of a repeated key's value is asked, at the token before it. The last token of the vocabulary is mad-lab's padding,
    unused here: sequences are cut at `length` instead. There scoring uses the longest keys only; here all lengths.
    """

    vocab_size: int
    length: int
    motif: int

    def check(self) -> None:
        rule(1 <= self.motif <= self.keys, f"motif must be in 1..keys, {self.keys} of {self.vocab_size} tokens: got {self.motif}")
        rule(self.length >= 4 * self.motif, f"length must hold a key and its repetition: got {self.length}, motif {self.motif}")

    @property
    def keys(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def answers(self) -> range:
        return range(self.keys, self.vocab_size - 1)

    @property
    def shortcut(self) -> float:
        """Short keys come again soon, and the tokens of a value differ: a bound with room, measured 0.24 at most."""
        return self.chance + 0.2

    def motifs(self, rng: np.random.Generator, n: int, pairs: int, choices: range) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, pairs, motif) and which of them there are, bool."""
        tokens = distinct(rng, n * pairs, self.motif, choices).reshape(n, pairs, self.motif)
        return tokens, np.arange(self.motif) < rng.integers(1, self.motif + 1, (n, pairs, 1))

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = self.length // 2  # enough even if all motifs have one token
        keys, key_there = self.motifs(rng, n, pairs, range(self.keys))
        values, value_there = self.motifs(rng, n, pairs, self.answers)
        code = ((keys + 1) * key_there * self.vocab_size ** np.arange(self.motif)).sum(2)  # (n, pairs)
        first = (code[:, :, None] == code[:, None, :]).argmax(2)
        values, value_there = (np.take_along_axis(part, first[:, :, None], axis=1) for part in (values, value_there))
        asked = value_there & (first < np.arange(pairs))[:, :, None]
        tokens, there, asked = (
            np.concatenate(both, axis=2).reshape(n, -1)
            for both in ((keys, values), (key_there, value_there), (np.zeros_like(asked), asked))
        )
        row, at = np.nonzero(there)
        place = (there.cumsum(1) - 1)[row, at]
        inside = place < self.length
        row, at, place = row[inside], at[inside], place[inside]
        ids, labels = np.zeros((n, self.length), dtype=np.int64), np.full((n, self.length), IGNORE)
        ids[row, place] = tokens[row, at]
        is_asked = asked[row, at]  # a value's token is predicted one position earlier
        labels[row[is_asked], place[is_asked] - 1] = tokens[row[is_asked], at[is_asked]]
        return ids, labels

    def word(self, token: int) -> str:
        return f"k{token}" if token < self.keys else f"v{token - self.keys}"


@dataclass(frozen=True, kw_only=True)
class Compression(Task):
    """A random text, a token that ends it, and then its places in random order: at each, the symbol that stood there.

    mad-lab decodes the text from the end token's activation with a network of its own, which is told the place; a language model
    has no such decoder, so here the places are tokens. What an SSM knows of the text by then is in its state; for a model with
    attention this form is no bottleneck. Vocabulary: symbols, the end token, `content` places.
    """

    symbols: int
    content: int

    def check(self) -> None:
        rule(self.symbols >= 2 and self.content >= 2, f"symbols and content must be 2 or more: got {self.symbols}, {self.content}")

    @property
    def vocab_size(self) -> int:
        return self.symbols + 1 + self.content

    @property
    def length(self) -> int:
        return 2 * self.content + 1

    @property
    def answers(self) -> range:
        return range(self.symbols)

    @property
    def plateau(self) -> float:
        return 1 / self.content + (1 - 1 / self.content) / self.symbols

    def longer(self, factor: int) -> Task:
        raise ValueError("compression has no longer form: the places of a longer text are tokens that training never showed")

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        text = rng.integers(self.symbols, size=(n, self.content))
        places = distinct(rng, n, self.content, range(self.content))
        end = np.full((n, 1), self.symbols)
        ids = np.concatenate([text, end, places + self.symbols + 1], axis=1)
        labels = np.full_like(ids, IGNORE)
        labels[:, self.content + 1 :] = np.take_along_axis(text, places, axis=1)
        return ids, labels

    def word(self, token: int) -> str:
        return str(token) if token < self.symbols else "end" if token == self.symbols else f"@{token - self.symbols - 1}"


@dataclass(frozen=True, kw_only=True)
class Memorization(Task):
    """Facts that are in no sequence: a key, then the token that asks for its value. Only training can teach them.

    Half of the vocabulary are keys, half values, the last token asks; the facts are drawn once, from `facts_seed`. Held-out
    sequences ask for the same facts in other orders.
    """

    vocab_size: int
    length: int
    facts_seed: int = 0

    def check(self) -> None:
        rule(
            self.vocab_size >= 5 and self.length >= 2 and self.length % 2 == 0,
            f"vocab_size must be 5 or more, length even: got {self.vocab_size} and {self.length}",
        )

    @property
    def keys(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def answers(self) -> range:
        return range(self.keys, 2 * self.keys)

    @property
    def shortcut(self) -> float:
        """The answer that was commonest after the token before is the task itself."""
        return 1.0

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        keys = rng.integers(self.keys, size=(n, self.length // 2))
        ids, labels = np.full((n, self.length), self.vocab_size - 1), np.full((n, self.length), IGNORE)
        ids[:, 0::2], labels[:, 1::2] = keys, facts_of(self.facts_seed, self.keys)[keys]
        return ids, labels

    def word(self, token: int) -> str:
        return "?" if token == self.vocab_size - 1 else f"k{token}" if token < self.keys else f"v{token - self.keys}"


@lru_cache(maxsize=16)
def facts_of(seed: int, keys: int) -> np.ndarray:
    """The value token of each key: a permutation of the values. Not to be written into."""
    return np.random.default_rng(seed).permutation(keys) + keys
