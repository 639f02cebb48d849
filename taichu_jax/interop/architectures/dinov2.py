"""DINOv2 (arXiv 2304.07193), without and with registers (2309.16588): network `image`.

Its classifier reads the class token's state and the mean of the patches', one after the other.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.interop.architectures.vit import IMAGENET, VisionTransformer
from taichu_jax.interop.rules import (
    Rule,
    Table,
    cut,
    cut_transposed,
    dense,
    leading,
    norm,
    patches,
    positions,
    same,
)
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.style import Style
from taichu_jax.models.vision import ViT


def block(theirs: str, ours: str, *, bias: bool, gated: bool) -> list[Rule]:
    """A block of DINOv2."""
    rules = norm(f"{theirs}.norm1", f"{ours}/attention_norm")
    for name in ("query", "key", "value"):
        rules += dense(f"{theirs}.attention.attention.{name}", f"{ours}/attention/{name}", bias)
    rules += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out")
    rules += norm(f"{theirs}.norm2", f"{ours}/feed_forward_norm")
    for i, layer in enumerate(("attention", "feed_forward"), start=1):
        rules.append(same(f"{theirs}.layer_scale{i}.lambda1", f"{ours}/{layer}_scale"))
    layer = f"{ours}/feed_forward"
    if not gated:
        rules += dense(f"{theirs}.mlp.fc1", f"{layer}/up")
        return rules + dense(f"{theirs}.mlp.fc2", f"{layer}/down")
    both = f"{theirs}.mlp.weights_in"
    kernels, biases = ((f"{layer}/gate/{x}", f"{layer}/up/{x}") for x in ("kernel", "bias"))
    rules += [cut_transposed(f"{both}.weight", kernels), cut(f"{both}.bias", biases, 0)]
    return rules + dense(f"{theirs}.mlp.weights_out", f"{layer}/down")


def hidden_units(width: int, ratio: float, gated: bool) -> int:
    """Of the feed-forward layers; gated ones have two thirds, rounded up to a multiple of 8."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


class DINOv2(VisionTransformer):
    """Dinov2Model, Dinov2ForImageClassification."""

    model_type = "dinov2"
    class_name = "Dinov2"
    prefix = "dinov2."
    interpolation = "cubic"
    mask_token_axes = 1  # of length 1, before the channels

    def table(self, settings):
        token = f"{self.prefix}embeddings.mask_token"
        return Table(
            rules=self._encoder(settings),
            parts={
                "mask_token": [leading(token, "image/mask_token", self.mask_token_axes)],
                "classifier": dense("classifier", "classifier/linear"),
            },
            prefix=self.prefix,
        )

    def touch(self, nets, networks):
        side = networks["image"].size
        states = nets("image", jnp.zeros((1, side, side, 3))).tokens
        if "classifier" in networks:
            both = jnp.concatenate([states[:, 0], states[:, 1:].mean(1)], axis=-1)
            nets("classifier", both)

    def settings(self, networks, parts):
        head = "ForImageClassification" if "classifier" in parts else "Model"
        result = super().settings(networks, parts) | {"architectures": [self.class_name + head]}
        return result | {"use_mask_token": "mask_token" in parts}

    def processor(self, networks):
        side = networks["image"].size
        return super().processor(networks) | {
            "image_processor_type": "BitImageProcessor",
            "crop_size": {"height": side, "width": side},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "size": {"shortest_edge": side},
        }

    def _encoder(self, settings: Settings) -> list[Rule]:
        places = f"{self.prefix}embeddings"
        rules = [
            leading(f"{places}.cls_token", "image/cls_token", 2),
            positions(
                f"{places}.position_embeddings", "image/cls_position", "image/patch_position"
            ),
            patches(
                f"{places}.patch_embeddings.projection.weight",
                "image/patches/kernel",
                settings.number("patch_size", 14),
            ),
            dense(f"{places}.patch_embeddings.projection", "image/patches")[1],
            *norm(f"{self.prefix}layernorm", "image/transformer/norm"),
        ]
        for i in range(settings("num_hidden_layers", 12)):
            rules += block(
                f"{self.prefix}encoder.layer.{i}",
                f"image/transformer/block_{i}",
                bias=settings("qkv_bias", True),
                gated=settings("use_swiglu_ffn", False),
            )
        return rules

    def _image(self, settings: Settings, processor):
        settings.only(num_channels=3)
        width, gated = settings("hidden_size", 768), settings("use_swiglu_ffn", False)
        scale = settings("layerscale_value", 1.0)
        if not scale > 0:
            raise UserError(f"{settings.where}: layerscale_value={scale}; must be above 0")
        bias = settings("qkv_bias", True)
        mean, deviation = IMAGENET
        return spec(
            ViT,
            width=width,
            depth=settings("num_hidden_layers", 12),
            heads=settings("num_attention_heads", 12),
            patch=settings.number("patch_size", 14),
            size=settings.number("image_size", 224),
            expansion=expansion(hidden_units(width, settings("mlp_ratio", 4), gated), width),
            dropout=settings("hidden_dropout_prob", 0.0),
            cls=True,
            position="learned",
            cls_position=True,
            style=Style(
                epsilon=settings("layer_norm_eps", 1e-6),
                # the gated layer has SiLU whatever the file says
                activation="silu" if gated else settings.activation(),
                gated=gated,
                query_bias=bias,
                key_bias=bias,
                value_bias=bias,
                layer_scale=scale,
            ),
            mean=tuple(processor.get("image_mean", mean)),
            deviation=tuple(processor.get("image_std", deviation)),
            registers=self._registers(settings),
            interpolation=self.interpolation,
        )

    def _registers(self, settings) -> int:
        del settings
        return 0

    def _settings(self, image) -> dict:
        result = super()._settings(image)
        style, hidden = image.style, result.pop("intermediate_size")
        ratios = [r for r in range(1, 33) if hidden_units(image.width, r, style.gated) == hidden]
        if not ratios:
            raise UserError(
                f"image.expansion={image.expansion}: is none that {self.model_type} has"
            )
        if style.gated != (style.activation == "silu"):
            raise UserError(f"image.style.activation={style.activation!r}, gated={style.gated}")
        return result | {
            "hidden_act": "gelu" if style.gated else their_activation(style.activation),
            "layerscale_value": style.layer_scale,
            "mlp_ratio": ratios[0],
            "use_swiglu_ffn": style.gated,
        }


class DINOv2WithRegisters(DINOv2):
    """Dinov2WithRegistersModel, Dinov2WithRegistersForImageClassification."""

    model_type = "dinov2_with_registers"
    class_name = "Dinov2WithRegisters"
    prefix = "dinov2_with_registers."
    interpolation = "antialiased"

    def _encoder(self, settings: Settings) -> list[Rule]:
        registers = f"{self.prefix}embeddings.register_tokens"
        return [*super()._encoder(settings), leading(registers, "image/register_token", 1)]

    def _registers(self, settings) -> int:
        count = settings("num_register_tokens", 4)
        if count < 1:
            raise UserError(f"{settings.where}: num_register_tokens={count}; must be 1 or more")
        return count

    def _settings(self, image) -> dict:
        return super()._settings(image) | {"num_register_tokens": image.registers}
