"""FLAVA's files, old and new, and what trains them on."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.interop.convert import _typed, read_model
from taichu_jax.interop.rules import to_theirs
from taichu_jax.training.experiment import Experiment, defaults
from taichu_jax.training.optim import AdamW
from tests.interop.folders import tensors_of, write_folder

HEADS = ("mim_head", "mlm_head", "mmm_image_head", "mmm_text_head")


@pytest.mark.parametrize("names", ["bias", "both"])
def test_a_bias_has_either_name_or_both(names, tmp_path):
    """Files name the one tensor as the library's version did; they get their own names back."""
    values, tensors = tensors_of("flava")
    for head in HEADS:
        tensors[f"{head}.bias"] = tensors[f"{head}.decoder.bias"]
        if names == "bias":
            del tensors[f"{head}.decoder.bias"]
    write_folder(tmp_path, values, tensors)
    model = read_model(tmp_path)
    assert model.anew == []
    np.testing.assert_array_equal(model.params["text"]["head_bias"], tensors["mlm_head.bias"])
    canonical, left = to_theirs(model.table, model.params, where="test")
    again, rounded = _typed(model.table, canonical, model.types, "")
    assert left == rounded == [] and set(again) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


def test_its_six_losses_train_it_on_but_not_its_tokeniser(tmp_path):
    values, tensors = tensors_of("flava")
    write_folder(tmp_path, values, tensors)
    model = read_model(tmp_path)
    architecture = model.architecture
    streams, objectives, more = architecture.training(model.settings, model.networks)
    assert set(objectives) == {"alignment", "masked_pairs", "mim", "mlm"} and more == {}
    assert architecture.still(model.networks) == ("image_tokeniser",)
    config = defaults()
    config.streams, config.objectives, config.networks = streams, objectives, model.networks
    config.optimizer = spec(AdamW, learning_rate=1e-4)
    created = Experiment.from_config(config, jax.devices()[:1]).abstract_state().params
    poolers = {"text_pooler", "image_pooler", "fusion_pooler"}
    assert set(created) == set(model.networks) - poolers


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("multimodal_config", {"use_cls_token": False}, "use_cls_token=False is not supported"),
        ("image_config", {"mask_token": False}, "image_config: mask_token=False is not supported"),
        ("image_codebook_config", {"num_groups": 3}, "num_groups=3 is not supported; valid: 4"),
    ],
)
def test_settings_that_do_not_fit(part, change, told, tmp_path):
    values, tensors = tensors_of("flava")
    write_folder(tmp_path, values | {part: values[part] | change}, tensors)
    with pytest.raises(UserError, match=told):
        read_model(tmp_path)
