import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from variants import BASE, make_model

import zamba_lab as zl
from zamba_lab import corpora
from zamba_lab.cli import main
from zamba_lab.evaluate import document_bits, xz_bits


def test_info_of_a_preset_builds_nothing_and_says_what_it_costs(capsys):
    assert main(["info", "zamba2-2.7b", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == sum(facts["parameters by part"].values()) == 2_662_214_560
    assert facts["config"]["d_model"] == 2560
    assert main(["info", "zamba2-2.7b"]) == 0
    assert "2,662,214,560" in capsys.readouterr().out


def test_info_reads_the_config_of_a_folder(capsys, tmp_path):
    zl.save(make_model(BASE).float(), tmp_path)
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == BASE.n_params


def test_doctor_says_what_a_checkpoint_is_and_its_status_whether_it_is_sound(capsys, tmp_path):
    zl.save(make_model(BASE).float(), tmp_path)
    assert main(["doctor", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{zl.doctor(tmp_path)}\n"
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"vocab_size": raw["vocab_size"] + 1}))
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False and [one["fault"] for one in report["faults"]] == ["wrong shape"]
    assert main(["doctor", str(tmp_path)]) == 1
    assert "FAULT wrong shape" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["info", "nothing-here"], "nothing-here"),
        (["doctor", "nothing-here"], "nothing-here"),
        (["generate", "nothing-here", "x"], "nothing-here"),
        (["corpus", "out", "nothing-here"], "a source is 'stdlib', 'installed', 'docstrings', one of fineweb-edu"),
        (["eval", "zamba2-nano", "nothing-here"], "no file or folder 'nothing-here'"),
        (["eval", "zamba2-nano", __file__, "--stride", "0"], "stride must be in 1..window"),
        (["export", "nothing-here", "out"], "nothing-here"),
        (["bench", "nothing-here"], "benchmarks are files of benchmarks/"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_2(capsys, arguments, sentence):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("zamba-lab: ") and "Traceback" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe that nobody reads fails otherwise")
def test_a_reader_that_has_enough_ends_the_command_without_a_word():
    with subprocess.Popen(
        [sys.executable, "-m", "zamba_lab", "info", "zamba2-2.7b"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        command.stdout.close()  # before the first line
        assert command.stderr.read() == "" and command.wait(60) == 141


def test_generating_without_a_tokenizer_says_what_is_missing(capsys, tmp_path):
    zl.save(make_model(BASE).float(), tmp_path)
    assert main(["generate", str(tmp_path), "x"]) == 2
    assert "needs a tokenizer.json or tokenizer.model beside the weights" in capsys.readouterr().err


def test_a_corpus_is_made_and_opened_again(capsys, tmp_path):
    (tmp_path / "texts").mkdir()
    for k in range(3):
        (tmp_path / "texts" / f"{k}.txt").write_text(f"the story number {k} is a text of its own\n" * (k + 1))
    command = ["corpus", str(tmp_path / "out"), str(tmp_path / "texts"), "--tokenizer", "280", "--workers", "1"]
    assert main(command) == 0
    assert "near duplicates" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["documents"] == 3


def test_the_shipped_model_writes(capsys):
    assert main(["generate", "zamba2-nano", "def ", "-n", "8"]) == 0
    text = capsys.readouterr().out
    model = zl.load("zamba2-nano")
    ids = zl.generate(model, torch.tensor([model.tokenizer.encode("def ")]), 8, stop=[model.config.eos_token_id])
    assert text == model.tokenizer.decode(ids[0].tolist()) + "\n"


def test_eval_gives_the_code_length_of_each_file_and_of_all(capsys, tmp_path):
    texts = {"a.py": "def area(radius):\n    return 3.14159 * radius ** 2\n" * 40, "b/c.txt": "It was a dark night.", "b/empty": ""}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main(["eval", "zamba2-nano", str(tmp_path), "--json"]) == 0
    first, second, empty, whole = json.loads(capsys.readouterr().out)
    assert [score["text"] for score in (first, second, empty)] == [str(tmp_path / name) for name in texts]
    assert empty | {"text": ""} == {"text": "", "bytes": 0, "tokens": 0, "bits_per_byte": None, "xz_bits_per_byte": None}
    model, written = zl.load("zamba2-nano"), [texts["a.py"], texts["b/c.txt"]]
    bits, sizes = document_bits(model, written, model.tokenizer), [len(text) for text in written]
    assert [first["bits_per_byte"], second["bits_per_byte"]] == pytest.approx((bits / sizes).tolist())
    assert whole["bits_per_byte"] == pytest.approx(bits.sum() / sum(sizes)) and whole["bytes"] == sum(sizes)
    assert whole["xz_bits_per_byte"] == xz_bits(written) / sum(sizes)
    assert main(["eval", "zamba2-nano", str(tmp_path / "a.py")]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert line.split()[0] == f"{first['bits_per_byte']:.3f}" and head.split()[0] == "bits/byte"


def test_eval_reads_what_a_corpus_reads(capsys, tmp_path):
    """The same files, the same bytes: line ends as they are, no byte order mark, no hidden files, linked folders."""
    folder, beside = tmp_path / "texts", tmp_path / "beside"
    files = {"a.txt": b"one\r\ntwo\r\n", "bom.txt": b"\xef\xbb\xbfthree\r", "empty.txt": b"", ".env": b"SECRET=1", ".DS_Store": b"\x00\xff"}
    for name, content in (files | {".ipynb_checkpoints/a.txt": b"four"}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    beside.mkdir()
    (beside / "five.txt").write_bytes(b"five\n")
    (folder / "link").symlink_to(beside, target_is_directory=True)
    assert main(["eval", "zamba2-nano", str(folder), "--json"]) == 0
    *scores, whole = json.loads(capsys.readouterr().out)
    read = dict(corpora.Folder(folder).read())
    corpus = corpora.build(corpora.Folder(folder), tmp_path / "corpus", tokenizer=zl.load("zamba2-nano").tokenizer)
    assert [score["text"] for score in scores] == [str(tmp_path / path) for path in read]
    assert [score["bytes"] for score in scores] == [10, 6, 0, 5]
    splits = corpus.manifest["splits"].values()
    assert whole["bytes"] == sum(split["bytes"] for split in splits)
    assert whole["tokens"] == sum(split["tokens"] - (split["tokens"] > 0) for split in splits)
    assert main(["eval", "zamba2-nano", str(folder / ".env"), str(folder / "empty.txt")]) == 0  # named by the caller
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[2:3]] == [["-", "-", "0"]]


@pytest.mark.parametrize("prompt", ["ab\ud800", "\udc89PNG"])
def test_a_prompt_that_is_no_text_is_a_sentence(capsys, prompt):
    assert main(["generate", "zamba2-nano", prompt]) == 2
    error = capsys.readouterr().err
    assert "half of a surrogate pair" in error and "Traceback" not in error


@pytest.mark.parametrize("encoding", ["utf-8", "ascii:surrogateescape"])
def test_standard_input_that_is_no_text_is_a_sentence(encoding):
    command = [sys.executable, "-m", "zamba_lab", "generate", "zamba2-nano", "-", "-n", "2"]
    done = subprocess.run(command, input=b"\x89PNG\r\n\xff", capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout) == (2, b"") and done.stderr.startswith(b"zamba-lab: 'utf-8' codec can't decode byte 0x89")
    good = subprocess.run(command, input=b"\xef\xbb\xbfdef ", capture_output=True)
    assert good.returncode == 0 and good.stdout


def test_what_the_system_refuses_is_a_sentence(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert main(["corpus", str(tmp_path / "file" / "out"), "stdlib"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("zamba-lab: ") and "Not a directory" in error and "Traceback" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
def test_a_full_disk_ends_the_corpus_command_with_a_sentence(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("".join(f"line {k} of a text that is longer than the room\n" for k in range(40)))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "from zamba_lab.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["corpus", str(tmp_path / "out"), str(tmp_path / "texts"), "--tokenizer", "280", "--workers", "1"]
    done = subprocess.run([sys.executable, "-B", "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 2 and "File too large; what is done is kept, the same call goes on" in done.stderr
    assert "Traceback" not in done.stderr and main(command) == 0


def test_eval_refuses_what_is_no_text(capsys, tmp_path):
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    (tmp_path / "empty").mkdir()
    zl.save(make_model(BASE).float(), tmp_path / "mute")
    for arguments, sentence in (
        (["zamba2-nano", "picture"], "is not UTF-8 text"),
        (["zamba2-nano", "empty"], "there is no text in"),
        ([tmp_path / "mute", "empty"], "needs a tokenizer"),
    ):
        assert main(["eval", str(arguments[0]), str(tmp_path / arguments[1])]) == 2
        assert sentence in capsys.readouterr().err


def test_export_writes_what_load_and_transformers_read(capsys, tmp_path):
    assert main(["export", "zamba2-nano", str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    model, ids = zl.load("zamba2-nano"), torch.tensor([[5, 9, 300]])
    written = zl.load(tmp_path / "out")
    assert written.embedding.weight.dtype == torch.bfloat16 and written.tokenizer.encode("def") == model.tokenizer.encode("def")
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(model.parameters(), written.parameters()))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, written.float()(ids), rtol=0, atol=1e-4)


def test_it_runs_as_a_module_and_every_command_has_help():
    for command in (
        [],
        ["info"],
        ["doctor"],
        ["generate"],
        ["corpus"],
        ["train"],
        ["eval"],
        ["specimen"],
        ["export"],
        ["ablate"],
        ["bench"],
    ):
        done = subprocess.run([sys.executable, "-m", "zamba_lab", *command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "usage: zamba-lab" in done.stdout
