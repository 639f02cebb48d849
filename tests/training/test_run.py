"""A trained run opens for evaluation, or says in one line why not."""

import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from taichu_jax.config import spec
from taichu_jax.data.tokenizer import SPECIALS, BPETokenizer, ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.training.checkpoint import load_params
from taichu_jax.training.loop import train
from taichu_jax.training.run import Run
from tests.training import tiny

X = np.random.default_rng(0).normal(size=(3, tiny.WIDTH)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


def test_opens_with_the_trained_weights_and_without_dropout(run):
    opened = Run.open(run)
    assert opened.step == 12
    assert opened.config.name == "tiny"
    assert opened.tokenizer is None
    kernel = tiny.weights(load_params(run)[1])
    np.testing.assert_array_equal(tiny.weights(opened.params), kernel)
    np.testing.assert_allclose(opened.nets()("mixer", X), np.tanh(X @ kernel), rtol=1e-5)
    assert tiny.weights(Run.open(run, step=9).params).tolist() != kernel.tolist()


def test_a_damaged_newest_checkpoint_is_passed_over(run):
    (run / "checkpoints/12/params/_METADATA").unlink()
    assert Run.open(run).step == 9


def test_runs_that_cannot_be_opened(run, tmp_path):
    with pytest.raises(UserError, match=r"nothing: holds no run \(no config.json\)"):
        Run.open(tmp_path / "nothing")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match=r"run: holds no checkpoint$"):
        Run.open(run)
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        Run.open(run)


def vocabulary(path, letters):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=list(SPECIALS), initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([letters] * 4, trainer)
    tokenizer.save(str(path))
    return str(path)


def test_the_vocabulary_is_kept_with_the_run(tmp_path):
    file = vocabulary(tmp_path / "words.json", "aaab aaab cdcd")
    config = tiny.on_one_device(steps=1, tokenizer=spec(BPETokenizer, file=file))
    train(config, tmp_path / "run")
    expected = BPETokenizer(file=file).pieces("aaab")
    assert len(expected) < 4
    (tmp_path / "words.json").unlink()  # the run does not need it any more
    train(config, tmp_path / "run")
    opened = Run.open(tmp_path / "run")
    assert opened.tokenizer.pieces("aaab") == expected
    (tmp_path / "run/tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"run: holds no tokenizer.json"):
        Run.open(tmp_path / "run")


def test_a_tokenizer_without_a_vocabulary_needs_no_file(tmp_path):
    config = tiny.on_one_device(steps=1, tokenizer=spec(ByteTokenizer))
    train(config, tmp_path)
    assert isinstance(Run.open(tmp_path).tokenizer, ByteTokenizer)
