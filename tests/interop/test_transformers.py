"""What is written here, transformers loads, with no tensor missing, unexpected or of another shape."""

from __future__ import annotations

import jax
import pytest

from taichu_jax.interop.architectures import ARCHITECTURES
from taichu_jax.interop.convert import _described, _settings_of, read_model
from taichu_jax.interop.tensors import read_json
from tests.interop.folders import CONFIGS, tensors_of, write_folder

torch = pytest.importorskip("torch", reason="see requirements-test.txt")
transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

# One class has one head: without these parts all that is left is in one class.
WITHOUT = {
    "bert": (),
    "roberta": ("pooler",),
    "data2vec-text": ("pooler",),
    "beit": ("pooler", "classifier"),
    "data2vec-vision": ("codes",),
    "vit": ("mask_token", "pooler"),
    "vit_mae": (),
    "wav2vec2": ("ctc",),
    "hubert": (),
    "data2vec-audio": (),
}
# Types with the networks of another one, which a run is written as unless --architecture is given.
SAME = {"data2vec-text": "roberta", "data2vec-vision": "beit", "hubert": "wav2vec2"}


@pytest.mark.parametrize("model_type", [m for m in CONFIGS if not m.startswith("s3prl")])
def test_transformers_reads_it(model_type, tmp_path):
    """With the config.json that is written for networks that were never in a file."""
    values, tensors = tensors_of(model_type, WITHOUT.get(model_type, ()))
    write_folder(tmp_path / "given", values, tensors)
    model = read_model(tmp_path / "given")
    architecture = ARCHITECTURES[model_type]
    settings, described, reason = _settings_of(architecture, model.networks, model.params)
    assert reason == "" and described == len(model.networks)
    guessed, _ = _described(model.networks, model.params, "", "run")
    assert guessed.model_type == SAME.get(model_type, model_type)
    write_folder(tmp_path / "own", settings, tensors)
    kind = getattr(transformers, settings["architectures"][0])
    loaded, info = kind.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert not any(info.values()), info
    for part in (loaded.config, read_json(tmp_path / "own" / "config.json")):
        assert (part["model_type"] if isinstance(part, dict) else part.model_type) == model_type

    loaded.save_pretrained(tmp_path / "theirs")
    again = read_model(tmp_path / "theirs")
    assert again.networks == model.networks
    old, new = (jax.tree_util.tree_leaves_with_path(m.params) for m in (model, again))
    kept = {
        path: leaf
        for path, leaf in old
        if jax.tree_util.keystr(path, simple=True, separator="/") not in model.anew
    }
    for path, leaf in new:
        assert path not in kept or (kept[path] == leaf).all(), path
