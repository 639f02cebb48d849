"""Speech to text while it is spoken: samples in, letters out, chunk by chunk.

    samples -> log-mel frames -> chunks of frames -> states (`SpeechEncoder.stream`) -> greedy CTC

Each stage keeps what the next call needs and no more, so the memory does not grow with the sound, nor,
where the text is cut at pauses, with the text. The letters are those of the same run on the whole
recording at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.data.audio import HOP, RATE, WINDOW, frame_count, log_mel
from taichu_jax.errors import UserError
from taichu_jax.evals.decoding.ctc import BLANK
from taichu_jax.evals.features import jitted
from taichu_jax.models.speech import FRAME_RATE, Heard, SpeechEncoder
from taichu_jax.objectives.speech.ctc import CTC

_HALF = WINDOW // 2
_REACH = -(-_HALF // HOP)  # hops that a window reaches to either side of its centre, rounded up


class MelStream:
    """Frames of `data.audio.log_mel`, as soon as their samples are there."""

    def __init__(self, bands: int):
        self._bands, self._wave = bands, np.zeros(0, np.float32)
        self._first, self._done = 0, 0  # the sample that _wave begins with; frames given out

    def feed(self, wave: np.ndarray) -> np.ndarray:
        """float32 [frames, bands] that are new with samples float32 [n]."""
        self._wave = np.concatenate([self._wave, wave.astype(np.float32)])
        # The last frame whose window lies within the samples, plus one.
        end = max(0, (self._first + len(self._wave) - _HALF) // HOP + 1)
        return self._frames(end)

    def finish(self) -> np.ndarray:
        """The frames at the end, whose windows reach beyond it."""
        samples = self._first + len(self._wave)
        return self._frames(frame_count(samples) if samples else 0)

    def _frames(self, end: int) -> np.ndarray:
        if end <= self._done:
            return np.zeros((0, self._bands), np.float32)
        mel = log_mel(self._wave, self._bands)
        offset = self._first // HOP
        new = mel[self._done - offset : end - offset]
        self._done = end
        # The next window begins _HALF before its centre, and samples before it are still needed whole.
        first = max(0, end - _REACH) * HOP
        self._wave, self._first = self._wave[first - self._first :], first
        return new


@dataclasses.dataclass(frozen=True)
class Partial:
    """What a chunk has added.

    Attributes:
      text: so far, since the last pause that ended one.
      end: second of the sound at which the chunk ends.
      final: the text has ended, the next begins anew.
    """

    text: str
    end: float
    final: bool = False


class Recogniser:
    """A run with a CTC objective and an encoder that hears in chunks.

    Args:
      run: an open run.

    Attributes:
      chunk_seconds: how much sound a chunk is.

    Raises:
      UserError: the run recognises nothing, or not chunk by chunk; says what to set.
    """

    def __init__(self, run: Any):
        found = {k: x for k, x in run.experiment.objectives.items() if isinstance(x, CTC)}
        if not found or run.tokenizer is None:
            raise UserError(
                f"{run.path}: has no objective CTC, so it recognises no speech; "
                "train one, for example configs/speech/ctc_stamps.py"
            )
        self._run, self._objective = run, next(iter(found.values()))
        name = self._objective.encoder
        encoder = run.experiment.networks[name]
        stream = run.experiment.streams[self._objective.source]
        if not isinstance(encoder, SpeechEncoder):
            raise UserError(
                f"{run.path}: network {name!r} is a {type(encoder).__name__}; "
                "only a SpeechEncoder streams"
            )
        if not encoder.chunk_size:
            raise UserError(
                f"{run.path}: network {name!r} hears a recording as a whole; train with "
                f"--config.networks.{name}.chunk_size=8 (tokens) to stream"
            )
        if getattr(stream, "normalise", False):
            raise UserError(
                f"{run.path}: its sounds are normalised over the whole recording, whose end a stream "
                f"does not know; train with --config.streams.{self._objective.source}.normalise=false"
            )
        self._encoder, self._bands = encoder, encoder.bands
        self._size = encoder.chunk_size * encoder.stride
        self.chunk_seconds = self._size * HOP / RATE
        self._rate = FRAME_RATE / encoder.stride
        objective = self._objective

        def compute(nets, mel, lengths, heard):
            encoded, heard = nets(objective.encoder, mel, lengths, heard, method="stream")
            logits = nets(objective.head, encoded.tokens).astype(jnp.float32)
            return logits.argmax(-1), encoded.mask, heard

        self._compute = jitted(run, compute)
        dtype = run.experiment.compute_dtype
        # In the type that states are computed in, and put where a checkpoint's weights are, as what is
        # handed back will be: or the second call would compile anew.
        silence = encoder.silence(1)
        if dtype is not None:
            silence = jax.tree.map(
                lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, silence
            )
        self._silence = jax.device_put(silence, jax.tree.leaves(run.params)[0].sharding)

    def start(self, pause: float = 0.0) -> Session:
        """A new recording, whose text ends where it has no letter for so many seconds; 0: never.

        Raises:
          UserError: a pause that means nothing.
        """
        if not 0 <= pause < float("inf"):
            raise UserError(f"pause={pause}: must be 0 or more seconds")
        return Session(self, round(pause * self._rate))

    def warm_up(self) -> None:
        """Compiles, so that the first chunk does not wait for it."""
        self.labels(np.zeros((self._size, self._bands), np.float32), self._silence)

    @property
    def silence(self) -> Heard:
        """What is known before anything is heard."""
        return self._silence

    @property
    def frames(self) -> int:
        """Of a chunk."""
        return self._size

    @property
    def bands(self) -> int:
        """Of a frame."""
        return self._bands

    def labels(self, mel: np.ndarray, heard: Heard) -> tuple[list[int], Heard]:
        """The likeliest id of every state of a chunk [frames, bands]; the last may be shorter."""
        chunk = np.zeros((1, self._size, self._bands), np.float32)
        chunk[0, : len(mel)] = mel
        best, real, heard = self._compute(chunk, np.array([len(mel)], np.int32), heard)
        return [int(i) for i in np.asarray(best)[0][np.asarray(real)[0]]], heard

    def decode(self, ids: list[int]) -> str:
        """The text of some ids."""
        return self._run.tokenizer.decode(ids)


class Session:
    """One recording, from its first sample to its last."""

    def __init__(self, recogniser: Recogniser, pause: int = 0):
        self._pause, self._quiet = pause, 0  # states without a letter: that end a text; so far
        self._recogniser, self._heard = recogniser, recogniser.silence
        self._mel = MelStream(recogniser.bands)
        self._waiting = np.zeros((0, recogniser.bands), np.float32)
        self._ids: list[int] = []
        self._last, self._frames = BLANK, 0

    def feed(self, wave: np.ndarray) -> Iterator[Partial]:
        """A text for every chunk that samples float32 [n] at 16 kHz make complete."""
        yield from self._chunks(self._mel.feed(wave))

    def finish(self) -> Iterator[Partial]:
        """What is left, shorter than a chunk."""
        yield from self._chunks(self._mel.finish())
        if len(self._waiting):
            rest, self._waiting = self._waiting, self._waiting[:0]
            yield self._hear(rest)

    def _chunks(self, mel: np.ndarray) -> Iterator[Partial]:
        self._waiting = np.concatenate([self._waiting, mel])
        size = self._recogniser.frames
        while len(self._waiting) >= size:
            chunk, self._waiting = self._waiting[:size], self._waiting[size:]
            yield self._hear(chunk)

    def _hear(self, chunk: np.ndarray) -> Partial:
        labels, self._heard = self._recogniser.labels(chunk, self._heard)
        for label in labels:  # repeats are merged over the borders of chunks too
            if label not in (self._last, BLANK):
                self._ids.append(label)
            self._last = label
            self._quiet = self._quiet + 1 if label == BLANK else 0
        self._frames += len(chunk)
        final = bool(self._pause and self._ids and self._quiet >= self._pause)
        text = self._recogniser.decode(self._ids)
        if final:
            self._ids = []
        return Partial(text, self._frames * HOP / RATE, final)
