import json
import subprocess
import sys

import pytest
import torch
import transformers
from variants import BASE, make_model

import zamba_lab as zl
from zamba_lab.cli import main
from zamba_lab.train.heldout import document_bits, xz_bits


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
        (["corpus", "out", "nothing-here"], "a source is 'stdlib', one of fineweb-edu"),
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
    first, second, whole = json.loads(capsys.readouterr().out)
    assert [first["text"], second["text"]] == [str(tmp_path / "a.py"), str(tmp_path / "b/c.txt")]
    model, written = zl.load("zamba2-nano"), [texts["a.py"], texts["b/c.txt"]]
    bits, sizes = document_bits(model, written, model.tokenizer), [len(text) for text in written]
    assert [first["bits_per_byte"], second["bits_per_byte"]] == pytest.approx((bits / sizes).tolist())
    assert whole["bits_per_byte"] == pytest.approx(bits.sum() / sum(sizes)) and whole["bytes"] == sum(sizes)
    assert whole["xz_bits_per_byte"] == xz_bits(written) / sum(sizes)
    assert main(["eval", "zamba2-nano", str(tmp_path / "a.py")]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert line.split()[0] == f"{first['bits_per_byte']:.3f}" and head.split()[0] == "bits/byte"


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
    for command in ([], ["info"], ["doctor"], ["generate"], ["corpus"], ["train"], ["eval"], ["export"], ["ablate"], ["bench"]):
        done = subprocess.run([sys.executable, "-m", "zamba_lab", *command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "usage: zamba-lab" in done.stdout
