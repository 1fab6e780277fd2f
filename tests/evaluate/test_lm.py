"""Laws of the model that lm-eval is given: the numbers of its own Hugging Face model, whatever is shared, batched or windowed."""

import json
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
import torch
from variants import BASE, make_model

from zamba_lab import corpora, load, save

pytest.importorskip("lm_eval", reason="*** lm-eval IS NOT INSTALLED: THE TASKS ARE NOT TESTED (pip install 'zamba-lab[eval]') ***")
pytest.importorskip("accelerate", reason="*** accelerate IS NOT INSTALLED: NOTHING IS COMPARED WITH lm-eval's OWN MODEL ***")
# lm-eval's model of transformers warns of what is not ours
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402

from zamba_lab.evaluate.lm import ZambaLM  # noqa: E402
from zamba_lab.evaluate.shared import DEEPEST, WORTH, forest  # noqa: E402
from zamba_lab.evaluate.tasks import Tasks  # noqa: E402

NEAR = 1e-4  # nats a document
SHOTS = "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\n" * 2
CONTEXTS = (SHOTS, SHOTS + "import ", SHOTS + "def f(self, x):\n    return ", "x = ", "<s>import", "")
CONTINUATIONS = (" range(10)", " os", " self.x", "x", "y")
PAIRS = [(context, continuation) for context in CONTEXTS for continuation in CONTINUATIONS]
TEXT = SHOTS * 5 + "def"
TEXTS = [(SHOTS,), (SHOTS * 3,), ("",), ("x",)]
PROMPTS = [(text, {"until": ["\n\n"], "max_gen_toks": 6}) for text in (SHOTS, SHOTS + "import ", SHOTS + "def f(", "x")]
KINDS = {"loglikelihood": PAIRS, "loglikelihood_rolling": TEXTS, "generate_until": PROMPTS}


@pytest.fixture(scope="module", params=["zamba2-nano", "zamba1-nano", "mamba2-nano"])
def peer(request, tmp_path_factory):
    """A shipped model's name, and the same weights as lm-eval's own model, of a given context."""
    folder = save(load(request.param), tmp_path_factory.mktemp(request.param))
    return request.param, lambda **more: get_model("hf")(pretrained=str(folder), device="cpu", dtype="float32", **more)


@pytest.fixture(scope="module")
def small():
    model = make_model(replace(BASE, vocab_size=264)).float().eval()
    model.tokenizer = corpora.train_tokenizer(["abcabd" * 5, "other words " * 3], vocab_size=264)
    return model


def asked(kind, requests=None):
    return [Instance(kind, {}, arguments, i) for i, arguments in enumerate(KINDS[kind] if requests is None else requests)]


def answers(lm, kind, requests=None):
    return getattr(lm, kind)(asked(kind, requests), disable_tqdm=True)


def assert_alike(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, tuple):
            assert one[0] == pytest.approx(other[0], abs=NEAR) and one[1] == other[1]
        else:
            assert one == (pytest.approx(other, abs=NEAR) if isinstance(one, float) else other)


def test_each_document_of_the_suite_has_the_numbers_of_lm_evals_own_model(peer):
    name, theirs = peer
    both = []
    for lm in (ZambaLM(name, batch_size=4), theirs(batch_size=4, max_length=1024)):
        manager = Tasks(["zamba_lab"])
        both.append(simple_evaluate(lm, tasks=["zamba_lab"], task_manager=manager, limit=2, bootstrap_iters=0))
    assert both[0]["samples"].keys() == {"lab_choice", "lab_word", "lab_text", "lab_write"}
    for task, samples in both[0]["samples"].items():
        for ours, others in zip(samples, both[1]["samples"][task], strict=True):
            assert ours["arguments"] == others["arguments"]
            assert_alike([answer for (answer,) in ours["resps"]], [answer for (answer,) in others["resps"]])
        measured = {key: value for key, value in both[0]["results"][task].items() if isinstance(value, float)}
        assert measured == pytest.approx({key: both[1]["results"][task][key] for key in measured}, rel=1e-4) and measured


@pytest.mark.parametrize("max_length", [1024, 40])
def test_windows_and_cuts_are_those_of_lm_evals_own_model(max_length, peer):
    """Texts longer than the context in windows, requests longer than it without their beginning, which is counted."""
    name, theirs = peer
    ours, theirs = ZambaLM(name, batch_size=3, max_length=max_length, too_long="window"), theirs(batch_size=1, max_length=max_length)
    for kind in KINDS:
        assert_alike(answers(ours, kind), answers(theirs, kind))
    assert ours.get_model_info()["windowed"] == (0 if max_length == 1024 else 18)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("source", ["transformer-nano", "small"])
def test_what_is_shared_or_batched_changes_no_number(source, batch_size, small):
    model = small if source == "small" else source
    alone, ours = ZambaLM(model, batch_size=1, max_length=1024, share=False), ZambaLM(model, batch_size=batch_size, max_length=1024)
    for kind in KINDS:
        assert_alike(answers(ours, kind), answers(alone, kind))


def test_what_requests_begin_with_is_read_once(small, monkeypatch):
    read, walk = [], small.walk
    monkeypatch.setattr(small, "walk", lambda ids, *more, **named: (read.append(ids.numel()), walk(ids, *more, **named))[1])
    tokens = {}
    for share in (True, False):
        read.clear()
        answers(ZambaLM(small, batch_size=1, max_length=4096, share=share), "loglikelihood", [(TEXT, c) for c in "abcdefgh"])
        answers(ZambaLM(small, batch_size=1, max_length=4096, share=share), "loglikelihood", [(TEXT, c * 2) for c in "abcdefgh"])
        tokens[share] = sum(read)
    length = len(small.tokenizer.encode(TEXT))
    # eight last tokens after one context are one row, even unshared; eight of two tokens each are eight
    assert tokens == {False: length + 8 * (length + 1), True: length + (length - 1) + 8 * 2}


def test_a_forest_holds_every_row_and_reads_nothing_twice_that_is_worth_sharing():
    random = Random(0)
    stems = [[random.randrange(9) for _ in range(n)] for n in (100, 3, 60, 50)]
    rows = [sum(random.sample(stems, random.randint(0, 3)), []) + [random.randrange(9) for _ in range(9)] for _ in range(200)]
    rows += [[1] * n for n in range(1, 200)]  # each begins the next
    own = [random.randint(1, len(row)) for row in rows]
    found, read = {}, 0

    def walk(nodes, above, depth):
        nonlocal read
        assert depth <= DEEPEST
        for node in nodes:
            read += len(node.ids)
            assert node.ids and (node.leaf is None) == bool(node.children)
            if node.leaf is None:
                walk(node.children, above + node.ids, depth + 1)
            else:
                assert node.leaf not in found and len(node.ids) >= own[node.leaf]
                found[node.leaf] = above + node.ids

    walk(forest(rows, own), [], 0)
    assert [found[i] for i in range(len(rows))] == rows and len(found) == len(rows)
    assert read < sum(map(len, rows)) - WORTH
    assert [node.ids for node in forest(rows, own, share=False)] == rows


def test_a_request_longer_than_the_context_is_refused_and_says_what_to_do(small):
    lm = ZambaLM(small, max_length=20)
    for kind, arguments in (("loglikelihood", (SHOTS, "x")), ("generate_until", (SHOTS, {"max_gen_toks": 3}))):
        with pytest.raises(ValueError, match="the model's context is 20: give a larger max_length.*or too_long=window"):
            answers(lm, kind, [arguments])
    with pytest.raises(ValueError, match="context is 20"):
        answers(ZambaLM(small, max_length=20, too_long="window"), "loglikelihood", [("a", SHOTS)])  # nothing of what is scored is cut
    assert answers(lm, "loglikelihood_rolling", [(SHOTS,)])[0] < 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"too_long": "cut"}, "too_long must be 'refuse' or 'window': got 'cut'"),
        ({"batch_size": "auto"}, "batch_size must be a whole number"),
        ({"max_length": 0}, "max_length must be a whole number"),
    ],
)
def test_settings_that_break_a_rule_are_refused(settings, message, small):
    with pytest.raises(ValueError, match=message):
        ZambaLM(small, **settings)


def test_generation_refuses_what_it_does_not_know_and_samples_as_it_is_told(small):
    lm = ZambaLM(small, max_length=4096)
    with pytest.raises(ValueError, match=r"got \['num_beams'\]"):
        answers(lm, "generate_until", [("ab", {"num_beams": 4})])
    torch.manual_seed(0)
    drawn = answers(lm, "generate_until", [("ab", {"do_sample": True, "temperature": 5.0, "max_gen_toks": 40})] * 3)
    assert len(set(drawn)) == 3
    with pytest.raises(ValueError, match="at least a token each"):
        answers(lm, "loglikelihood", [("ab", "")])


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="tasks need a tokenizer beside the weights"):
        ZambaLM(make_model(BASE))


def test_lm_eval_knows_the_model_by_its_name(tmp_path, small):
    lm = get_model("zamba_lab").create_from_arg_obj(
        {"pretrained": "zamba2-nano", "dtype": "bfloat16"}, {"batch_size": 2, "device": "cuda:0"}
    )
    assert isinstance(lm, ZambaLM) and lm.model.embedding.weight.dtype == torch.bfloat16 and lm.batch_size == 2
    assert json.dumps(lm.get_model_info())
    scores = [score for score, _ in answers(lm, "loglikelihood", PAIRS[:2])]
    assert all(a != b for a, b in pairwise(scores))
