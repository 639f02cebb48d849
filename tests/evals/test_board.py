"""An evaluation's result in TensorBoard."""

from __future__ import annotations

import numpy as np

from taichu_jax.evals.board import Board
from taichu_jax.evals.media import Folder
from tests import events


def test_numbers_pictures_and_recordings_arrive(tmp_path):
    media = Folder(tmp_path / "evaluation" / "words")
    result = {
        "splits": {"test": {"R@10": 40.0, "none": None}},
        "examples": [
            {
                "picture": media.picture(np.zeros((8, 8, 3), np.uint8)),
                "voice": media.clip(np.zeros(4000, np.float32)),
                "rank": 3,
                "words": "un chat",
            }
        ],
    }
    board = Board(tmp_path, 7)
    board.show("words", result, tmp_path / "evaluation" / "words")
    board.close()
    assert events.tags(tmp_path / "tensorboard") == {
        "evaluation/words/splits/test/R_10": "simple_value",
        "evaluation/words/examples/0/picture": "image",
        "evaluation/words/examples/0/voice": "audio",
    }
