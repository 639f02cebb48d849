"""BEiT (arXiv 2106.08254) and data2vec for vision (2202.03555): network `image`.

Where pictures are pooled by the mean of their patches there is no norm behind the blocks: `pooler_norm`
is the one behind that mean, and `classifier` reads it. BEiT's own training has its norm behind the
blocks again, and scores codes with `beit_head`.
"""

from __future__ import annotations

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.images import ImageAugment
from taichu_jax.data.streams import Pictures
from taichu_jax.errors import UserError
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.interop.architectures.vit import HALF, VisionTransformer
from taichu_jax.interop.rules import Rule, Table, dense, leading, norm, patches, positions, same
from taichu_jax.interop.settings import Settings, expansion
from taichu_jax.models.heads import Projection
from taichu_jax.models.layers import LayerNorm, Linear
from taichu_jax.models.style import Style
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.vision.moco import MoCo

TABLE = "relative_position_bias.relative_position_bias_table"
BIAS = "relative_position/relative_position_embedding"


def block(theirs: str, ours: str, *, scaled: bool, own_positions: bool) -> list[Rule]:
    """A block of BEiT; its keys have no bias."""
    rules = norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
    attention = f"{theirs}.attention.attention"
    for name in ("query", "key", "value"):
        rules += dense(f"{attention}.{name}", f"{ours}/attention/{name}", bias=name != "key")
    rules += dense(f"{theirs}.attention.output.dense", f"{ours}/attention/out")
    rules += norm(f"{theirs}.layernorm_after", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.intermediate.dense", f"{ours}/feed_forward/up")
    rules += dense(f"{theirs}.output.dense", f"{ours}/feed_forward/down")
    if scaled:
        rules.append(same(f"{theirs}.lambda_1", f"{ours}/attention_scale"))
        rules.append(same(f"{theirs}.lambda_2", f"{ours}/feed_forward_scale"))
    if own_positions:
        rules.append(same(f"{attention}.{TABLE}", f"{ours}/attention/{BIAS}"))
    return rules


class Beit(VisionTransformer):
    """BeitModel, BeitForMaskedImageModeling, BeitForImageClassification."""

    model_type = "beit"
    prefix = "beit."
    class_name = "Beit"

    def table(self, settings):
        rules, pooled = self._encoder(settings), settings("use_mean_pooling", True)
        codes = dense("lm_head", "beit_head/linear")
        if pooled:
            codes += norm("layernorm", "image/transformer/norm")
        else:
            rules += norm(f"{self.prefix}layernorm", "image/transformer/norm")
        token = f"{self.prefix}embeddings.mask_token"
        parts = {
            "mask_token": [leading(token, "image/mask_token", 2)],
            "classifier": dense("classifier", "classifier/linear"),
            "codes": codes,
        }
        if pooled:
            parts["pooler"] = norm(f"{self.prefix}pooler.layernorm", "pooler_norm")
        return Table(
            rules=rules,
            parts=parts,
            prefix=self.prefix,
            ignored=(r"relative_position_index$",),
        )

    def networks(self, settings, parts, processor):
        if "codes" in parts:
            settings.only(use_mean_pooling=True)
        pooled = settings("use_mean_pooling", True)
        networks = {
            "image": self._image(settings, processor, final_norm=not pooled or "codes" in parts)
        }
        if "codes" in parts:
            networks["beit_head"] = spec(Linear, features=settings("vocab_size", 8192))
        if "pooler" in parts:
            networks["pooler_norm"] = spec(LayerNorm, epsilon=settings("layer_norm_eps", 1e-12))
        if "classifier" in parts:
            labels = settings("num_labels", None) or len(settings("id2label", {0: "", 1: ""}))
            networks["classifier"] = spec(Linear, features=labels)
        return networks

    def touch(self, nets, networks):
        side = networks["image"].size
        states = nets("image", jnp.zeros((1, side, side, 3))).tokens
        if "beit_head" in networks:
            nets("beit_head", states)
        pooled = states[:, 1:].mean(1)
        if "pooler_norm" in networks:
            pooled = nets("pooler_norm", pooled)
        if "classifier" in networks:
            nets("classifier", pooled)

    def training(self, settings, networks):
        del settings
        side = networks["image"].size
        crops = ImageAugment(zoom=(0.7, 1.8), move=0.2, mirror=True)
        views = spec(Pictures, batch_size=8, views=2, image_size=side, image_augment=crops)
        head = spec(Projection, features=128, hidden=256)
        return {"views": views}, {"moco": spec(MoCo, source="views")}, {"image_projection": head}

    def evaluations(self, streams):
        size = streams["views"].image_size
        return {"category": spec(CategoryProbe, stream=spec(Pictures, image_size=size))}

    def settings(self, networks, parts):
        image, parts = networks["image"], set(parts)
        result = self._settings(image) | {"model_type": self.model_type}
        head = "ForImageClassification" if "classifier" in parts else "Model"
        pooled = not image.style.final_norm
        if "codes" in parts:
            head, pooled = "ForMaskedImageModeling", True
            result["vocab_size"] = networks["beit_head"].features
        result["use_mask_token"] = "mask_token" in parts
        result["use_mean_pooling"] = pooled
        result["architectures"] = [self.class_name + head]
        if "classifier" in parts:
            labels = range(networks["classifier"].features)
            result["id2label"] = {str(i): f"LABEL_{i}" for i in labels}
            result["label2id"] = {f"LABEL_{i}": i for i in labels}
        return result

    def processor(self, networks):
        return super().processor(networks) | {
            "image_processor_type": "BeitImageProcessor",
            "do_center_crop": False,
        }

    def _encoder(self, settings: Settings) -> list[Rule]:
        own, shared = self._relative(settings)
        places = f"{self.prefix}embeddings"
        rules = [
            leading(f"{places}.cls_token", "image/cls_token", 2),
            patches(
                f"{places}.patch_embeddings.projection.weight",
                "image/patches/kernel",
                settings.number("patch_size", 16),
            ),
            dense(f"{places}.patch_embeddings.projection", "image/patches")[1],
        ]
        if settings("use_absolute_position_embeddings", False):
            rules.append(
                positions(
                    f"{places}.position_embeddings", "image/cls_position", "image/patch_position"
                )
            )
        if shared:
            rules.append(same(f"{self.prefix}encoder.{TABLE}", f"image/transformer/{BIAS}"))
        for i in range(settings("num_hidden_layers", 12)):
            rules += block(
                f"{self.prefix}encoder.layer.{i}",
                f"image/transformer/block_{i}",
                scaled=settings("layer_scale_init_value", 0.1) > 0,
                own_positions=own,
            )
        return rules

    def _relative(self, settings: Settings) -> tuple[bool, bool]:
        """(every block has its own relative positions, all share theirs)."""
        own = settings("use_relative_position_bias", False)
        shared = settings("use_shared_relative_position_bias", False)
        if own and shared:
            raise UserError(
                f"{settings.where}: use_relative_position_bias=True and"
                " use_shared_relative_position_bias=True; valid: one of them"
            )
        return own, shared

    def _image(self, settings: Settings, processor, final_norm: bool = True):
        settings.only(num_channels=3)
        own, shared = self._relative(settings)
        width = settings("hidden_size", 768)
        absolute = settings("use_absolute_position_embeddings", False)
        return spec(
            ViT,
            width=width,
            depth=settings("num_hidden_layers", 12),
            heads=settings("num_attention_heads", 12),
            patch=settings.number("patch_size", 16),
            size=settings.number("image_size", 224),
            expansion=expansion(settings("intermediate_size", 3072), width),
            dropout=settings("hidden_dropout_prob", 0.0),
            cls=True,
            position="learned" if absolute else "none",
            cls_position=absolute,
            relative_position="grid_per_block" if own else "grid" if shared else "none",
            style=Style(
                final_norm=final_norm,
                epsilon=settings("layer_norm_eps", 1e-12),
                activation=settings.activation(),
                key_bias=False,
                layer_scale=max(settings("layer_scale_init_value", 0.1), 0.0),
            ),
            mean=tuple(processor.get("image_mean", HALF)),
            deviation=tuple(processor.get("image_std", HALF)),
            interpolation="cubic",
        )

    def _settings(self, image) -> dict:
        result = super()._settings(image)
        del result["qkv_bias"]
        return result | {
            "drop_path_rate": 0.0,
            "layer_scale_init_value": image.style.layer_scale,
            "use_absolute_position_embeddings": image.position == "learned",
            "use_relative_position_bias": image.relative_position == "grid_per_block",
            "use_shared_relative_position_bias": image.relative_position == "grid",
        }


class Data2VecVision(Beit):
    """Data2VecVisionModel, Data2VecVisionForImageClassification: BEiT's layout."""

    model_type = "data2vec-vision"
    prefix = "data2vec_vision."
    class_name = "Data2VecVision"
