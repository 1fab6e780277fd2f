"""Laws of the files that describe runs and studies: every line is known, and no small file costs much."""

import time

import pytest

from zamba_lab.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, line_of, read_yaml

LEVELS = "".join(f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 10)}]\n" for k in range(1, 12))
MERGES = "".join(f"m{k}: &m{k} {{<<: [{', '.join([f'*m{k - 1}'] * 10)}], k{k}: 1}}\n" for k in range(1, 12))


def read(tmp_path, text: str):
    (tmp_path / "a.yaml").write_text(text)
    return read_yaml(tmp_path / "a.yaml", "a run's file")


def test_values_and_lines_are_read(tmp_path):
    found, lines = read(tmp_path, "lr: 1e-3\naxes:\n  rope: [on, off]\n  width:\n    - 8\nagain: &a {x: 1}\nmore: {<<: *a, y: 2}\n")
    assert found == {"lr": 1e-3, "axes": {"rope": [True, False], "width": [8]}, "again": {"x": 1}, "more": {"x": 1, "y": 2}}
    assert lines[("axes", "rope", 1)] == 3 and lines[("axes", "width", 0)] == 5 and line_of(("axes", "none", 4), lines) == 2


PLAIN = {
    "1e-3": 1e-3,
    "1.5E+2": 150.0,
    ".5": 0.5,
    "010": 10,
    "08": 8,
    "-0x1F": -31,
    "0o17": 15,
    "1_000": 1000,
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "2024-99-99": "2024-99-99",
    "1.2.3": "1.2.3",
    "off": False,
    "Yes": True,
    "'off'": "off",
    "y": "y",
    "~": None,
    "=": "=",
}


@pytest.mark.parametrize("written", PLAIN)
def test_a_plain_value_is_what_json_and_yaml_1_2_make_of_it_and_on_and_off_are_truth_values(written, tmp_path):
    found = read(tmp_path, f"a: {written}\n")[0]["a"]
    assert found == PLAIN[written] and type(found) is type(PLAIN[written])


def test_json_may_be_indented_by_tabs(tmp_path):
    (tmp_path / "a.json").write_text('{\n\t"a": [1, {"b": "c d"}]\n}')
    assert read_yaml(tmp_path / "a.json", "a run's file")[0] == {"a": [1, {"b": "c d"}]}


def test_an_empty_file_holds_nothing(tmp_path):
    assert read(tmp_path, "") == (None, {(): 1})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("l0: &l0 [x]\n" + LEVELS, f"{MAX_VALUES:,} values, aliases expanded"),
        ("m0: &m0 {k: 1}\n" + MERGES, f"{MAX_VALUES:,} values, aliases expanded"),
        ("a: &a [*a]\n", f"at most {MAX_DEPTH} levels"),
        ("[" * 200 + "]" * 200, f"at most {MAX_DEPTH} levels"),
        ("[" * 100_000, f"at most {MAX_DEPTH} levels"),
        ("x: " + "y" * MAX_BYTES, f"at most {MAX_BYTES:,} bytes"),
        ("a: 1\nb: 2\na: 3\n", ":3: a run's file repeats 'a', first in line 1"),
        ("? [a]\n: b\n", "keys that are texts or numbers"),
        ("a: 1\nb: [", ":2: a run's file must be YAML or JSON|:3: a run's file must be YAML or JSON"),
        ("a: *unknown\n", ":1: a run's file must be YAML or JSON"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1: a run's file must be YAML or JSON"),
        ("\x00", "must be YAML or JSON"),
    ],
    ids=["aliases", "merges", "cycle", "deep", "deeper", "large", "twice", "key", "open", "no anchor", "python", "binary"],
)
def test_a_file_out_of_bounds_is_refused_in_a_moment(tmp_path, text, rule):
    began = time.process_time()
    with pytest.raises(ValueError, match=rule):
        read(tmp_path, text)
    assert time.process_time() - began < 5


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="a run's file must be YAML or JSON that can be read: .*nowhere.yaml"):
        read_yaml(tmp_path / "nowhere.yaml", "a run's file")
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ValueError, match="that can be read"):
        read_yaml(tmp_path / "a.yaml", "a run's file")
