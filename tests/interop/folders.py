"""Small models in the Hugging Face layout, made without PyTorch: random tensors under their names."""

from __future__ import annotations

import jax
import numpy as np

from taichu_jax.interop.architectures import ARCHITECTURES
from taichu_jax.interop.convert import _creation
from taichu_jax.interop.rules import to_theirs
from taichu_jax.interop.settings import Settings
from taichu_jax.interop.tensors import write_json, write_tensors

_BLOCKS = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
_PICTURE = _BLOCKS | {"image_size": 8, "patch_size": 4}
_SPEECH = _BLOCKS | {
    "conv_dim": [6, 6],
    "conv_kernel": [4, 3],
    "conv_stride": [3, 2],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 7,
}
_DINOV2 = {k: v for k, v in _PICTURE.items() if k != "intermediate_size"} | {"mlp_ratio": 2}
CONFIGS = {
    "bert": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
    "roberta": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
    "gpt2": {"vocab_size": 20, "n_positions": 10, "n_embd": 8, "n_layer": 2, "n_head": 2},
    "xlnet": {"vocab_size": 20, "d_model": 8, "n_layer": 2, "n_head": 2, "d_inner": 12},
    "bart": {
        "vocab_size": 20,
        "d_model": 8,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "decoder_ffn_dim": 12,
        "max_position_embeddings": 10,
    },
    "vit": _PICTURE,
    "vit_mae": _PICTURE
    | {
        "decoder_hidden_size": 8,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 8,
    },
    "wav2vec2": _SPEECH
    | {
        "num_codevector_groups": 2,
        "num_codevectors_per_group": 3,
        "codevector_dim": 4,
        "proj_codevector_dim": 6,
    },
    "data2vec-text": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
    "dinov2": _DINOV2 | {"use_swiglu_ffn": True},
    "dinov2_with_registers": _DINOV2 | {"num_register_tokens": 3},
    "beit": _PICTURE
    | {"use_relative_position_bias": True, "use_mask_token": True, "vocab_size": 7},
    "data2vec-vision": _PICTURE
    | {
        "use_shared_relative_position_bias": True,
        "use_absolute_position_embeddings": True,
        "use_mask_token": True,
    },
    "whisper": {
        "d_model": 8,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "max_source_positions": 6,
        "num_mel_bins": 5,
        "classifier_proj_size": 4,
    },
    "s3prl_apc": {
        "input_size": 5,
        "hidden_size": 8,
        "num_layers": 2,
        "residual": True,
        "vq": {"codebook_size": [6], "code_dim": [8], "gumbel_temperature": 0.5},
    },
    "s3prl_npc": {
        "input_size": 5,
        "hidden_size": 8,
        "n_blocks": 2,
        "dropout": 0.1,
        "residual": True,
        "kernel_size": 9,
        "mask_size": 3,
        "vq": {"codebook_size": [6, 6], "code_dim": [4, 4], "gumbel_temperature": 0.5},
    },
    "s3prl_transformer": _BLOCKS
    | {
        "input_dim": 10,
        "downsample_rate": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "share_layer": False,
        "pre_layer_norm": False,
    },
    "hubert": _SPEECH | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "data2vec-audio": _SPEECH | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    "flava": {
        "hidden_size": 8,
        "projection_dim": 6,
        "text_config": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
        "image_config": _PICTURE | {"vocab_size": 7},
        "multimodal_config": _BLOCKS | {"num_hidden_layers": 1},
        "image_codebook_config": {
            "num_blocks_per_group": 1,
            "hidden_size": 4,
            "vocab_size": 7,
        },
    },
    "clip": {
        "projection_dim": 6,
        "text_config": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
        "vision_config": _PICTURE,
    },
}


def tensors_of(
    model_type: str, without: tuple[str, ...] = (), change: dict | None = None
) -> tuple[dict, dict]:
    """(config.json, tensors), with all parts but `without` and with other settings."""
    values = {"model_type": model_type, **CONFIGS[model_type], **(change or {})}
    architecture, settings = ARCHITECTURES[model_type], Settings(values, "test")
    table = architecture.table(settings)
    networks = architecture.networks(settings, set(table.parts) - set(without), {})
    shapes = jax.eval_shape(_creation(architecture, networks))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda s: draw.normal(size=s.shape).astype(np.float32), shapes)
    tensors, _ = to_theirs(table, params, where="test")
    left_out = {rule.theirs for part in without for rule in table.parts[part]}
    return values, {name: x for name, x in tensors.items() if name not in left_out}


def write_folder(path, values: dict, tensors: dict, **how) -> None:
    write_tensors(path, tensors, **how)
    write_json(path / "config.json", values)
