"""What is predicted of a model's cost is what the built model has, moves and computes."""

import importlib.util

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab.accounting import DENSE, Cost, Dense, all_flops, cost, crossover, matrices

every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
SMALL = Dense(61, 24, 2, 6, 2, 4, 40)


@every_variant
@torch.no_grad()
def test_parameters_and_bytes_are_those_of_the_built_model(config):
    model, ids = make_model(config).to(torch.bfloat16), random_ids(config, b=1)
    found, (_, cache) = cost(config, context=19), model.extend(ids)
    assert found.params == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == sum(p.nbytes for p in model.parameters())
    kv = sum(t.nbytes for layer in cache.layers for name, t in layer.tensors().items() if name in "kv")
    assert (found.kv_bytes, found.state_bytes) == (kv, cache.nbytes - kv)
    assert found.memory == found.weight_bytes + cache.nbytes
    one = [layer.k.nbytes + layer.v.nbytes for layer in cache.layers if layer.k is not None]
    assert found.kv_bytes_per_invocation == (one[0] if one else 0)


@every_variant
@torch.no_grad()
def test_weight_traffic_is_what_a_decoded_token_reads(config, monkeypatch):
    """Every matrix product of one token is watched: the bytes of the weights it is given."""
    from zamba_lab.blocks.linear import Embedding, Linear

    model, read = make_model(config), 0

    def watched(module, name):
        run = getattr(module, name)

        def once(x):
            nonlocal read
            read += module.weight.numel()
            return run(x)

        monkeypatch.setattr(module, name, once)

    for module in model.modules():
        if isinstance(module, Linear):
            watched(module, "forward")
    if config.tie_embeddings:
        watched(model.embedding, "logits")
    _, cache = model.extend(random_ids(config, b=1, l=3))
    read = 0
    model.extend(random_ids(config, b=1, l=1), cache)
    assert read == sum(m.read * m.out * m.width for m in matrices(config))
    stored = sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear | Embedding))
    assert stored == sum(m.stored * m.out * m.width for m in matrices(config))
    assert cost(config, 1, torch.float32).weight_traffic >= 4 * read


@pytest.mark.parametrize("variant", ["transformer", "transformer, grouped queries, no rope"])
def test_flops_of_a_prompt_and_of_training_are_those_torch_counts(variant):
    """torch counts the whole square of scores, of which causal attention needs the lower triangle."""
    config, l = VARIANTS[variant], 12
    model, ids = make_model(config), random_ids(config, b=1, l=l)
    square = 4 * config.n_layers * config.attn_heads * config.head_dim * (l * l - l * (l + 1) // 2)
    with sdpa_kernel(SDPBackend.MATH):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.extend(ids, last_only=True)
        assert counter.get_total_flops() == cost(config, l).prefill_flops + square
        with FlopCounterMode(display=False) as counter:
            model(ids).sum().backward()
        assert counter.get_total_flops() == cost(config, l).train_flops + 3 * square


@every_variant
def test_flops_of_many_tokens_are_the_sum_of_each(config):
    each = sum(config.flops_per_token(t) for t in range(1, 38))
    assert cost(config, 37).train_flops == pytest.approx(3 * each, rel=1e-12)
    assert cost(config, 37).prefill_flops == pytest.approx(each - 36 * 2 * config.vocab_size * config.d_model, rel=1e-12)


def test_flops_beyond_a_window_are_the_sum_of_each():
    windowed = Dense(61, 24, 3, 6, 2, 4, 40, window=(5, None, 9))
    assert all_flops(windowed, 37) == pytest.approx(sum(windowed.flops_per_token(t) for t in range(1, 38)), rel=1e-12)


PUBLISHED = {"phi-3-mini": 3_821_079_552, "gemma-2-2b": 2_614_341_888, "llama-3-8b": 8_030_261_248}
PUBLISHED |= {"stablelm-3b": 2_795_443_200, "openelm-3b": 3_036_647_424}


@pytest.mark.parametrize("name", DENSE)
def test_dense_shapes_have_the_published_parameters(name):
    assert cost(name).params == PUBLISHED[name]


def built(name, **changes):
    """transformers' model of a dense shape, on the meta device unless it is small."""
    import transformers

    kinds = {"phi-3-mini": "Phi3", "gemma-2-2b": "Gemma2", "llama-3-8b": "Llama", "stablelm-3b": "StableLm"}
    c = changes.pop("shape", DENSE[name])
    # fmt: off
    config = getattr(transformers, f"{kinds[name]}Config")(
        vocab_size=c.vocab_size, hidden_size=c.d_model, num_hidden_layers=c.n_layers, num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads, head_dim=c.head_dim, intermediate_size=c.d_mlp, tie_word_embeddings=c.tie_embeddings,
        pad_token_id=0, attn_implementation="eager",
    )
    # fmt: on
    return getattr(transformers, f"{kinds[name]}ForCausalLM")(config)


@needs_transformers
@pytest.mark.parametrize("name", [name for name in DENSE if name != "openelm-3b"])
def test_dense_shapes_have_the_parameters_that_transformers_builds(name):
    with torch.device("meta"):
        model = built(name)
    assert sum({id(p): p.numel() for p in model.parameters()}.values()) == cost(name).params


@needs_transformers
@torch.no_grad()
def test_flops_and_bytes_of_a_dense_transformer_are_those_of_the_built_one():
    model, l = built("llama-3-8b", shape=SMALL), 12
    ids = torch.arange(l)[None]
    square = 4 * SMALL.n_layers * SMALL.heads * SMALL.head_dim * (l * l - l * (l + 1) // 2)
    with FlopCounterMode(display=False) as counter:
        out = model(ids, use_cache=True, logits_to_keep=1)
    assert counter.get_total_flops() == cost(SMALL, l).prefill_flops + square
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    assert cost(SMALL, l, torch.float32).kv_bytes == held
    assert cost(SMALL, l, torch.float32).weight_bytes == sum(p.nbytes for p in model.parameters())


def brute(a, b, of, limit):
    ahead = [getattr(cost(a, n), of) < getattr(cost(b, n), of) for n in range(1, limit + 1)]
    return None if not ahead[-1] else next(n for n in range(limit, -1, -1) if n == 0 or not ahead[n - 1]) + 1


@pytest.mark.parametrize("of", ["memory", "traffic", "decode_flops", "kv_bytes", "prefill_flops", "train_flops"])
def test_a_crossover_is_the_last_context_at_which_the_order_changes(of):
    windowed = Dense(61, 24, 3, 6, 2, 4, 40, window=(50, None, 90))
    pairs = [(VARIANTS["base"], SMALL), (SMALL, VARIANTS["base"]), (windowed, SMALL), (VARIANTS["mamba1"], windowed)]
    # ahead with one token by its small vocabulary, then behind by its MLPs, then ahead by its one head
    pairs.append((Dense(10, 24, 3, 1, 1, 4, 80), Dense(300, 24, 3, 6, 2, 4, 40)))
    for a, b in pairs:
        assert crossover(a, b, of, limit=300) == brute(a, b, of, 300)


def test_hybrids_need_less_from_the_context_that_their_formulas_say():
    assert crossover("zamba2-2.7b", "phi-3-mini") == 1
    assert crossover("zamba2-2.7b", "gemma-2-2b") is None  # whose windows keep its keys and values fewer
    n = crossover("zamba2-2.7b", "phi-3-mini", "traffic")
    assert n is not None and n > 1 and cost("zamba2-2.7b", n).traffic < cost("phi-3-mini", n).traffic
    assert cost("zamba2-2.7b", n - 1).traffic >= cost("phi-3-mini", n - 1).traffic
    assert cost("zamba2-2.7b").weight_traffic == pytest.approx(2 * 3.85e9, rel=0.01)  # for 2.66 G stored


def test_a_config_that_is_none_is_refused():
    with pytest.raises(ValueError, match="or one of .*zamba2-2.7b.*phi-3-mini.*got 'phi-4'"):
        cost("phi-4")
    with pytest.raises(ValueError, match="context must be 1 or more"):
        cost("phi-3-mini", 0)
    with pytest.raises(ValueError, match="d_mlp must be one number or one a layer, 2: got 3"):
        Dense(61, 24, 2, 6, 2, 4, (1, 2, 3))
    assert isinstance(zl.cost(zl.ZambaConfig()), Cost)


def test_what_is_kept_is_read_once_and_named_or_refused():
    kept = zl.cost("zamba2-nano", bits=8, keep=("embedding", "links"))
    assert zl.cost("zamba2-nano", bits=8, keep=(part for part in ("embedding", "links"))) == kept != zl.cost("zamba2-nano", bits=8)
    with pytest.raises(ValueError, match=r"keep of \('embedding', .*got 4096, 8, 64 and \('norms',\)"):
        zl.cost("zamba2-nano", bits=8, keep=("norms",))
