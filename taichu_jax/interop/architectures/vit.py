"""ViT (arXiv 2010.11929), DINO (2104.14294) and MAE (2111.06377): networks `image` and `image_decoder`.

A published position table is a parameter here, MAE's fixed one too: it is trained on unless a rule of
the optimiser says no. ViT's pooler and classifier are networks `pooler` and `classifier`.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, dense, leading, norm, patches, positions
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.layers import Linear
from taichu_jax.models.style import Style
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.vision.mae import MaskedAutoencoder

HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation


def block(theirs: str, ours: str, bias: bool) -> list[Rule]:
    """A block of ViT."""
    rules = norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
    for name in ("query", "key", "value"):
        rules += dense(f"{theirs}.attention.attention.{name}", f"{ours}/attention/{name}", bias)
    rules += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out")
    rules += norm(f"{theirs}.layernorm_after", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.intermediate.dense", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.output.dense", f"{ours}/feed_forward/down")


class VisionTransformer(Architecture):
    """ViTModel, ViTForImageClassification; DINO's backbones are files of this kind."""

    model_type = "vit"
    scale = (HALF, HALF)

    def table(self, settings):
        return Table(
            rules=self._encoder(settings),
            parts={
                "mask_token": [leading("vit.embeddings.mask_token", "image/mask_token", 2)],
                "pooler": dense("vit.pooler.dense", "pooler/linear"),
                "classifier": dense("classifier", "classifier/linear"),
            },
            prefix="vit.",
        )

    def networks(self, settings, parts, processor):
        networks = {"image": self._image(settings, processor)}
        if "pooler" in parts:
            settings.only(pooler_act="tanh")
            width = settings("pooler_output_size", None) or settings("hidden_size")
            networks["pooler"] = spec(Linear, features=width)
        if "classifier" in parts:
            labels = settings("num_labels", None) or len(settings("id2label", {0: "", 1: ""}))
            networks["classifier"] = spec(Linear, features=labels)
        return networks

    def touch(self, nets, networks):
        side = networks["image"].size
        states = nets("image", jnp.zeros((1, side, side, 3))).tokens
        for name in ("pooler", "classifier"):
            if name in networks:
                nets(name, states[:, 0])

    def training(self, settings, networks):
        image = networks["image"]
        patch, count = image.patch, (image.size // image.patch) ** 2
        streams = {"pictures": spec(Pictures, batch_size=8, image_size=image.size)}
        loss = spec(
            MaskedAutoencoder,
            source="pictures",
            patch=patch,
            rate=settings("mask_ratio", 0.75),
            norm_pixels=settings("norm_pix_loss", True),
        )
        decoder = spec(
            MAEDecoder, width=512, depth=8, heads=16, patch=patch, patches=count, cls=True
        )
        return streams, {"mae": loss}, {"image_decoder": decoder}

    def evaluations(self, streams):
        return {"category": spec(CategoryProbe, stream=streams["pictures"])}

    def settings(self, networks, parts):
        image = networks["image"]
        head = "ForImageClassification" if "classifier" in parts else "Model"
        result = self._settings(image) | {
            "model_type": self.model_type,
            "architectures": [f"ViT{head}"],
        }
        if "pooler" in parts:
            result["pooler_output_size"] = networks["pooler"].features
        if "classifier" in parts:
            labels = range(networks["classifier"].features)
            result["id2label"] = {str(i): f"LABEL_{i}" for i in labels}
            result["label2id"] = {f"LABEL_{i}": i for i in labels}
        return result

    def processor(self, networks):
        image = networks["image"]
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(image.mean),
            "image_std": list(image.deviation),
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": image.size, "width": image.size},
        }

    def _encoder(self, settings: Settings) -> list[Rule]:
        places = "vit.embeddings"
        rules = [
            leading(f"{places}.cls_token", "image/cls_token", 2),
            positions(
                f"{places}.position_embeddings", "image/cls_position", "image/patch_position"
            ),
            patches(
                f"{places}.patch_embeddings.projection.weight",
                "image/patches/kernel",
                settings.number("patch_size", 16),
            ),
            dense(f"{places}.patch_embeddings.projection", "image/patches")[1],
            *norm("vit.layernorm", "image/transformer/norm"),
        ]
        for i in range(settings("num_hidden_layers")):
            ours = f"image/transformer/block_{i}"
            rules += block(f"vit.encoder.layer.{i}", ours, settings("qkv_bias", True))
        return rules

    def _image(self, settings: Settings, processor):
        settings.only(num_channels=3)
        width = settings("hidden_size")
        mean, deviation = self.scale
        return spec(
            ViT,
            width=width,
            depth=settings("num_hidden_layers"),
            heads=settings("num_attention_heads"),
            patch=settings.number("patch_size", 16),
            size=settings.number("image_size", 224),
            expansion=expansion(settings("intermediate_size"), width),
            dropout=settings("hidden_dropout_prob", 0.0),
            cls=True,
            position="learned",
            cls_position=True,
            style=style(settings),
            mean=tuple(processor.get("image_mean", mean)),
            deviation=tuple(processor.get("image_std", deviation)),
            interpolation="cubic",
        )

    def _settings(self, image) -> dict:
        return {
            "hidden_size": image.width,
            "num_hidden_layers": image.depth,
            "num_attention_heads": image.heads,
            "intermediate_size": int(image.expansion * image.width),
            "hidden_act": their_activation(image.style.activation),
            "layer_norm_eps": image.style.epsilon,
            "hidden_dropout_prob": image.dropout,
            "attention_probs_dropout_prob": image.dropout,
            "image_size": image.size,
            "patch_size": image.patch,
            "num_channels": 3,
            "qkv_bias": image.style.query_bias,
        }


class ViTMAE(VisionTransformer):
    """ViTMAEModel, ViTMAEForPreTraining."""

    model_type = "vit_mae"
    scale = IMAGENET

    def table(self, settings):
        head = [
            *dense("decoder.decoder_embed", "image_decoder/embed"),
            leading("decoder.mask_token", "image_decoder/mask_token", 2),
            positions(
                "decoder.decoder_pos_embed",
                "image_decoder/cls_position",
                "image_decoder/patch_position",
            ),
            *norm("decoder.decoder_norm", "image_decoder/transformer/norm"),
            *dense("decoder.decoder_pred", "image_decoder/pixels"),
        ]
        for i in range(settings("decoder_num_hidden_layers", 8)):
            ours = f"image_decoder/transformer/block_{i}"
            head += block(f"decoder.decoder_layers.{i}", ours, settings("qkv_bias", True))
        return Table(
            rules=self._encoder(settings),
            parts={"decoder": head},
            prefix="vit.",
            renames=((r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),),
        )

    def networks(self, settings, parts, processor):
        networks = {"image": self._image(settings, processor)}
        if "decoder" in parts:
            width = settings("decoder_hidden_size", 512)
            networks["image_decoder"] = spec(
                MAEDecoder,
                width=width,
                depth=settings("decoder_num_hidden_layers", 8),
                heads=settings("decoder_num_attention_heads", 16),
                patch=networks["image"].patch,
                patches=(networks["image"].size // networks["image"].patch) ** 2,
                expansion=expansion(settings("decoder_intermediate_size", 2048), width),
                cls=True,
                style=style(settings),
                position="learned",
            )
        return networks

    def touch(self, nets, networks):
        side, keep = networks["image"].size, jnp.zeros((1, 1), jnp.int32)
        states = nets("image", jnp.zeros((1, side, side, 3)), keep=keep).tokens
        if "image_decoder" in networks:
            nets("image_decoder", states, keep)

    def settings(self, networks, parts):
        result = self._settings(networks["image"]) | {
            "model_type": self.model_type,
            "architectures": ["ViTMAEForPreTraining" if "decoder" in parts else "ViTMAEModel"],
            "mask_ratio": 0.75,
            "norm_pix_loss": True,
        }
        if "decoder" in parts:
            decoder = networks["image_decoder"]
            result |= {
                "decoder_hidden_size": decoder.width,
                "decoder_num_hidden_layers": decoder.depth,
                "decoder_num_attention_heads": decoder.heads,
                "decoder_intermediate_size": int(decoder.expansion * decoder.width),
            }
        return result


def style(settings: Settings) -> Style:
    """Of ViT's blocks."""
    bias = settings("qkv_bias", True)
    return Style(
        epsilon=settings("layer_norm_eps", 1e-12),
        activation=settings.activation(),
        query_bias=bias,
        key_bias=bias,
        value_bias=bias,
    )
