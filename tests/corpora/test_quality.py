"""Every rule drops what it is for, and the profiles keep what they are for."""

from dataclasses import fields

import pytest

from zamba_lab.corpora import CODE, PLAIN, WEB, Rules, broken_rule
from zamba_lab.corpora.quality import MEASURES, Measured
from zamba_lab.corpora.stdlib import stdlib_sources

PROSE = (
    "The lake lies between two hills, and in the morning nobody is there. A path goes round it; whoever takes it "
    "comes, after an hour, to a house without windows. My grandfather said that a miller had lived there, or perhaps "
    "a painter: he told it differently every time. What remained of the garden is a pear tree, and every second autumn it bears fruit.\n"
)
TRASH = {
    "characters": "Home | About",
    "control": PROSE + "\x00\x01\x02" * 10,
    "digits": PROSE + "2024 1138 90210 " * 20,
    "signs": PROSE + "*** !!! ### $$$ " * 20,
    "links": PROSE + "see https://example.org/a and http://example.org/b\n" * 2,
    "sites": PROSE + "www. www. www. www. www. www.",
    "tags": PROSE + "<b>bold</b> <i>it</i> <p>" * 4,
    "keys": PROSE + '{"a": 1, "b": 2, "c": 3}',
    "placeholders": PROSE + "Lorem ipsum dolor sit amet. LOREM IPSUM dolor. And lorem ipsum once more, for good measure.",
    "mean_word": "incomprehensibilities counterrevolutionaries uncharacteristically " * 4,
    "repeated_lines": PROSE + "Share this page with your friends\n" * 3,
    "repeated_grams": PROSE + "again and again and again and again " * 30,
}


def test_every_measure_is_a_field_and_every_field_is_measured():
    assert [field.name for field in fields(Rules)] == list(MEASURES)


def test_prose_keeps_the_rules_of_pages():
    assert broken_rule(PROSE, WEB) is None


@pytest.mark.parametrize("rule", TRASH)
def test_pages_drop_what_each_rule_is_for(rule):
    name, why = broken_rule(TRASH[rule], WEB)
    assert name == rule and why.startswith(rule) and ("at most" in why or "at least" in why)


def test_programs_lose_tables_and_keep_code():
    assert broken_rule("TABLE = (\n" + "    0x1f, 0x2e, 0x3d, 0x4c, 0x5b,\n" * 50 + ")\n", CODE) is not None
    assert broken_rule("x=1;" * 500 + "\n", CODE)[0] == "mean_line"
    kept = [broken_rule(document.text, CODE) is None for document in stdlib_sources()]
    assert sum(kept) > 0.95 * len(kept), sum(kept) / len(kept)


def test_any_folder_keeps_any_text_and_drops_what_is_none():
    for text in (PROSE, "x\n", "日本語のテキスト", '{"a": 1}'):
        assert broken_rule(text, PLAIN) is None
    assert broken_rule("", PLAIN)[0] == broken_rule("\n \n", PLAIN)[0] == "characters"
    assert broken_rule("\x7fELF\x01\x01\x00\x00", PLAIN)[0] == "control"


def test_letters_of_other_scripts_are_neither_signs_nor_digits():
    m = Measured("日本語のテキスト naïve")
    assert MEASURES["signs"](m) == MEASURES["digits"](m) == 0


def test_bounds_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match=r"mean_word=\(12, 3\)"):
        Rules(mean_word=(12, 3))
