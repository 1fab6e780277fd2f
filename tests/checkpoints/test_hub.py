"""Hub ids, through the real client and a hub on the loopback interface: what is fetched, kept, resumed and refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loopback_hub import Hub, commit_of
from variants import BASE, make_model

from zamba_lab.checkpoints import CheckpointError, load, load_config, save
from zamba_lab.checkpoints.hub import fetch

EXTRA = {
    "README.md": b"# a card",
    "pytorch_model.bin": b"the same again",
    "original/consolidated.pt": b"and again",
    "generation_config.json": b"{}",
}
PIECE = 1000


@pytest.fixture(scope="module")
def model():
    return make_model(BASE).float()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory) -> dict[str, bytes]:
    folder = save(model, tmp_path_factory.mktemp("single"))
    return {path.name: path.read_bytes() for path in folder.iterdir()} | EXTRA


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory) -> dict[str, bytes]:
    folder = save(model, tmp_path_factory.mktemp("sharded"), max_shard_bytes=12_000)
    return {path.name: path.read_bytes() for path in folder.iterdir()} | EXTRA


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Starts the hub's client anew with these variables, as a new process would.

    It waits no second between tries, and takes small pieces, so that a small file breaks where a large one would.
    """

    def start(hub: Hub | None, **variables: str) -> Path:
        for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
            monkeypatch.delitem(sys.modules, name)
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_"))]:
            monkeypatch.delenv(name)
        address = {} if hub is None else {"HF_ENDPOINT": hub.address}
        for name, value in {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **address, **variables}.items():
            monkeypatch.setenv(name, value)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        import huggingface_hub.file_download as module

        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(module.constants, "DOWNLOAD_CHUNK_SIZE", PIECE)
        return tmp_path / "hf" / "hub"

    return start


def same(one, other) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def refused(source: str, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(source)
    for part in parts:
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"


def test_only_what_is_needed_is_fetched_and_only_once(model, files, client):
    with Hub(files, revisions=("main", "v1")) as hub:
        client(hub)
        assert same(load("lab/tiny@v1"), model)
        assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
        hub.asked.clear()
        assert same(load("lab/tiny@v1"), model)
        assert [path for _, path, _ in hub.asked] == ["/api/models/lab/tiny/revision/v1"]  # has the branch moved?
        assert load_config("lab/tiny@v1") == model.config


def test_a_revision_is_a_branch_a_tag_or_a_commit(model, files, client):
    with Hub(files, revisions=("main", "v1", "refs/pr/3")) as hub:
        cache = client(hub)
        for revision in ("v1", "refs/pr/3", commit_of("main")):
            assert same(load(f"lab/tiny@{revision}"), model)
        found = {path.name for path in (cache / "models--lab--tiny" / "snapshots").iterdir()}
        assert found == {commit_of("v1"), commit_of("refs/pr/3"), commit_of("main")}


def test_shards_are_those_of_the_index(model, shards, client):
    with Hub(shards | {"model-00001-of-00099.safetensors": b"of another layout"}) as hub:
        client(hub)
        assert same(load("lab/tiny"), model)
        wanted = [name for name in shards if name not in EXTRA]
        assert len(wanted) > 4 and sorted(hub.fetched) == sorted(wanted)


def test_of_two_sets_of_weights_the_one_that_transformers_takes_is_fetched(model, files, shards, client):
    with Hub(shards | files) as hub:
        client(hub)
        assert same(load("lab/tiny"), model)
        assert sorted(hub.fetched) == ["config.json", "model.safetensors"]


def test_what_lies_beside_a_tokenizer_is_fetched(files, client):
    beside = {"tokenizer_config.json": b"{}", "chat_template.jinja": b"{{ m }}", "special_tokens_map.json": b"{ }"}
    with Hub(files | beside) as hub:
        client(hub)
        fetch("lab/tiny")
        assert sorted(hub.fetched) == sorted(["config.json", "model.safetensors", *beside])


def test_the_tokenizer_that_counts_is_fetched_and_no_other(files, client, tmp_path):
    both = {"tokenizer.json": b"{}", "tokenizer.model": b"\n"}
    for revision, there in (("v0", []), ("v1", ["tokenizer.json"]), ("v2", ["tokenizer.model"]), ("v3", [*both])):
        with Hub(files | {name: both[name] for name in there}, revisions=(revision,)) as hub:
            client(hub, HF_HOME=str(tmp_path / revision))
            fetch(f"lab/tiny@{revision}")
            assert sorted(hub.fetched) == ["config.json", "model.safetensors", *there[:1]]


def test_pickled_weights_are_fetched_where_there_is_nothing_else(model, files, client, tmp_path):
    from safetensors.torch import load as read

    torch.save(read(files["model.safetensors"]), tmp_path / "pytorch_model.bin")
    data = (tmp_path / "pytorch_model.bin").read_bytes()
    where = dict.fromkeys(read(files["model.safetensors"]), "part-1.bin")
    index = {"pytorch_model.bin.index.json": json.dumps({"weight_map": where}).encode(), "part-1.bin": data}
    for revision, pickled in (("main", {"pytorch_model.bin": data}), ("v1", index)):
        with Hub({"config.json": files["config.json"], **pickled}, revisions=(revision,)) as hub:
            client(hub, HF_HOME=str(tmp_path / revision))
            assert same(load(f"lab/tiny@{revision}"), model)
            assert sorted(hub.fetched) == sorted(["config.json", *pickled])


def test_offline_the_cache_is_enough(model, files, client):
    with Hub(files) as hub:
        client(hub)
        load("lab/tiny")
        asked = len(hub.asked)
        client(hub, HF_HUB_OFFLINE="1")
        assert same(load("lab/tiny"), model)
        assert len(hub.asked) == asked
        refused("lab/tiny@v1", "offline mode forbids asking", "Unset HF_HUB_OFFLINE", "load('zamba2-nano')")
        refused("lab/other", "offline mode forbids asking")


def test_without_a_connection_the_cache_is_enough(model, files, client):
    with Hub(files) as hub:
        client(hub)
        load("lab/tiny")
        hub.down = True
        assert same(load("lab/tiny"), model)
        refused("lab/other", "did not answer as a hub should", "503", "Check the connection and load again")
    assert same(load("lab/tiny"), model)
    refused("lab/other", "did not answer as a hub should", "ConnectError", "load('zamba2-nano')")


def test_a_dropped_connection_is_taken_up_where_it_broke(model, files, client):
    with Hub(files, drops=2) as hub:
        client(hub)
        assert same(load("lab/tiny"), model)
        size = len(files["model.safetensors"])
        first = size // 2 // PIECE * PIECE
        second = first + (size - first) // 2 // PIECE * PIECE
        assert hub.ranges == [f"bytes={first}-", f"bytes={second}-"]


def test_a_connection_that_always_drops_is_one_error_and_can_be_tried_again(model, files, client):
    with Hub(files, drops=-1) as hub:
        cache = client(hub)
        refused("lab/tiny", "the download broke off", "Files that came whole are kept: load again to go on")
        assert not list(cache.rglob("*.incomplete"))
        hub.drops = 0
        hub.asked.clear()
        assert same(load("lab/tiny"), model)
        assert hub.fetched == ["model.safetensors"]


def test_what_the_hub_does_not_have(files, client):
    with Hub(files) as hub:
        client(hub)
        refused("lab/none", "the hub has no model lab/none", "Check the name", "hf auth login")
        refused("lab/tiny@v9", "has no revision 'v9'", "a branch, a tag or a whole commit hash")
        refused("lab/tiny@" + 40 * "0", "has no revision '0000")
        refused("lab/ti--ny", "A hub id is 'organisation/name'")
        assert hub.fetched == []
    with Hub({"README.md": b"# a card"}) as hub:
        client(hub)
        refused("lab/tiny", "a repository without a config.json")
    with Hub({"config.json": files["config.json"]}, revisions=("v1",)) as hub:
        client(hub)
        refused("lab/tiny@v1", "is not a checkpoint: it holds neither model.safetensors nor")


def test_a_gated_model_says_how_to_get_in_and_opens_with_the_token(model, files, client):
    with Hub(files, token="hf_good", gated=True) as hub:
        client(hub)
        refused("lab/tiny", "lab/tiny is gated", f"Accept its licence at {hub.address}/lab/tiny", "hf auth login", "HF_TOKEN")
        client(hub, HF_TOKEN="hf_bad")
        refused("lab/tiny", "lab/tiny is gated")
        client(hub, HF_TOKEN="hf_good")
        assert same(load("lab/tiny"), model)


def test_a_token_that_is_not_valid(files, client):
    with Hub(files, token="hf_good") as hub:
        client(hub, HF_TOKEN="hf_old")
        refused("lab/tiny", "the hub refuses the token", "hf auth login")


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes(len(data)),
        lambda data: data[:100],
        lambda data: data + b"\0",
        lambda data: b"",
    ],
    ids=["a bit", "all", "cut", "longer", "empty"],
)
def test_weights_that_come_damaged_are_refused_and_not_kept(model, files, client, corrupt):
    with Hub(files) as hub:
        hub.corrupted = {"model.safetensors": corrupt(files["model.safetensors"])}
        client(hub)
        refused("lab/tiny", "load again")
        hub.corrupted = {}
        assert same(load("lab/tiny"), model)


def test_a_damaged_config_is_refused(files, client):
    with Hub(files | {"config.json": files["config.json"][:50]}) as hub:
        client(hub)
        refused("lab/tiny", "config.json must hold JSON")


def test_an_index_cannot_ask_for_files_elsewhere(shards, client):
    index = shards["model.safetensors.index.json"].replace(b"model-00001-of", b"../model-00001-of")
    with Hub(shards | {"model.safetensors.index.json": index}) as hub:
        client(hub)
        refused("lab/tiny", "must name safetensors files of its own folder")
        assert not any("model-0" in name for name in hub.fetched)


def test_as_a_user_meets_it_in_a_process_of_its_own(files, tmp_path):
    with Hub(files, revisions=("main", "v1"), token="hf_good", gated=True) as hub:
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith("HF_") and not name.lower().endswith("_proxy")
        }
        variables |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_good"}
        code = "import zamba_lab as zl; print(zl.load('lab/tiny@v1').config.d_model)"
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "16\n"), done.stderr
        assert sorted(hub.fetched) == ["config.json", "model.safetensors"]
