"""The encoder of Whisper (arXiv 2212.04356): network `speech`, from log-mel frames.

Its decoder has no place here and is left out. The classifier of WhisperForAudioClassification is the
networks `projector` and `classifier`: classifier(mean over time of projector(states)).

Frames are those of Whisper's own processor, (max(log10 power, its maximum - 8) + 4) / 4, 30 seconds
of them, silence behind the end included: the lengths that it was trained with are always the longest.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.streams import Recordings
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, convolution, dense, norm, same
from taichu_jax.interop.settings import expansion, their_activation
from taichu_jax.models.heads import Projection
from taichu_jax.models.layers import Linear
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.style import Style
from taichu_jax.objectives.speech.mockingjay import Mockingjay

EPSILON, STRIDE = 1e-5, 2


def block(theirs: str, ours: str) -> list[Rule]:
    """A block of Whisper's encoder; its keys have no bias."""
    rules = norm(f"{theirs}.self_attn_layer_norm", f"{ours}/attention_norm")
    for mine, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        attention = f"{theirs}.self_attn.{name}_proj", f"{ours}/attention/{mine}"
        rules += dense(*attention, bias=mine != "key")
    rules += norm(f"{theirs}.final_layer_norm", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.fc1", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.fc2", f"{ours}/feed_forward/down")


class Whisper(Architecture):
    """WhisperModel, WhisperForConditionalGeneration, WhisperForAudioClassification, WhisperEncoder."""

    model_type = "whisper"

    def table(self, settings):
        rules = [
            *convolution("encoder.conv1", "speech/convolutions_0"),
            *convolution("encoder.conv2", "speech/convolutions_1"),
            same("encoder.embed_positions.weight", "speech/token_position"),
            *norm("encoder.layer_norm", "speech/transformer/norm"),
        ]
        for i in range(settings("encoder_layers", 4)):
            rules += block(f"encoder.layers.{i}", f"speech/transformer/block_{i}")
        return Table(
            rules=rules,
            parts={
                "classifier": [
                    *dense("projector", "projector/linear"),
                    *dense("classifier", "classifier/linear"),
                ]
            },
            renames=(
                (r"^model\.", ""),
                (r"^(?=(conv[12]|embed_positions|layers|layer_norm)\.)", "encoder."),
            ),
            left_out=(r"^(model\.)?decoder\.", r"^proj_out\."),
        )

    def networks(self, settings, parts, processor):
        settings.only(scale_embedding=False)
        width = settings("d_model", 384)
        activation = settings.activation("activation_function")
        networks = {
            "speech": spec(
                SpeechEncoder,
                width=width,
                depth=settings("encoder_layers", 4),
                heads=settings("encoder_attention_heads", 6),
                stride=STRIDE,
                bands=settings("num_mel_bins", 80),
                frames=STRIDE * settings("max_source_positions", 1500),
                expansion=expansion(settings("encoder_ffn_dim", 1536), width),
                dropout=settings("dropout", 0.0),
                front_end="convolution",
                positions="learned",
                style=Style(epsilon=EPSILON, activation=activation, key_bias=False),
            )
        }
        if "classifier" in parts:
            settings.only(use_weighted_layer_sum=False)
            labels = settings("num_labels", None) or len(settings("id2label", {0: "", 1: ""}))
            networks["projector"] = spec(Linear, features=settings("classifier_proj_size", 256))
            networks["classifier"] = spec(Linear, features=labels)
        return networks

    def touch(self, nets, networks):
        speech = networks["speech"]
        mel, lengths = jnp.zeros((1, 2, speech.bands)), jnp.full(1, 2)
        states = nets("speech", mel, lengths).tokens
        if "projector" in networks:
            nets("classifier", nets("projector", states).mean(1))

    def training(self, settings, networks):
        speech = networks["speech"]
        whole = spec(AudioAugment, band_masks=0, frame_masks=0)
        seconds = min(2.0, (speech.frames - 1) / 100)
        voices = spec(
            Recordings,
            batch_size=8,
            seconds=seconds,
            mel_bands=speech.bands,
            audio_augment=whole,
        )
        head = spec(Projection, features=STRIDE * speech.bands, hidden=speech.width)
        loss = spec(Mockingjay, source="voices")
        return {"voices": voices}, {"mockingjay": loss}, {"mockingjay_head": head}

    def evaluations(self, streams):
        return {"language": spec(LanguageProbe, stream=streams["voices"], encoder="speech")}

    def settings(self, networks, parts):
        speech = networks["speech"]
        result = {
            "model_type": self.model_type,
            # The class whose encoder is all of this one; without a classifier it gets a fresh one.
            "architectures": ["WhisperForAudioClassification"],
            "d_model": speech.width,
            "encoder_layers": speech.depth,
            "num_hidden_layers": speech.depth,
            "encoder_attention_heads": speech.heads,
            "encoder_ffn_dim": int(speech.expansion * speech.width),
            "num_mel_bins": speech.bands,
            "max_source_positions": speech.frames // STRIDE,
            "activation_function": their_activation(speech.style.activation),
            "dropout": speech.dropout,
            "attention_dropout": speech.dropout,
            "activation_dropout": speech.dropout,
            "scale_embedding": False,
            "use_weighted_layer_sum": False,
        }
        if "classifier" in parts:
            labels = range(networks["classifier"].features)
            result["classifier_proj_size"] = networks["projector"].features
            result["id2label"] = {str(i): f"LABEL_{i}" for i in labels}
            result["label2id"] = {f"LABEL_{i}": i for i in labels}
        return result
