"""Laws of running tasks by name, and of the long-context ones: texts of the length asked for, nothing cut, errors that say what to do."""

import json
import re

import pytest
from train.tiny import tiny_model

from zamba_lab import cli, corpora

pytest.importorskip("lm_eval", reason="*** lm-eval IS NOT INSTALLED: THE TASKS ARE NOT TESTED (pip install 'zamba-lab[eval]') ***")

from zamba_lab.evaluate import generated, long_context, run
from zamba_lab.evaluate.lm import ZambaLM
from zamba_lab.evaluate.tasks import PUBLISHED, TABLE, Row, Tasks, _rows

TEXT = " ".join([*long_context.SAID, *long_context.THINGS, "The number of the is. names that have the value three commonest words above"])
LONG = ("needle", "multikey", "variables", "words")


@pytest.fixture(scope="module")
def tokenizer():
    return corpora.train_tokenizer([TEXT * 9], vocab_size=400)


@pytest.fixture
def model(tokenizer):
    model = tiny_model(vocab_size=400)
    model.tokenizer = tokenizer
    return model.eval()


@pytest.mark.parametrize("name", LONG)
def test_a_long_text_is_as_long_as_asked_and_holds_its_answers(name, tokenizer):
    make = getattr(long_context, name)
    documents = list(make(tokenizer=tokenizer, max_seq_lengths=[128, 512], samples=5)["test"])
    assert documents == list(make(tokenizer=tokenizer, max_seq_lengths=[128, 512], samples=5)["test"])  # one seed, one set
    assert len({document["text"] for document in documents}) == 10
    assert [document["length"] for document in documents] == [128, 512] * 5
    for document in documents:
        room = document["length"] - long_context.WRITTEN
        assert room - 40 < len(tokenizer.encode(document["text"])) <= room
        assert all(answer in document["text"] for answer in document["answers"])
        assert long_context.recall(document, ["so: " + " ".join(document["answers"][:1])])["recall"] == pytest.approx(
            1 / len(document["answers"])
        )
        assert long_context.recall(document, [" ".join(f"x{answer}" for answer in document["answers"])])["recall"] == 0  # no whole words
        assert long_context.recall(document, ["?"]) == {"recall": 0.0, f"recall at {document['length']}": 0.0}


def test_the_answers_of_the_long_texts_are_right(tokenizer):
    given = dict(tokenizer=tokenizer, max_seq_lengths=[512], samples=5)
    for document in [*long_context.needle(**given)["test"], *long_context.multikey(**given)["test"]]:
        asked = re.search(r"The number of the (\w+) is$", document["text"])[1]
        assert re.findall(rf"The number of the {asked} is (\d+)\.", document["text"]) == document["answers"]
    for document in long_context.variables(**given)["test"]:
        values, value = {}, re.search(r"value (\d+):$", document["text"])[1]
        for name, what in re.findall(r"^(\w+) = (\w+)$", document["text"], re.M):
            values[name] = values.get(what, what)
        assert sorted(name for name in values if values[name] == value) == sorted(document["answers"]) and len(values) == 6
    for document in long_context.words(**given)["test"]:
        words = document["text"].splitlines()[0].split()
        counts = {word: words.count(word) for word in words}
        assert set(sorted(counts, key=counts.get)[-3:]) == set(document["answers"])
        assert min(counts[word] for word in document["answers"]) > 1.5 * max(
            n for word, n in counts.items() if word not in document["answers"]
        )


def test_lengths_that_cannot_be_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"lengths must be among 128, .*: got \[300\]"):
        long_context.needle(tokenizer=tokenizer, max_seq_lengths=[300])
    with pytest.raises(ValueError, match="its tokenizer must be known"):
        long_context.needle()
    sparse = corpora.train_tokenizer(["x"], vocab_size=259)  # a token a byte
    with pytest.raises(ValueError, match="tokens at least: 96 are too few"):
        long_context.multikey(tokenizer=sparse, max_seq_lengths=[128])


def test_a_context_longer_than_the_models_is_refused_never_cut(model):
    lm = ZambaLM(model, max_length=200)
    assert run(lm, ["long_needle"], lengths=[128], limit=1)[0][0].documents == 1
    with pytest.raises(ValueError, match="the model's context is 200: give a larger max_length"):
        run(lm, ["long_needle"], lengths=[256], limit=2)
    lm = ZambaLM(model, max_length=200, too_long="window")
    run(lm, ["long_needle"], lengths=[256], limit=2)
    assert lm.windowed == 2


def test_the_suite_is_made_from_a_seed():
    for make in (generated.choice, generated.word, generated.text, generated.write):
        once, again = make(), make(version=1.0)
        assert (
            list(once["test"]) == list(again["test"]) and len(once["test"]) == generated.DOCUMENTS and len(once["shots"]) == generated.SHOTS
        )


def test_an_own_task_is_ten_lines(model, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"question": "a b", "options": [" c", " d"], "right": 0}\n' * 3)
    (tmp_path / "mine.yaml").write_text(MINE.format(tmp_path / "mine.jsonl"))
    rows, (results,) = run(model, ["mine"], include=[tmp_path])
    assert [(row.task, row.metric, row.documents) for row in rows] == [("mine", "acc", 3), ("mine", "acc_norm", 3)]
    assert run(model, [str(tmp_path / "mine.yaml")])[0] == rows and len(results["samples"]["mine"]) == 3


MINE = """
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{right}}}}"
target_delimiter: ""
"""


@pytest.mark.parametrize("error", ["FileNotFoundError", "ConnectionError", "TimeoutError"])
def test_data_that_cannot_be_had_is_one_line_that_says_what_to_do(error, model, tmp_path):
    if error == "TimeoutError":
        (tmp_path / "late.py").write_text("def data(**_):\n    raise TimeoutError\n")
        text = "task: mine\ncustom_dataset: !function late.data\ntest_split: test\noutput_type: loglikelihood_rolling\n"
    elif error == "ConnectionError":
        (tmp_path / "far.py").write_text("def data(**_):\n    raise ConnectionError(\"Couldn't reach 'a/b' on the Hub\\nand so on\")\n")
        text = "task: mine\ncustom_dataset: !function far.data\ntest_split: test\noutput_type: loglikelihood_rolling\n"
    else:
        text = MINE.format(tmp_path / "not_there.jsonl")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match="the data of mine cannot be had: .*HF_DATASETS_CACHE") as raised:
        run(model, ["mine"], include=[tmp_path])
    assert "\n" not in str(raised.value)


def test_an_unknown_task_is_one_line_with_what_is_near(monkeypatch, tmp_path):
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "none.py"))  # without lm-eval's own thousands
    with pytest.raises(ValueError, match="there is no task 'lab_choise': is 'lab_choice'.* meant"):
        Tasks(["lab_word", "lab_choise"])
    with pytest.raises(ValueError, match=r"there is no task 'qqqq'\. `lm_eval ls tasks`"):
        Tasks(["qqqq"])
    with pytest.raises(ValueError, match="there is no folder 'nowhere'"):
        Tasks(["lab_word"], include=["nowhere"])


def test_published_figures_stand_beside_what_is_measured():
    assert all(figures.keys() == TABLE.keys() for figures in PUBLISHED.values())
    measured = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.6, "acc_norm_stderr,none": "N/A"}
    results = {"results": {"hellaswag": measured}, "n-samples": {"hellaswag": {"effective": 9}}, "n-shot": {"hellaswag": 10}}
    assert _rows(results, PUBLISHED["zamba2-2.7b"]) == [
        Row("hellaswag", "acc", 0.5, 0.1, 9, 10, 76.35),
        Row("hellaswag", "acc_norm", 0.6, None, 9, 10, 76.35),
    ]


def test_the_command_line_measures_tasks(capsys):
    arguments = ["eval", "zamba2-nano", "--tasks", "lab_word,lab_choice", "--limit", "2", "--batch", "4"]
    assert cli.main(arguments) == 0
    assert re.match(r" +value +± error published documents shots .*\n(.*\n)*.* 2 +5  lab_choice, acc\n", capsys.readouterr().out)
    assert cli.main([*arguments, "--shots", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"] for row in rows} == {"lab_word", "lab_choice"} and all(row["documents"] == 2 for row in rows)
    assert cli.main([*arguments, "--max-length", "20"]) == 2
    assert "the model's context is 20: give a larger max_length" in capsys.readouterr().err
    assert cli.main(["eval", "zamba2-nano"]) == 2
    assert "eval takes texts or --tasks" in capsys.readouterr().err
