"""Identifiers are found where they are, and the cost of a name is the sum over its tokens."""

import keyword

import pytest
import torch

import zamba_lab as zl
from zamba_lab.specimens.names import identifiers, names, token_ends

SOURCE = '''import collections
# total in a comment
def merge(total, other_total):
    """total in a docstring"""
    for key in other_total:
        total[key] = total.get(key, 0) + len(other_total)
    return total
'''


def test_identifiers_are_the_names_of_the_program_and_no_others():
    found = list(identifiers(SOURCE))
    assert all(SOURCE[start:end] == name for start, end, name in found)
    assert " ".join(name for _, _, name in found) == (
        "collections merge total other_total key other_total total key total get key other_total total"
    )
    assert not {name for _, _, name in found} & {*keyword.kwlist, "len", "self"}


@pytest.mark.parametrize("end", ["\f\n", "  # a\u2028b\n", "  # a\x1cb\n", "\n"])
def test_identifiers_are_found_behind_any_line(end):
    text = f"one = 1{end}two = one\n"
    assert [text[start:stop] for start, stop, _ in identifiers(text)] == ["one", "two", "one"]


@pytest.mark.parametrize("broken", ["x = (1,\ny = ", "def f(\n", "name = 'never ends\nother = 1", "a\n  b\n c\n"])
def test_a_text_that_is_cut_anywhere_gives_what_stands_before_the_cut(broken):
    found = list(identifiers("first = 1\n" + broken))
    assert found[0] == (0, 5, "first")


@pytest.mark.parametrize("text", [SOURCE, "naïve = 'π ≈ 3'\nnaïve += 1\nother = naïve\n", "x = '🙂🙂'\nyy = x\n"])
def test_each_token_ends_where_its_text_does(text):
    tokenizer = zl.load("zamba2-nano").tokenizer
    ids = tokenizer.encode(text, add_bos=False)
    ends = token_ends(ids, tokenizer)
    assert ends[-1] == len(text) and ends == sorted(ends)
    if text.isascii():
        pieces = [tokenizer.decode([i]) for i in ids]
        assert [text[a:b] for a, b in zip([0, *ends], ends)] == pieces


def test_masks_name_the_tokens_of_each_identifier_first_and_again():
    tokenizer = zl.load("zamba2-nano").tokenizer
    ids = tokenizer.encode(SOURCE)
    found = names(torch.tensor([ids]), tokenizer)
    assert int(found.n_first) == 6 and int(found.n_repeated) == 7 and not (found.first & found.repeated).any()
    text = lambda mask: "".join(tokenizer.decode([i]) for i, there in zip(ids[1:], mask[0]) if there)
    assert text(found.first).replace(" ", "") == "collectionsmergetotalother_totalkeyget"
    assert text(found.repeated).replace(" ", "") == "other_totaltotalkeytotalkeyother_totaltotal"
    losses = torch.rand(1, len(ids) - 1, generator=torch.Generator().manual_seed(0))
    cost = found.cost(losses)
    assert float(cost["first"]) == pytest.approx(float(losses[found.first].sum()) / 6)
    assert float(cost["repeated"]) == pytest.approx(float(losses[found.repeated].sum()) / 7)
    none = names(torch.tensor([tokenizer.encode("1 + 1\n" * 3)]), tokenizer)
    assert none.cost(torch.ones(1, none.first.shape[1]))["repeated"].isnan().all()
