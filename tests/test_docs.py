"""What README and docs/ show is there, runs, and is true."""

import contextlib
import re
import shlex
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

import zamba_lab as zl
from zamba_lab import cli, resources

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
QUICKER = {"steps=2000, batch=16, length=512": "steps=50, batch=2, length=32", "steps=200": "steps=20"}


def named(page: Path) -> str:
    return page.name


def blocks(language: str) -> dict[Path, list[str]]:
    """The code blocks of one language, by page."""
    found = {page: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for page, text in TEXT.items()}
    return {page: codes for page, codes in found.items() if codes}


@pytest.fixture
def folder_with_texts(tmp_path, monkeypatch):
    """An empty working folder but for two folders of texts, as the pages assume."""
    for folder, ending, some in ("texts", "md", slice(None)), ("books", "txt", slice(None, None, 2)):
        (tmp_path / folder).mkdir()
        for name in sorted(topics)[some]:
            (tmp_path / folder / f"topic-{name}.{ending}").write_text(topics[name], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", blocks("python"), ids=named)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, folder_with_texts, capsys):
    names = {}
    for code in blocks("python")[page]:
        for long, short in QUICKER.items():
            code = code.replace(long, short)
        exec(compile(code, page.name, "exec"), names)
    assert capsys.readouterr().out.strip()
    if page.name == "training.md":
        assert all(long in TEXT[page] for long in QUICKER)
        assert zl.load("runs/annealed/model").tokenizer.vocab_size == names["corpus"].vocab_size


# --- commands -------------------------------------------------------------------------------------------------------

COMMANDS = [(page, line) for page, codes in blocks("sh").items() for code in codes for line in code.splitlines() if line]
SLOW = (
    "zamba-lab course grade",
    "zamba-lab train",
    "zamba-lab bench",
    "zamba-lab ablate run",
    "torchrun",
    "zamba-lab corpus",
    "zamba-lab ablate plan full",
)
WITH_STUDY = ("zamba-lab ablate report study.yaml",)


def is_slow(line: str) -> bool:
    return line.startswith((*SLOW, *WITH_STUDY))


@pytest.mark.parametrize("page, line", COMMANDS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_command_of_a_page_is_one(page, line):
    words = shlex.split(line)
    if words[0] == "torchrun":
        words = words[words.index("zamba_lab") :]
    assert words[0] in ("zamba-lab", "zamba_lab")
    assert callable(cli.parser().parse_args(words[1:]).run)


@pytest.mark.parametrize("line", sorted({line for _, line in COMMANDS if not is_slow(line)}))
def test_a_quick_command_of_a_page_does_what_it_says(line, folder_with_texts, capsys):
    with contextlib.suppress(OSError):
        (folder_with_texts / "data").symlink_to(resources.folder("data"), target_is_directory=True)
    (folder_with_texts / "README.md").write_text(TEXT[ROOT / "README.md"], encoding="utf-8")
    for study in blocks("yaml").get(ROOT / "docs" / "ablations.md", []):
        (folder_with_texts / "study.yaml").write_text(study, encoding="utf-8")
    assert cli.main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out
    assert printed.strip()
    if "plan study.yaml" in line:
        assert "6 arms, matched by params" in printed


def test_every_command_there_is_has_a_line_in_the_pages():
    (subcommands,) = (action.choices for action in cli.parser()._actions if hasattr(action, "choices") and action.choices)
    shown = {shlex.split(line)[1] for _, line in COMMANDS if line.startswith("zamba-lab")}
    assert set(subcommands) - shown - {"lab"} == set() and "zamba-lab lab" in TEXT[ROOT / "README.md"]


# --- what is claimed ------------------------------------------------------------------------------------------------


def test_the_reading_path_is_as_small_as_the_readme_says():
    parts = [ROOT / "zamba_lab" / f"{name}.py" for name in ("model", "trace", "cache")]
    parts += [file for name in ("blocks", "ops", "config") for file in (ROOT / "zamba_lab" / name).glob("*.py")]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in parts)
    (bound,) = re.findall(r"below ([\d,]+) lines", TEXT[ROOT / "README.md"])
    assert lines < int(bound.replace(",", "")), lines


def links(page: Path) -> list[str]:
    """What a page points to: link targets relative to it, and quoted paths of the project."""
    targets = {target for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", TEXT[page]) if ":" not in target}
    paths = re.findall(r"`((?:zamba_lab|data|benchmarks|tests|docs)/[^` {*]*)`", TEXT[page])
    return sorted({str((page.parent / target).resolve()) for target in targets} | {str(ROOT / path) for path in paths})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_page_points_to_exists(page):
    missing = [link for link in links(page) if not Path(link).exists()]
    assert not missing, missing


def test_every_page_says_who_needs_it_and_is_reached_from_the_readme():
    for page in (ROOT / "docs").glob("*.md"):
        assert re.match(r"# .+\n\nFor (who|any|the )", TEXT[page]), page.name
        assert f"docs/{page.name}" in TEXT[ROOT / "README.md"], page.name


def test_the_readme_lists_every_notebook():
    listed = re.findall(r"^\| `(\d\d_\w+)` \|", TEXT[ROOT / "README.md"], re.MULTILINE)
    assert listed == sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


# --- the table of trace points --------------------------------------------------------------------------------------

TABLE = re.findall(r"^\| `([\w.{}]+)` \| ([\w ]+?) \|", TEXT[ROOT / "docs" / "lens.md"], re.MULTILINE)
ODD = dict(vocab_size=61, d_model=24, n_layers=3, expand=3, hybrid_layers=(1,), d_mlp=20, lora_rank=3, lora_rank_qkv=2, attn_heads=3)
MIXERS = {
    "mamba2": zl.ZambaConfig(mixer="mamba2", headdim=8, d_state=5, n_groups=1, n_shared_blocks=1, **ODD),
    "mamba1": zl.ZambaConfig(mixer="mamba1", headdim=36, d_state=5, n_shared_blocks=1, **ODD),
}
SPLIT = {"mamba2": lambda c: 2 * c.d_inner + 2 * c.n_groups * c.d_state + c.ssm_heads, "mamba1": lambda c: 2 * c.d_inner}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("point, shape", TABLE, ids=lambda value: value)
def test_a_trace_point_has_the_shape_in_the_table(mixer, point, shape):
    config, name = MIXERS[mixer], point.replace("{i}", "1")
    torch.manual_seed(0)
    trace = zl.Trace(keep=["*"])
    zl.Zamba(config)(torch.randint(0, 61, (2, 7)), trace=trace)
    in_attention = ".shared." in name
    sizes = {"b": 2, "l": 7, "s": 7, "d": config.d_model, "2d": 2 * config.d_model, "2m": 2 * config.d_mlp, "v": 61, "e": config.d_inner}
    sizes |= {"g": config.n_groups if mixer == "mamba2" else config.ssm_heads, "n": config.d_state, "w": SPLIT[mixer](config)}
    sizes |= {"h": config.attn_heads, "p": config.head_dim} if in_attention else {"h": config.ssm_heads, "p": config.headdim}
    wanted = [sizes[letter] for letter in shape.split()]
    if mixer == "mamba1" and point.endswith("mamba.dt"):
        wanted.append(config.headdim)
    if mixer == "mamba1" and point.endswith(("mamba.z", "mamba.y")) and trace[name].ndim != len(wanted):
        pytest.fail(f"{name} has shape {tuple(trace[name].shape)}")
    assert list(trace[name].shape) == wanted


def test_the_table_of_trace_points_is_complete():
    listed = {point.replace("{i}", "1") for point, _ in TABLE}
    for config in MIXERS.values():
        trace = zl.Trace(keep=["*"])
        zl.Zamba(config)(torch.tensor([[1, 2, 3]]), trace=trace)
        ours = {name for name in trace if name.startswith("layers.1.") or "." not in name}
        assert ours - listed <= {f"layers.1.shared.lora.{part}" for part in "qkv"}
