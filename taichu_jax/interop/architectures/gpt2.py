"""GPT-2 (Radford et al. 2019): network `text`, causal, logits through the embedding."""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Table, cut, norm, same
from taichu_jax.interop.settings import expansion, their_activation
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.causal_lm import CausalLanguageModel

QUERY_KEY_VALUE = ("query", "key", "value")


class GPT2(Architecture):
    """GPT2Model, GPT2LMHeadModel. Its matrices are [in, out], as ours."""

    model_type = "gpt2"

    def table(self, settings):
        rules = [
            same("transformer.wte.weight", "text/token_embedding"),
            same("transformer.wpe.weight", "text/position"),
            *norm("transformer.ln_f", "text/transformer/norm"),
        ]
        for i in range(settings("n_layer", 12)):
            theirs, ours = f"transformer.h.{i}", f"text/transformer/block_{i}"
            rules += norm(f"{theirs}.ln_1", f"{ours}/attention_norm")
            rules += norm(f"{theirs}.ln_2", f"{ours}/feed_forward_norm")
            for their_name, our_name in (("weight", "kernel"), ("bias", "bias")):
                parts = tuple(f"{ours}/attention/{name}/{our_name}" for name in QUERY_KEY_VALUE)
                rules += [
                    cut(f"{theirs}.attn.c_attn.{their_name}", parts, axis=-1),
                    same(f"{theirs}.attn.c_proj.{their_name}", f"{ours}/attention/out/{our_name}"),
                    same(f"{theirs}.mlp.c_fc.{their_name}", f"{ours}/feed_forward/up/{our_name}"),
                    same(
                        f"{theirs}.mlp.c_proj.{their_name}", f"{ours}/feed_forward/down/{our_name}"
                    ),
                ]
        return Table(
            rules=rules,
            prefix="transformer.",
            tied={"lm_head.weight": "transformer.wte.weight"},
            ignored=(r"\.attn\.(masked_)?bias$",),
        )

    def networks(self, settings, parts, processor):
        settings.only(add_cross_attention=False, tie_word_embeddings=True, scale_attn_weights=True)
        settings.only(scale_attn_by_inverse_layer_idx=False)
        width = settings("n_embd", 768)
        return {
            "text": spec(
                TextEncoder,
                vocab_size=settings("vocab_size", 50257),
                width=width,
                depth=settings("n_layer", 12),
                heads=settings("n_head", 12),
                length=settings("n_positions", 1024),
                expansion=expansion(settings("n_inner", None) or 4 * width, width),
                dropout=settings("resid_pdrop", 0.1),
                causal=True,
                style=Style(
                    epsilon=settings("layer_norm_epsilon", 1e-5),
                    activation=settings.activation("activation_function", "gelu_new"),
                ),
                head_kind="tied",
            )
        }

    def touch(self, nets, networks):
        tokens = jnp.zeros((1, 2), jnp.int32)
        nets("text", nets("text", tokens, tokens == 0).tokens, method="logits")

    def training(self, settings, networks):
        length = min(networks["text"].length, 128)
        streams = {"text": spec(Sentences, batch_size=8, text_length=length)}
        return streams, {"causal_lm": spec(CausalLanguageModel, source="text")}, {}

    def settings(self, networks, parts):
        text = networks["text"]
        return {
            "model_type": self.model_type,
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": text.vocab_size,
            "n_embd": text.width,
            "n_layer": text.depth,
            "n_head": text.heads,
            "n_inner": int(text.expansion * text.width),
            "n_positions": text.length,
            "activation_function": their_activation(text.style.activation),
            "layer_norm_epsilon": text.style.epsilon,
            "resid_pdrop": text.dropout,
            "embd_pdrop": text.dropout,
            "attn_pdrop": text.dropout,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": True,
        }
