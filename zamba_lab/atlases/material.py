"""What the pages of an atlas measure on: a model, windows of its texts, and how much."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from zamba_lab.model import Zamba
from zamba_lab.specimens import held_out
from zamba_lab.specimens.held_out import windows
from zamba_lab.version import __version__


@dataclass(frozen=True)
class Size:
    """How much is measured: FULL by default, QUICK to try it."""

    documents: int = 8  # whose loss is measured, and as many others for means
    length: int = 128  # tokens of each
    controls: int = 1  # random changes of each kind for each part
    string: int = 32  # random tokens in a string, which is read twice
    strings: int = 8
    distances: tuple[int, ...] = (4, 16, 64)  # of needles, in tokens
    needles: int = 24  # of each distance
    shown: int = 40  # tokens of the text whose maps are drawn
    most_heads: int = 64  # with more attention heads than that, none is replaced alone


FULL = Size()
QUICK = Size(2, 32, 1, 8, 2, (4,), 3, 12, 4)


@dataclass(frozen=True, eq=False)
class Material:
    """A model and the ids it is measured on; ids and others: (documents, length), of two kinds of text."""

    model: Zamba
    name: str
    ids: Tensor
    others: Tensor
    size: Size
    seed: int

    @property
    def tokens(self) -> list[str]:
        """Labels of the first document's first tokens, which are drawn."""
        return self.model.tokenizer.pieces(self.ids[0, : self.size.shown].tolist())

    @property
    def drawn(self) -> Tensor:
        """(1, shown) ids of the same."""
        return self.ids[:1, : self.size.shown]

    def key(self) -> str:
        """A hash of all that a page depends on: weights, texts, sizes, version."""
        found = hashlib.sha256(repr((self.model.config, asdict(self.size), self.seed, self.name, __version__)).encode())
        for tensor in (*self.model.state_dict().values(), self.ids, self.others):
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()


def material(model: Zamba, texts: Mapping[str, Sequence[str]] | Sequence[str] | None, size: Size, name: str, seed: int) -> Material:
    """texts: as `atlas` takes them. Raises ValueError if there is no tokenizer with a start token, or too little text."""
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.bos_id is None:
        raise ValueError(f"an atlas needs a model with a tokenizer that has a start token: got {tokenizer}")
    length = min(size.length, model.config.max_context)
    if texts is not None and not isinstance(texts, Mapping):
        ids = pieces(texts, tokenizer, length)
        if len(ids) < 2 * size.documents:
            raise ValueError(
                f"an atlas needs texts of {2 * size.documents * length} tokens: got {len(ids)} stretches of {length}; add texts"
            )
        measured, others = ids[: 2 * size.documents : 2], ids[1 : 2 * size.documents : 2]
    else:
        kinds = list((held_out() if texts is None else texts).values())
        if len(kinds) < 2:
            raise ValueError("an atlas needs texts of two kinds, to measure on and to take means from: got one")
        measured, others = (windows(kind, tokenizer, length, size.documents) for kind in kinds[:2])
    device = model.embedding.weight.device
    return Material(model, name, measured.to(device), others.to(device), size, seed)


def pieces(texts: Sequence[str], tokenizer, length: int) -> Tensor:
    """Stretches of `length` tokens, each after a start token, of all texts together: (n, length)."""
    ids = [token for text in texts for token in tokenizer.encode(text, add_bos=False)]
    inside = length - 1
    rows = [[tokenizer.bos_id, *ids[i : i + inside]] for i in range(0, len(ids) - inside + 1, inside)]
    return torch.tensor(rows).reshape(-1, length)
