"""The masked autoencoder and CLIP."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.speed.workloads.base import (
    STREAM,
    Train,
    pictures,
    save_with_processor,
    scaled,
    tokens,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAE(Train):
    """ViTMAEForPreTraining on normalised pixels. Its positions are fixed, so ours are frozen."""

    frozen: str = r"position$"

    def batch(self, sizes):
        return {"image": pictures(sizes["batch"], sizes["model"].get("image_size", 224))}

    def units(self, sizes):
        return sizes["batch"]

    def model(self, sizes):
        import transformers

        config = transformers.ViTMAEConfig(**sizes["model"], norm_pix_loss=True)
        return transformers.ViTMAEForPreTraining(config)

    def save(self, model, folder):
        save_with_processor(model, folder)

    def inputs(self, batch, draws, sizes):
        return {"pixel_values": scaled(batch["image"]), "noise": draws["noise"]}

    def loss(self, model, inputs):
        return model(**inputs).loss

    def objective(self, sizes):
        from taichu_jax.objectives.vision.mae import MaskedAutoencoder

        return MaskedAutoencoder(source=STREAM, patch=sizes["model"].get("patch_size", 16))

    def draws(self, key, batch, sizes, modules):
        import jax

        from taichu_jax.ops.random import fold_name

        rows, side = batch["image"].shape[:2]
        count = (side // modules["image"].patch) ** 2
        return {"noise": jax.random.uniform(fold_name(key, "patches"), (rows, count))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIP(Train):
    """CLIPModel with its loss; every text fills its row and has the end token last."""

    draws_in_step: bool = False

    def batch(self, sizes):
        rows, end = sizes["batch"], sizes["vocabulary"] - 1
        text = tokens(end, (rows, sizes["length"]))
        text[:, -1] = end
        there = np.ones(rows, np.bool_)
        return {
            "text": text,
            "text_mask": np.ones(text.shape, np.bool_),
            "image": pictures(rows, sizes["side"]),
            "has_text": there,
            "has_image": there,
            "concept": np.arange(rows, dtype=np.int32),
        }

    def units(self, sizes):
        return sizes["batch"]

    def model(self, sizes):
        import transformers

        end = {"eos_token_id": sizes["vocabulary"] - 1, "vocab_size": sizes["vocabulary"]}
        config = transformers.CLIPConfig(
            text_config=sizes["text"] | end | {"max_position_embeddings": sizes["length"]},
            vision_config=sizes["vision"] | {"image_size": sizes["side"]},
            projection_dim=sizes["projection"],
        )
        return transformers.CLIPModel(config)

    def save(self, model, folder):
        save_with_processor(model, folder)

    def inputs(self, batch, draws, sizes):
        return {"input_ids": batch["text"], "pixel_values": scaled(batch["image"])}

    def loss(self, model, inputs):
        return model(**inputs, return_loss=True).loss

    def objective(self, sizes):
        from experiments.speed.pooling import EndTokens
        from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment

        return ContrastiveAlignment(
            source=STREAM, encoders=EndTokens(), modalities=("text", "image")
        )


_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_DECODER = {f"decoder_{name}": value for name, value in _SMALL.items()}

VISION = (
    MAE(
        name="mae",
        label="ViT-MAE base",
        unit="images",
        goal=1.0,
        tiny={"batch": 2, "model": _SMALL | _DECODER | {"image_size": 16, "patch_size": 4}},
        base={"batch": 4, "model": {}},
        gpu={"batch": 64},
    ),
    CLIP(
        name="clip",
        label="CLIP ViT-B/32",
        unit="pairs",
        goal=1.0,
        tiny={
            "batch": 3,
            "length": 8,
            "vocabulary": 64,
            "side": 16,
            "projection": 12,
            "text": _SMALL,
            "vision": _SMALL | {"patch_size": 8},
        },
        # what is not said here are the defaults of CLIPConfig: ViT-B/32
        base={
            "batch": 8,
            "length": 77,
            "vocabulary": 49408,
            "side": 224,
            "projection": 512,
            "text": {},
            "vision": {},
        },
        gpu={"batch": 128},
    ),
)
