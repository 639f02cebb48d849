"""wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), data2vec for audio (2202.03555): network `speech`.

Heads: `quantiser`, `wav2vec2_head` and `wav2vec2_target_head` of wav2vec 2.0's own training, `ctc_head`.
Group norm (the base models) leaves padding out here and takes it in there: the two agree on utterances
without padding. Several position convolutions (data2vec) carry padding into what is real there.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.streams import Recordings
from taichu_jax.errors import UserError
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, convolution, dense, leading, norm, same
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.layers import Linear
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.style import Style
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.data2vec import Data2VecAudio
from taichu_jax.objectives.speech.hubert import HuBERT
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
CHANNELS = (512,) * 7
EPSILON = 1e-5
QUANTISER = "quantiser", "wav2vec2_head", "wav2vec2_target_head"


def block(theirs: str, ours: str) -> list[Rule]:
    """A block of these models, pre-norm or post-norm."""
    rules = norm(f"{theirs}.layer_norm", f"{ours}/attention_norm")
    for mine, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        rules += dense(f"{theirs}.attention.{name}_proj", f"{ours}/attention/{mine}")
    rules += norm(f"{theirs}.final_layer_norm", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.feed_forward.intermediate_dense", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.feed_forward.output_dense", f"{ours}/feed_forward/down")


def front_end(prefix: str, settings: Settings, norms: str) -> list[Rule]:
    """Convolutions and projection."""
    rules: list[Rule] = []
    for i in range(len(settings("conv_dim", CHANNELS))):
        theirs = f"{prefix}feature_extractor.conv_layers.{i}"
        bias = settings("conv_bias", False)
        rules += convolution(f"{theirs}.conv", f"speech/convolutions_{i}", bias)
        if norms == "layer" or i == 0:
            rules += norm(f"{theirs}.layer_norm", f"speech/norms_{i}")
    rules += norm(f"{prefix}feature_projection.layer_norm", "speech/latent_norm")
    return rules + dense(f"{prefix}feature_projection.projection", "speech/projection")


def transformer(prefix: str, settings: Settings, pre: bool) -> list[Rule]:
    """Blocks, and the norm behind (pre-norm) or before them."""
    rules = norm(
        f"{prefix}encoder.layer_norm", f"speech/{'transformer/norm' if pre else 'first_norm'}"
    )
    for i in range(settings("num_hidden_layers", 12)):
        rules += block(f"{prefix}encoder.layers.{i}", f"speech/transformer/block_{i}")
    return rules


class Hubert(Architecture):
    """HubertModel, HubertForCTC."""

    model_type = "hubert"
    prefix = "hubert."
    class_name = "Hubert"

    def table(self, settings):
        pre, norms = self._pre(settings), self._norms(settings)
        rules = front_end(self.prefix, settings, norms) + self._places(settings)
        return Table(
            rules=rules + transformer(self.prefix, settings, pre),
            parts={
                "mask_token": [same(f"{self.prefix}masked_spec_embed", "speech/mask_token")],
                "ctc": dense("lm_head", "ctc_head/linear"),
                **self._heads(settings),
            },
            prefix=self.prefix,
            renames=(
                (r"\.weight_g$", ".parametrizations.weight.original0"),
                (r"\.weight_v$", ".parametrizations.weight.original1"),
            ),
        )

    def networks(self, settings, parts, processor):
        self._refuse(settings)
        width, channels = settings("hidden_size", 768), settings("conv_dim", CHANNELS)
        if len(set(channels)) != 1:
            wrong = f"{settings.where}: conv_dim={list(channels)} is not supported"
            raise UserError(f"{wrong}; valid: one number for all layers")
        pre, norms = self._pre(settings), self._norms(settings)
        networks = {
            "speech": spec(
                WaveEncoder,
                width=width,
                depth=settings("num_hidden_layers", 12),
                heads=settings("num_attention_heads", 12),
                channels=channels[0],
                kernels=tuple(settings("conv_kernel", KERNELS)),
                strides=tuple(settings("conv_stride", STRIDES)),
                norm=norms,
                groups=settings("num_conv_pos_embedding_groups", 16),
                gradient_scale=1.0,
                expansion=expansion(settings("intermediate_size", 3072), width),
                dropout=settings("hidden_dropout", 0.1),
                style=Style(
                    norm="pre" if pre else "post",
                    first_norm=not pre,
                    final_norm=pre,
                    epsilon=EPSILON,
                    activation=settings.activation(),
                ),
                convolution_bias=settings("conv_bias", False),
                **self._place_fields(settings),
            )
        }
        if "ctc" in parts:
            networks["ctc_head"] = spec(Linear, features=settings("vocab_size", 32))
        return networks | self._head_networks(settings, parts)

    def touch(self, nets, networks):
        samples = _shortest(networks["speech"])
        states = nets("speech", jnp.zeros((1, samples)), jnp.full(1, samples))
        if "ctc_head" in networks:
            nets("ctc_head", states.tokens)
        if set(QUANTISER) <= set(networks):
            latents, _ = nets(
                "speech", jnp.zeros((1, samples)), jnp.full(1, samples), method="features"
            )
            found = nets("quantiser", latents)
            nets("wav2vec2_head", states.tokens)
            nets("wav2vec2_target_head", found.vectors)

    def training(self, settings, networks):
        units = {"units": "units", "unit_rate": 50.0, "unit_clusters": 500}
        more = {
            "hubert_head": spec(Linear, features=256),
            "hubert_codebook": spec(Codebook, codes=500, dim=256),
        }
        loss = spec(HuBERT, source="voices", unit_rate=50.0, penalty=0.0)
        return _voices(networks, **units), {"hubert": loss}, more

    def evaluations(self, streams):
        return {"language": spec(LanguageProbe, stream=streams["voices"], encoder="speech")}

    def settings(self, networks, parts):
        speech = networks["speech"]
        layers = len(speech.kernels)
        bias = speech.convolution_bias
        result = {
            "model_type": self.model_type,
            "architectures": [self.class_name + self._class_ending(parts)],
            "hidden_size": speech.width,
            "num_hidden_layers": speech.depth,
            "num_attention_heads": speech.heads,
            "intermediate_size": int(speech.expansion * speech.width),
            "hidden_act": their_activation(speech.style.activation),
            "layer_norm_eps": EPSILON,
            "conv_dim": [speech.channels] * layers,
            "conv_kernel": list(speech.kernels),
            "conv_stride": list(speech.strides),
            "num_feat_extract_layers": layers,
            "conv_bias": speech.norm == "layer" if bias is None else bias,
            "feat_extract_norm": speech.norm,
            "do_stable_layer_norm": speech.style.norm == "pre",
            "num_conv_pos_embedding_groups": speech.groups,
            "hidden_dropout": speech.dropout,
            "attention_dropout": speech.dropout,
            "activation_dropout": speech.dropout,
        }
        if "ctc" in parts:
            result["vocab_size"] = networks["ctc_head"].features
        return result | self._their_places(speech)

    def _class_ending(self, parts) -> str:
        return "ForCTC" if "ctc" in parts else "Model"

    def _refuse(self, settings) -> None:
        settings.only(feat_extract_activation="gelu", layer_norm_eps=EPSILON)
        settings.only(feat_proj_layer_norm=True, conv_pos_batch_norm=False)

    def _pre(self, settings) -> bool:
        return settings("do_stable_layer_norm", False)

    def _norms(self, settings) -> str:
        return settings("feat_extract_norm", "group")

    def _places(self, settings) -> list[Rule]:
        theirs = f"{self.prefix}encoder.pos_conv_embed.conv"
        weight = f"{theirs}.parametrizations.weight"
        kernel = convolution(theirs, "speech/place")
        return [
            leading(f"{weight}.original0", "speech/place/kernel_scale", 2),
            kernel[0]._replace(theirs=f"{weight}.original1"),
            kernel[1],
        ]

    def _place_fields(self, settings) -> dict:
        return {"positions": settings("num_conv_pos_embeddings", 128), "weight_norm": True}

    def _their_places(self, speech) -> dict:
        return {"num_conv_pos_embeddings": speech.positions}

    def _heads(self, settings) -> dict[str, list[Rule]]:
        del settings
        return {}

    def _head_networks(self, settings, parts) -> dict:
        del settings, parts
        return {}


class Wav2Vec2Speech(Hubert):
    """Wav2Vec2Model, Wav2Vec2ForPreTraining, Wav2Vec2ForCTC."""

    model_type = "wav2vec2"
    prefix = "wav2vec2."
    class_name = "Wav2Vec2"

    def training(self, settings, networks):
        fresh = {
            "quantiser": spec(ProductQuantiser),
            "wav2vec2_head": spec(Linear, features=256),
            "wav2vec2_target_head": spec(Linear, features=256),
        }
        more = {name: found for name, found in fresh.items() if name not in networks}
        return _voices(networks), {"wav2vec2": spec(Wav2Vec2, source="voices")}, more

    def settings(self, networks, parts):
        result = super().settings(networks, parts)
        if "pretraining" in parts:
            quantiser = networks["quantiser"]
            result |= {
                "num_codevector_groups": quantiser.groups,
                "num_codevectors_per_group": quantiser.codes,
                "codevector_dim": quantiser.dim,
                "proj_codevector_dim": networks["wav2vec2_head"].features,
            }
        return result

    def _class_ending(self, parts) -> str:
        return "ForPreTraining" if "pretraining" in parts else super()._class_ending(parts)

    def _refuse(self, settings) -> None:
        super()._refuse(settings)
        settings.only(add_adapter=False, adapter_attn_dim=None)

    def _heads(self, settings) -> dict[str, list[Rule]]:
        groups = settings("num_codevector_groups", 2)

        def take(x):
            if x.ndim != 3 or len(x) != 1 or x.shape[1] % groups:
                raise ValueError("another codebook")
            return (x.reshape(groups, -1, x.shape[-1]),)

        codes = Rule(
            "quantizer.codevectors",
            ("quantiser/code_embedding",),
            take,
            lambda x: x.reshape(1, -1, x.shape[-1]),
        )
        return {
            "pretraining": [
                codes,
                *dense("quantizer.weight_proj", "quantiser/scores"),
                *dense("project_hid", "wav2vec2_head/linear"),
                *dense("project_q", "wav2vec2_target_head/linear"),
            ]
        }

    def _head_networks(self, settings, parts) -> dict:
        if "pretraining" not in parts:
            return {}
        width = settings("proj_codevector_dim", 256)
        return {
            "quantiser": spec(
                ProductQuantiser,
                groups=settings("num_codevector_groups", 2),
                codes=settings("num_codevectors_per_group", 320),
                dim=settings("codevector_dim", 256),
            ),
            "wav2vec2_head": spec(Linear, features=width),
            "wav2vec2_target_head": spec(Linear, features=width),
        }


class Data2VecSpeech(Hubert):
    """Data2VecAudioModel, Data2VecAudioForCTC: several position convolutions, norms over channels."""

    model_type = "data2vec-audio"
    prefix = "data2vec_audio."
    class_name = "Data2VecAudio"

    def training(self, settings, networks):
        loss = spec(Data2VecAudio, source="voices")
        width = networks["speech"].width
        return (
            _voices(networks),
            {"data2vec": loss},
            {"data2vec_head": spec(Linear, features=width)},
        )

    def _refuse(self, settings) -> None:
        super()._refuse(settings)
        settings.only(add_adapter=False)

    def _pre(self, settings) -> bool:
        del settings
        return False

    def _norms(self, settings) -> str:
        del settings
        return "layer"

    def _places(self, settings) -> list[Rule]:
        theirs = f"{self.prefix}encoder.pos_conv_embed"
        count = settings("num_conv_pos_embeddings", 5)
        if count == 1:
            raise UserError(f"{settings.where}: num_conv_pos_embeddings=1; valid: 2 or more")
        rules: list[Rule] = []
        for i in range(count):
            rules += convolution(f"{theirs}.layers.{i}.conv", f"speech/places_{i}")
        return rules

    def _place_fields(self, settings) -> dict:
        layers = settings("num_conv_pos_embeddings", 5)
        return {"positions": settings("conv_pos_kernel_size", 19), "position_layers": layers}

    def _their_places(self, speech) -> dict:
        return {
            "num_conv_pos_embeddings": speech.position_layers,
            "conv_pos_kernel_size": speech.positions,
        }


def _shortest(speech) -> int:
    """The samples that give two tokens."""
    samples = 2
    for size, stride in zip(reversed(speech.kernels), reversed(speech.strides), strict=True):
        samples = (samples - 1) * stride + size
    return samples


def _voices(networks, **units) -> dict:
    whole = spec(AudioAugment, band_masks=0, frame_masks=0)
    del networks
    voices = spec(
        Recordings, batch_size=8, seconds=2.0, audio="waveform", audio_augment=whole, **units
    )
    return {"voices": voices}
