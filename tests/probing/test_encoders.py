"""Networks of runs and of other libraries keep one contract, and read what they were made for."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from taichu_jax.data.audio import RATE, log_mel
from taichu_jax.data.streams import Pictures, Recordings
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.base import Loss, Objective
from taichu_jax.probing.baselines import raw
from taichu_jax.probing.collect import inputs
from taichu_jax.probing.encoder import every_layer
from taichu_jax.probing.open import of_folder, of_run
from taichu_jax.probing.readers import NO_WORD, TextReader, WaveReader
from taichu_jax.training.state import init_params
from tests.interop.folders import tensors_of, write_folder

SMALL = {"width": 8, "depth": 1, "heads": 2}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "##s", "bark", "a"]


class Voices:
    """A sine for every row."""

    def wave(self, i, trim=False):
        del trim
        return np.sin(np.arange(9000 + i) / (5 + i)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    modules = {
        "ear": SpeechEncoder(bands=20, frames=40, **SMALL),
        "eye": ViT(size=16, patch=8, cls=True, **SMALL),
        "reader": TextEncoder(vocab_size=ByteTokenizer().vocab_size, length=12, **SMALL),
        "painter": MAEDecoder(width=8, heads=2, patch=8, patches=4),
        "head": Projection(features=4),
    }
    streams = {
        "voices": Recordings(seconds=0.4, mel_bands=20, trim=True),
        "pictures": Pictures(image_size=16),
    }
    arguments = {
        "ear": (np.zeros((1, 40, 20), np.float32), np.ones(1, np.int32)),
        "eye": (np.zeros((1, 16, 16, 3), np.float32),),
        "reader": (np.zeros((1, 12), np.int32), np.ones((1, 12), bool)),
        "painter": (np.zeros((1, 1, 8), np.float32), np.zeros((1, 1), np.int32)),
        "head": (np.zeros((1, 8), np.float32),),
    }
    key = jax.random.key(1)

    @jax.jit
    def init():
        return {n: m.init(key, *arguments[n])["params"] for n, m in modules.items()}

    params = init()
    return types.SimpleNamespace(
        path=tmp_path_factory.mktemp("run"),
        experiment=types.SimpleNamespace(networks=modules, streams=streams),
        params=params,
        tokenizer=ByteTokenizer(),
        config=types.SimpleNamespace(seed=0),
    )


def test_the_encoders_of_a_run(run):
    found = {encoder.name: encoder for encoder in of_run(run)}
    assert {name: e.modality for name, e in found.items()} == {
        "ear": "speech",
        "eye": "image",
        "reader": "text",
    }
    assert found["ear"].shapes.rate == 25 and found["ear"].layer_names == [
        "input",
        "block 1",
        "last",
    ]
    assert found["eye"].shapes.rate == 2 and found["eye"].shapes.mask.shape == (1, 5)
    assert found["ear"].widths == [8, 8, 8]
    assert [e.name for e in of_run(run, "eye")] == ["eye"]
    with pytest.raises(UserError, match="--network eyes: no such network; did you mean 'eye'"):
        of_run(run, "eyes")
    with pytest.raises(UserError, match="network 'painter' is no encoder"):
        of_run(run, "painter")


def test_an_encoder_reads_what_its_stream_gives(run):
    ear = of_run(run, "ear")[0]
    mel, length = ear.reader.read(Voices(), 1)
    assert mel.shape == (40, 20) and length == 40
    wanted = log_mel(Voices().wave(1)[:6400], 20)[:40]
    wanted = (wanted - wanted.mean(0)) / np.sqrt(wanted.var(0) + 1e-5)
    np.testing.assert_allclose(mel, wanted, atol=1e-4)
    plain = raw(ear, Voices(), [])
    spectra, lengths = inputs(plain, Voices(), [1])
    pooled = plain.pool(plain.hidden_states({}, (spectra, lengths)), None)[0][0]
    unnormalised = log_mel(Voices().wave(1)[:6400], 20)[:40]
    np.testing.assert_allclose(pooled[:20], unnormalised.mean(0), rtol=1e-4)
    np.testing.assert_allclose(pooled[20:], unnormalised.std(0), rtol=1e-3, atol=1e-4)


def test_untrained_weights_are_those_a_run_starts_from(run):
    eye = of_run(run, "eye")[0]
    fresh = eye.untrained().params

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Looks(Objective):
        def loss(self, nets, batch, memory, rng):
            return Loss(nets("eye", batch["image"]).tokens.mean(), {}, memory)

    batch = {"image": np.zeros((1, 16, 16, 3), np.float32)}
    networks, losses = {"eye": run.experiment.networks["eye"]}, {"looks": Looks(source="x")}
    wanted = jax.jit(lambda: init_params(networks, losses, {"x": batch}, 0)[0]["eye"])()
    jax.tree.map(np.testing.assert_array_equal, fresh, wanted)
    assert not np.allclose(fresh["patches"]["kernel"], eye.params["patches"]["kernel"])


def vocabulary(folder):
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")


@pytest.mark.parametrize(
    ("model_type", "modality", "width"), [("wav2vec2", "speech", 8), ("vit", "image", 8)]
)
def test_converted_networks_keep_the_contract(tmp_path, model_type, modality, width):
    write_folder(tmp_path, *tensors_of(model_type))
    (encoder,) = of_folder(tmp_path, seconds=0.1)
    assert encoder.modality == modality and encoder.widths == [width] * 4
    assert len(every_layer(encoder.shapes)) == 4  # the input, two blocks, the last one normalised
    if modality == "speech":
        assert isinstance(encoder.reader, WaveReader)
        assert encoder.shapes.rate == pytest.approx(RATE / 6)
    else:
        assert encoder.shapes.mask.shape == (1, 5) and encoder.shapes.rate == 2


def test_converted_text_needs_its_vocabulary(tmp_path):
    write_folder(tmp_path, *tensors_of("bert"))
    with pytest.raises(UserError, match=r"needs its vocabulary; valid: tokenizer.json, vocab.txt"):
        of_folder(tmp_path)
    vocabulary(tmp_path)
    (encoder,) = of_folder(tmp_path)
    assert isinstance(encoder.reader, TextReader) and encoder.reader.length == 10
    ids, owners = encoder.reader.encode(["A", "dogs", "bark"])
    assert [PIECES[i] for i in ids] == ["[CLS]", "a", "dog", "##s", "bark", "[SEP]"]
    assert owners == [NO_WORD, 0, 1, 1, 2, NO_WORD]
    texts = types.SimpleNamespace(text=lambda i: "dogs " * 9)
    row, real, owner = encoder.reader.read(texts, 0)
    assert [PIECES[i] for i in row[[0, 1, -1]]] == ["[CLS]", "dog", "[SEP]"] and real.all()
    assert owner[-1] == NO_WORD
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, *map(str, range(30))]))
    with pytest.raises(UserError, match=r"vocab.txt: has 38 ids, but the network 20"):
        of_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json: is no vocabulary"):
        of_folder(tmp_path)
