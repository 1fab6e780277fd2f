"""The published config.json formats as data: which key fills which field of ours, and every default.

All defaults are stated here, since readers disagree about them: with `num_mem_blocks` absent one builds one block and
another two, with `use_mem_rope` absent one has rotary positions and another has none, and one reader's default number
of SSM heads fits no published model. A wrong guess cannot pass: the stored names and shapes have to fit too.
"""

from dataclasses import dataclass, field

from zamba_lab.checkpoints.json_values import REQUIRED


@dataclass(frozen=True)
class Format:
    """The config.json of one model_type.

    fields: our field -> (key, kind, default), for keys that say what our field says.
    read: keys that `config_read` reads with a few lines of code: several make one field, or one makes several.
    only: keys with one value that there is code for; absent or null is that value.
    ignored: keys that do not change what the model computes, and why.
    spellings: older and other names -> the key of today.
    """

    architecture: str
    fields: dict[str, tuple]
    read: list[str]
    only: dict[str, object] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> set[str]:
        filled = {key for key, *_ in self.fields.values()}
        return filled | {*self.read, *self.only, *self.ignored, *ONLY, *IGNORED, "model_type", "eos_token_id", OWN}


OWN = "zamba_lab"  # the key for what a published format cannot say; also our own format's model_type
MAMBA_LAYER, HYBRID_LAYER = ("mamba", "linear_attention", "m"), ("hybrid", "g")
# published name -> ours; the first of each is what we write
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "silu": "silu", "swish": "silu", "relu": "relu"}

ONLY = {
    "rope_scaling": None,
    "quantization_config": None,
    "pruned_heads": {},
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
}


def _keys(text: str) -> list[str]:
    return text.split()


def _spellings(text: str) -> dict[str, str]:
    """Older or other name -> today's, from "older today, ..."."""
    return dict(pair.split() for pair in text.split(", "))


def _words(reasons: dict[str, str]) -> dict[str, str]:
    return {key: why for why, keys in reasons.items() for key in _keys(keys)}


# Keys of any format that cannot change what the model computes. The doctor lists those that are there.
IGNORED = _words(
    {
        "a label": "_name_or_path name_or_path _commit_hash transformers_version unsloth_version unsloth_fixed finetuning_task",
        "model_type says it": "architectures",
        "where another reader finds its code": "auto_map",
        "the tensors say it": "torch_dtype dtype",
        "training only": "initializer_range time_step_floor gradient_checkpointing",
        "training only; no released model clamps the step size from above": "time_step_max",
        "the range dt_bias was drawn from; the released models were trained without a clamp": "time_step_min",
        "speed only": "chunk_size chunk_size_feed_forward use_mamba_kernels use_associative_scan use_bfloat16 torchscript "
        "_attn_implementation _attn_implementation_autoset _attn_implementation_internal attn_implementation",
        "a habit of the reader": "use_cache num_logits_to_keep tf_legacy_loss is_decoder output_attentions output_hidden_states "
        "return_dict tokenizer_class",
        "of classifiers": "id2label label2id num_labels problem_type task_specific_params",
        "of models with an encoder": "cross_attention_hidden_size decoder_start_token_id sep_token_id prefix",
        "how text is drawn": "max_length min_length max_new_tokens min_new_tokens do_sample early_stopping num_beams num_beam_groups "
        "diversity_penalty temperature top_k top_p min_p typical_p repetition_penalty length_penalty no_repeat_ngram_size "
        "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id "
        "forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens",
    }
)

_SIZES = {
    "vocab_size": ("vocab_size", "int", REQUIRED),
    "d_model": ("hidden_size", "int", REQUIRED),
    "n_layers": ("num_hidden_layers", "int", REQUIRED),
}

# --- Zamba and Zamba2 ---------------------------------------------------------------------------------------------
_HYBRID = {
    **_SIZES,
    "d_conv": ("mamba_d_conv", "int", 4),
    "expand": ("mamba_expand", "int", 2),
    "norm_eps": ("rms_norm_eps", "float", 1e-5),
    "tie_embeddings": ("tie_word_embeddings", "bool", True),  # absent everywhere, and means tied
    "max_context": ("max_position_embeddings", "int", 4096),
    "pad_token_id": ("pad_token_id", "int | None", 0),
    "bos_token_id": ("bos_token_id", "int | None", 1),
}
_HYBRID_READ = _keys(
    "layers_block_type n_mamba_heads num_key_value_heads intermediate_size attention_head_dim attention_hidden_size hidden_act"
)
_HYBRID_IGNORED = {"attention_dropout": "training only", "sliding_window": "never applied"}
_HYBRID_SPELLINGS = {"layer_types": "layers_block_type", "head_dim": "attention_head_dim"}

ZAMBA2 = Format(
    "Zamba2ForCausalLM",
    fields={
        **_HYBRID,
        "d_state": ("mamba_d_state", "int", 64),
        "n_groups": ("mamba_ngroups", "int", 1),
        "attn_heads": ("num_attention_heads", "int", 32),
    },
    read=_HYBRID_READ
    + _keys(
        "hybrid_layer_ids mamba_headdim ffn_hidden_size num_mem_blocks adapter_rank use_shared_mlp_adapter use_shared_attention_adapter "
        "use_mem_rope rope_theta rope_parameters use_long_context add_bias_linear time_step_limit kv_channels num_query_groups"
    ),
    only={"gated_linear_unit": True, "ft_lora": False},
    ignored={
        **_HYBRID_IGNORED,
        "use_mem_eff_path": "speed only",
        "lora_rank_mamba": "belongs to ft_lora, which is off",
        "use_conv_bias": "the convolution has its bias whatever this says",
    },
    spellings=_HYBRID_SPELLINGS
    | _spellings(
        "state_size mamba_d_state, conv_dimension mamba_d_conv, expansion_factor mamba_expand, lora_rank adapter_rank, "
        "use_shared_block_lora use_shared_mlp_adapter, use_shared_attention_lora use_shared_attention_adapter, "
        "se_shared_attention_lora use_shared_attention_adapter"  # a misprint in one published revision
    ),
)

ZAMBA = Format(
    "ZambaForCausalLM",
    fields={
        **_HYBRID,
        "d_state": ("mamba_d_state", "int", 16),
        "attn_heads": ("num_attention_heads", "int", 16),
        "conv_bias": ("mamba_conv_bias", "bool", True),
        "proj_bias": ("mamba_proj_bias", "bool", False),
    },
    read=_HYBRID_READ + ["attn_layer_period", "attn_layer_offset", "mamba_dt_rank"],
    only={"hidden_mamba_act": "silu"},
    ignored={**_HYBRID_IGNORED, "rope_theta": "Zamba has no positions", "rope_parameters": "Zamba has no positions"},
    spellings=_HYBRID_SPELLINGS,
)

# --- pure Mamba: the reference library's spelling; the original code's is turned into it ---------------------------
_PURE = {
    **_SIZES,
    "d_conv": ("conv_kernel", "int", 4),
    "expand": ("expand", "int", 2),
    "norm_eps": ("layer_norm_epsilon", "float", 1e-5),
    "conv_bias": ("use_conv_bias", "bool", True),
    "proj_bias": ("use_bias", "bool", False),
    "bos_token_id": ("bos_token_id", "int | None", 0),
}
_PURE_ONLY = {"hidden_act": "silu", "rms_norm": True, "d_intermediate": 0, "attn_layer_idx": []}
_PURE_IGNORED = _words(
    {
        "the stream has the parameters' dtype here": "residual_in_fp32",
        "speed only": "fused_add_norm use_mambapy",
        "training only": "rescale_prenorm_residual time_step_init_scheme time_step_scale",
        "vocab_size is rounded up": "pad_vocab_size_multiple",
        "there is no attention": "attn_cfg",
    }
)
_PURE_SPELLINGS = _spellings(
    "d_model hidden_size, n_layer num_hidden_layers, d_state state_size, d_conv conv_kernel, dt_rank time_step_rank, headdim head_dim, "
    "ngroups n_groups, tie_embeddings tie_word_embeddings, conv_bias use_conv_bias, bias use_bias, d_inner intermediate_size"
)
MAMBA = Format(
    "MambaForCausalLM",
    fields={
        **_PURE,
        "d_state": ("state_size", "int", 16),
        "tie_embeddings": ("tie_word_embeddings", "bool", True),
        "pad_token_id": ("pad_token_id", "int | None", 0),
    },
    read=["time_step_rank", "intermediate_size"],
    only=_PURE_ONLY,
    ignored=_PURE_IGNORED,
    spellings=_PURE_SPELLINGS,
)
MAMBA2 = Format(
    "Mamba2ForCausalLM",
    fields={
        **_PURE,
        "d_state": ("state_size", "int", 128),
        "headdim": ("head_dim", "int", 64),
        "n_groups": ("n_groups", "int", 8),
        "tie_embeddings": ("tie_word_embeddings", "bool", False),
        "pad_token_id": ("pad_token_id", "int | None", 1),
    },
    read=["num_heads", "time_step_limit", "intermediate_size"],
    only={**_PURE_ONLY, "layer_norm_epsilon": 1e-5},
    ignored={**_PURE_IGNORED, "time_step_rank": "Mamba-1's"},
    spellings=_PURE_SPELLINGS,
)
# The original code's own defaults, and how it calls the two kinds of layer.
ORIGINAL = {
    "Mamba1": {"d_state": 16, "model_type": "mamba"},
    "Mamba2": {"d_state": 128, "headdim": 64, "ngroups": 1, "model_type": "mamba2"},
}
ORIGINAL_DEFAULTS = {"tie_embeddings": True, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}

FORMATS = {"zamba2": ZAMBA2, "zamba": ZAMBA, "mamba2": MAMBA2, "mamba": MAMBA}
EOS = {"zamba2": 2, "zamba": 2, "mamba": 0, "mamba2": 2}


def ignored_keys(raw: dict) -> dict[str, str]:
    """The keys of a config.json that are not read, since they cannot change what the model computes -> why."""
    form = FORMATS.get(raw["model_type"])
    reasons = IGNORED | (form.ignored if form else {})
    return {key: reasons[key] for key in raw if key in reasons}
