"""FLAVA (arXiv 2112.04482): networks `text`, `image`, `fusion`, and what lies on top of them.

    text_projection, image_projection, scale        the contrastive loss, over first tokens
    mmm_text_head, mmm_image_head, itm_head         over the fusion's states; MLM's head is part of `text`
    mim_head                                        over the image encoder's states
    text_pooler, image_pooler, fusion_pooler        linear; the tanh behind them is the caller's
    image_tokeniser                                 the dVAE's encoder, whose codes are predicted

Each of the last two lines and every head is there if the file has it; FlavaModel has poolers only.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.streams import Pictures, Triplets
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.architectures.clip import DEVIATION, MEAN
from taichu_jax.interop.architectures.vit import block, style
from taichu_jax.interop.rules import (
    Rule,
    Table,
    convolution_2d,
    dense,
    leading,
    norm,
    patches,
    positions,
    same,
    transposed,
)
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.dalle_encoder import GROUPS, DalleEncoder
from taichu_jax.models.heads import ClampedLogitScale, Projection
from taichu_jax.models.layers import Linear
from taichu_jax.models.pair_fusion import PairFusion
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.encoders import ClassTokenEncoders
from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.objectives.vision.beit import BEiT

ENCODERS = {"text": "text_model", "image": "image_model", "fusion": "multimodal_model"}
CODE_HEADS = ("mim_head", "mmm_image_head")
HIDDEN, LEAST = 0.383, 16  # 75 of 196 patches; of the smallest block
WORDS = 77  # tokens of the longest text of a pair


class Flava(Architecture):
    """FlavaModel, FlavaForPreTraining."""

    model_type = "flava"

    def table(self, settings):
        text, image, fusion = _sections(settings)
        image.only(mask_token=True)
        fusion.only(use_cls_token=True)
        words, picture = "flava.text_model.embeddings", "flava.image_model.embeddings"
        size = image.number("patch_size", 16)
        rules = [
            same(f"{words}.word_embeddings.weight", "text/token_embedding"),
            same(f"{words}.position_embeddings.weight", "text/position"),
            same(f"{words}.token_type_embeddings.weight", "text/type_embedding"),
            *norm(f"{words}.LayerNorm", "text/first_norm"),
            leading(f"{picture}.cls_token", "image/cls_token", 2),
            leading(f"{picture}.mask_token", "image/mask_token", 2),
            positions(
                f"{picture}.position_embeddings", "image/cls_position", "image/patch_position"
            ),
            patches(f"{picture}.patch_embeddings.projection.weight", "image/patches/kernel", size),
            dense(f"{picture}.patch_embeddings.projection", "image/patches")[1],
            leading("flava.multimodal_model.cls_token", "fusion/cls_token", 2),
            *dense("flava.image_to_mm_projection", "fusion/image_input"),
            *dense("flava.text_to_mm_projection", "fusion/text_input"),
            *dense("flava.image_projection", "image_projection/linear"),
            *dense("flava.text_projection", "text_projection/linear"),
            same("flava.logit_scale", "scale/logit_scale"),
        ]
        for (ours, theirs), part in zip(ENCODERS.items(), (text, image, fusion), strict=True):
            rules += norm(f"flava.{theirs}.layernorm", f"{ours}/transformer/norm")
            depth = part("num_hidden_layers", 6 if ours == "fusion" else 12)
            for i in range(depth):
                layer = f"flava.{theirs}.encoder.layer.{i}"
                rules += block(layer, f"{ours}/transformer/block_{i}", part("qkv_bias", True))
        parts = {
            f"{ours}_pooler": dense(f"flava.{theirs}.pooler.dense", f"{ours}_pooler/linear")
            for ours, theirs in ENCODERS.items()
        }
        for name in (*CODE_HEADS, "mmm_text_head"):
            parts[name] = _masked_head(name, f"{name}/up", f"{name}/norm") + dense(
                f"{name}.decoder", f"{name}/out"
            )
        parts["mlm_head"] = [
            *_masked_head("mlm_head", "text/head", "text/head_norm"),
            transposed("mlm_head.decoder.weight", "text/head_kernel"),
            same("mlm_head.decoder.bias", "text/head_bias"),
        ]
        parts["itm_head"] = [
            *dense("itm_head.pooler.dense", "itm_head/up"),
            *dense("itm_head.seq_relationship", "itm_head/out"),
        ]
        parts["codebook"] = _codebook(settings)
        heads = (*CODE_HEADS, "mmm_text_head", "mlm_head")
        return Table(
            rules=rules,
            parts=parts,
            prefix="flava.",
            tied={f"{name}.bias": f"{name}.decoder.bias" for name in heads},
            ignored=(r"embeddings\.(position|token_type)_ids$",),
        )

    def networks(self, settings, parts, processor):
        text, image, fusion = _sections(settings)
        image.only(num_channels=3)
        picture, features = _size(image), settings("projection_dim", 768)
        codes = image("vocab_size", 8192)
        initial = math.exp(settings("logit_scale_init_value", 2.6592))
        networks: dict[str, Any] = {
            "text": spec(
                TextEncoder,
                vocab_size=text("vocab_size", 30522),
                length=text("max_position_embeddings", 512),
                style=dataclasses.replace(style(text), first_norm=True),
                token_types=text("type_vocab_size", 2),
                head_kind="untied" if "mlm_head" in parts else "tied",
                **_size(text),
            ),
            "image": spec(
                ViT,
                patch=image.number("patch_size", 16),
                size=image.number("image_size", 224),
                cls=True,
                position="learned",
                cls_position=True,
                style=style(image),
                mean=tuple(processor.get("image_mean", MEAN)),
                deviation=tuple(processor.get("image_std", DEVIATION)),
                interpolation="cubic",
                **picture,
            ),
            "fusion": spec(PairFusion, style=style(fusion), **_size(fusion, depth=6)),
            "text_projection": spec(Linear, features=features),
            "image_projection": spec(Linear, features=features),
            "scale": spec(ClampedLogitScale, initial=initial),
        }
        for name in ENCODERS:
            if f"{name}_pooler" in parts:
                networks[f"{name}_pooler"] = spec(Linear, features=networks[name].width)
        for name, of, labels in (
            *((name, image, codes) for name in CODE_HEADS),
            ("mmm_text_head", text, networks["text"].vocab_size),
        ):
            if name in parts:
                networks[name] = spec(
                    Projection,
                    features=labels,
                    hidden=of("hidden_size", 768),
                    activation=of.activation(),
                    norm="after",
                    epsilon=of("layer_norm_eps", 1e-12),
                )
        if "itm_head" in parts:
            hidden = settings("hidden_size", 768)
            networks["itm_head"] = spec(
                Projection, features=2, hidden=hidden, activation="tanh", norm="none"
            )
        if "codebook" in parts:
            codebook = settings.section("image_codebook_config")
            codebook.only(input_channels=3, num_groups=GROUPS)
            networks["image_tokeniser"] = spec(
                DalleEncoder,
                entries=codebook("vocab_size", 8192),
                width=codebook("hidden_size", 256),
                blocks=codebook("num_blocks_per_group", 2),
            )
        return networks

    def touch(self, nets, networks):
        tokens, side = jnp.zeros((1, 2), jnp.int32), networks["image"].size
        text = nets("text", tokens, tokens == 0)
        if networks["text"].head_kind == "untied":
            nets("text", text.tokens, method="logits")
        image = nets("image", jnp.zeros((1, side, side, 3)))
        fused = nets("fusion", image=image, text=text).tokens
        nets("scale")
        states = {"text": text.tokens, "image": image.tokens, "fusion": fused}
        for name, of in states.items():
            for network in (f"{name}_projection", f"{name}_pooler"):
                if network in networks:
                    nets(network, of[:, 0])
        for name in (*CODE_HEADS, "mmm_text_head", "itm_head"):
            if name in networks:
                nets(name, states["image" if name == "mim_head" else "fusion"])
        if "image_tokeniser" in networks:
            nets("image_tokeniser", jnp.zeros((1, 8, 8, 3)), method="codes")

    def training(self, settings, networks):
        text, image = networks["text"], networks["image"]
        length = min(text.length, WORDS)
        both = ("text", "image")
        pairs = spec(
            Triplets, batch_size=8, image_size=image.size, text_length=length, modalities=both
        )
        streams = {"pairs": pairs}
        objectives = {
            "alignment": spec(
                ContrastiveAlignment,
                source="pairs",
                modalities=both,
                encoders=spec(ClassTokenEncoders),
            )
        }
        if text.head_kind == "untied":
            streams["text"] = spec(Sentences, batch_size=8, text_length=length)
            objectives["mlm"] = spec(MaskedLanguageModel, source="text", vocab_size=text.vocab_size)
        codes: dict[str, Any] = {"patch": image.patch}
        if "image_tokeniser" in networks:
            codes["token_scale"] = 8 / image.patch
        rate = {"least": min(LEAST, int(HIDDEN * (image.size // image.patch) ** 2))}
        if {"mim_head", "image_tokeniser"} <= set(networks):
            streams["pictures"] = spec(Pictures, batch_size=8, image_size=image.size)
            objectives["mim"] = spec(
                BEiT, source="pictures", head="mim_head", rate=HIDDEN, **codes, **rate
            )
        terms = {
            "matching": "itm_head" in networks,
            "mmm_text": "mmm_text_head" in networks,
            "mmm_image": {"mmm_image_head", "image_tokeniser"} <= set(networks),
        }
        if any(terms.values()):
            objectives["masked_pairs"] = spec(
                FLAVAMaskedPairs,
                source="pairs",
                vocab_size=text.vocab_size,
                **codes,
                **rate,
                **{name: float(there) for name, there in terms.items()},
            )
        return streams, objectives, {}

    def still(self, networks):
        return ("image_tokeniser",) if "image_tokeniser" in networks else ()

    def settings(self, networks, parts):
        text, image, fusion = (networks[name] for name in ENCODERS)
        heads = {"mim_head", "mmm_image_head", "mmm_text_head", "mlm_head", "itm_head"}
        pretraining = bool(heads & set(parts))
        result = {
            "model_type": self.model_type,
            "architectures": ["FlavaForPreTraining" if pretraining else "FlavaModel"],
            "hidden_size": fusion.width,
            "layer_norm_eps": fusion.style.epsilon,
            "projection_dim": networks["text_projection"].features,
            "logit_scale_init_value": math.log(networks["scale"].initial),
            "init_codebook": "codebook" in parts,
            "text_config": _settings(text)
            | {
                "model_type": "flava_text_model",
                "vocab_size": text.vocab_size,
                "max_position_embeddings": text.length,
                "type_vocab_size": text.token_types,
            },
            "image_config": _settings(image)
            | {
                "model_type": "flava_image_model",
                "image_size": image.size,
                "patch_size": image.patch,
                "num_channels": 3,
                "mask_token": True,
            },
            "multimodal_config": _settings(fusion)
            | {"model_type": "flava_multimodal_model", "use_cls_token": True},
            "image_codebook_config": {"model_type": "flava_image_codebook"},
        }
        for name in CODE_HEADS:
            if name in parts:
                result["image_config"]["vocab_size"] = networks[name].features
        if "codebook" in parts:
            tokeniser = networks["image_tokeniser"]
            result["image_codebook_config"] |= {
                "vocab_size": tokeniser.entries,
                "hidden_size": tokeniser.width,
                "num_blocks_per_group": tokeniser.blocks,
                "num_groups": GROUPS,
                "input_channels": 3,
            }
        return result

    def processor(self, networks):
        image = networks["image"]
        side = {"height": image.size, "width": image.size}
        result = {
            "image_processor_type": "FlavaImageProcessor",
            "crop_size": side,
            "do_center_crop": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(image.mean),
            "image_std": list(image.deviation),
            "input_size_patches": image.size // image.patch,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": side,
        }
        if "image_tokeniser" in networks:
            grid = 8 * (image.size // image.patch)
            codes = {"height": grid, "width": grid}
            result |= {"codebook_size": codes, "codebook_crop_size": codes}
        return result


def _sections(settings: Settings) -> tuple[Settings, Settings, Settings]:
    """(text, image, fusion)."""
    text, image, fusion = (
        settings.section(f"{name}_config") for name in ("text", "image", "multimodal")
    )
    return text, image, fusion


def _size(settings: Settings, depth: int = 12) -> dict[str, Any]:
    width = settings("hidden_size", 768)
    return {
        "width": width,
        "depth": settings("num_hidden_layers", depth),
        "heads": settings("num_attention_heads", 12),
        "expansion": expansion(settings("intermediate_size", 3072), width),
        "dropout": settings("hidden_dropout_prob", 0.0),
    }


def _masked_head(theirs: str, dense_name: str, norm_name: str) -> list[Rule]:
    """A head of masked prediction, but for its last product."""
    transform = f"{theirs}.transform"
    return dense(f"{transform}.dense", dense_name) + norm(f"{transform}.LayerNorm", norm_name)


def _codebook(settings: Settings) -> list[Rule]:
    codebook = Settings(settings("image_codebook_config", None) or {}, settings.where)
    theirs, ours = "image_codebook.blocks", "image_tokeniser"
    rules = convolution_2d(f"{theirs}.input", f"{ours}/input")
    for group in range(1, GROUPS + 1):
        for i in range(1, codebook("num_blocks_per_group", 2) + 1):
            block_of, mine = f"{theirs}.group_{group}.group.block_{i}", f"group_{group}_block_{i}"
            for n in range(1, 5):
                rules += convolution_2d(
                    f"{block_of}.res_path.path.conv_{n}", f"{ours}/{mine}/conv_{n}"
                )
            if group > 1 and i == 1:  # where the width doubles
                rules += convolution_2d(f"{block_of}.id_path", f"{ours}/{mine}/skip")
    return rules + convolution_2d(f"{theirs}.output.conv", f"{ours}/output")


def _settings(network) -> dict:
    return {
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "intermediate_size": int(network.expansion * network.width),
        "hidden_act": their_activation(network.style.activation),
        "layer_norm_eps": network.style.epsilon,
        "hidden_dropout_prob": network.dropout,
        "attention_probs_dropout_prob": network.dropout,
        "qkv_bias": network.style.query_bias,
    }
