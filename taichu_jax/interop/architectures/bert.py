"""BERT (arXiv 1810.04805), RoBERTa (1907.11692), data2vec for text (2202.03555): network `text`.

The pooler and the next-sentence head are networks `pooler` and `next_sentence_head`, linear layers;
the tanh between is the caller's.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, dense, norm, same
from taichu_jax.interop.settings import expansion, their_activation
from taichu_jax.models.layers import Linear
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel


def block(theirs: str, ours: str) -> list[Rule]:
    """A block of BERT."""
    rules = norm(f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm")
    for name in ("query", "key", "value"):
        rules += dense(f"{theirs}.attention.self.{name}", f"{ours}/attention/{name}")
    rules += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out")
    rules += norm(f"{theirs}.output.LayerNorm", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.intermediate.dense", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.output.dense", f"{ours}/feed_forward/down")


class Bert(Architecture):
    """BertModel, BertForMaskedLM, BertForPreTraining."""

    model_type = "bert"
    prefix = "bert."
    class_name = "Bert"
    epsilon, length, types, pad = 1e-12, 512, 2, 0

    def table(self, settings):
        rules = self._encoder(settings("num_hidden_layers"))
        words = f"{self.prefix}embeddings.word_embeddings.weight"
        head = "cls.predictions"
        return Table(
            rules=rules,
            parts={
                "pooler": dense(f"{self.prefix}pooler.dense", "pooler/linear"),
                "masked_lm": [
                    *dense(f"{head}.transform.dense", "text/head"),
                    *norm(f"{head}.transform.LayerNorm", "text/head_norm"),
                    same(f"{head}.bias", "text/head_bias"),
                ],
                "next_sentence": dense("cls.seq_relationship", "next_sentence_head/linear"),
            },
            prefix=self.prefix,
            renames=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"\.beta$", ".bias")),
            tied={f"{head}.decoder.weight": words, f"{head}.decoder.bias": f"{head}.bias"},
            ignored=(r"embeddings\.(position|token_type)_ids$",),
        )

    def networks(self, settings, parts, processor):
        settings.only(is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
        settings.only(position_embedding_type="absolute")
        width, offset = settings("hidden_size"), self._offset(settings)
        networks = {
            "text": spec(
                TextEncoder,
                vocab_size=settings("vocab_size"),
                width=width,
                depth=settings("num_hidden_layers"),
                heads=settings("num_attention_heads"),
                length=settings("max_position_embeddings", self.length) - offset,
                expansion=expansion(settings("intermediate_size"), width),
                dropout=settings("hidden_dropout_prob", 0.1),
                style=Style(
                    norm="post",
                    first_norm=True,
                    final_norm=False,
                    epsilon=settings("layer_norm_eps", self.epsilon),
                    activation=self._activation(settings),
                ),
                token_types=settings("type_vocab_size", self.types),
                position_scheme="real" if offset else "index",
                position_offset=offset,
            )
        }
        if "pooler" in parts:
            networks["pooler"] = spec(Linear, features=width)
        if "next_sentence" in parts:
            networks["next_sentence_head"] = spec(Linear, features=2)
        return networks

    def touch(self, nets, networks):
        tokens = jnp.zeros((1, 2), jnp.int32)
        states = nets("text", tokens, tokens == 0).tokens
        nets("text", states, method="logits")
        for name in ("pooler", "next_sentence_head"):
            if name in networks:
                nets(name, states[:, 0])

    def training(self, settings, networks):
        text = networks["text"]
        streams = {"text": spec(Sentences, batch_size=8, text_length=min(text.length, 128))}
        loss = spec(MaskedLanguageModel, source="text", vocab_size=text.vocab_size)
        return streams, {"masked_lm": loss}, {}

    def settings(self, networks, parts):
        text = networks["text"]
        head = "ForMaskedLM" if "masked_lm" in parts else "Model"
        if {"masked_lm", "next_sentence"} <= set(parts):
            head = "ForPreTraining"
        return {
            "model_type": self.model_type,
            "architectures": [self.class_name + head],
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.heads,
            "intermediate_size": int(text.expansion * text.width),
            "hidden_act": their_activation(text.style.activation),
            "layer_norm_eps": text.style.epsilon,
            "max_position_embeddings": text.length + text.position_offset,
            "type_vocab_size": text.token_types,
            "hidden_dropout_prob": text.dropout,
            "attention_probs_dropout_prob": text.dropout,
            "pad_token_id": self._pad(text),
            "tie_word_embeddings": True,
        }

    def _encoder(self, depth: int) -> list[Rule]:
        places = f"{self.prefix}embeddings"
        rules = [
            same(f"{places}.word_embeddings.weight", "text/token_embedding"),
            same(f"{places}.position_embeddings.weight", "text/position"),
            same(f"{places}.token_type_embeddings.weight", "text/type_embedding"),
            *norm(f"{places}.LayerNorm", "text/first_norm"),
        ]
        for i in range(depth):
            rules += block(f"{self.prefix}encoder.layer.{i}", f"text/transformer/block_{i}")
        return rules

    def _offset(self, settings) -> int:
        del settings
        return 0

    def _pad(self, text) -> int:
        del text
        return self.pad

    def _activation(self, settings) -> str:
        return settings.activation()


class Roberta(Bert):
    """RobertaModel, RobertaForMaskedLM. Positions count the real tokens, from the pad id + 1 on."""

    model_type = "roberta"
    prefix = "roberta."
    class_name = "Roberta"
    pad = 1

    def table(self, settings):
        words = f"{self.prefix}embeddings.word_embeddings.weight"
        return Table(
            rules=self._encoder(settings("num_hidden_layers")),
            parts={
                "pooler": dense(f"{self.prefix}pooler.dense", "pooler/linear"),
                "masked_lm": [
                    *dense("lm_head.dense", "text/head"),
                    *norm("lm_head.layer_norm", "text/head_norm"),
                    same("lm_head.bias", "text/head_bias"),
                ],
            },
            prefix=self.prefix,
            tied={"lm_head.decoder.weight": words, "lm_head.decoder.bias": "lm_head.bias"},
            ignored=(r"embeddings\.(position|token_type)_ids$",),
        )

    def _offset(self, settings) -> int:
        return settings("pad_token_id", self.pad) + 1

    def _pad(self, text) -> int:
        return text.position_offset - 1

    def _activation(self, settings) -> str:
        settings.only(hidden_act="gelu")  # its head has that one whatever the blocks have
        return "gelu"


class Data2VecText(Roberta):
    """Data2VecTextModel, Data2VecTextForMaskedLM: RoBERTa's layout."""

    model_type = "data2vec-text"
    prefix = "data2vec_text."
    class_name = "Data2VecText"
