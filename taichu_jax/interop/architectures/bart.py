"""BART (arXiv 1910.13461): network `text`, an `EncoderDecoder`.

Their decoder begins with the end token and then writes a beginning token; ours is given [CLS].
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, dense, leading, norm, same
from taichu_jax.interop.settings import expansion, their_activation
from taichu_jax.models.encoder_decoder import EncoderDecoder
from taichu_jax.models.style import Style
from taichu_jax.objectives.text.denoising import Denoising

EPSILON, OFFSET = 1e-5, 2


def attention(theirs: str, ours: str) -> list[Rule]:
    """An attention of BART."""
    names = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
    return [rule for mine, name in names for rule in dense(f"{theirs}.{name}", f"{ours}/{mine}")]


def stack(theirs: str, ours: str, depth: int, cross: bool) -> list[Rule]:
    """Positions, their norm and the blocks of one side."""
    rules = [
        same(f"{theirs}.embed_positions.weight", f"{ours}/position"),
        *norm(f"{theirs}.layernorm_embedding", f"{ours}/first_norm"),
    ]
    for i in range(depth):
        layer, block = f"{theirs}.layers.{i}", f"{ours}/transformer/block_{i}"
        rules += attention(f"{layer}.self_attn", f"{block}/attention")
        rules += norm(f"{layer}.self_attn_layer_norm", f"{block}/attention_norm")
        if cross:
            rules += attention(f"{layer}.encoder_attn", f"{block}/cross")
            rules += norm(f"{layer}.encoder_attn_layer_norm", f"{block}/cross_norm")
        rules += dense(f"{layer}.fc1", f"{block}/feed_forward/up")
        rules += dense(f"{layer}.fc2", f"{block}/feed_forward/down")
        rules += norm(f"{layer}.final_layer_norm", f"{block}/feed_forward_norm")
    return rules


class Bart(Architecture):
    """BartModel, BartForConditionalGeneration."""

    model_type = "bart"

    def table(self, settings):
        words = "model.shared.weight"
        rules = [same(words, "text/encoder/token_embedding")]
        for side, cross in (("encoder", False), ("decoder", True)):
            depth = settings(f"{side}_layers", 12)
            rules += stack(f"model.{side}", f"text/{side}", depth, cross)
        return Table(
            rules=rules,
            parts={"bias": [leading("final_logits_bias", "text/decoder/head_bias", 1)]},
            prefix="model.",
            tied={
                "lm_head.weight": words,
                "model.encoder.embed_tokens.weight": words,
                "model.decoder.embed_tokens.weight": words,
            },
        )

    def networks(self, settings, parts, processor):
        width, heads = settings("d_model", 1024), settings("encoder_attention_heads", 16)
        hidden = settings("encoder_ffn_dim", 4096)
        settings.only(is_encoder_decoder=True, tie_word_embeddings=True, scale_embedding=False)
        settings.only(decoder_attention_heads=heads, decoder_ffn_dim=hidden)
        settings.only(normalize_before=False, normalize_embedding=True, add_final_layer_norm=False)
        settings.only(static_position_embeddings=False)
        return {
            "text": spec(
                EncoderDecoder,
                vocab_size=settings("vocab_size", 50265),
                width=width,
                depth=settings("encoder_layers", 12),
                decoder_depth=settings("decoder_layers", 12),
                heads=heads,
                length=settings("max_position_embeddings", 1024),
                expansion=expansion(hidden, width),
                dropout=settings("dropout", 0.1),
                position_offset=OFFSET,
                style=Style(
                    norm="post",
                    first_norm=True,
                    final_norm=False,
                    epsilon=EPSILON,
                    activation=settings.activation("activation_function"),
                ),
            )
        }

    def touch(self, nets, networks):
        tokens = jnp.zeros((1, 2), jnp.int32)
        read = nets("text", tokens, tokens == 0)
        nets("text", tokens, tokens == 0, read.tokens, read.mask, method="decode")

    def training(self, settings, networks):
        length = min(networks["text"].length, 128)
        streams = {
            "text": spec(Sentences, batch_size=8, text_length=length, pack=True, consecutive=True)
        }
        return streams, {"denoising": spec(Denoising, source="text", permute=True)}, {}

    def settings(self, networks, parts):
        text = networks["text"]
        hidden = int(text.expansion * text.width)
        return {
            "model_type": self.model_type,
            "architectures": ["BartForConditionalGeneration" if "bias" in parts else "BartModel"],
            "vocab_size": text.vocab_size,
            "d_model": text.width,
            "encoder_layers": text.depth,
            "decoder_layers": text.decoder_depth,
            "encoder_attention_heads": text.heads,
            "decoder_attention_heads": text.heads,
            "encoder_ffn_dim": hidden,
            "decoder_ffn_dim": hidden,
            "activation_function": their_activation(text.style.activation),
            "max_position_embeddings": text.length,
            "dropout": text.dropout,
            "attention_dropout": text.dropout,
            "activation_dropout": text.dropout,
            "scale_embedding": False,
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
        }
