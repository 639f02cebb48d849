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
    "hubert": _SPEECH | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "data2vec-audio": _SPEECH | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    "clip": {
        "projection_dim": 6,
        "text_config": _BLOCKS | {"vocab_size": 20, "max_position_embeddings": 10},
        "vision_config": _PICTURE,
    },
}


def tensors_of(model_type: str, without: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """(config.json, tensors), with all parts but `without`."""
    values = {"model_type": model_type, **CONFIGS[model_type]}
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
