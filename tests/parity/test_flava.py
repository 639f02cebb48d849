"""FLAVA of transformers, read from its file: states, codes, the six losses of its training, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.interop.convert import read_model
from taichu_jax.objectives.multimodal import flava_masked_pairs
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.encoders import ClassTokenEncoders
from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs
from taichu_jax.objectives.text import masked_lm
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.objectives.vision.beit import BEiT
from tests.parity.folders import Pair, tensor
from tests.parity.ours import RecordingNets, assert_close, assert_gradients_close

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

VOCAB, CODES, BATCH, LENGTH, SIDE, PATCH = 30, 7, 5, 9, 20, 4
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "attn_implementation": "eager",
}
DRAW = np.random.default_rng(2)
HIDING = {"patch": PATCH, "least": 2, "token_scale": 2.0}  # codes of 8 pixels, 5 x 5 of them
BOTH = ("text", "image")
OBJECTIVES = {
    "alignment": ContrastiveAlignment(
        source="pairs", modalities=BOTH, encoders=ClassTokenEncoders()
    ),
    "pairs": FLAVAMaskedPairs(source="pairs", vocab_size=VOCAB, other=0.5, **HIDING),
    "mim": BEiT(source="pictures", head="mim_head", rate=0.383, **HIDING),
    "mlm": MaskedLanguageModel(source="texts", vocab_size=VOCAB, rate=0.3),
}


def example():
    """Texts of different lengths, and pictures whose patches differ, so that their codes do."""
    lengths = DRAW.integers(5, LENGTH + 1, BATCH)
    lengths[0] = LENGTH
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = np.where(mask, DRAW.integers(6, VOCAB, mask.shape), 0).astype(np.int32)
    colours = DRAW.integers(0, 2, (BATCH, SIDE // PATCH, SIDE // PATCH, 3))
    image = 0.8 * colours.repeat(PATCH, 1).repeat(PATCH, 2)
    image = (image + 0.2 * DRAW.uniform(size=image.shape)).astype(np.float32)
    there = np.ones(BATCH, bool)
    return {
        "text": tokens,
        "text_mask": mask,
        "image": image,
        "concept": np.arange(BATCH, dtype=np.int32),
        "has_text": there,
        "has_image": there,
    }


PAIRS = example()
ALONE = example()
TEXTS = {key: ALONE[key] for key in ("text", "text_mask")}
PICTURES = {"image": ALONE["image"]}
BATCHES = {"alignment": PAIRS, "pairs": PAIRS, "mim": PICTURES, "mlm": TEXTS}


class ArgumentsToo(RecordingNets):
    """Remembers as well what the networks were given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.given: dict[str, list] = {}

    def _apply(self, role, name, params, method, args, kwargs, train=True):
        found = [*args, *(kwargs[key] for key in sorted(kwargs))]
        self.given.setdefault(f"{name} {method or 'call'}", []).append(found)
        return super()._apply(role, name, params, method, args, kwargs, train)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    config = transformers.FlavaConfig(
        text_config=SIZES | {"vocab_size": VOCAB, "max_position_embeddings": 11},
        image_config=SIZES | {"image_size": SIDE, "patch_size": PATCH, "vocab_size": CODES},
        multimodal_config=SIZES | {"num_hidden_layers": 2, "output_hidden_states": True},
        image_codebook_config={"hidden_size": 8, "num_blocks_per_group": 1, "vocab_size": CODES},
        hidden_size=16,
        projection_dim=12,
    )
    return Pair(transformers.FlavaForPreTraining, config, tmp_path_factory.mktemp("flava"))


def losses_of(pair, monkeypatch):
    """Every loss, what the networks were given and returned, and what was drawn, in one program."""
    drawn = {}

    def keep(module, name, key):
        call = getattr(module, name)

        def kept(*args, **settings):
            drawn[key] = call(*args, **settings)
            return drawn[key]

        monkeypatch.setattr(module, name, kept)

    keep(flava_masked_pairs, "other_texts", "texts")
    keep(flava_masked_pairs, "hide_words", "words of pairs")
    keep(masked_lm, "hide_words", "words alone")

    def total(params, inputs):
        values, calls, given = {}, {}, {}
        for i, (name, objective) in enumerate(OBJECTIVES.items()):
            nets = ArgumentsToo(pair.modules, params, owner=name)
            loss = objective.loss(nets, inputs[name], None, jax.random.key(i))
            values[name], calls[name], given[name] = loss, nets.calls, nets.given
        value = sum(loss.value for loss in values.values())
        return value, (values, calls, given, dict(drawn))

    (_, found), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(pair.params, BATCHES)
    return *found, gradients


def pixels(vit, images):
    """What their processor makes of the pictures: colours first, (x - mean) / deviation."""
    scaled = (images - np.array(vit.mean)) / np.array(vit.deviation)
    return tensor(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def codebook_pixels(images):
    size = (len(images), 2 * SIDE, 2 * SIDE, 3)
    larger = np.clip(np.asarray(jax.image.resize(images, size, "lanczos3")), 0, 1)
    return tensor((0.8 * larger + 0.1).transpose(0, 3, 1, 2))


def labels(tokens, chosen):
    return tensor(np.where(chosen, tokens, -100)).long()


def mean(metric):
    total, count = metric
    return total / count


def test_the_six_losses_of_its_training(pair, monkeypatch):
    """Four passes of theirs, since theirs swaps no texts: pairs as they are, pairs masked, each alone."""
    values, calls, given, drawn, gradients = losses_of(pair, monkeypatch)
    theirs, vit = pair.theirs, pair.modules["image"]
    theirs.train()
    shown, codebook = pixels(vit, PAIRS["image"]), codebook_pixels(PAIRS["image"])

    # Pairs with hidden words and patches, and some with another's text.
    source, other = map(np.asarray, drawn["texts"])
    chosen = np.asarray(drawn["words of pairs"][1])[source]
    tokens, mask = PAIRS["text"][source], PAIRS["text_mask"][source]
    (corrupted, _), (_, hidden) = (given["pairs"][f"{name} call"][0] for name in BOTH)
    assert 0 < other.sum() < BATCH and (np.asarray(hidden).sum(1) > 0).all()
    theirs.global_contrastive_weight = 0
    masked = theirs(
        input_ids=tensor(tokens).long(),
        input_ids_masked=tensor(np.asarray(corrupted)[source]).long(),
        attention_mask=tensor(mask).long(),
        pixel_values=shown,
        codebook_pixel_values=codebook,
        bool_masked_pos=tensor(np.asarray(hidden)),
        mlm_labels=labels(tokens, chosen),
        itm_labels=tensor(~other).long(),
    )
    found = masked.loss_info
    for name, loss in (("matching", "itm"), ("mmm_text",) * 2, ("mmm_image",) * 2):
        assert_close(mean(values["pairs"].metrics[name]), found[loss].item(), what=name)
    assert_close(values["pairs"].value, masked.loss.item(), what="masked pairs")
    encoded = {name: calls["pairs"][f"trained {name} call"][0] for name in (*BOTH, "fusion")}
    for i, state in enumerate(masked.text_masked_output.hidden_states):
        ours = np.asarray(encoded["text"].layers[i])[source]
        assert_close(ours, state.detach(), mask, what=f"text layer {i}")
    for i, state in enumerate(masked.image_masked_output.hidden_states):
        assert_close(encoded["image"].layers[i], state.detach(), what=f"image layer {i}")
    assert len(masked.multimodal_masked_output.hidden_states) == 3
    for i, state in enumerate(masked.multimodal_masked_output.hidden_states):
        fused = encoded["fusion"]
        assert_close(fused.layers[i], state.detach(), fused.mask, what=f"fusion layer {i}")

    # Pairs as they are.
    theirs.global_contrastive_weight = 1
    theirs.itm_weight = theirs.mmm_text_weight = theirs.mmm_image_weight = 0
    plain = theirs(
        input_ids=tensor(PAIRS["text"]).long(),
        input_ids_masked=tensor(PAIRS["text"]).long(),
        attention_mask=tensor(PAIRS["text_mask"]).long(),
        pixel_values=shown,
        mim_labels=tensor(np.zeros((BATCH, 25))).long(),
    )
    assert_close(values["alignment"].value, plain.loss_info.global_contrastive.item(), what="pairs")
    assert plain.loss.item() == plain.loss_info.global_contrastive.item()

    # Pictures alone, and their codes.
    (_, hidden) = given["mim"]["image call"][0]
    picture = theirs(
        pixel_values=pixels(vit, PICTURES["image"]),
        codebook_pixel_values=codebook_pixels(PICTURES["image"]),
        bool_masked_pos=tensor(np.asarray(hidden)),
    )
    assert_close(values["mim"].value, picture.loss_info.mim.item(), what="mim")
    (codes,) = calls["mim"]["frozen image_tokeniser codes"]
    expected = theirs.image_codebook.get_codebook_indices(codebook_pixels(PICTURES["image"]))
    np.testing.assert_array_equal(codes, expected)
    assert len(np.unique(codes)) > 1

    # Texts alone.
    chosen = np.asarray(drawn["words alone"][1])
    corrupted = given["mlm"]["text call"][0][0]
    text = theirs(
        input_ids=tensor(TEXTS["text"]).long(),
        input_ids_masked=tensor(np.asarray(corrupted)).long(),
        attention_mask=tensor(TEXTS["text_mask"]).long(),
        mlm_labels=labels(TEXTS["text"], chosen),
    )
    assert_close(values["mlm"].value, text.loss_info.mlm.item(), what="mlm")

    (masked.loss + plain.loss + picture.loss + text.loss).backward()
    assert_gradients_close(gradients, pair.gradients())


def test_the_model_alone_and_pictures_of_another_size(pair, tmp_path):
    """FlavaModel's file has other names and no heads; its picture encoder resizes its positions."""
    transformers.FlavaForPreTraining.from_pretrained(pair._folder).flava.save_pretrained(tmp_path)
    alone = read_model(tmp_path)
    assert alone.anew == [] and alone.networks["text"].head_kind == "tied"
    heads = {"mim_head", "mmm_image_head", "mmm_text_head", "itm_head", "image_tokeniser"}
    assert set(alone.networks) == set(pair.read.networks) - heads
    for name, tree in alone.params.items():
        own = pair.params[name]
        jax.tree.map(np.testing.assert_array_equal, tree, {key: own[key] for key in tree})

    wide = DRAW.uniform(size=(2, 12, 28, 3)).astype(np.float32)
    theirs = transformers.FlavaModel.from_pretrained(tmp_path)
    out = theirs.image_model(
        pixels(pair.modules["image"], wide),
        interpolate_pos_encoding=True,
        output_hidden_states=True,
        return_dict=True,
    )
    ours = jax.jit(lambda params: pair.apply("image", params, wide))(pair.params)
    for i, state in enumerate(out.hidden_states):
        assert_close(ours.layers[i], state.detach(), what=f"layer {i}")
    assert_close(ours.tokens, out.last_hidden_state.detach(), what="last")
    pooled = jnp.tanh(pair.apply("image_pooler", pair.params, ours.tokens[:, 0]))
    assert_close(pooled, out.pooler_output.detach(), what="pooled")
