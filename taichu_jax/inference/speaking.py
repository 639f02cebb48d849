"""Speech while its codes are written, and recordings through a codec while they are spoken.

samples -> log-mel frames -> codes                    (`Passage`)
                             codes -> log-mel frames -> sound   (`speak`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from taichu_jax.data.audio import frame_count
from taichu_jax.inference.codec_stream import FrameStream, StreamedCodec
from taichu_jax.inference.sound_stream import SoundStream
from taichu_jax.inference.streaming import MelStream


def speak(
    chunks: Iterable[np.ndarray],
    frames: FrameStream,
    sound: SoundStream,
) -> Iterator[np.ndarray]:
    """Sound of codes, as soon as it can be had.

    Args:
      chunks: int32 [n, stages] each, read one at a time.
      frames: a new `StreamedCodec.decoder`.
      sound: a new stream.

    Yields:
      float32 [samples] at 16 kHz in [-1, 1], never empty; N tokens are (N * stride - 1) * 160 in all.
    """
    for codes in chunks:
        if len(wave := sound.feed(frames.feed(codes))):
            yield wave
    if len(wave := sound.finish()):
        yield wave


class Passage:
    """A recording to codes and to sound again, chunk by chunk, of the same length.

    Args:
      streamed: the codec.
      sound: a new stream.
      stages: codes of a token that are kept; None for all.
    """

    def __init__(self, streamed: StreamedCodec, sound: SoundStream, stages: int | None = None):
        self._mel = MelStream(streamed.codec.bands)
        self._codes, self._frames = streamed.encoder(), streamed.decoder()
        self._sound, self._stages = sound, stages
        self._samples = self._drawn = 0

    def feed(self, wave: np.ndarray) -> np.ndarray:
        """float32 [new samples], with samples float32 [n] more."""
        self._samples += len(wave)
        return self._sound.feed(self._through(self._codes.feed(self._mel.feed(wave))))

    def finish(self) -> np.ndarray:
        """The rest."""
        if not self._samples:
            return np.zeros(0, np.float32)
        codes = [self._codes.feed(self._mel.finish()), self._codes.finish()]
        mel = self._through(np.concatenate(codes))
        # The last token may be drawn beyond the end.
        missing = frame_count(self._samples) - (self._drawn - len(mel))
        heard = self._sound.feed(mel[:missing])
        return np.concatenate([heard, self._sound.finish(self._samples)])

    def _through(self, codes: np.ndarray) -> np.ndarray:
        mel = self._frames.feed(codes[:, : self._stages])
        self._drawn += len(mel)
        return mel
