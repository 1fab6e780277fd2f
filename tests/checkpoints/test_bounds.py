"""Small files that could make a reader allocate gigabytes, or never end, are refused by a bound that the message names."""

import io
import json
import pickle
import resource
import struct
import time
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file
from variants import BASE, make_model

from zamba_lab.checkpoints import CheckpointError, doctor, load, load_config, save

SECONDS, MEGABYTES = 5, 300  # the largest bound is 8 MiB, of a description whose parsed form is some 20 times that


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(make_model(BASE).float(), tmp_path / "checkpoint")


def refused(source, *parts: str, readers=(load, doctor)) -> None:
    """Every reader refuses it soon and with little memory, by a sentence that has these parts."""
    for read in readers:
        memory, begin, error = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic(), ""
        try:
            result = read(source)
            error = "" if read is not doctor else "; ".join(fault["what"] for fault in result.faults)
        except CheckpointError as caught:
            error = str(caught)
        assert time.monotonic() - begin < SECONDS * 4
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEGABYTES * 1024
        for part in parts:
            assert part in error, f"{read.__name__}: {part!r} is not in {error!r}"


# --- pickles ------------------------------------------------------------------------------------------------------


def as_file(path: Path, program: bytes, compress: int = zipfile.ZIP_STORED, storages: dict[str, bytes] | None = None) -> Path:
    """A file of torch.save with this pickle in it."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3\n")
        for key, content in (storages or {"0": bytes(16)}).items():
            archive.writestr(f"a/data/{key}", content)
    return path


def op(text: str) -> bytes:
    return f"c{text}\n".encode()


def number(n: int) -> bytes:
    return pickle.dumps(n, protocol=2)[2:-1]


def word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def tensor(shape: tuple, stride: tuple, stored: int = 4, offset: int = 0) -> bytes:
    storage = b"(" + word("storage") + op("torch\nFloatStorage") + word("0") + word("cpu") + number(stored) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    hooks = op("collections\nOrderedDict") + b")R"
    return op("torch._utils\n_rebuild_tensor_v2") + b"(" + storage + number(offset) + sizes + b"\x89" + hooks + b"tR"


def named(value: bytes) -> bytes:
    return b"\x80\x02}" + word("x") + value + b"s."


ALLOCATES = {
    "a bytearray": op("builtins\nbytearray") + b"(" + number(6 * 10**9) + b"tR",
    "a stride of 0": tensor((40_000, 40_000), (0, 0)),
    "overlapping rows": tensor((2, 3), (1, 1)),
    "more than is stored": tensor((40_000, 40_000), (40_000, 1)),
    "beyond the end": tensor((2,), (1,), offset=3),
    "before the start": tensor((2,), (1,), offset=-1),
    "a negative stride": tensor((2,), (-1,), offset=2),
    "a storage that is not there": tensor((10**9,), (1,), stored=10**9),
    "a memory of earlier values": b"N" + b"r" + struct.pack("<I", 2**31 - 1),
    "bytes of protocol 5": b"\x96" + struct.pack("<Q", 2**36),
    "bytes of protocol 4": b"\x8e" + struct.pack("<Q", 2**36),
    "a frame": b"\x95" + struct.pack("<Q", 2**36) + b"N",
    "an extension": b"\x82\x01",
    "tuples of one tuple as a key": b"}" + b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60)) + b"Ns",
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "numbers": word("x" * 50),
    "another class": op("os\nsystem") + b"(" + word("true") + b"tR",
    "a tensor without a storage": op("torch._utils\n_rebuild_tensor_v2") + b"(NNNNNNtR",
}


@pytest.mark.parametrize("what", ALLOCATES)
def test_a_pickle_that_allocates_is_refused(what, folder):
    refused(as_file(folder / "weights.pt", named(ALLOCATES[what])), "is not a whole file of pickled tensors")


def test_the_same_program_with_a_sound_tensor_is_read(folder):
    refused(as_file(folder / "weights.pt", named(tensor((2, 2), (2, 1)))), "none of the 1 stored tensors does; the first are ['x']")


def test_compressed_and_overlapping_archives_are_refused(folder):
    bomb = as_file(folder / "weights.pt", named(word("a" * 10**8)), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**6
    refused(bomb, "its entries are compressed or overlap")
    content = as_file(folder / "weights.pt", named(tensor((2, 2), (2, 1)))).read_bytes()
    at = content.index(b"PK\x01\x02") + 24  # the size in the directory's first entry
    (folder / "weights.pt").write_bytes(content[:at] + struct.pack("<I", 2**31) + content[at + 4 :])
    refused(folder / "weights.pt", "its entries are compressed or overlap")


def test_an_older_file_of_torch_whose_storages_are_not_there(folder):
    out = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(value, out, protocol=2)
    storage = tensor((1,), (1,), stored=3 * 10**9)
    out.write(named(storage))
    pickle.dump(["0"], out, protocol=2)
    (folder / "weights.pt").write_bytes(out.getvalue())
    refused(folder / "weights.pt", "it describes more numbers than its")


def test_a_description_over_the_bound_is_refused(folder):
    refused(as_file(folder / "weights.pt", named(word("a" * 2**23))), "is over the bound of 8,388,608")


# --- JSON and headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_an_enormous_json_file_is_refused_unread(file, folder):
    if file != "config.json":
        (folder / "model.safetensors").unlink()
    with open(folder / file, "wb") as out:
        out.truncate(3 * 10**9)  # sparse: it takes no room on the disk
    refused(folder, file, "more than 8,388,608 bytes", readers=(load, doctor, *[load_config] * (file == "config.json")))


@pytest.mark.parametrize("depth", [17, 500, 10**6])
def test_json_that_nests_deeply_is_refused(depth, folder):
    (folder / "config.json").write_text('{"a": ' * depth + "1" + "}" * depth)
    refused(folder, "config.json must hold JSON", readers=(load, doctor, load_config))


def with_tensors(count: int) -> bytes:
    """A safetensors file of many empty tensors."""
    header = json.dumps({f"{i:050}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}).encode()
    return struct.pack("<Q", len(header)) + header


def test_a_header_over_the_bound_is_refused(folder):
    content = with_tensors(210_000)
    assert len(content) > 22 * 10**6
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "its header of 2", "is over the bound of 8,388,608")


@pytest.mark.parametrize("length", [2**24, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_claims_to_be_long_is_refused(length, folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content[8:])
    refused(folder, "is not a whole safetensors file")


def test_many_tensors_are_examined_in_one_opening_of_their_file(folder, monkeypatch):
    """The doctor used to open a file anew for each of its tensors: a minute for a long header."""
    from zamba_lab.checkpoints import files

    opened, open_file = [], files.open_file
    monkeypatch.setattr(files, "open_file", lambda path: opened.append(path) or open_file(path))
    assert doctor(folder).ok
    assert len(opened) == 2 < len(load_file(folder / "model.safetensors"))  # the header's, and the one that is read from


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_token_id": ["abc"]},
        {"eos_token_id": [[1]]},
        {"eos_token_id": 2**70},
        {"num_hidden_layers": 2**62, "layers_block_type": None, "hybrid_layer_ids": []},
        {"vocab_size": 2**62},
        {"mamba_d_state": 2**62},
        {"max_position_embeddings": 2**80},
        {"time_step_limit": {"a": 1}},
        {"layers_block_type": [["mamba"]]},
        {"rope_theta": 10**400},
        {"torch_dtype": {"a": 1}, "vocab_size": None},
        {"pruned_heads": {"1": [2]}},
        {"quantization_config": {"bits": 4}},
    ],
)
def test_values_that_no_model_has_are_refused(changes, folder):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    with pytest.raises(CheckpointError):
        load(folder)
    assert not doctor(folder).ok


@pytest.mark.parametrize("changes", [{"time_step_min": None}, {"time_step_min": "a"}, {"time_step_floor": []}, {"eos_token_id": [2, 1]}])
def test_values_that_are_not_read_do_not_matter(changes, folder):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    assert load(folder).config == BASE and doctor(folder).ok


@pytest.mark.parametrize("shard", ["x" * 300 + ".safetensors", "é" * 150 + ".safetensors", "a\0.safetensors", "\ud800.safetensors"])
def test_a_shard_name_that_no_file_can_have_is_refused(shard, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(folder, "must name safetensors files of its own folder")


@pytest.mark.parametrize("source", ["x" * 5000, "a\0b", "x/" * 3000, "\ud800"])
def test_a_source_that_no_path_can_be_is_refused(source):
    with pytest.raises(CheckpointError):
        load(source)
