"""Each benchmark at its quick size: it runs, its contenders compute the same, and its report holds together.

No test looks at a time.
"""

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from variants import BASE, make_model

from zamba_lab.cli import main
from zamba_lab.config import ZambaConfig

FOLDER = Path(__file__).parents[1] / "benchmarks"
ALL = (
    "ablation",
    "checkpointing",
    "claims",
    "corpus",
    "decode",
    "evaluation",
    "first_token",
    "growth",
    "import_time",
    "init_recall",
    "input_pipeline",
    "kernel_choice",
    "lens",
    "lens_causal",
    "load",
    "prefill",
    "prefill_profile",
    "quantisation",
    "scan_op",
    "shared_path",
    "ssd_op",
    "tracing",
    "train_step",
    "workspace",
)
sys.path.insert(0, str(FOLDER))

import floors  # noqa: E402  the benchmarks' own, found on the path just set
import harness  # noqa: E402
import pairs  # noqa: E402

NO_PSCAN = "MAMBAPY IS NOT INSTALLED: its rows did not run. pip install 'zamba-lab[bench]'"


def test_every_benchmark_is_in_the_list():
    assert sorted(file.stem for file in FOLDER.glob("*.py") if "\ndef run(" in file.read_text()) == list(ALL)


@pytest.mark.parametrize("name", ALL)
def test_each_benchmark_runs_at_its_quick_size(name, capsys):
    assert main(["bench", name, "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)[name]
    assert rows and all(isinstance(value, str) for row in rows for key, value in row.items() if key != "seconds")


@pytest.mark.skipif(find_spec("mambapy") is None, reason=NO_PSCAN)
@pytest.mark.parametrize("name, peer", [("scan_op", "mamba.py's pscan"), ("train_step", "transformers, mamba.py's pscan")])
def test_an_optional_peer_is_measured_where_it_is_installed(name, peer, capsys):
    assert main(["bench", name, "--quick", "--json"]) == 0
    assert peer in {row.get("peer") for row in json.loads(capsys.readouterr().out)[name]}


def test_a_report_keeps_what_other_benchmarks_left_there(tmp_path, capsys):
    file = tmp_path / "REPORT.md"
    for name in ("tracing", "scan_op"):
        assert main(["bench", name, "--quick", "--report", str(file)]) == 0
    text, data = file.read_text(), json.loads(file.with_suffix(".json").read_text())
    assert text.index("## scan_op") < text.index("## tracing") and text.count("TINY SIZES") == 1
    assert set(data) == {"machine", "floors", "scan_op", "tracing"}
    assert [row["before"] for row in data["floors"]] == ["scan_op", "tracing"]
    file.with_suffix(".json").write_text(json.dumps(data | {"machine": [data["machine"][0] | {"processor": "another"}]}))
    assert main(["bench", "tracing", "--quick", "--report", str(file)]) == 0
    assert "## scan_op" not in file.read_text()


def test_tiny_sizes_and_full_ones_are_never_in_one_report(tmp_path, capsys, monkeypatch):
    file, data = tmp_path / "REPORT.md", tmp_path / "REPORT.json"
    assert main(["bench", "tracing", "--quick", "--report", str(file)]) == 0
    tiny = json.loads(data.read_text())
    full = {"machine": [harness.machine()], "floors": [{"before": "scan_op"}], "scan_op": [{"work": "some"}]}
    assert harness.joined(full, data) == full and "tiny sizes" in capsys.readouterr().err
    data.write_text(json.dumps(full))
    assert harness.joined(full | {"ssd_op": []}, data).keys() == full.keys() | {"ssd_op"}
    monkeypatch.setattr(floors, "measured", None)  # whatever is measured now fails otherwise
    assert main(["bench", "tracing", "--quick", "--report", str(file)]) == 2
    assert "full sizes" in capsys.readouterr().err and json.loads(data.read_text()) == full and tiny["machine"] != full["machine"]


@pytest.mark.parametrize("name", ["missing/folder/REPORT.md", "REPORT.json", "REPORT"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(floors, "measured", None)
    assert main(["bench", "tracing", "--quick", "--report", str(tmp_path / name)]) == 2
    assert "a .md file in a folder that is there" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_row_names_the_sizes_it_was_measured_at(capsys):
    assert main(["bench", "kernel_choice", "--quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["kernel_choice"]
    assert {row["work"] for row in rows} == {"SSD forward B=1 L=32 H=2 P=16 N=8"}


def test_a_ratio_is_the_median_of_the_pairs_with_its_spread():
    row = harness.ratio_row("work", {"ours": [1.0, 2.0, 1.0], "peer": [2.0, 8.0, 5.0]}, "ours", "peer", ">= 3x")
    assert (row["ratio"], row["spread"], row["target"]) == ("4.0x", "2.00x .. 5.0x (n=3)", ">= 3x")
    assert row["ours took"] == "1000 ms (1000 .. 2000)" and row["seconds"]["peer"] == [2.0, 8.0, 5.0]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_peak_growth_sees_what_is_allocated_and_freed():
    def run():
        return torch.ones(25_000_000).sum()  # 100 MB, gone when the peak is read

    assert 95e6 < harness.peak_growth(run, warm=lambda: torch.ones(10).sum()) < 130e6


def test_results_that_differ_are_not_compared():
    good = torch.ones(10)
    assert pairs.must_agree("work", good, good + 1e-6, 1e-4) == pytest.approx(1e-6, rel=0.1)
    for bad in (good + 1e-3, good * math.nan):
        with pytest.raises(RuntimeError, match="what does not compute the same is not compared"):
            pairs.must_agree("work", bad, good, 1e-4)


@pytest.mark.parametrize("name", ["zamba2-1.2b", "zamba2-2.7b", "zamba-7b-v1", "mamba2-130m"])
def test_the_products_of_the_floor_are_all_matrix_work_of_a_token(name):
    c = ZambaConfig.preset(name)
    ssm = 3 * c.d_inner * c.d_state + c.conv_dim * c.d_conv
    head = c.d_model * c.vocab_size
    per_token = sum(k * n for k, n in floors.products(c)) + head + c.n_layers * ssm
    attention = c.n_invocations * 2 * c.attn_heads * c.head_dim
    assert 2 * (per_token + attention) == c.flops_per_token(context=1)


def test_the_bytes_of_a_token_are_the_weights_at_each_use_and_the_cache():
    model = make_model(BASE)
    kept, first = (model.extend(torch.ones(1, l, dtype=torch.long))[1].nbytes for l in (9, 1))
    states = first - floors.kv_bytes_per_position(BASE, torch.float64)
    weights = 8 * BASE.n_params  # the head is tied: read once, as the head
    block = 8 * sum(p.numel() for p in model.shared_blocks[0].parameters())
    again = (BASE.n_invocations - BASE.n_shared_blocks) * block
    assert floors.bytes_per_token(BASE, 9, torch.float64) == weights + again + kept + states
