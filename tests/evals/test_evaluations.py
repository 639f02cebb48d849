"""Probes, subsets, reconstructions and the runner on a tiny run with random weights."""

import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.evals import evaluate as runner
from taichu_jax.evals import probes
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.hidden import inputs_of
from taichu_jax.evals.reconstructions import PictureReconstructions, SpectrogramReconstructions
from taichu_jax.evals.subsets import SUBSETS, ModalitySubsets
from taichu_jax.models.layers import masked_mean
from taichu_jax.training.nets import BoundNets
from tests.evals import tiny


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    value: Any

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        out_dir.mkdir(parents=True)
        (out_dir / "old").touch()
        return {"value": self.value, "array": [np.float32(1.5)], "bad": float("nan")}


def test_collect_gives_every_example_once_without_padding(tmp_path):
    run, calls = tiny.run(tmp_path), []

    def count(nets, batch):
        calls.append(1)
        return {"twice": 2 * batch["concept"]}

    fields, outputs = collect(run, tiny.Things(), count, ("concept", "example"))
    assert fields["example"].tolist() == list(range(12))
    assert outputs["twice"].tolist() == [2 * i for i in range(6)] * 2
    assert len(calls) == 1  # one compilation for all batches
    fields, _ = collect(run, tiny.Things(), None, ("concept",), lambda b: b["concept"] > 3)
    assert fields["concept"].tolist() == [4, 5, 4, 5]
    assert collect(run, tiny.Things(), None, ("concept",), lambda b: b["concept"] > 9) == ({}, {})


def test_thinned_keeps_the_ends_and_the_languages():
    stream = thinned(tiny.Things(split="test"), 4)
    assert stream.split == "test"
    assert stream.select(None) == [(0, "fr"), (3, "fr"), (1, "ro"), (5, "ro")]
    assert len(thinned(tiny.Things(), 99).select(None)) == 12


def test_category_probe_reads_every_layer_beside_its_baselines(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        probes.classify,
        "linear_probe",
        lambda train, labels, test: seen.append(train) or np.resize(labels, len(test)),
    )
    run = tiny.run(tmp_path)
    result = probes.CategoryProbe(stream=tiny.Things()).run(run, tmp_path)
    names = [row["features"] for row in result["rows"]]
    assert names[:3] == ["commonest label", "pixels", "untrained encoder, last layer"]
    assert names[3:] == ["input", "block 1", "last, normalised"]
    assert (result["train"], result["test"], result["classes"]) == (12, 12, 2)
    batch = next(tiny.Things(batch_size=12).epoch(None, run.tokenizer))
    nets = BoundNets(run.experiment.networks, run.params)
    encoded = nets("image", batch["image"])
    assert np.allclose(seen[-1], masked_mean(encoded.tokens, encoded.mask), atol=1e-5)
    assert np.allclose(seen[2], masked_mean(encoded.layers[0], encoded.mask), atol=1e-5)
    # The run is untrained: its start is itself, so the baseline must be the same features.
    assert np.allclose(seen[1], seen[-1], atol=1e-5)
    assert np.allclose(seen[0], batch["image"].reshape(12, -1), atol=1e-6)  # 16 pixels already


def test_language_probe_hears_the_band_statistics(tmp_path):
    result = probes.LanguageProbe(stream=tiny.Things(), limit=6).run(tiny.run(tmp_path), tmp_path)
    assert result["train"] == 6 and result["test"] == 12 and result["task"] == "lang"
    assert result["rows"][0]["linear"] == 50
    assert all(0 <= row["linear"] <= 100 for row in result["rows"])


def test_voices_are_read_as_spectrograms_or_waveforms():
    mel, audio = {"mel": 1, "mel_lengths": 2}, {"audio": 3, "audio_lengths": 4}
    assert inputs_of(mel, "audio") == (1, 2)
    assert inputs_of(audio, "audio") == (3, 4)


def test_subsets_are_all_seven_and_chance(tmp_path):
    evaluation = ModalitySubsets(stream=tiny.Things(), languages=tiny.LANGUAGES, caption_limit=2)
    result = evaluation.run(tiny.run(tmp_path), tmp_path)
    assert [row["subset"] for row in result["rows"]] == ["+".join(s) for s in SUBSETS]
    assert len(SUBSETS) == 7 and result["chance"]["accuracy"] == 50
    assert all({"accuracy", "chrF", "WER", "exact"} <= set(row) for row in result["rows"])


def test_reconstructions_keep_what_was_shown(tmp_path):
    run = tiny.run(tmp_path)
    evaluation = PictureReconstructions(stream=tiny.Things(), objective="mae", examples=3)
    result = evaluation.run(run, tmp_path)
    assert len(result["examples"]) == 3 and "deviation" in result["given"]
    assert result["error"] > 1e-4 < result["guess"]  # where nothing was hidden both would be 0
    assert all((tmp_path / name).is_file() for e in result["examples"] for name in e.values())
    with pytest.raises(UserError, match="did you mean 'mae'"):
        dataclasses.replace(evaluation, objective="mea").run(run, tmp_path)


def test_flat_guess_is_the_mean_of_each_patch():
    from taichu_jax.evals.reconstructions import _flat_patches, _masked_error

    image = np.random.default_rng(0).random((2, 4, 4, 3))
    flat = _flat_patches(image, 2)
    for i, y, x in np.ndindex(2, 4, 4):
        block = image[i, y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2]
        assert flat[i, y, x, 0] == pytest.approx(block.mean())
    where = np.zeros((2, 4, 4, 1), bool)
    where[0, 1, 2] = True
    expected = np.mean((flat[0, 1, 2] - image[0, 1, 2]) ** 2)
    assert _masked_error(flat, image, where) == pytest.approx(expected)
    assert np.isnan(_masked_error(flat, image, where & False))


def test_spectrograms_are_drawn_where_they_were_hidden(tmp_path):
    evaluation = SpectrogramReconstructions(
        stream=tiny.Things(), objective="token", languages=tiny.LANGUAGES, examples=2
    )
    result = evaluation.run(tiny.run(tmp_path), tmp_path)
    assert len(result["examples"]) == 2
    # Untrained: about as bad as noise of variance 1 predicted by about 0.
    assert 0.5 < result["guess"] < 2 and 0.5 < result["error"] < 3
    shown = result["examples"][0]
    assert len({shown["input"], shown["shown"], shown["drawn"]}) == 3


def test_runner_writes_plain_json_and_keeps_other_results_of_the_step(tmp_path):
    run = tiny.run(tmp_path, {"first": Constant(value=1), "second": Constant(value=2)})
    said = []
    runner.evaluate(run, say=said.append)
    assert said == ["first", "second"]
    found = json.loads((tmp_path / runner.FOLDER / runner.RESULTS).read_text())
    assert found["evaluations"]["first"]["result"] == {"value": 1, "array": [1.5], "bad": None}
    assert found["run"]["step"] == 7 and found["run"]["parameters"]["scale"] == 1

    run = tiny.run(tmp_path, {"first": Constant(value=9), "second": Constant(value=9)})
    again = runner.evaluate(run, only=("first",))["evaluations"]
    assert [again[k]["result"]["value"] for k in ("first", "second")] == [9, 2]
    later = dataclasses.replace(run, step=8)
    assert set(runner.evaluate(later, only=("first",))["evaluations"]) == {"first"}


def test_runner_names_what_there_is(tmp_path):
    with pytest.raises(UserError, match="nothing to evaluate"):
        runner.evaluate(tiny.run(tmp_path))
    with pytest.raises(UserError, match="did you mean 'first'"):
        runner.evaluate(tiny.run(tmp_path, {"first": Constant(value=1)}), only=("frist",))


def test_tables_show_every_kind(tmp_path):
    from rich.console import Console

    from taichu_jax.evals.tables import show
    from tests.evals.test_report import everything

    console = Console(record=True, width=120, file=io.StringIO())
    for name, (kind, result) in everything(tmp_path).items():
        extra = {"split": "test"} if kind == "ModalitySubsets" else {}
        show(name, {"kind": kind, "result": result | extra}, console)
    text = console.export_text()
    for word in ("image+audio->text", "chrF", "k-NN", "mean squared error", "text+audio", "–"):
        assert word in text, word
