"""Laws of the loop: it learns, it stops politely, and it goes on as if it had never stopped."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from train.tiny import periodic, random_packed, tiny_model, with_documents

from zamba_lab.train import WSD, Mixture, TrainConfig, annealing, read_metrics, train
from zamba_lab.train.files import at_step, checkpoints

CONFIG = TrainConfig(steps=8, batch=2, length=16, lr=1e-2, schedule=WSD(warmup=2, decay=0.5), evaluate_every=3, checkpoint_every=3)
TOKENS, VALIDATION = periodic(400), random_packed(60)


class Killed(Exception):
    """Stands for a kill that leaves no time for anything."""


def on_step(model, number: int, action) -> None:
    """Do something in the midst of the `number`-th step, counted from 0 (evaluations do not count)."""
    steps = iter(range(10**6))

    def hook(module, arguments):
        if module.training and next(steps) == number:
            action()

    model.register_forward_pre_hook(hook)


def kill() -> None:
    raise Killed


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def rows(folder) -> list:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in read_metrics(folder)]


def same(one, other) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize(
    "action, error, at, kept",
    [(kill, Killed, 5, 3), (kill, Killed, 1, 0), (interrupt, KeyboardInterrupt, 4, 5), (interrupt, KeyboardInterrupt, 0, 1)],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, action, error, at, kept):
    whole = train(tiny_model(), TOKENS, CONFIG, tmp_path / "whole", VALIDATION)
    stopped = tiny_model()
    on_step(stopped, at, action)
    with pytest.raises(error):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts", VALIDATION)
    assert checkpoints(tmp_path / "parts")[-1][0] == kept
    continued = train(tiny_model(seed=99), TOKENS, CONFIG, tmp_path / "parts", VALIDATION)
    assert same(whole, continued)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_finished_run_is_read_back_and_not_repeated(tmp_path):
    trained = train(tiny_model(), TOKENS, CONFIG, tmp_path)
    again = train(tiny_model(seed=1), TOKENS, CONFIG, tmp_path)
    assert same(trained, again) and len(rows(tmp_path)) == CONFIG.steps and not again.training


def test_a_corrupt_last_checkpoint_costs_an_interval_and_is_said(tmp_path):
    whole = train(tiny_model(), TOKENS, CONFIG, tmp_path)
    before = rows(tmp_path)
    last = checkpoints(tmp_path)[-1][1]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is corrupt.*continues from the one before"):
        again = train(tiny_model(seed=1), TOKENS, CONFIG, tmp_path)
    assert same(whole, again) and rows(tmp_path) == before
    assert "is corrupt" in (tmp_path / "run.log").read_text()


def test_the_loss_falls_on_what_can_be_learnt(tmp_path):
    train(tiny_model(), TOKENS, replace(CONFIG, steps=60, checkpoint_every=60, max_epochs=None), tmp_path)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[0] > 3.0 and losses[-1] < 0.3, losses[::10]


@pytest.mark.parametrize("options", [{"documents": True, "accumulate": 2}, {"checkpointing": True}, {"precision": "bf16"}])
def test_with_every_option_it_learns_and_goes_on_to_the_same_bits(tmp_path, options):
    tokens = periodic(400)
    tokens[::25] = 1
    config = replace(CONFIG, steps=20, checkpoint_every=7, max_epochs=None, **options)
    whole = train(tiny_model(), tokens, config, tmp_path / "whole")
    stopped = tiny_model()
    on_step(stopped, 12, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tokens, config, tmp_path / "parts")
    assert same(whole, train(tiny_model(seed=9), tokens, config, tmp_path / "parts"))
    losses = [row["loss"] for row in rows(tmp_path / "parts")]
    assert losses[-1] < 0.6 * losses[0], losses


@pytest.mark.parametrize(
    "change, says",
    [
        ({"lr": 0.5}, "train.lr was 0.01, is 0.5"),
        ({"seed": 3}, "train.seed was 0, is 3"),
        ({"schedule": WSD(1, 0.5)}, "train.schedule was wsd.warmup=2"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, change, says):
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match=says):
        train(tiny_model(), TOKENS, replace(CONFIG, **change), tmp_path)
    with pytest.raises(ValueError, match="data.data.crc32 was .*; data.data.tokens was 400, is 399"):
        train(tiny_model(), TOKENS[1:], CONFIG, tmp_path)
    with pytest.raises(ValueError, match="model.lora_rank was 2, is 0"):
        train(tiny_model(lora_rank=0), TOKENS, CONFIG, tmp_path)


def test_the_end_may_be_moved_while_the_rate_is_the_same(tmp_path):
    longer = replace(CONFIG, steps=12, schedule=WSD(2, decay=0.25), max_epochs=2.0)
    whole = train(tiny_model(), TOKENS, longer, tmp_path / "whole")
    stopped = tiny_model()
    on_step(stopped, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts")
    assert same(whole, train(tiny_model(), TOKENS, longer, tmp_path / "parts"))
    with pytest.raises(ValueError, match="train.schedule was wsd.warmup=2, decay=0.25"):
        train(tiny_model(), TOKENS, replace(longer, schedule=WSD(2, decay=0.5)), tmp_path / "parts")


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_windows(tmp_path):
    tokens = with_documents(400)
    tokens[tokens == 28] = 27
    tokens[250] = 28  # the one whose embedding is no number
    model = tiny_model(tie_embeddings=False)
    with torch.no_grad():
        model.embedding.weight[28] = torch.nan
    with pytest.raises(FloatingPointError, match=r"step \d+ has loss nan.*'data' tokens (\d+)..(\d+) \(documents? .*\): loss nan") as found:
        train(model, tokens, replace(CONFIG, steps=12, max_epochs=None), tmp_path)
    first, last = map(int, str(found.value).split("tokens ")[1].split(" ")[0].split(".."))
    assert first <= 250 < last
    kept = at_step(tmp_path, None)
    weights = {name: value for name, value in kept["model"].items() if name != "embedding.weight"}
    assert all(value.isfinite().all() for value in weights.values())
    assert "has loss nan" in (tmp_path / "run.log").read_text()
    assert kept["step"] == 3 * (len(rows(tmp_path)) // 3), "the rows up to the bad step are kept"


def test_no_room_for_a_checkpoint_stops_the_run_which_then_goes_on(tmp_path, monkeypatch):
    from zamba_lab.train import files

    whole = train(tiny_model(), TOKENS, CONFIG, tmp_path / "whole")
    write = files.write

    def full(folder, step, content, keep):
        if step == 6:
            raise OSError(28, "no room")
        return write(folder, step, content, keep)

    monkeypatch.setattr(files, "write", full)
    stops_and_goes_on(tmp_path, whole, "no room", lambda: monkeypatch.setattr(files, "write", write))


def stops_and_goes_on(folder, whole, why: str, mend) -> None:
    """A run stops after its third step, says why, and once that is mended goes on to what an undisturbed one is."""
    with pytest.raises(OSError, match=why):
        train(tiny_model(), TOKENS, CONFIG, folder / "parts")
    log = (folder / "parts" / "run.log").read_text()
    assert checkpoints(folder / "parts")[-1][0] == 3 and re.search(why, log)
    mend()
    assert same(whole, train(tiny_model(seed=5), TOKENS, CONFIG, folder / "parts"))
    assert rows(folder / "whole") == rows(folder / "parts")


def test_no_room_for_the_rows_stops_the_run_which_then_goes_on(tmp_path, monkeypatch):
    """Said like a full checkpoint, in the log and to whoever waits for this process."""
    import pyarrow.parquet as pq

    whole, write = train(tiny_model(), TOKENS, CONFIG, tmp_path / "whole"), pq.write_table

    def full(table, out):
        if table["step"][0].as_py() > 3:
            raise OSError(28, "No space left on device")
        return write(table, out)

    monkeypatch.setattr(pq, "write_table", full)
    why = "rows of steps 4 to 6 could not be written .*No space left on device.*make room"
    stops_and_goes_on(tmp_path, whole, why, lambda: monkeypatch.setattr(pq, "write_table", write))


def test_torch_s_own_numbers_go_on_where_they_were(tmp_path):
    """What is measured may draw: a run that was stopped draws what it would have drawn."""

    def draw(model, step):
        return {"drawn": torch.rand(()).item()}

    config = replace(CONFIG, evaluate_every=1)
    train(tiny_model(), TOKENS, config, tmp_path / "whole", measure=draw)
    stopped = tiny_model()
    on_step(stopped, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, TOKENS, config, tmp_path / "parts", measure=draw)
    train(tiny_model(seed=5), TOKENS, config, tmp_path / "parts", measure=draw)
    drawn = [[row["drawn"] for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == config.steps


def test_a_branch_begins_with_its_trunk_and_goes_on_without_it(tmp_path):
    old, new = periodic(400), with_documents(300)
    trunk = train(tiny_model(), old, CONFIG, tmp_path / "trunk")
    phase, data = annealing(CONFIG, 6, lr=5e-3, max_epochs=None), Mixture.annealing(old, new)
    whole = train(tiny_model(seed=1), data, phase, tmp_path / "whole", branch_from=tmp_path / "trunk")
    assert all(torch.equal(value, at_step(tmp_path / "trunk", 8)["model"][name]) for name, value in trunk.state_dict().items())
    assert not same(trunk, whole)
    stopped = tiny_model(seed=2)
    on_step(stopped, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, data, phase, tmp_path / "parts", branch_from=tmp_path / "trunk")
    (tmp_path / "trunk").rename(tmp_path / "away")
    assert same(whole, train(tiny_model(seed=3), data, phase, tmp_path / "parts", branch_from=tmp_path / "trunk"))
    assert [row["lr"] for row in rows(tmp_path / "whole")] == [phase.lr_at(k) for k in range(6)]
    with pytest.raises(ValueError, match="branch.from was trunk, is None"):
        train(tiny_model(), data, phase, tmp_path / "parts")


def test_a_branch_has_the_weights_and_moments_of_the_step_it_names(tmp_path):
    train(tiny_model(), TOKENS, CONFIG, tmp_path / "trunk")
    stopped = tiny_model(seed=4)
    on_step(stopped, 0, kill)
    with pytest.raises(Killed):
        train(stopped, TOKENS, CONFIG, tmp_path / "branch", branch_from=tmp_path / "trunk", branch_step=6)
    start, of = at_step(tmp_path / "branch", 0), at_step(tmp_path / "trunk", 6)
    for part in ("model", "optimiser"):
        torch.testing.assert_close(start[part], of[part], rtol=0, atol=0)
    with pytest.raises(ValueError, match="a branch has its trunk's model.*model.lora_rank was 2, is 0"):
        train(tiny_model(lora_rank=0), TOKENS, CONFIG, tmp_path / "other", branch_from=tmp_path / "trunk")


def test_texts_are_written_now_and_then_and_change_nothing(tmp_path):
    class Letters:
        vocab_size, bos_id = 29, 1

        def encode(self, text):
            return [1, *(3 + ord(letter) % 26 for letter in text)]

        def decode(self, ids):
            return "".join(chr(97 + i % 26) for i in ids)

    plain = train(tiny_model(), TOKENS, CONFIG, tmp_path / "plain")
    model, seen = tiny_model(), []
    model.tokenizer = Letters()
    config = replace(CONFIG, sample_every=4)
    train(model, TOKENS, config, tmp_path / "samples", prompts=["def ", "class "], on_row=[seen.append])
    texts = [row["sample"] for row in read_metrics(tmp_path / "samples")]
    assert [k for k, text in enumerate(texts) if text] == [3, 7] and "def " in texts[3] and "class " in texts[3]
    assert same(plain, model) and [row["step"] for row in seen] == list(range(1, 9))


def test_a_second_process_in_the_folder_is_refused_and_changes_nothing(tmp_path):
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    before = {file: file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()}
    command = (
        f"from filelock import FileLock; lock = FileLock({str(tmp_path / 'lock')!r}); lock.acquire(); print('held', flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="one process trains in a folder at a time"):
            train(tiny_model(), TOKENS, CONFIG, tmp_path)
        other.communicate("\n")
    assert {file: file.read_bytes() for file in before} == before


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# --- before the first step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens, change, model, rule",
    [
        (TOKENS[:0], {}, {}, "n >= 1"),
        (TOKENS[:32], {}, {}, "more than 2 [*] length tokens: got 32 tokens in 'data', length=16"),
        (TOKENS, {}, {"vocab_size": 7}, r"ids must lie in 0..6 \(vocab_size 7\): 'data' has 3..7. It was made with a tokenizer"),
        (
            TOKENS,
            {"steps": 12},
            {},
            r"longer than its data: 12 steps of 2 windows of 16 tokens are 1.04 epochs of 'data' \(400 tokens, "
            r"share 1\), max_epochs=1: at most 11 steps, or allow max_epochs=2",
        ),
        (TOKENS, {"documents": True}, {}, "documents=True needs documents that begin with the start token 1: 'data' has none in 400"),
        (TOKENS, {"documents": True}, {"bos_token_id": None}, "documents=True needs a start token"),
        (TOKENS, {"sample_every": 2}, {}, "sample_every=2 needs a tokenizer and prompts: got None, 0 prompts"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path, tokens, change, model, rule):
    with pytest.raises(ValueError, match=rule):
        train(tiny_model(**model), tokens, replace(CONFIG, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_held_out_text_and_tokenizer_must_fit_too(tmp_path):
    with pytest.raises(ValueError, match="held-out text must be Packed, of 2 tokens or more.*'validation' has 1 tokens"):
        train(tiny_model(), TOKENS, CONFIG, tmp_path, random_packed(1))
    with pytest.raises(ValueError, match="'far' has"):
        train(tiny_model(vocab_size=9), np.minimum(TOKENS, 8), CONFIG, tmp_path, {"far": random_packed(60)})


@pytest.mark.parametrize("values", [[0, 0.5], [torch.tensor(0), torch.tensor(0.5)], [True, 0.25]])
def test_a_measure_of_any_kind_loses_no_checkpoint(tmp_path, values):
    config = replace(CONFIG, steps=6, evaluate_every=3)
    train(tiny_model(), TOKENS, config, tmp_path, measure=lambda model, step: {"score": values[step // 3 - 1]})
    assert [row["score"] for row in read_metrics(tmp_path) if row["score"] is not None] == [float(value) for value in values]
    assert [step for step, _ in checkpoints(tmp_path)] == [3, 6]


@pytest.mark.parametrize(
    "measured, rule",
    [({"score": object()}, "got 'score', object"), ({"loss": 1.0}, "needs a name of its own: loss"), ({"step": 9}, "of its own: step")],
)
def test_a_measure_that_cannot_be_kept_is_refused_and_the_run_continues_without_it(tmp_path, measured, rule):
    config = replace(CONFIG, evaluate_every=4)
    with pytest.raises(ValueError, match=rule):
        train(tiny_model(), TOKENS, config, tmp_path, measure=lambda model, step: measured)
    assert checkpoints(tmp_path)[-1][0] == 3
    assert len(rows(train(tiny_model(), TOKENS, config, tmp_path) and tmp_path)) == CONFIG.steps


def test_a_truncated_file_of_metrics_does_not_hinder_a_resume(tmp_path):
    whole = train(tiny_model(), TOKENS, CONFIG, tmp_path / "whole")
    stopped = tiny_model()
    on_step(stopped, 7, kill)
    with pytest.raises(Killed):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts")
    for file in (tmp_path / "parts" / "metrics").iterdir():
        os.truncate(file, 100)
    with pytest.warns(UserWarning, match="its rows are left out"):
        assert same(whole, train(tiny_model(seed=5), TOKENS, CONFIG, tmp_path / "parts"))


# --- weights in few bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16, "int8", "one parameter"])
def test_weights_that_small_updates_would_not_move_are_refused(tmp_path, narrow):
    from zamba_lab.quantization import quantize

    model = tiny_model()
    if narrow == "int8":
        quantize(model)
    elif narrow == "one parameter":
        model.layers[0].mamba.dt_bias.data = model.layers[0].mamba.dt_bias.data.bfloat16()
    else:
        model.to(narrow)
    with pytest.raises(ValueError, match="weights that are trained must be float32 or float64, or small updates are lost: .* is "):
        train(model, TOKENS, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mixer", ["mamba2", "mamba1"])
def test_in_bf16_every_norm_and_rate_moves(tmp_path, mixer):
    """The weights are float32 and the passes bfloat16: an update of 1e-3 of a weight is not rounded away."""
    model = tiny_model(mixer=mixer).bfloat16().float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = replace(CONFIG, steps=150, lr=1e-4, schedule="constant", max_epochs=None, precision="bf16", checkpoint_every=150)
    train(model, with_documents(400), config, tmp_path)
    for name, value in model.state_dict().items():
        if value.ndim == 1 or name.split(".")[-1] in ("A_log", "D", "dt_bias"):
            moved = (value != before[name]).float().mean()
            assert moved > 0.99, f"{name}: {moved:.0%}"


def test_a_model_with_nothing_to_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must have a parameter with requires_grad"):
        train(tiny_model().requires_grad_(False), TOKENS, CONFIG, tmp_path)


def test_frozen_parameters_stay_and_the_rest_is_resumed_to_the_same_bits(tmp_path):
    def frozen(seed=0):
        model = tiny_model(seed)
        model.embedding.requires_grad_(False)
        return model

    start, whole = frozen().embedding.weight.clone(), train(frozen(), TOKENS, CONFIG, tmp_path / "whole")
    stopped = frozen()
    on_step(stopped, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts")
    assert same(whole, train(frozen(9), TOKENS, CONFIG, tmp_path / "parts")) and torch.equal(whole.embedding.weight, start)


# --- arguments of the wrong kind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, more, rule",
    [
        (torch.arange(400), {}, "a corpus is a numpy array .n,. of integers, n >= 1: 'data' is a Tensor"),
        (TOKENS.tolist(), {}, "'data' is a list"),
        ("tokens/", {}, "'data' is a str"),
        (None, {}, "'data' is a NoneType"),
        (TOKENS[None], {}, r"'data' is shape \(1, 400\)"),
        (TOKENS, {"validation": TOKENS}, "held-out text must be Packed.*'validation' has type ndarray"),
        (TOKENS, {"validation": {"far": torch.arange(9)}}, "'far' has type Tensor"),
        (TOKENS, {"branch_step": 3}, "branch_step=3 needs branch_from"),
        (TOKENS, {"branch_from": "nowhere"}, "'nowhere' must hold a checkpoint: it has none"),
    ],
    ids=str,
)
def test_arguments_of_the_wrong_kind_are_value_errors(tmp_path, data, more, rule):
    with pytest.raises(ValueError, match=rule):
        train(tiny_model(), data, CONFIG, tmp_path, **more)


def test_data_of_another_tokenizer_is_refused_wherever_it_meets_the_weights(tmp_path):
    from types import SimpleNamespace

    model, data = tiny_model(), Mixture.of(TOKENS)
    model.tokenizer = SimpleNamespace(pieces_hash="a" * 64, vocab_size=29)
    data.tokenizers = {"data": SimpleNamespace(pieces_hash="b" * 64, vocab_size=29)}
    with pytest.raises(
        ValueError,
        match="the tokenizer of the corpus 'data' must have the pieces that the weights were made with.*bbbbbbbbbbbb and aaaaaaaaaaaa",
    ):
        train(model, data, CONFIG, tmp_path / "run")
    data.tokenizers = {"data": SimpleNamespace(pieces_hash="a" * 64, vocab_size=29)}
    train(model, data, CONFIG, tmp_path / "trunk")
    model.tokenizer = SimpleNamespace(pieces_hash="c" * 64, vocab_size=29)
    for more, where in (({}, "trunk"), ({"branch_from": tmp_path / "trunk"}, "branch")):
        with pytest.raises(ValueError, match="model.tokenizer was a{64}, is c{64}"):
            train(model, TOKENS, CONFIG, tmp_path / where, **more)
