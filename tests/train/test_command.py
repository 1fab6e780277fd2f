"""Laws of `zamba-lab train`: flags and file say the same, a run can be resumed and branched from, and errors are sentences."""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from train.tiny import TINY

import zamba_lab as zl
from zamba_lab import corpora
from zamba_lab.cli import main
from zamba_lab.train import read_metrics
from zamba_lab.train.files import at_step

MODEL = replace(TINY, vocab_size=280)
FLAGS = ["--steps", "6", "--batch", "2", "--length", "16", "--schedule", "wsd(warmup=1, decay=0.5)", "--checkpoint-every", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two corpora of one tokenizer, one of a larger one, and one of another of the same size."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed, letters in (("web", 0, "abcdefgh"), ("books", 1, "abcdefgh"), ("alien", 2, "abcdefgh"), ("foreign", 3, "stuvwxyz")):
        rng = random.Random(seed)
        (folder / name).mkdir()
        for k in range(40):
            words = ("".join(rng.choices(letters, k=5)) for _ in range(30))
            (folder / name / f"{k}.txt").write_text(" ".join(words))
    web = corpora.build(str(folder / "web"), folder / "tokens" / "web", tokenizer=280)
    corpora.build(str(folder / "books"), folder / "tokens" / "books", tokenizer=web.tokenizer)
    corpora.build(str(folder / "alien"), folder / "tokens" / "alien", tokenizer=281)
    corpora.build(str(folder / "foreign"), folder / "tokens" / "foreign", tokenizer=280)
    return folder / "tokens"


@pytest.fixture
def place(made, tmp_path):
    """A folder with the corpora, and a run's file that names the model."""
    for name in ("web", "books", "alien", "foreign"):
        (tmp_path / name).symlink_to(made / name)
    model = {name: value for name, value in asdict(MODEL).items() if not isinstance(value, tuple)} | {"hybrid_layers": [1, 2]}
    (tmp_path / "run.json").write_text(json.dumps({"model": model, "data": str(tmp_path / "web"), "out": str(tmp_path / "run")}))
    return tmp_path


def torchrun(place, *flags: str) -> subprocess.CompletedProcess:
    """`torchrun --nproc-per-node 2 -m zamba_lab train run.json`, as a user types it."""
    root = str(Path(zl.__file__).parents[1])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "zamba_lab",
        "train",
        str(place / "run.json"),
        *FLAGS,
        *flags,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=place,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_torchrun_trains_what_one_process_trains_and_goes_on(place, capsys):
    """Parted weights, whole files: stopped after three steps, gone on with, and loaded by one process."""
    steady = "--schedule", "constant(warmup=1)"
    assert main(["train", str(place / "run.json"), "--out", str(place / "alone"), *FLAGS, *steady]) == 0, capsys.readouterr().err
    parted = torchrun(place, "--parallel", "fsdp", "--steps", "3", *steady)
    assert parted.returncode == 0, parted.stderr[-3000:]
    assert [row["step"] for row in read_metrics(place / "run")] == [1, 2, 3]
    on = torchrun(place, "--parallel", "fsdp", "--resume", *steady)
    assert on.returncode == 0, on.stderr[-3000:]
    assert [row["step"] for row in read_metrics(place / "run")] == [1, 2, 3, 4, 5, 6]
    one, two = (zl.load(place / name / "model") for name in ("alone", "run"))
    assert one.config == two.config and two.tokenizer.vocab_size == 280
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


def test_a_run_is_trained_measured_and_saved(place, capsys):
    assert main(["train", str(place / "run.json"), *FLAGS]) == 0, capsys.readouterr().err
    rows = read_metrics(place / "run")
    assert len(rows) == 6 and rows[-1]["web_bits_per_byte"] > 0
    model = zl.load(place / "run" / "model")
    assert model.config.n_params == MODEL.n_params and model.tokenizer.vocab_size == 280
    assert at_step(place / "run", None)["run"]["train.schedule"] == "wsd(warmup=1, decay=0.5, final=0.0)"


def test_a_file_says_what_flags_say_and_a_flag_has_the_last_word(place):
    raw = json.loads((place / "run.json").read_text())
    train = "{steps: 9, batch: 2, length: 16, lr: 1e-3, schedule: 'wsd(warmup=1, decay=0.5)', checkpoint_every: 3}"
    (place / "run.yaml").write_text(f"model: {json.dumps(raw['model'])}\ndata: {raw['data']}\nout: {place / 'yaml'}\ntrain: {train}\n")
    assert main(["train", str(place / "run.yaml"), "--steps", "6"]) == 0
    assert main(["train", str(place / "run.json"), *FLAGS, "--lr", "0.001"]) == 0
    by_file, by_flags = (at_step(place / name, None) for name in ("yaml", "run"))
    assert by_file["run"] == by_flags["run"] and by_file["run"]["train.lr"] == 1e-3


def test_a_run_is_resumed_only_when_asked_to_and_a_first_start_may_ask(place, capsys):
    command = ["train", str(place / "run.json"), *FLAGS]
    assert main([*command, "--resume"]) == 0 and "random weights of seed 0" in capsys.readouterr().out.splitlines()[0]
    assert main(command) == 2 and "holds a run of 6 steps: continue it by --resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0 and len(read_metrics(place / "run")) == 6
    assert main([*command, "--resume", "--lr", "1"]) == 2 and "train.lr was 0.003, is 1.0" in capsys.readouterr().err


def test_annealing_is_the_published_mixture_and_decay_unless_said_otherwise(place, capsys):
    assert main(["train", str(place / "run.json"), *FLAGS, "--lr", "0.002", "--weight-decay", "0.2"]) == 0
    command = [
        "train",
        str(place / "run.json"),
        "--data",
        str(place / "web"),
        "--data",
        str(place / "books"),
        "--out",
        str(place / "anneal"),
        "--anneal-from",
        str(place / "run"),
        "--steps",
        "10",
    ]
    capsys.readouterr()
    assert main(command) == 0
    assert "after 6 steps had let its rate down to 0.33 of the peak already" in capsys.readouterr().err
    facts, trunk = (at_step(place / name, None)["run"] for name in ("anneal", "run"))
    assert (facts["train.lr"], facts["train.weight_decay"], facts["train.seed"]) == (trunk["train.lr"], 0.2, trunk["train.seed"] + 1)
    assert facts["train.schedule"] == "exponential(warmup=1, factor=0.01)" and facts["branch.from"] == "run"
    assert (facts["data.web.share"], facts["data.books.share"]) == (0.6, 0.4)
    assert read_metrics(place / "anneal")[-1]["lr"] < 0.02 * facts["train.lr"]


@pytest.mark.parametrize(
    "change, sentence",
    [
        (["--data", "nowhere"], "a corpus is a folder with a manifest.json: got 'nowhere', which has none"),
        (["--data", "web", "--data", "books", "--data", "alien"], "a tokenizer must not have more tokens than the model: got 281"),
        (["--length", "1"], "length must be 2 or more: got 1"),
        (["--steps", "many"], "steps must be of type int: got 'many'"),
        (["--shares", "0.5", "0.5"], "a share of its own"),
        (["--steps", "600"], "longer than its data"),
    ],
)
def test_what_does_not_fit_is_a_sentence_and_status_2(place, capsys, monkeypatch, change, sentence):
    monkeypatch.chdir(place)
    assert main(["train", str(place / "run.json"), *FLAGS, *change]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("{", "a run's file must be YAML or JSON"),
        ("[1]", "lacks 'model'"),
        ("model: x\nspeed: 3", r"it has ['speed']"),
        ("model: {depth: 3}\ndata: x\nout: y", "no such field of a model: depth"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, capsys, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    assert main(["train", "a.yaml", "--steps", "6", "--schedule", "constant"]) == 2
    assert sentence in capsys.readouterr().err


def test_without_data_it_says_what_is_missing(capsys):
    assert main(["train", "mamba2-130m"]) == 2
    assert "--data FOLDER --out RUN, or one of the recipes zamba2-nano, zamba1-nano, mamba2-nano" in capsys.readouterr().err


def test_a_recipe_is_its_name_alone(monkeypatch, capsys):
    from zamba_lab.recipes import annealing_study, shipped

    said = []
    monkeypatch.setattr(shipped, "make", lambda name, out, run: said.append((name, str(out), str(run))))
    monkeypatch.setattr(annealing_study, "study", lambda out, runs: said.append(("study", str(out), str(runs))))
    for arguments in (["mamba2-nano"], ["zamba2-nano", "--out", "a", "--model-out", "b"], ["annealing-study"], ["shipped"]):
        assert main(["train", *arguments]) == 0, capsys.readouterr().err
    assert said[:3] == [
        ("mamba2-nano", "data/mamba2-nano", "runs/mamba2-nano"),
        ("zamba2-nano", "b", "a"),
        ("study", "data/studies/annealing", "runs/annealing-study"),
    ]
    assert [one[0] for one in said[3:]] == ["zamba2-nano", "zamba1-nano", "mamba2-nano", "transformer-nano"]


@pytest.mark.parametrize("more", [["--steps", "10"], ["--lr", "1e-3"], ["--writers", "wandb"], ["--parallel", "ddp"]])
def test_a_recipe_takes_no_arguments_that_it_would_not_follow(more, capsys):
    assert main(["train", "zamba2-nano", *more]) == 2
    assert f"which takes out, model_out, threads: got {more[0].removeprefix('--')};" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("writers: tensorbord", "writers must be of tensorboard, trackio, wandb: got tensorbord"),
        ("parallel: dpp", "parallel must be one of ddp, fsdp: got 'dpp'"),
        ("shares: 1", "shares must be a list of numbers: got 1"),
        ("train: [1]", "train must name training arguments"),
        ("threads: many", "threads must be of type int: got 'many'"),
        ("prompts: 3", "prompts must be a text or a list of texts: got 3"),
        ("from_weights: 1", "from_weights must be of type bool: got 1"),
        ("anneal_step: x", "anneal_step must be of type int: got 'x'"),
    ],
)
def test_a_file_says_only_what_a_flag_could(tmp_path, capsys, monkeypatch, line, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(f"model: zamba2-nano\ndata: web\nout: run\n{line}\n")
    assert main(["train", "a.yaml"]) == 2
    assert sentence in capsys.readouterr().err


def test_corpora_of_two_tokenizers_do_not_mix(place, capsys):
    raw = json.loads((place / "run.json").read_text())
    raw["model"]["vocab_size"] = 281
    (place / "run.json").write_text(json.dumps(raw))
    assert main(["train", str(place / "run.json"), *FLAGS, "--data", str(place / "web"), "--data", str(place / "alien")]) == 2
    assert "made by one tokenizer" in capsys.readouterr().err


def test_another_tokenizer_of_the_same_size_is_refused_wherever_it_meets_weights(place, capsys):
    """Mixed with other corpora, in a branch, in a run from weights; --resume compares the tokens themselves."""
    run, foreign = ["train", str(place / "run.json"), *FLAGS], ["--data", str(place / "foreign"), "--out", str(place / "other")]
    assert main(run) == 0, capsys.readouterr().err
    assert main([*run, "--data", str(place / "web"), *foreign]) == 2
    assert "made by one tokenizer" in capsys.readouterr().err
    assert main([*run, *foreign, "--anneal-from", str(place / "run")]) == 2
    assert "a branch has its trunk's model" in (said := capsys.readouterr().err) and "model.tokenizer was" in said
    assert main(["train", str(place / "run" / "model"), "--from-weights", *FLAGS, *foreign]) == 2
    assert "tokenizer" in (said := capsys.readouterr().err) and "mean other text" in said
    assert main([*run, *foreign]) == 0, "random weights may learn any pieces"


def test_where_the_weights_are_from_is_the_first_line(place, capsys):
    first = lambda: capsys.readouterr().out.splitlines()[0]
    assert main(["train", str(place / "run.json"), *FLAGS]) == 0
    assert first() == "model: 16,012 parameters from random weights of seed 0 (--from-weights begins with stored ones)"
    model, more = str(place / "run" / "model"), ["--data", str(place / "web"), *FLAGS]
    assert main(["train", model, *more, "--out", str(place / "b")]) == 0
    assert first() == f"{model}: 16,012 parameters from random weights of seed 0 (--from-weights begins with stored ones)"
    assert main(["train", model, "--from-weights", *more, "--out", str(place / "c")]) == 0
    assert first() == f"{model}: 16,012 parameters from the weights of {model}"
    assert main(["train", model, "--from-weights", *more, "--out", str(place / "c"), "--resume"]) == 0
    assert first() == f"{model}: 16,012 parameters from the checkpoint of step 6 in {place / 'c'}"
    assert main(["train", model, *more, "--out", str(place / "d"), "--anneal-from", str(place / "run")]) == 0
    assert first() == f"{model}: 16,012 parameters from the newest checkpoint of {place / 'run'}"


def test_a_run_from_weights_begins_with_them(place, capsys):
    assert main(["train", str(place / "run.json"), *FLAGS]) == 0
    more = ["--data", str(place / "web"), "--keep", "9", *FLAGS]
    assert main(["train", str(place / "run" / "model"), "--from-weights", *more, "--out", str(place / "c")]) == 0
    trained, begun = zl.load(place / "run" / "model").state_dict(), at_step(place / "c", 0)["model"]
    assert begun.keys() == trained.keys() and all(torch.equal(begun[name], value) for name, value in trained.items())
    assert main(["train", str(place / "run.json"), "--from-weights", *FLAGS, "--out", str(place / "e")]) == 2
    assert "from_weights needs a model with weights, a folder or a name" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
def test_a_full_disk_is_a_sentence_and_the_run_is_resumed_to_the_same_bits(place, capsys, monkeypatch):
    """The third step's checkpoint has no room; files up to 100,000 bytes have."""
    import resource

    from zamba_lab.train import files

    run, write = ["train", str(place / "run.json"), *FLAGS], files.write
    assert main([*run, "--out", str(place / "whole")]) == 0

    def full_after_the_first(folder, step, content, keep):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if step else before[0], before[1]))
        try:
            return write(folder, step, content, keep)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(files, "write", full_after_the_first)
    assert main(run) == 1
    assert "the checkpoint of step 3 could not be written" in (said := capsys.readouterr().err) and "make room" in said
    assert [file.name for file in (place / "run").glob("*.part")] == [] and at_step(place / "run", None)["step"] == 0
    monkeypatch.setattr(files, "write", write)
    assert main([*run, "--resume"]) == 0
    one, two = (at_step(place / name, None)["model"] for name in ("whole", "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)
