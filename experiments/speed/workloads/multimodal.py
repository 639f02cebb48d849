"""FLAVA's multimodal part."""

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

UNUSED = (  # of the contrastive loss, and of none
    "text_projection",
    "image_projection",
    "scale",
    "text_pooler",
    "image_pooler",
    "fusion_pooler",
)
TOKENISER = "image_tokeniser"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flava(Train):
    """Masked pairs: matching, hidden words, hidden patches. The codes of patches cost nothing."""

    frozen: str = rf"^{TOKENISER}/"

    def batch(self, sizes):
        rows = sizes["batch"]
        text = tokens(sizes["vocabulary"], (rows, sizes["length"]))
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

        from experiments.speed.theirs_pairs import MaskedPairs

        picture = {name: sizes[key] for name, key in _PICTURE.items()}
        config = transformers.FlavaConfig(
            text_config=sizes["text"] | {"vocab_size": sizes["vocabulary"]},
            image_config=sizes["image"] | picture,
            multimodal_config=sizes["fusion"],
            init_codebook=False,
            **sizes["more"],
        )
        return MaskedPairs(config)

    def save(self, model, folder):
        save_with_processor(model.net, folder)

    def inputs(self, batch, draws, sizes):
        source, hidden = draws["source"], draws["hidden_patches"]
        own = source == np.arange(len(source))
        words, patches = draws["hidden_words"] & own[:, None], hidden & own[:, None]
        first = np.zeros((len(source), 2), np.bool_)  # class tokens: the fusion's, the picture's
        no_words, no_patches = np.zeros_like(words), np.zeros_like(patches)
        return {
            "input_ids": draws["corrupted"][source],
            "pixel_values": scaled(batch["image"]),
            "bool_masked_pos": hidden,
            "itm_labels": own.astype(np.int32),
            "word_places": np.flatnonzero(np.concatenate([first, no_patches, words], 1)),
            "words": batch["text"][words],
            "patch_places": np.flatnonzero(np.concatenate([first, patches, no_words], 1)),
            "codes": draws["codes"][patches],
        }

    def loss(self, model, inputs):
        return model(**inputs)

    def read(self, sizes, folder):
        from experiments.speed.codes import PixelCodes

        modules, params = super().read(sizes, folder)
        for name in UNUSED:
            del modules[name], params[name]
        modules[TOKENISER] = PixelCodes(entries=sizes["codes"], patch=sizes["patch"])
        return modules, params | {TOKENISER: {"scale": np.float32(sizes["codes"])}}

    def objective(self, sizes):
        from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs

        return FLAVAMaskedPairs(
            source=STREAM,
            vocab_size=sizes["vocabulary"],
            patch=sizes["patch"],
            least=sizes["least"],
            other=sizes["other"],
            tokeniser=TOKENISER,
            chosen_only=True,
        )

    def draws(self, key, batch, sizes, modules):
        from taichu_jax.objectives.multimodal.flava_masked_pairs import other_texts
        from taichu_jax.ops.block_masking import block_mask
        from taichu_jax.ops.masking import hide_words
        from taichu_jax.ops.random import fold_name

        settings, images = self.objective(sizes), batch["image"]
        rows, side = len(images), images.shape[1] // settings.patch
        corrupted, hidden_words = hide_words(
            key,
            batch["text"],
            batch["text_mask"],
            rate=settings.rate,
            vocab_size=settings.vocab_size,
        )
        hidden_patches = block_mask(
            fold_name(key, "patches"),
            rows,
            side,
            side,
            most=int(settings.image_rate * side**2),
            least=settings.least,
            aspect=settings.aspect,
        )
        source, _ = other_texts(
            fold_name(key, "other texts"),
            batch["concept"],
            batch["has_text"] & batch["has_image"],
            settings.other,
        )
        codes, _ = modules[TOKENISER].init_with_output(key, images, method="codes")
        return {
            "corrupted": corrupted,
            "hidden_words": hidden_words,
            "hidden_patches": hidden_patches,
            "source": source,
            "codes": codes.reshape(rows, -1),
        }


_PICTURE = {"image_size": "side", "patch_size": "patch", "vocab_size": "codes"}
_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}

MULTIMODAL = (
    Flava(
        name="flava",
        label="FLAVA base, masked pairs",
        unit="pairs",
        goal=1.0,
        same_work=False,
        tiny={
            "batch": 4,
            "length": 8,
            "vocabulary": 64,
            "side": 16,
            "patch": 4,
            "codes": 12,
            "least": 2,
            "other": 0.5,
            "text": _SMALL | {"max_position_embeddings": 10},
            "image": _SMALL,
            "fusion": _SMALL,
            "more": {"hidden_size": 16, "projection_dim": 12},
        },
        # what is not said here are the defaults of FlavaConfig: 12, 12 and 6 layers of 768
        base={
            "batch": 2,
            "length": 77,
            "vocabulary": 30522,
            "side": 224,
            "patch": 16,
            "codes": 8192,
            "least": 16,
            "other": 0.1,
            "text": {},
            "image": {},
            "fusion": {},
            "more": {},
        },
        gpu={"batch": 32},
    ),
)
