"""CLIP (arXiv 2103.00020): networks `text`, `image`, their projections, and `scale`.

CLIP pools the class token, and the text's state at its end token; `ContrastiveAlignment`, which the run
is made with, pools by the mean. What the weights were made for is in tests/parity/test_multimodal.py.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from taichu_jax.config import spec
from taichu_jax.data.streams import Triplets
from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.rules import Rule, Table, dense, norm, patches, positions, same
from taichu_jax.interop.settings import Settings, expansion, their_activation
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
END = 49407


def block(theirs: str, ours: str) -> list[Rule]:
    """A block of CLIP."""
    rules = norm(f"{theirs}.layer_norm1", f"{ours}/attention_norm")
    for mine, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        rules += dense(f"{theirs}.self_attn.{name}_proj", f"{ours}/attention/{mine}")
    rules += norm(f"{theirs}.layer_norm2", f"{ours}/feed_forward_norm")
    rules += dense(f"{theirs}.mlp.fc1", f"{ours}/feed_forward/up")
    return rules + dense(f"{theirs}.mlp.fc2", f"{ours}/feed_forward/down")


class CLIP(Architecture):
    """CLIPModel."""

    model_type = "clip"

    def table(self, settings):
        text, image = settings.section("text_config"), settings.section("vision_config")
        places = "vision_model.embeddings"
        rules = [
            same("text_model.embeddings.token_embedding.weight", "text/token_embedding"),
            same("text_model.embeddings.position_embedding.weight", "text/position"),
            *norm("text_model.final_layer_norm", "text/transformer/norm"),
            *dense("text_projection", "text_projection/linear", bias=False),
            same(f"{places}.class_embedding", "image/cls_token"),
            positions(
                f"{places}.position_embedding.weight",
                "image/cls_position",
                "image/patch_position",
                ones=0,
            ),
            patches(
                f"{places}.patch_embedding.weight",
                "image/patches/kernel",
                image.number("patch_size", 32),
            ),
            *norm("vision_model.pre_layrnorm", "image/first_norm"),
            *norm("vision_model.post_layernorm", "image/transformer/norm"),
            *dense("visual_projection", "image_projection/linear", bias=False),
            same("logit_scale", "scale/logit_scale"),
        ]
        for name, part, theirs in (("text", text, "text_model"), ("image", image, "vision_model")):
            for i in range(part("num_hidden_layers", 12)):
                rules += block(f"{theirs}.encoder.layers.{i}", f"{name}/transformer/block_{i}")
        return Table(rules=rules, ignored=(r"embeddings\.position_ids$",))

    def networks(self, settings, parts, processor):
        text, image = settings.section("text_config"), settings.section("vision_config")
        image.only(num_channels=3)
        width = text("hidden_size", 512)
        features = settings("projection_dim", 512)
        encoder = spec(
            TextEncoder,
            vocab_size=text("vocab_size", 49408),
            width=width,
            depth=text("num_hidden_layers", 12),
            heads=text("num_attention_heads", 8),
            length=text("max_position_embeddings", 77),
            expansion=expansion(text("intermediate_size", 2048), width),
            causal=True,
            style=_style(text),
            head_kind="tied",
        )
        width = image("hidden_size", 768)
        vit = spec(
            ViT,
            width=width,
            depth=image("num_hidden_layers", 12),
            heads=image("num_attention_heads", 12),
            patch=image.number("patch_size", 32),
            size=image.number("image_size", 224),
            expansion=expansion(image("intermediate_size", 3072), width),
            cls=True,
            position="learned",
            style=_style(image, first_norm=True),
            cls_position=True,
            patch_bias=False,
            mean=tuple(processor.get("image_mean", MEAN)),
            deviation=tuple(processor.get("image_std", DEVIATION)),
        )
        initial = math.exp(settings("logit_scale_init_value", 2.6592))
        return {
            "text": encoder,
            "image": vit,
            "text_projection": spec(Projection, features=features),
            "image_projection": spec(Projection, features=features),
            "scale": spec(LogitScale, initial=initial),
        }

    def touch(self, nets, networks):
        tokens, side = jnp.zeros((1, 2), jnp.int32), networks["image"].size
        states = nets("text", tokens, tokens == 0).tokens
        nets("text_projection", states[:, 0])
        pictures = nets("image", jnp.zeros((1, side, side, 3))).tokens
        nets("image_projection", pictures[:, 0])
        nets("scale")

    def training(self, settings, networks):
        text, image = networks["text"], networks["image"]
        length = min(text.length, 64)
        pairs = spec(Triplets, batch_size=8, image_size=image.size, text_length=length)
        loss = spec(
            ContrastiveAlignment, source="pairs", modalities=("text", "image"), scale="scale"
        )
        return {"pairs": pairs}, {"alignment": loss}, {}

    def settings(self, networks, parts):
        text, image = networks["text"], networks["image"]
        shared = {"projection_dim": networks["text_projection"].features}
        return shared | {
            "model_type": self.model_type,
            "architectures": ["CLIPModel"],
            "logit_scale_init_value": math.log(networks["scale"].initial),
            "text_config": shared
            | _settings(text)
            | {
                "model_type": "clip_text_model",
                "vocab_size": text.vocab_size,
                "max_position_embeddings": text.length,
                "bos_token_id": END - 1,
                "eos_token_id": END,
            },
            "vision_config": shared
            | _settings(image)
            | {
                "model_type": "clip_vision_model",
                "image_size": image.size,
                "patch_size": image.patch,
            },
        }

    def processor(self, networks):
        image = networks["image"]
        return {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": image.size, "width": image.size},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(image.mean),
            "image_std": list(image.deviation),
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": image.size},
        }


def _style(settings: Settings, first_norm: bool = False) -> Style:
    return Style(
        first_norm=first_norm,
        epsilon=settings("layer_norm_eps", 1e-5),
        activation=settings.activation(default="quick_gelu"),
    )


def _settings(network) -> dict:
    return {
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "intermediate_size": int(network.expansion * network.width),
        "hidden_act": their_activation(network.style.activation),
        "layer_norm_eps": network.style.epsilon,
    }
