"""Checkpoints mutated at random: what the property tests and the long run have in common.

An input is a small checkpoint's files by name. Sound ones of every layout are changed as JSON (a value, a key, an
entry) or as bytes, in config.json, the index, the tokenizer or a weight file, its header or pickle above all, with a
`random.Random`.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from variants import BASE, make_model

from zamba_lab import corpora
from zamba_lab.checkpoints import CheckpointError, doctor, load, load_config, save
from zamba_lab.checkpoints.binding import bind
from zamba_lab.checkpoints.layouts import ZAMBA2_LEGACY
from zamba_lab.checkpoints.published import FORMATS

Files = dict[str, bytes]
CONFIG, INDEX, PICKLED, TOKENIZER = "config.json", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.json"
SMALL = replace(BASE, n_layers=2, hybrid_layers=(0, 1), d_model=8, d_mlp=4, vocab_size=11)
SOUND = {
    "zamba2": SMALL,
    "zamba2, one block, qkv": replace(SMALL, n_shared_blocks=1, lora_rank_qkv=3),
    "zamba": replace(SMALL, mixer="mamba1", n_shared_blocks=1, lora_rank=0, rope_theta=None),
    "mamba2": replace(SMALL, n_shared_blocks=0, hybrid_layers=()),
    "mamba": replace(SMALL, mixer="mamba1", headdim=16, n_shared_blocks=0, hybrid_layers=()),
    "own": replace(SMALL, concat_embedding=False),
    "untied": replace(SMALL, n_shared_blocks=0, tie_embeddings=False),
}
KEYS = sorted({key for form in FORMATS.values() for key in (*form.known, *form.spellings)})
VALUES = [
    None,
    True,
    False,
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    11,
    16,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**400,
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "0",
    "auto",
    "é\u0000\ud800",
    "x" * 3000,
    "mamba",
    "hybrid",
    "linear_attention",
    "m",
    "g",
    "zamba",
    "zamba2",
    "mamba2",
    "zamba_lab",
    "gelu",
    "F64",
    "BF16",
    "F8_E4M3",
    "I64",
    [],
    [0],
    [0, 1],
    [1, 0],
    [0, 2**62],
    [2**32, 2**32],
    [-1],
    [None],
    [[]],
    [0] * 50,
    ["mamba"] * 2,
    ["hybrid"] * 2,
    ["abc"],
    [{}],
    {},
    {"a": {"b": {"c": {"d": [[[[1]]]]}}}},
    {"a": 1},
    {"rope_theta": 0},
    {"rope_type": "yarn"},
    {"layer": "Mamba2"},
    {"layer": []},
    "model.safetensors",
    "../model.safetensors",
    "/dev/zero",
    "config.json",
    "x" * 300 + ".safetensors",
]


def sound(folder: Path) -> dict[str, Files]:
    """Small checkpoints of every layout that open; `folder` is for writing them in."""
    found = {}
    for name, config in SOUND.items():
        found[name] = _read(save(make_model(config).float(), folder / name))
    model = make_model(SMALL).float()
    found["sharded"] = _read(save(model, folder / "sharded", max_shard_bytes=4000))
    found["legacy"] = _legacy(model, folder / "legacy")
    # The original code's spelling of a pure model.
    found["original"] = found["mamba2"] | {
        CONFIG: json.dumps(
            {
                "d_model": 8,
                "n_layer": 2,
                "vocab_size": 11,
                "pad_vocab_size_multiple": 1,
                "tie_embeddings": True,
                "ssm_cfg": {"layer": "Mamba2", "d_state": 6, "headdim": 4, "ngroups": 2},
            }
        ).encode()
    }
    tensors = load_file(folder / "zamba2" / "model.safetensors")
    torch.save(tensors, folder / PICKLED)
    found["pickled"] = {CONFIG: found["zamba2"][CONFIG], PICKLED: (folder / PICKLED).read_bytes()}
    torch.save(tensors, folder / PICKLED, _use_new_zipfile_serialization=False)
    found["pickled before 1.6"] = {CONFIG: found["zamba2"][CONFIG], PICKLED: (folder / PICKLED).read_bytes()}
    tokenizer = corpora.train_tokenizer(["a b"], vocab_size=259)
    found["with a tokenizer"] = found["zamba2"] | {TOKENIZER: tokenizer.to_bytes(), "tokenizer_config.json": b"{}"}
    return found


def _legacy(model, folder: Path) -> Files:
    """The authors' own layout and, in part, spelling."""
    raw = json.loads((save(model, folder) / CONFIG).read_text())
    raw |= {"layers_block_type": ["g", "g"], "state_size": raw.pop("mamba_d_state")}
    parameters, tensors = dict(model.named_parameters()), {}
    for binding in bind(ZAMBA2_LEGACY, model.config, parameters):
        ours = [parameters[name].detach() for name in binding.ours]
        for names, tensor in zip(binding.stored, binding.transform.to_stored(ours, model.config)):
            tensors[names[0]] = tensor.contiguous()
    save_file(tensors, folder / "model.safetensors")
    return _read(folder) | {CONFIG: json.dumps(raw).encode()}


def _read(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mutate_pickle(data: bytes, random: Random) -> bytes:
    """Change one instruction of the program in a file of torch.save. The archive around it stays whole."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
            for entry in source.infolist():
                content = source.read(entry)
                if entry.filename.endswith("data.pkl"):
                    at = random.randrange(len(content))
                    noise = random.choice([b"", bytes([random.randrange(256)]), bytes([random.choice(b"}]()tRQXKJMcbsueqhr.0")])])
                    content = content[:at] + noise + content[at + random.choice([0, 1, 1, 4]) :]
                target.writestr(entry, content)
    except (ValueError, zipfile.BadZipFile, EOFError, OSError):  # an older format, or changed before
        return mutate_bytes(data, random)
    return out.getvalue()


def outcome(files: Files, folder: Path) -> str:
    """Open an input: "refused" for a CheckpointError, "opened" for a whole model that runs. Else the error passes.

    What `load` refuses, `doctor` finds a fault in. Nothing in the folder is changed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    report = doctor(folder)
    assert str(report) and json.dumps(report.as_dict())
    try:
        config = load_config(folder)
        assert config.n_params >= 0 and config.flops_per_token(100) >= 0 and config.cache_bytes(100) >= 0
        model = load(folder)
    except CheckpointError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        assert not report.ok, f"load refuses what the doctor finds nothing wrong with: {error}"
        return "refused"
    assert _read(folder) == files
    assert sum(p.numel() for p in model.parameters()) == model.config.n_params
    assert all(p.device.type == "cpu" and bool(p.isfinite().all()) for p in model.parameters())
    ids = torch.zeros(1, 3, dtype=torch.long)
    with torch.no_grad():
        assert model(ids).shape == (1, 3, model.config.vocab_size)
    return "opened"


def mutate(files: Files, random: Random) -> Files:
    """One to three changes to one file. The index and the configs are hit more often than chance would have it."""
    name = random.choice([CONFIG, CONFIG, INDEX if INDEX in files else CONFIG, *sorted(files)])
    data = files[name]
    for _ in range(random.choice([1, 1, 2, 3])):
        kinds = [mutate_pickle, mutate_pickle, mutate_bytes] if name == PICKLED else [mutate_structure, mutate_structure, mutate_bytes]
        data = random.choice(kinds)(data, random)
    return files | {name: data}


def mutate_structure(data: bytes, random: Random) -> bytes:
    """Change the JSON that a file is, or has for a header; the header's length is kept right."""
    is_json = data[:1] in (b"{", b"[", b"")
    size = len(data) if is_json else struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0]
    text, rest = (data, b"") if is_json else (data[8 : 8 + size], data[8 + size :])
    try:
        changed = json.dumps(mutate_value(json.loads(text), random)).encode()
    except (ValueError, RecursionError):  # bytes were changed before; 10 ** 400 is not read back either
        return mutate_bytes(data, random)
    return changed if is_json else struct.pack("<Q", len(changed)) + changed + rest


def mutate_value(value, random: Random):
    """A JSON value with one change in it, somewhere."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key, value = random.choice(sorted(value)), dict(value)
        what = random.random()
        if what < 0.6:
            value[key] = mutate_value(value[key], random)
        elif what < 0.75:
            del value[key]
        else:  # another's value, under its own or a new name
            value[random.choice([*KEYS, key + ".0", *sorted(value)])] = random.choice([*VALUES, *value.values()])
        return value
    if isinstance(value, list) and value and random.random() < 0.7:
        i = random.randrange(len(value))
        return random.choice(
            [value[:i] + [mutate_value(value[i], random)] + value[i + 1 :], value[:i] + value[i + 1 :], value + value[i:], value[::-1]]
        )
    if type(value) is int and abs(value) < 2**64 and random.random() < 0.5:
        return random.choice([value + 1, value - 1, -value, 2 * value, value + 2**40, float(value), str(value)])
    return random.choice(VALUES)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, repeat or insert a few bytes, more often near the start, where headers are."""
    at = random.randrange(len(data) + 1)
    at = min(at, random.choice([8, 200, len(data)]))
    span = random.choice([1, 2, 8, 100])
    noise = bytes(random.randrange(256) for _ in range(min(span, 8)))
    return random.choice(
        [
            lambda: data[:at] + noise + data[at + len(noise) :],
            lambda: data[:at] + noise + data[at:],
            lambda: data[:at] + data[at + span :],
            lambda: data[:at] + data[at : at + span] + data[at:],
            lambda: data[:at],
            lambda: data + noise,
            lambda: data[:at] + b'"' + data[at + 1 :],
            lambda: struct.pack("<Q", random.choice([0, 1, 2**20, 2**31, 2**63, 2**64 - 1, len(data)])) + data[8:],
        ]
    )()
