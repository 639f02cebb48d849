"""BERT with its whole head and with the head at masked positions, and GPT-2."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.speed.workloads.base import STREAM, Train, tokens

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


class _Text(Train):
    """Rows of ids without padding."""

    def batch(self, sizes):
        ids = tokens(sizes["model"]["vocab_size"], (sizes["batch"], sizes["length"]))
        return {"text": ids, "text_mask": np.ones(ids.shape, np.bool_)}

    def units(self, sizes):
        return sizes["batch"] * sizes["length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bert(_Text):
    """BertForMaskedLM; no sentence pairs.

    Attributes:
      masked_only: our head sees the masked positions alone. Theirs always sees all.
    """

    masked_only: bool = False

    def model(self, sizes):
        import transformers

        return transformers.BertForMaskedLM(transformers.BertConfig(**sizes["model"], **NO_DROPOUT))

    def inputs(self, batch, draws, sizes):
        labels = np.where(draws["chosen"], batch["text"], -100)
        return {"input_ids": draws["corrupted"], "labels": labels}

    def loss(self, model, inputs):
        return model(**inputs).loss

    def objective(self, sizes):
        from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel

        vocabulary = sizes["model"]["vocab_size"]
        return MaskedLanguageModel(
            source=STREAM, vocab_size=vocabulary, chosen_only=self.masked_only
        )

    def draws(self, key, batch, sizes, modules):
        from taichu_jax.ops.masking import hide_words

        vocabulary = sizes["model"]["vocab_size"]
        text, present = batch["text"], batch["text_mask"]
        corrupted, chosen = hide_words(key, text, present, rate=0.15, vocab_size=vocabulary)
        return {"chosen": chosen, "corrupted": corrupted}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPT2(_Text):
    """GPT2LMHeadModel."""

    draws_in_step: bool = False

    def model(self, sizes):
        return gpt2(sizes)

    def inputs(self, batch, draws, sizes):
        return {"input_ids": batch["text"], "labels": batch["text"]}

    def loss(self, model, inputs):
        return model(**inputs, use_cache=False).loss

    def objective(self, sizes):
        from taichu_jax.objectives.text.causal_lm import CausalLanguageModel

        return CausalLanguageModel(source=STREAM)


def gpt2(sizes):
    """A GPT2LMHeadModel that no token ends."""
    import transformers

    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**sizes["model"], **GPT2_NO_DROPOUT, **ends)
    )


GPT2_TINY = {"vocab_size": 64, "n_positions": 24, "n_embd": 16, "n_layer": 1, "n_head": 2}
GPT2_BASE = {"vocab_size": 50257}  # the rest are the defaults of GPT2Config: GPT-2 small
_BERT = {
    "tiny": {
        "batch": 2,
        "length": 14,
        "model": {
            "vocab_size": 64,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 16,
        },
    },
    "base": {"batch": 8, "length": 128, "model": {"vocab_size": 30522}},
    "gpu": {"batch": 128},
}

TEXT = (
    Bert(name="bert", label="BERT-base, masked language model", unit="tokens", goal=1.0, **_BERT),
    Bert(
        name="bert_masked_head",
        label="BERT-base, our head at masked positions only",
        unit="tokens",
        goal=0.95,
        masked_only=True,
        same_work=False,
        **_BERT,
    ),
    GPT2(
        name="gpt2",
        label="GPT-2 small",
        unit="tokens",
        goal=1.0,
        tiny={"batch": 2, "length": 12, "model": GPT2_TINY},
        base={"batch": 4, "length": 256, "model": GPT2_BASE},
        gpu={"batch": 16, "length": 1024},
    ),
)
