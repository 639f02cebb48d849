"""How far two recordings of the same words are apart, whatever their tempo."""

from __future__ import annotations

import numpy as np


def warped_mel_distance(mel: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two log-mel spectrograms [F, bands] along their cheapest path.

    Dynamic time warping (Sakoe and Chiba 1978) with the steps (1, 1), (0, 1), (1, 0), all of weight 1;
    the path's whole cost is divided by its length.
    """
    import librosa

    cost, path = librosa.sequence.dtw(X=mel.T, Y=other.T, metric="cityblock")
    return float(cost[-1, -1] / len(path) / mel.shape[1])
