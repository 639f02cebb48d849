"""The first batch, for people to look at and listen to."""

from __future__ import annotations

import contextlib

import jax.numpy as jnp
import numpy as np

from taichu_jax.training.board import Board
from taichu_jax.training.media import _grey, show_batch
from tests import batches, events


def test_pictures_spectrograms_and_sound_are_shown(tmp_path):
    fields = batches.image() | batches.mel() | batches.waveform()
    batch = {"stream": {name: jnp.asarray(value) for name, value in fields.items()}}
    with contextlib.closing(Board(tmp_path)) as board:
        show_batch(board, batch, 0)
    found = events.tags(tmp_path)
    kinds = {tag.split("/")[2]: kind for tag, kind in found.items()}
    assert kinds == {"image": "image", "mel": "image", "audio": "audio"}


def test_low_bands_are_at_the_bottom_and_silence_divides_by_nothing():
    mel = np.zeros((5, 3), np.float32)
    assert np.isfinite(_grey(mel)).all()
    mel[:, 0] = 1.0
    assert _grey(mel).shape == (1, 3, 5)
    assert (_grey(mel)[0, -1] == 1).all() and (_grey(mel)[0, 0] == 0).all()
