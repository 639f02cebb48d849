"""Objectives of one step that ask an encoder the same question share its computation."""

import collections

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from taichu_jax.training.state import init_params
from taichu_jax.training.step import make_loss
from tests import batches

CALLS = collections.Counter()
TOKENS = {"text": batches.LENGTH, "image": 4, "audio": 8}


class Encoder(nn.Module):
    """Counts how often it is traced."""

    kind: str
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *_, **__):
        CALLS[self.kind] += 1
        gain = self.param("gain", nn.initializers.ones, ())
        shape = (x.shape[0], TOKENS[self.kind])
        return Encoded(tokens=gain * jnp.ones((*shape, 2)), mask=jnp.ones(shape, bool))

    @nn.compact
    def logits(self, states):
        return jnp.ones((*states.shape[:-1], batches.VOCAB))


class Fusion(nn.Module):
    @nn.compact
    def __call__(self, **parts):
        CALLS["fusion"] += 1
        tokens = [x.tokens for x in parts.values()]
        tokens = jnp.concatenate([tokens[0][:, :1], *tokens], 1)
        return Encoded(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool))


class Head(nn.Module):
    """Ones of a width for every vector; a number where nothing is given."""

    width: int

    @nn.compact
    def __call__(self, x=None):
        return jnp.ones(()) if x is None else jnp.ones((*x.shape[:-1], self.width))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, tokens, *_):
        return jnp.ones((*tokens.shape, batches.VOCAB))


MODULES = {name: Encoder(name) for name in TOKENS} | {
    "fusion": Fusion(),
    "scale": Head(1),
    "matching": Head(5),
    "text_decoder": Decoder(),
    "image_prediction": Head(8 * 8 * 3),
    "audio_prediction": Head(4 * batches.BANDS),
    **{f"{name}_projection": Head(3) for name in TOKENS},
}
OBJECTIVES = {
    "align": ContrastiveAlignment(source="s"),
    "write": OPTModalityLevel(source="s", share=0.5),
    "match": OPTSampleLevel(source="s"),
    "tokens": OPTTokenLevel(source="s", vocab_size=batches.VOCAB, patch=8, stride=4),
}


def calls(names, modules=MODULES):
    """How often each network is traced in one step of some of the objectives."""
    objectives = {name: OBJECTIVES[name] for name in names}
    streams = {"s": {k: jnp.asarray(v) for k, v in batches.triplets(4).items()}}
    params, teachers, memory = jax.eval_shape(lambda: init_params(modules, objectives, streams, 0))
    CALLS.clear()
    loss = make_loss(modules, objectives, 0)
    jax.eval_shape(loss, params, teachers, memory, streams, jnp.int32(0))
    return dict(CALLS)


def test_what_is_asked_twice_is_computed_once():
    """The fusions read different things, so they are not shared; the encoders read the batch."""
    encoders = dict.fromkeys(TOKENS, 1)
    assert calls(["align"]) == encoders
    assert calls(["align", "write"]) == encoders | {"fusion": 1}
    assert calls(["align", "match", "write"]) == encoders | {"fusion": 2}


def test_corrupted_inputs_are_another_question():
    twice = dict.fromkeys(TOKENS, 2)
    assert calls(["align", "match", "tokens", "write"]) == twice | {"fusion": 3}


def test_a_network_with_dropout_is_asked_again():
    noisy = MODULES | {"image": Encoder("image", dropout=0.1)}
    want = {"text": 1, "image": 3, "audio": 1, "fusion": 2}
    assert calls(["align", "match", "write"], noisy) == want
