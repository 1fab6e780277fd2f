"""Opening exactly: what fits is opened whole, what does not is refused by name and nothing is built."""

import copy
import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from variants import BASE, make_model, random_ids

from zamba_lab import corpora
from zamba_lab.checkpoints import CheckpointError, check_tokenizer, doctor, load, save
from zamba_lab.checkpoints.binding import bind, spare_names
from zamba_lab.checkpoints.layouts import ZAMBA2_LEGACY, ZAMBA2_PLAIN
from zamba_lab.config.presets import SHIPPED
from zamba_lab.tokenizer import Tokenizer

Q = "model.layers.1.shared_transformer.self_attn.q_proj.weight"


@pytest.fixture
def model():
    return make_model(BASE).float()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return save(model, tmp_path / "checkpoint")


def rewrite(folder: Path, change, file: str = "model.safetensors") -> None:
    """Let `change` edit the tensors of a file in place."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def edit_config(folder: Path, **changes) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))


def same(one, other) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return one.config == other.config and all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)


# --- what is opened -----------------------------------------------------------------------------------------------


def test_a_folder_a_file_and_a_path_are_the_same(model, folder):
    for source in (folder, str(folder), folder / "model.safetensors"):
        assert same(load(source), model)


def test_a_single_weight_file_of_any_name(model, folder):
    os.rename(folder / "model.safetensors", folder / "weights.safetensors")
    assert same(load(folder), model)


def test_shards_are_read_through_their_index_and_other_files_are_not(model, tmp_path):
    save(model, tmp_path, max_shard_bytes=4000)
    (tmp_path / "model-00001-of-00099.safetensors").write_bytes(b"of another layout, beside it")
    (tmp_path / "pytorch_model.bin").write_bytes(b"stale")
    assert same(load(tmp_path), model)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_stored_dtype_is_kept_unless_another_is_asked_for(model, tmp_path, stored):
    save(model.to(stored), tmp_path)
    assert {p.dtype for p in load(tmp_path).parameters()} == {stored}
    for dtype in (torch.float32, torch.bfloat16):
        assert same(load(tmp_path, dtype=dtype), model.to(stored).to(dtype))
        model = make_model(BASE).float()


def test_mixed_dtypes_lose_nothing(model, tmp_path):
    """Decays in float32 in a bfloat16 file stay so; a wider matrix makes all matrices wide."""
    model = model.bfloat16()
    for layer in model.layers:
        layer.mamba.A_log.data, layer.mamba.dt_bias.data = layer.mamba.A_log.float(), layer.mamba.dt_bias.float()
    save(model, tmp_path)
    found = load(tmp_path)
    assert found.layers[0].mamba.A_log.dtype == found.layers[0].mamba.dt_bias.dtype == torch.float32
    assert found.embedding.weight.dtype == found.final_norm.weight.dtype == torch.bfloat16
    assert same(found, model)
    assert found(random_ids(BASE)).dtype == torch.bfloat16

    model.final_norm.weight.data = model.final_norm.weight.float() + 1e-4
    save(model, tmp_path)
    found = load(tmp_path)
    assert found.embedding.weight.dtype == torch.float32
    assert torch.equal(found.final_norm.weight, model.final_norm.weight)


def test_weights_are_mapped_not_copied_and_training_leaves_the_file_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    found = load(folder)
    loss = found(random_ids(BASE)).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in found.parameters())
    with torch.no_grad():
        for p in found.parameters():
            p.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before
    again = load(folder)
    assert torch.equal(again.final_norm.weight + 1, found.final_norm.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_model_on_the_meta_device_has_the_dtype_it_would_have(tmp_path, dtype):
    save(make_model(BASE).to(dtype), tmp_path)
    assert load(tmp_path, device="meta").embedding.weight.dtype == dtype
    assert load(tmp_path, device="meta", dtype=torch.float16).embedding.weight.dtype == torch.float16


def test_meta_device_checks_names_and_reads_nothing(folder):
    found = load(folder, device="meta")
    assert all(p.is_meta for p in found.parameters())
    assert sum(p.numel() for p in found.parameters()) == found.config.n_params


def test_dt_min_is_set_and_zero_leaves_what_the_checkpoint_says(tmp_path):
    save(make_model(replace(BASE, dt_min=0.05)), tmp_path)
    assert load(tmp_path).config.dt_min == 0.05
    assert load(tmp_path, dt_min=0.001).config.dt_min == 0.001


def test_copies_of_tied_tensors_are_taken_if_equal(model, folder):
    """As in files written without regard to ties: the block again at depth 4, the head beside the embedding."""

    def repeat(tensors):
        for name in [name for name in tensors if ".layers.1.shared_transformer." in name]:
            tensors[name.replace(".layers.1.", ".layers.4.")] = tensors[name].clone()
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    rewrite(folder, repeat)
    assert same(load(folder), model)


def test_a_block_may_be_stored_under_a_later_depth_only(model, folder):
    rewrite(folder, lambda tensors: tensors.update({Q.replace(".1.", ".4."): tensors.pop(Q)}))
    assert same(load(folder), model)


def test_pickled_tensors_are_read_where_there_is_nothing_else(model, folder):
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "weights.pt")
    assert same(load(folder / "weights.pt"), model)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()
    assert same(load(folder), model)


def test_pickled_shards_are_read_through_their_index(model, folder):
    tensors = load_file(folder / "model.safetensors")
    where = {name: f"pytorch_model-{i % 3}.bin" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        torch.save({name: t for name, t in tensors.items() if where[name] == shard}, folder / shard)
    (folder / "model.safetensors").unlink()
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert same(load(folder), model)
    index.write_text(json.dumps({"weight_map": where | {"ghost": "pytorch_model-0.bin"}}))
    assert refused(folder, "pytorch_model-0.bin does not hold what pytorch_model.bin.index.json says").missing == ("ghost",)
    index.write_text(json.dumps({"weight_map": where | {Q: "../pytorch_model-0.bin"}}))
    refused(folder, "must name bin files of its own folder")


def test_nothing_but_tensors_is_unpickled(folder):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(folder / "sprung"),)

    for held in ({"x": Trap()}, Trap(), {"x": 3}, [torch.zeros(2)], {3: torch.zeros(2)}):
        torch.save(held, folder / "weights.pt")
        refused(folder / "weights.pt", "is not a whole file of pickled tensors")
    (folder / "weights.pt").write_bytes(b"PK\x03\x04 no more")
    refused(folder / "weights.pt", "is not a whole file of pickled tensors")
    assert not (folder / "sprung").exists()


def in_layout(layout, model) -> dict[str, torch.Tensor]:
    """A model's tensors as an older layout stores them, adapters that no invocation uses included."""
    parameters = dict(model.named_parameters())
    tensors = {name: torch.full(parameters[ours].shape, 7.0) for name, ours in spare_names(layout, BASE).items() if ours in parameters}
    for binding in bind(layout, BASE, parameters):
        ours = [parameters[name].detach() for name in binding.ours]
        for names, tensor in zip(binding.stored, binding.transform.to_stored(ours, BASE)):
            tensors[names[0]] = tensor.contiguous()
    return tensors


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("first", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_of_two_models_in_a_folder_the_one_that_transformers_takes_is_read(first, last, model, tmp_path):
    """Such as an old index beside a new file. The doctor says so."""
    transformers = pytest.importorskip("transformers")
    other = make_model(BASE, seed=7).float()
    models = (model, other) if last else (other, model)  # which of the two was written last does not matter
    kinds = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
    path = save(models[0], tmp_path / "here", max_shard_bytes=5000 if first.endswith("index.json") else 10**9)
    if first == "pytorch_model.bin":
        torch.save(load_file(path / "model.safetensors"), path / first)
        os.rename(path / "model.safetensors", path / "weights.safetensors")
        save_file(load_file(save(models[1], tmp_path / "there") / "model.safetensors"), path / "weights.safetensors")
    else:
        torch.save(load_file(save(models[1], tmp_path / "there") / "model.safetensors"), path / "pytorch_model.bin")
    if first == "model.safetensors":
        for entry in save(models[1], tmp_path / "shards", max_shard_bytes=5000).glob("model*"):
            os.rename(entry, path / entry.name)
    assert same(load(path), models[0])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
    assert torch.equal(theirs.get_input_embeddings().weight, models[0].embedding.weight)
    report = doctor(path)
    assert [fault["fault"] for fault in report.faults] == ["two models"] * (first == "model.safetensors")
    passed_over = [name for name in kinds if (path / name).is_file() and name != first]
    text = str(report)
    assert all(name in text for name in passed_over) and (not passed_over or f"{first} is read, as transformers does" in text)


# --- names that other tools have wrapped --------------------------------------------------------------------------

WRAPPED = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DistributedDataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "each layer compiled": lambda name: name.replace(".mamba.", "._orig_mod.mamba."),
    "a model without its head": lambda name: name.removeprefix("model."),
    "a compiled model without its head": lambda name: "_orig_mod." + name.removeprefix("model."),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("pickled", [False, True])
def test_wrapped_names_are_read_and_said(wrapper, pickled, model, folder):
    tensors = {WRAPPED[wrapper](name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    with pytest.warns(UserWarning, match="the names (hold|are those of a model without its head)"):
        assert same(load(folder), model)
    report = doctor(folder)
    assert report.ok and any(remark.startswith("names: ") for remark in report.remarks)


@pytest.mark.parametrize("variant", ["zamba", "mamba", "mamba2"])
def test_a_model_without_its_head_of_every_layout(variant, tmp_path):
    import fuzzing

    model = make_model(fuzzing.SOUND[variant]).float()
    save(model, tmp_path)
    rewrite(tmp_path, lambda tensors: [tensors.update({name.split(".", 1)[1]: tensors.pop(name)}) for name in list(tensors)])
    with pytest.warns(UserWarning, match="a model without its head"):
        assert same(load(tmp_path), model)


def test_names_that_differ_only_in_a_wrapper_are_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({f"module.{Q}": tensors[Q].clone()}))
    refused(folder, "differ only in what DataParallel or DistributedDataParallel puts into names")


@pytest.mark.parametrize("key", ["model", "state_dict", "module"])
def test_tensors_inside_a_dict_are_refused_by_its_key(key, folder):
    torch.save({key: load_file(folder / "model.safetensors"), "step": 3}, folder / "weights.pt")
    refused(folder / "weights.pt", f"the tensors are wrapped in a dict, under the key {key!r}")


@pytest.mark.parametrize("wrap", ["compile", "layers compiled", "parallel"])
def test_a_wrapped_model_is_saved_as_if_it_were_not(wrap, model, tmp_path):
    wrapped, original = copy.deepcopy(model), model
    if wrap == "layers compiled":
        wrapped.layers = torch.nn.ModuleList([torch.compile(layer, backend="eager") for layer in wrapped.layers])
    else:
        wrapped = torch.compile(wrapped, backend="eager") if wrap == "compile" else torch.nn.DataParallel(wrapped)
    assert same(load(save(wrapped, tmp_path)), original)


def test_what_is_no_model_is_not_saved(tmp_path):
    for thing in (torch.nn.Linear(2, 2), {"a": 1}, None):
        with pytest.raises(ValueError, match="save takes a Zamba: got"):
            save(thing, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_legacy_files_are_the_same_model(model, tmp_path):
    """All adapters in every block, in_proj as a list of one, other names."""
    save(model, tmp_path)
    for layout in (ZAMBA2_LEGACY, ZAMBA2_PLAIN):
        save_file(in_layout(layout, model), tmp_path / "model.safetensors")
        assert same(load(tmp_path), model)


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(source, *parts: str, **options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load(source, **options)
    for part in parts:
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"
    return caught.value


def test_missing_left_over_and_misshapen_tensors_are_all_named(folder):
    def corrupt(tensors):
        del tensors[Q], tensors["model.layers.0.mamba.D"]
        tensors["model.layers.9.mamba.D"] = torch.zeros(3)
        tensors["model.final_layernorm.weight"] = torch.zeros(15)

    rewrite(folder, corrupt)
    error = refused(
        folder,
        "layout: zamba2",
        "missing (2)",
        Q,
        "left over (1)",
        "of the wrong shape (1)",
        "model.final_layernorm.weight is (15,), must be (16,)",
    )
    assert error.missing == ("model.layers.0.mamba.D", Q)
    assert error.left_over == ("model.layers.9.mamba.D",)
    assert error.wrong_shape == ("model.final_layernorm.weight",)


def test_a_long_list_is_cut_in_the_message_only(folder):
    rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".mamba." in name])
    error = refused(folder, "missing (40)", "... and 20 more")
    assert len(error.missing) == 40


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 6), ("mamba_d_state", 7), ("vocab_size", 30), ("use_shared_attention_adapter", True)]
)
def test_a_config_of_another_model_is_refused(folder, key, value):
    changes = {key: value}
    if key == "num_hidden_layers":
        changes["layers_block_type"] = ["mamba", "hybrid", "hybrid", "mamba", "hybrid", "mamba"]
    edit_config(folder, **changes)
    refused(folder, "does not fit its config.json")


def test_more_layers_than_tensors_are_refused_before_anything_is_built(folder):
    edit_config(folder, num_hidden_layers=10**9, layers_block_type=None)
    refused(folder, "1000000000 layers, but only")


def test_sizes_no_tensor_can_have(folder):
    edit_config(folder, vocab_size=2**62)
    refused(folder, "config.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(folder, value):
    rewrite(folder, lambda tensors: tensors["model.layers.3.mamba.in_proj.weight"][5].fill_(value))
    refused(folder, "model.layers.3.mamba.in_proj.weight holds NaN or infinite numbers")
    assert not load(folder, check=False).layers[3].mamba.in_proj.weight.isfinite().all()


def test_unchecked_is_the_same_model_and_copies_must_still_be_copies(model, folder):
    assert same(load(folder, check=False), model)
    rewrite(folder, lambda tensors: tensors.update({Q.replace(".1.", ".4."): tensors[Q] + 1e-6}))
    refused(folder, f"{Q.replace('.1.', '.4.')} differs from {Q}", check=False)


def test_numbers_that_the_dtype_asked_for_cannot_hold_are_named(folder):
    rewrite(folder, lambda tensors: tensors[Q][0].fill_(1e6))
    load(folder, dtype=torch.bfloat16)
    refused(folder, "shared_blocks.0.attention.q.weight holds numbers beyond the range of float16", dtype=torch.float16)


def test_the_collector_is_left_as_it_was(folder):
    assert gc.isenabled()
    load(folder)
    assert gc.isenabled()
    rewrite(folder, lambda tensors: tensors[Q][0].fill_(float("nan")))
    refused(folder, "NaN")
    assert gc.isenabled()


def test_copies_that_differ_are_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({Q.replace(".1.", ".4."): tensors[Q] + 1e-6}))
    refused(folder, f"{Q.replace('.1.', '.4.')} differs from {Q}")


@pytest.mark.parametrize("said", [1, None])
def test_two_blocks_are_not_taken_for_copies_of_one(model, folder, said):
    edit_config(folder, num_mem_blocks=said)
    refused(folder, f"{Q.replace('.1.', '.2.')} differs from {Q}", "num_mem_blocks in config.json decides")
    rewrite(
        folder,
        lambda tensors: (
            tensors.update(in_layout(ZAMBA2_LEGACY, model))
            or [tensors.pop(name) for name in list(tensors) if name.startswith("model.layers.")]
        ),
    )
    refused(folder, "layout: zamba2 legacy", "num_mem_blocks is 1 there", "model.blocks.1 is one block more")


def test_a_tied_head_that_differs_is_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].double()}))
    refused(folder, "lm_head.weight differs from model.embed_tokens.weight")


def test_an_untied_head_must_be_there(folder):
    edit_config(folder, tie_word_embeddings=False)
    assert refused(folder).missing == ("lm_head.weight",)


def test_quantised_files_are_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({Q: tensors[Q].to(torch.int8)}))
    refused(folder, "F64, F32, F16, BF16", Q, "I8")


@pytest.mark.parametrize("length", [0, 5, 200, -1, -1000])
def test_a_truncated_file_is_refused(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, "model.safetensors", "not a whole safetensors file")


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json")


def test_folders_and_files_that_are_no_checkpoint(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("hello")
    refused(empty, "is not a checkpoint: it has no config.json", "notes.txt")
    refused(folder / "config.json", "a single file must be a .safetensors file")
    refused(tmp_path / "nowhere", "there is no")
    (folder / "model.safetensors").unlink()
    refused(folder, "holds neither model.safetensors nor model.safetensors.index.json")
    for name in "ab":
        save_file({"x": torch.zeros(1)}, folder / f"{name}.safetensors")
    refused(folder, "2 safetensors files and no model.safetensors.index.json")


@pytest.fixture
def sharded(model, tmp_path) -> Path:
    return save(model, tmp_path / "sharded", max_shard_bytes=4000)


def edit_index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_a_missing_shard_is_named(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[2]
    shard.unlink()
    refused(sharded, "the weight file", "is missing")


def test_an_index_that_names_absent_tensors(sharded):
    edit_index(sharded, lambda where: where.update(ghost=where[Q]))
    assert refused(sharded, "does not hold what model.safetensors.index.json says").missing == ("ghost",)


def test_an_index_that_leaves_tensors_out(sharded):
    edit_index(sharded, lambda where: where.pop("model.layers.0.mamba.D"))
    assert refused(sharded, "does not hold what").left_over == ("model.layers.0.mamba.D",)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b.safetensors", "*.safetensors", "model.bin", "", 3, None, ["x"]],
)
def test_shards_cannot_leave_the_folder(sharded, shard):
    edit_index(sharded, lambda where: where.update({Q: shard}))
    refused(sharded, "must name safetensors files of its own folder", repr(shard))


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}', "[]", "{"])
def test_an_index_that_is_none(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    refused(sharded)


def test_arguments_out_of_range(folder):
    for dtype in (torch.int8, "float32", 3):
        with pytest.raises(ValueError, match="dtype must be a floating torch.dtype or None"):
            load(folder, dtype=dtype)
    with pytest.raises(ValueError, match="dt_min must be 0 or more: got -1"):
        load(folder, dt_min=-1)
    for device in ("abacus", "xpu", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(ValueError, match=f"device must be one that torch knows and has here: got '{device}'"):
            load(folder, device=device)


# --- names instead of folders -------------------------------------------------------------------------------------


def test_a_shape_without_weights_says_what_to_do():
    refused("zamba2-2.7b", "there is no 'zamba2-2.7b'", "Zamba(ZambaConfig.preset('zamba2-2.7b'))", "hub id")
    refused("nothing of that name", "a folder, a .safetensors file, a hub id", "zamba2-nano")


def test_a_shipped_model_is_loaded_by_its_name(model, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(SHIPPED, "zamba2-nano", folder)
    assert same(load("zamba2-nano"), model)
    monkeypatch.setitem(SHIPPED, "zamba2-nano", tmp_path / "not there")
    refused("zamba2-nano", "its weights are not in", "data/README.md")


def test_without_a_network_a_hub_id_says_what_else_there_is():
    refused("Zyphra/Zamba2-1.2B", "is no folder here", "as a hub id it cannot be fetched", "Without a network", "load('zamba2-nano')")
    refused("some/folder", "'some/folder' is no folder here")


# --- the tokenizer beside it --------------------------------------------------------------------------------------


def test_a_tokenizer_beside_the_weights_comes_along(model, folder, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    assert load(folder).tokenizer is None
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="<s>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(folder / "tokenizer.json"))
    found = load(folder)
    assert found.tokenizer.encode("a b", add_bos=False) == [1, 2]
    save(found, tmp_path / "again")
    (folder / "tokenizer.json").write_text("{")
    refused(folder, "tokenizer.json must hold a tokenizer")
    assert load(tmp_path / "again").tokenizer.encode("b", add_bos=False) == [2]


def test_tokenizer_model_is_read_where_there_is_no_tokenizer_json(model, folder, tmp_path, monkeypatch):
    tokenizers, library = pytest.importorskip("tokenizers"), pytest.importorskip("sentencepiece")
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"] * 9),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=270,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    found = load(folder)
    assert found.tokenizer.source == "tokenizer.model"
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    assert load(folder).tokenizer.source == "tokenizer.json"
    save(load(folder), tmp_path / "again")
    save(found, tmp_path / "again")  # the other kind of file would be preferred, and is not this model's
    assert load(tmp_path / "again").tokenizer.source == "tokenizer.model"
    (folder / "tokenizer.json").unlink()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.warns(UserWarning, match="loaded without its tokenizer.*pip install"):
        assert load(folder).tokenizer is None


# --- the hash of the tokenizer, and what else lies beside it ------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizers_of_one_size():
    return [corpora.train_tokenizer([text] * 3, vocab_size=262) for text in ("the cat sat on the mat", "um um um ab ab ab")]


def test_weights_carry_the_hash_of_their_tokenizer(tokenizers_of_one_size, tmp_path):
    """Another tokenizer of the same size used to be accepted wherever weights met data."""
    ours, other = tokenizers_of_one_size
    assert ours.vocab_size == other.vocab_size and ours.pieces_hash != other.pieces_hash
    model = make_model(replace(BASE, vocab_size=264)).float()
    model.tokenizer = ours
    save(model, tmp_path, max_shard_bytes=5000)
    loaded = load(tmp_path)
    assert loaded.tokenizer_hash == ours.pieces_hash
    check_tokenizer(loaded, ours)
    check_tokenizer(loaded, None)
    with pytest.raises(ValueError, match="the corpus must have the pieces that the weights were made with.*262 pieces and 264 rows"):
        check_tokenizer(loaded, other, "the corpus")
    other.save(tmp_path)
    refused(tmp_path, "the tokenizer in", "must have the pieces that the weights were made with")
    assert [fault["fault"] for fault in doctor(tmp_path).faults] == ["tokenizer"]
    (tmp_path / "tokenizer.json").unlink()
    loaded = load(tmp_path)
    assert loaded.tokenizer is None
    with pytest.raises(ValueError, match="pieces that the weights were made with"):
        check_tokenizer(loaded, other)
    assert load(save(loaded, tmp_path / "again")).tokenizer_hash == ours.pieces_hash


def test_a_model_without_a_hash_goes_by_the_tokenizer_it_has(tokenizers_of_one_size, model):
    ours, other = tokenizers_of_one_size
    check_tokenizer(model, ours)
    model.tokenizer = ours
    check_tokenizer(model, ours)
    with pytest.raises(ValueError, match="pieces"):
        check_tokenizer(model, other)


CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize("with_files", [True, False])
def test_transformers_finds_the_same_tokenizer_on_what_is_saved(with_files, tokenizers_of_one_size, model, tmp_path):
    """Special tokens, the token that starts a text, and the chat template."""
    transformers = pytest.importorskip("transformers")
    ours, _ = tokenizers_of_one_size
    model = make_model(replace(BASE, vocab_size=264)).float()
    model.tokenizer = ours
    path = save(model, tmp_path / "made here")
    if with_files:  # as another tool has left them
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        theirs.chat_template, theirs.pad_token = CHAT, "<s>"
        theirs.save_pretrained(path)
    path = save(load(path), tmp_path / "exported")
    theirs, text = transformers.AutoTokenizer.from_pretrained(path), "the cat sat"
    assert (theirs.bos_token, theirs.eos_token) == ("<s>", "</s>")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    assert theirs.pad_token_id == (ours.bos_id if with_files else ours.pad_id)
    assert theirs(text).input_ids == ours.encode(text) and theirs(text).input_ids[0] == ours.bos_id
    assert load(path).tokenizer.encode(text) == ours.encode(text)
    if with_files:
        assert theirs.chat_template == CHAT


@pytest.mark.parametrize("kind", ["bpe", "unigram", "another prefix", "mistral v1", "byte level", "adds an end", "no special token"])
def test_transformers_finds_the_same_ids_where_a_tokenizer_came_alone(kind, tmp_path):
    """Without a tokenizer_config.json beside it, from a tokenizer.model and from a tokenizer.json with a post-processor of its own."""
    transformers, path = pytest.importorskip("transformers"), tmp_path / "alone"
    path.mkdir()
    lone_tokenizer(kind, path)
    tokenizer = Tokenizer.load(path)
    model = make_model(replace(BASE, vocab_size=tokenizer.vocab_size)).float()
    model.tokenizer = tokenizer
    exported = save(load(save(model, path)), tmp_path / "exported")
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for text in ("def f(x):\n    return x  + 1\n", " begins, ends ", "\u00e9 \u4e16 \U0001f600", "", "x\ty\n\n"):
        assert theirs(text).input_ids == tokenizer.encode(text), text


def lone_tokenizer(kind, folder):
    """A tokenizer's file and nothing else."""
    tokenizers = pytest.importorskip("tokenizers")
    if kind == "mistral v1":
        pytest.importorskip("mistral_common")
        Tokenizer.mistral_v1().save(folder)
    elif kind in ("bpe", "unigram", "another prefix"):
        pytest.importorskip("sentencepiece").SentencePieceTrainer.train(
            sentence_iterator=iter(["def f(x): return x + 1", "a quick  fox"] * 9),
            model_prefix=str(folder / "tokenizer"),
            model_type="unigram" if kind == "unigram" else "bpe",
            add_dummy_prefix=kind != "another prefix",
            remove_extra_whitespaces=False,
            vocab_size=300,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    else:
        inner = tokenizers.ByteLevelBPETokenizer()
        special = [] if kind == "no special token" else ["<pad>", "<s>", "</s>"]
        inner.train_from_iterator(["def f(x): return x + 1"] * 9, vocab_size=270, special_tokens=special)
        ends = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
        inner._tokenizer.post_processor = ends if kind == "adds an end" else tokenizers.processors.ByteLevel()
        inner.save(str(folder / "tokenizer.json"))


def test_the_files_of_an_earlier_tokenizer_do_not_stay(tokenizers_of_one_size, tmp_path):
    model = make_model(replace(BASE, vocab_size=264)).float()
    model.tokenizer = tokenizers_of_one_size[0]
    save(model, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHAT)
    (tmp_path / "notes.txt").write_text("mine")
    model.tokenizer = tokenizers_of_one_size[1]
    save(model, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors", "notes.txt", "tokenizer.json", "tokenizer_config.json"]
    save(load(tmp_path), tmp_path)
    assert (tmp_path / "tokenizer_config.json").is_file()
