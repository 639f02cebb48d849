"""XLNet (arXiv 1906.08237): network `text`.

There, attention has matrices [D, heads, D / heads], also the one behind it, which is used transposed.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, dense, leading, norm, same
from taichu_jax.interop.settings import expansion, their_activation
from taichu_jax.models.style import Style
from taichu_jax.models.xlnet import XLNet
from taichu_jax.objectives.text.permutation_lm import PermutationLanguageModel


def by_head(theirs: str, ours: str, heads: int, transposed: bool = False) -> Rule:
    """[in, heads, out / heads] to [in, out], or to [out, in]."""

    def take(x):
        if x.ndim != 3 or x.shape[1] != heads:
            raise ValueError("other heads")
        x = x.reshape(len(x), -1)
        return (x.T if transposed else x,)

    def give(x):
        x = x.T if transposed else x
        return x.reshape(len(x), heads, -1)

    return Rule(theirs, (ours,), take, give)


def block(theirs: str, ours: str, heads: int) -> list[Rule]:
    """A block of XLNet."""
    attention = f"{ours}/attention"
    rules = [
        by_head(f"{theirs}.rel_attn.{name}", f"{attention}/{mine}/kernel", heads)
        for name, mine in (("q", "query"), ("k", "key"), ("v", "value"))
    ]
    rules += [
        by_head(f"{theirs}.rel_attn.o", f"{attention}/out/kernel", heads, transposed=True),
        by_head(f"{theirs}.rel_attn.r", f"{attention}/relative/position_kernel", heads),
        same(f"{theirs}.rel_attn.r_w_bias", f"{attention}/relative/content_bias"),
        same(f"{theirs}.rel_attn.r_r_bias", f"{attention}/relative/position_bias"),
        same(f"{theirs}.rel_attn.r_s_bias", f"{attention}/relative/segment_bias"),
        same(f"{theirs}.rel_attn.seg_embed", f"{attention}/relative/segment_embedding"),
        *norm(f"{theirs}.rel_attn.layer_norm", f"{ours}/attention_norm"),
        *norm(f"{theirs}.ff.layer_norm", f"{ours}/feed_forward_norm"),
    ]
    rules += dense(f"{theirs}.ff.layer_1", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.ff.layer_2", f"{ours}/feed_forward/down")


class XLNetText(Architecture):
    """XLNetModel, XLNetLMHeadModel. How long a memory is (mem_len, reuse_len) is up to the caller."""

    model_type = "xlnet"

    def table(self, settings):
        words = "transformer.word_embedding.weight"
        rules = [
            same(words, "text/token_embedding"),
            leading("transformer.mask_emb", "text/mask_token", 2),
        ]
        for i in range(settings("n_layer", 24)):
            theirs, ours = f"transformer.layer.{i}", f"text/transformer/block_{i}"
            rules += block(theirs, ours, settings("n_head", 16))
        return Table(
            rules=rules,
            parts={"language_model": [same("lm_loss.bias", "text/head_bias")]},
            prefix="transformer.",
            tied={"lm_loss.weight": words},
        )

    def networks(self, settings, parts, processor):
        width, heads = settings("d_model", 1024), settings("n_head", 16)
        settings.only(attn_type="bi", bi_data=False, clamp_len=-1, same_length=False)
        settings.only(untie_r=True, tie_word_embeddings=True, d_head=width // heads)
        return {
            "text": spec(
                XLNet,
                vocab_size=settings("vocab_size", 32000),
                width=width,
                depth=settings("n_layer", 24),
                heads=heads,
                expansion=expansion(settings("d_inner", 4096), width),
                dropout=settings("dropout", 0.1),
                segments=True,
                style=Style(
                    norm="post",
                    final_norm=False,
                    epsilon=settings("layer_norm_eps", 1e-12),
                    activation=settings.activation("ff_activation"),
                    query_bias=False,
                    key_bias=False,
                    value_bias=False,
                    out_bias=False,
                ),
            )
        }

    def touch(self, nets, networks):
        tokens = jnp.zeros((1, 2), jnp.int32)
        nets("text", nets("text", tokens, tokens == 0).tokens, method="logits")

    def training(self, settings, networks):
        streams = {"text": spec(Sentences, batch_size=8, text_length=128, pack=True)}
        loss = spec(PermutationLanguageModel, source="text", packed=True)
        return streams, {"permutation_lm": loss}, {}

    def settings(self, networks, parts):
        text = networks["text"]
        head = "LMHeadModel" if "language_model" in parts else "Model"
        return {
            "model_type": self.model_type,
            "architectures": [f"XLNet{head}"],
            "vocab_size": text.vocab_size,
            "d_model": text.width,
            "n_layer": text.depth,
            "n_head": text.heads,
            "d_head": text.width // text.heads,
            "d_inner": int(text.expansion * text.width),
            "ff_activation": their_activation(text.style.activation),
            "layer_norm_eps": text.style.epsilon,
            "dropout": text.dropout,
            "attn_type": "bi",
            "bi_data": False,
            "clamp_len": -1,
            "same_length": False,
            "tie_word_embeddings": True,
        }
