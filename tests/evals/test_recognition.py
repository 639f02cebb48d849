"""Error rates against the textbook edit distance; the evaluation with an oracle and with each head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.evals import evaluate as evaluations
from taichu_jax.evals import tables
from taichu_jax.evals.recognition import GUESS, SpeechRecognition, scores
from taichu_jax.evals.report import write_report
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder
from taichu_jax.models.transducer import Joiner, Predictor
from taichu_jax.objectives.speech.attention_asr import AttentionRecognition
from taichu_jax.objectives.speech.ctc import BLANK, CTC
from taichu_jax.objectives.speech.transducer import Transducer
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.training.state import init_params
from tests.evals import tiny
from tests.evals.test_captions import distance

SIZE = {"width": 8, "depth": 1, "heads": 2}
STREAM = {"source": "things", "encoder": "audio"}


class Oracle(CTC):
    """Knows the words: they are the only path that its scores allow, with a blank after each id."""

    def log_probabilities(self, nets, batch):
        ids = batch["text"][:, 1:]
        count = batch["text_mask"].sum(-1) - 2
        ids = jnp.where(jnp.arange(ids.shape[1]) < count[:, None], ids, BLANK)
        path = jnp.stack([ids, jnp.full_like(ids, BLANK)], -1).reshape(ids.shape[0], -1)
        return jnp.log(jax.nn.one_hot(path, tiny.VOCAB) + 1e-9), 2 * count


OBJECTIVES = {
    "ctc": CTC(**STREAM),
    "attention": AttentionRecognition(**STREAM),
    "transducer": Transducer(**STREAM),
    "oracle": Oracle(**STREAM),
    "mae": MaskedAutoencoder(source="things"),
}


@pytest.fixture(scope="module")
def params():
    modules = {
        "audio": SpeechEncoder(bands=tiny.BANDS, frames=tiny.FRAMES, **SIZE),
        "ctc_head": Projection(features=tiny.VOCAB),
        "text_decoder": TextDecoder(vocab_size=tiny.VOCAB, length=tiny.LENGTH, **SIZE),
        "predictor": Predictor(vocab_size=tiny.VOCAB, width=8),
        "joiner": Joiner(vocab_size=tiny.VOCAB, hidden=8),
    }
    batch = next(tiny.Things(batch_size=2).epoch(None, ByteTokenizer()))
    trained = {k: OBJECTIVES[k] for k in ("ctc", "attention", "transducer")}
    init = jax.jit(lambda b: init_params(modules, trained, {"things": b}, 0)[0])
    return modules, init({k: jnp.asarray(v) for k, v in batch.items()})


def opened(path, params, named):
    config = tiny.run(path).config
    streams = {"things": tiny.Things()}
    experiment = tiny.Experiment(params[0], OBJECTIVES, streams, named)
    return tiny.Run(path, config, experiment, ByteTokenizer(), params[1])


def test_rates_are_edit_distances_over_all_recordings():
    languages = ["fr", "fr", "ro", "ro"]
    references = ["une pomme rouge", "le chat", "un măr", ""]
    written = ["une pome rouge vif", "", "un măr", "ignored"]
    got = scores(languages, references, written)
    letters = sum(distance(a, b) for a, b in zip(references[:3], written[:3], strict=True))
    words = sum(
        distance(a.split(), b.split()) for a, b in zip(references[:3], written[:3], strict=True)
    )
    assert got["overall"]["CER"] == pytest.approx(100 * letters / sum(map(len, references)))
    assert got["overall"]["WER"] == pytest.approx(100 * words / 7)
    assert got["overall"]["recordings"] == 3
    assert got["languages"]["ro"] == {"CER": 0.0, "WER": 0.0, "recordings": 1}
    assert np.isnan(scores(["fr"], [""], ["a"])["overall"]["CER"])


def test_an_oracle_makes_no_errors_and_a_constant_guess_many(tmp_path, params):
    evaluation = SpeechRecognition(
        objective="oracle", splits=("test",), beam=2, order=2, weight=0.1, examples=3
    )
    run = opened(tmp_path, params, {"recognition": evaluation})
    results = evaluations.evaluate(run)["evaluations"]["recognition"]
    result = results["result"]
    table = result["splits"]["test"]
    assert list(table) == ["greedy", "beam", "beam, 2-gram", GUESS]
    for way in ("greedy", "beam", "beam, 2-gram"):
        assert table[way]["overall"] == {"CER": 0.0, "WER": 0.0, "recordings": 12}
    # 'fr 0' for all of 'fr 0' ... 'fr 5': one letter of four is wrong in five of six.
    assert set(result["guesses"]) == {"fr", "ro"} and result["guesses"]["fr"].startswith("fr ")
    assert table[GUESS]["languages"]["fr"]["CER"] == pytest.approx(100 * 5 / 24)
    assert table[GUESS]["languages"]["fr"]["WER"] == pytest.approx(100 * 5 / 12)
    assert result["transcripts"] == 12 and len(result["examples"]) == 3
    for example in result["examples"]:
        assert example["reference"].startswith(example["language"])
        assert set(example["written"].values()) == {example["reference"]}

    page = write_report(tmp_path).read_text("utf8")
    assert "Speech recognition" in page and result["examples"][0]["reference"] in page
    assert GUESS in page and "character errors" in page
    (shown,) = tables.tables("recognition", results)
    assert shown.row_count == 4


@pytest.mark.parametrize("objective", ["ctc", "attention", "transducer"])
def test_every_kind_writes_what_its_networks_say(tmp_path, params, objective):
    evaluation = SpeechRecognition(objective=objective, splits=("test",), languages=("fr",))
    result = evaluation.run(opened(tmp_path, params, {}), tmp_path)
    table = result["splits"]["test"]
    assert list(table) == ["greedy", GUESS]
    assert table["greedy"]["overall"]["recordings"] == 6
    assert table["greedy"]["overall"]["CER"] > 50  # nothing was learnt
    assert set(table["greedy"]["languages"]) == {"fr"}


def test_mistakes_are_named(tmp_path, params):
    run = opened(tmp_path, params, {})
    with pytest.raises(UserError, match="objective='ctd': no such objective; did you mean 'ctc'"):
        SpeechRecognition(objective="ctd").run(run, tmp_path)
    with pytest.raises(UserError, match="MaskedAutoencoder recognises no speech"):
        SpeechRecognition(objective="mae").run(run, tmp_path)
    with pytest.raises(UserError, match="beam=4: only CTC"):
        SpeechRecognition(objective="attention", beam=4).run(run, tmp_path)
    with pytest.raises(UserError, match="has no tokenizer"):
        SpeechRecognition(objective="ctc").run(dataclasses.replace(run, tokenizer=None), tmp_path)
