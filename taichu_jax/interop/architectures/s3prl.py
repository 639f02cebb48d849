"""s3prl's APC, VQ-APC, NPC, Mockingjay, TERA and Audio ALBERT, in the layout that interop/s3prl.py makes.

Network `speech` and the head of the method. The model_types are ours, as these files have none.
s3prl's frames are not those of this project's streams (Kaldi's or torchaudio's, with their own window and
normalisation): weights are of use with theirs, or as a start of training.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from taichu_jax.config import spec
from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.streams import Recordings
from taichu_jax.errors import UserError
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.architectures.bert import block
from taichu_jax.interop.rules import Rule, Table, batch_norm, dense, norm, same, transposed
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.codes import GroupQuantiser
from taichu_jax.models.heads import Projection
from taichu_jax.models.layers import Linear
from taichu_jax.models.local_context import LocalContextEncoder
from taichu_jax.models.recurrent import RecurrentEncoder, VQRecurrentEncoder
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.style import Style
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding
from taichu_jax.objectives.speech.mockingjay import Mockingjay
from taichu_jax.objectives.speech.npc import NonAutoregressivePredictiveCoding
from taichu_jax.objectives.speech.vq_apc import VectorQuantisedAPC


def _voices(bands: int) -> dict:
    whole = spec(AudioAugment, band_masks=0, frame_masks=0)
    voices = spec(Recordings, batch_size=8, seconds=2.0, mel_bands=bands, audio_augment=whole)
    return {"voices": voices}


class _Speech(Architecture):
    """What the two kinds share."""

    def evaluations(self, streams):
        return {"language": spec(LanguageProbe, stream=streams["voices"], encoder="speech")}


class S3prlAPC(_Speech):
    """s3prl's APC and VQ-APC: GRU layers with residual sums, a quantiser behind the last."""

    model_type = "s3prl_apc"

    def table(self, settings):
        codes = settings("vq", None) is not None
        layer, head = ("recurrences", "vq_apc_head") if codes else ("layer", "apc_head")
        rules = dense("postnet", f"{head}/linear")
        for i in range(settings("num_layers")):
            theirs, ours = f"rnn_layers.{i}", f"speech/{layer}_{i}"
            rules += [
                transposed(f"{theirs}.weight_ih_l0", f"{ours}/input/kernel"),
                same(f"{theirs}.bias_ih_l0", f"{ours}/input/bias"),
                transposed(f"{theirs}.weight_hh_l0", f"{ours}/recurrent_kernel"),
                same(f"{theirs}.bias_hh_l0", f"{ours}/recurrent_bias"),
            ]
        if codes:
            rules += _group("vq_layers.0", "speech/quantiser", 0)
        return Table(rules=rules)

    def networks(self, settings, parts, processor):
        depth, codes = settings("num_layers"), settings("vq", None)
        if depth > 1:
            settings.only(residual=True)
        layers = {
            "width": settings("hidden_size"),
            "depth": depth,
            "dropout": settings("dropout", 0.0),
            "two_biases": True,
        }
        head = spec(Linear, features=settings("input_size"))
        if codes is None:
            return {"speech": spec(RecurrentEncoder, **layers), "apc_head": head}
        sizes = settings.section("vq")("codebook_size")
        if len(sizes) != 1:
            wrong = f"{settings.where}: vq.codebook_size={list(sizes)} is not supported"
            raise UserError(f"{wrong}; valid: one codebook")
        speech = spec(VQRecurrentEncoder, **layers, codes=sizes[0], after=depth)
        return {"speech": speech, "vq_apc_head": head}

    def touch(self, nets, networks):
        quantised = "vq_apc_head" in networks
        head = "vq_apc_head" if quantised else "apc_head"
        mel, lengths = jnp.zeros((1, 2, networks[head].features)), jnp.full(1, 2)
        if quantised:
            nets(head, nets("speech", mel, lengths, method="quantise").output)
        else:
            nets(head, nets("speech", mel, lengths).tokens)

    def training(self, settings, networks):
        voices = _voices(settings("input_size"))
        if "vq_apc_head" not in networks:
            loss = spec(AutoregressivePredictiveCoding, source="voices")
            return voices, {"apc": loss}, {}
        gumbel = settings.section("vq")("gumbel_temperature", 0.5)
        return voices, {"vq_apc": spec(VectorQuantisedAPC, source="voices", gumbel=gumbel)}, {}

    def settings(self, networks, parts):
        speech, quantised = networks["speech"], "vq_apc_head" in networks
        head = networks["vq_apc_head" if quantised else "apc_head"]
        result = {
            "model_type": self.model_type,
            "input_size": head.features,
            "hidden_size": speech.width,
            "num_layers": speech.depth,
            "dropout": speech.dropout,
            "residual": True,
        }
        if quantised:
            result["vq"] = {
                "codebook_size": [speech.codes],
                "code_dim": [speech.width],
                "gumbel_temperature": 0.5,
            }
        return result


class S3prlNPC(_Speech):
    """s3prl's NPC: its batch norms keep the statistics that they come with (`FrozenBatchNorm`)."""

    model_type = "s3prl_npc"

    def table(self, settings):
        blocks, kernel = settings("n_blocks"), settings("kernel_size")
        rules = dense("postnet", "npc_head/linear")
        for i in range(blocks):
            theirs, ours = f"blocks.{i}", f"speech/block_{i + 1}"
            rules += _window(f"{theirs}.conv", f"{ours}/convolution", 3)
            rules += _window(f"{theirs}.linear", f"{ours}/linear", 1)
            if settings("batch_norm", True):
                rules += batch_norm(f"{theirs}.bn1", f"{ours}/convolution_norm")
                rules += batch_norm(f"{theirs}.bn2", f"{ours}/linear_norm")
            if i == blocks - 1 or not settings("disable_cross_layer", False):
                hidden = settings("mask_size") + 2 * (i + 1)
                theirs, ours = f"masked_convs.{i}.conv", f"speech/masked_{i + 1}"
                rules += _window(theirs, ours, kernel, hidden)
        for g in range(_codebooks(settings)[0]):
            rules += _group(f"vq_layers.{g}", "quantiser", g)
        return Table(rules=rules)

    def networks(self, settings, parts, processor):
        settings.only(dim_bottleneck=None)
        activation = settings("activate", "relu")
        if activation not in ("relu", "tanh"):
            wrong = f"{settings.where}: activate={activation!r} is not supported"
            raise UserError(f"{wrong}; valid: relu, tanh")
        groups, codes = _codebooks(settings)
        speech = spec(
            LocalContextEncoder,
            width=settings("hidden_size"),
            blocks=settings("n_blocks"),
            kernel=settings("kernel_size"),
            mask=settings("mask_size"),
            dropout=settings("dropout", 0.0),
            norm="batch" if settings("batch_norm", True) else "none",
            activation=activation,
            residual=settings("residual"),
            cross_layer=not settings("disable_cross_layer", False),
        )
        return {
            "speech": speech,
            "quantiser": spec(GroupQuantiser, groups=groups, codes=codes),
            "npc_head": spec(Linear, features=settings("input_size")),
        }

    def touch(self, nets, networks):
        mel = jnp.zeros((1, 2, networks["npc_head"].features))
        states = nets("speech", mel, jnp.full(1, 2)).tokens
        nets("npc_head", nets("quantiser", states).vectors)

    def training(self, settings, networks):
        gumbel = settings.section("vq")("gumbel_temperature", 1.0)
        loss = spec(NonAutoregressivePredictiveCoding, source="voices", gumbel=gumbel)
        return _voices(settings("input_size")), {"npc": loss}, {}

    def settings(self, networks, parts):
        speech, quantiser = networks["speech"], networks["quantiser"]
        return {
            "model_type": self.model_type,
            "input_size": networks["npc_head"].features,
            "hidden_size": speech.width,
            "n_blocks": speech.blocks,
            "dropout": speech.dropout,
            "residual": speech.residual,
            "kernel_size": speech.kernel,
            "mask_size": speech.mask,
            "vq": {
                "codebook_size": [quantiser.codes] * quantiser.groups,
                "code_dim": [speech.width // quantiser.groups] * quantiser.groups,
                "gumbel_temperature": 1.0,
            },
            "batch_norm": speech.norm == "batch",
            "activate": speech.activation,
            "disable_cross_layer": not speech.cross_layer,
        }


class S3prlTransformer(_Speech):
    """s3prl's Mockingjay, TERA and Audio ALBERT: one network and head, different losses."""

    model_type = "s3prl_transformer"

    def table(self, settings):
        depth, pre = settings("num_hidden_layers"), settings("pre_layer_norm")
        own = 1 if settings("share_layer") else depth
        inputs, layers = "Transformer.input_representations", "Transformer.encoder.layer"
        rules = dense(f"{inputs}.spec_transform", "speech/front")
        rules += norm(f"{inputs}.LayerNorm", "speech/front_norm")
        for i in range(own):
            rules += block(f"{layers}.{i}", f"speech/transformer/block_{i}")
        tied: dict[str, str] = {}
        if pre:
            rules += norm(f"Transformer.encoder.LayerNorm.{depth}", "speech/transformer/norm")
            # the same norm under two names
            for i in range(own):
                for name in ("weight", "bias"):
                    for place in (f"{layers}.{i}.attention", f"{layers}.{i}"):
                        tied[f"{place}.LayerNorm.{name}"] = f"{place}.output.LayerNorm.{name}"
        first = f"{layers}.0."
        names = [rule.theirs for rule in rules] + list(tied)
        for name in names if own < depth else ():
            if name.startswith(first):
                for i in range(1, depth):
                    repeated = f"{layers}.{i}." + name.removeprefix(first)
                    tied[repeated] = tied.get(name, name)
        return Table(
            rules=rules,
            parts={
                "head": [
                    *dense("SpecHead.dense", "mockingjay_head/up"),
                    *norm("SpecHead.LayerNorm", "mockingjay_head/norm"),
                    *dense("SpecHead.output", "mockingjay_head/out"),
                ]
            },
            renames=((r"gamma$", "weight"), (r"beta$", "bias")),
            tied=tied,
            # norms of what is recorded of the layers below, which no later layer reads
            left_out=(rf"^Transformer\.encoder\.LayerNorm\.(?!{depth}\.)\d+\.",) if pre else (),
        )

    def networks(self, settings, parts, processor):
        width, stride = settings("hidden_size"), settings("downsample_rate", 1)
        cells, pre = settings("input_dim"), settings("pre_layer_norm")
        if cells % stride:
            wrong = f"{settings.where}: input_dim={cells}, downsample_rate={stride}"
            raise UserError(f"{wrong}: the one must be a multiple of the other")
        style = Style(
            norm="pre" if pre else "post",
            final_norm=pre,
            epsilon=settings("layer_norm_eps"),
            activation=settings.activation(),
        )
        networks = {
            "speech": spec(
                SpeechEncoder,
                width=width,
                depth=settings("num_hidden_layers"),
                heads=settings("num_attention_heads"),
                stride=stride,
                bands=cells // stride,
                frames=settings("sequence_length", 0) * stride or 3000,
                expansion=expansion(settings("intermediate_size"), width),
                dropout=settings("hidden_dropout_prob", 0.1),
                shared_layers=settings("share_layer"),
                front_end="linear",
                style=style,
            )
        }
        if "head" in parts:
            networks["mockingjay_head"] = spec(
                Projection,
                features=settings("output_dim", cells),
                hidden=width,
                activation=style.activation,
                norm="after",
                epsilon=style.epsilon,
            )
        return networks

    def touch(self, nets, networks):
        speech = networks["speech"]
        mel = jnp.zeros((1, 2 * speech.stride, speech.bands))
        states = nets("speech", mel, jnp.full(1, mel.shape[1])).tokens
        if "mockingjay_head" in networks:
            nets("mockingjay_head", states)

    def training(self, settings, networks):
        speech = networks["speech"]
        cells = speech.stride * speech.bands
        more = {"mockingjay_head": spec(Projection, features=cells, hidden=speech.width)}
        loss = spec(Mockingjay, source="voices")
        missing = {} if "mockingjay_head" in networks else more
        return _voices(speech.bands), {"mockingjay": loss}, missing

    def settings(self, networks, parts):
        speech = networks["speech"]
        result = {
            "model_type": self.model_type,
            "hidden_size": speech.width,
            "num_hidden_layers": speech.depth,
            "num_attention_heads": speech.heads,
            "hidden_act": their_activation(speech.style.activation),
            "intermediate_size": int(speech.expansion * speech.width),
            "hidden_dropout_prob": speech.dropout,
            "attention_probs_dropout_prob": speech.dropout,
            "initializer_range": 0.02,
            "layer_norm_eps": speech.style.epsilon,
            "share_layer": speech.shared_layers,
            "pre_layer_norm": speech.style.norm == "pre",
            "downsample_rate": speech.stride,
            "input_dim": speech.stride * speech.bands,
            "sequence_length": speech.frames // speech.stride,
        }
        if "head" in parts:
            result["output_dim"] = networks["mockingjay_head"].features
        return result


def _group(theirs: str, ours: str, group: int) -> list[Rule]:
    """One VQLayer as one group of a quantiser."""
    rules = (
        transposed(f"{theirs}.vq_logits.weight", f"{ours}/scores_kernel"),
        same(f"{theirs}.vq_logits.bias", f"{ours}/scores_bias"),
        transposed(f"{theirs}.codebook_CxE.weight", f"{ours}/code_embedding"),
    )
    return [rule._replace(entry=group) for rule in rules]


def _codebooks(settings: Settings) -> tuple[int, int]:
    """(groups, entries of each).

    Raises:
      UserError: NPC has no quantiser, or groups of several sizes.
    """
    if settings("vq", None) is None:
        raise UserError(f"{settings.where}: vq=None is not supported; valid: one codebook or more")
    section = settings.section("vq")
    sizes, widths = section("codebook_size"), section("code_dim")
    if not sizes or len(set(sizes)) > 1 or len(set(widths)) > 1 or len(sizes) != len(widths):
        wrong = f"{section.where}: codebook_size={list(sizes)}, code_dim={list(widths)}"
        raise UserError(f"{wrong} are not supported; valid: groups of one size")
    return len(sizes), sizes[0]


def _window(theirs: str, ours: str, size: int, hidden: int = 0) -> list[Rule]:
    """torch.nn.Conv1d [out, in, size] as a product with the frames around, first frame first.

    hidden: how many offsets at the centre are left out; s3prl multiplies their weights with zero.
    """
    seen = 2 * np.abs(np.arange(size) - size // 2) >= hidden

    def take(x):
        if x.ndim != 3 or x.shape[2] != size:
            raise ValueError("another kernel")
        return (x[:, :, seen].transpose(2, 1, 0).reshape(-1, len(x)),)

    def give(x):
        width, kept = x.shape[1], seen.sum()
        weight = np.zeros((width, len(x) // kept, size), x.dtype)
        weight[:, :, seen] = x.reshape(kept, -1, width).transpose(2, 1, 0)
        return weight

    kernel = Rule(f"{theirs}.weight", (f"{ours}/kernel",), take, give)
    return [kernel, same(f"{theirs}.bias", f"{ours}/bias")]
