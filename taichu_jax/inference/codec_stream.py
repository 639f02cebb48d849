"""A causal codec in chunks: log-mel frames to codes, and codes to log-mel frames, as they come.

Both ways give exactly what `MelTokeniser` gives on the whole recording: every window of tokens has as
many before it as a token knows (`MelTokeniser.looks_back`), so that nothing is carried but inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.inference.sliding import SlidingWindow, View
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.speech import FRAME_RATE

LONGEST = 60.0  # seconds of a chunk


class StreamedCodec:
    """A run's codec, compiled for chunks of one size.

    Args:
      run: an open run.
      chunk: seconds of sound that are computed at a time, a whole number of tokens; more is computed
        in turn.
      network: the codec's name; empty for the only one.

    Attributes:
      codec: the network.
      frames: of a chunk.

    Raises:
      UserError: the run has no causal codec, or the chunk is not one.
    """

    def __init__(self, run: Any, chunk: float = 0.4, network: str = ""):
        kinds = [k for k, net in run.experiment.networks.items() if isinstance(net, MelTokeniser)]
        if not kinds:
            raise UserError(
                f"{run.path}: has no MelTokeniser, so it makes no codes; train one, for example "
                "configs/speech/mel_codec_stamps.py"
            )
        name = network or kinds[0]
        if name not in kinds:
            raise UserError(f"{run.path}: no MelTokeniser {name!r}; {choices(name, kinds)}")
        self.codec = codec = run.experiment.networks[name]
        if not codec.causal:
            raise UserError(
                f"{run.path}: network {name!r} knows what comes later; train with "
                f"--config.networks.{name}.causal=true to stream"
            )
        token = codec.stride / FRAME_RATE
        if not token <= chunk <= LONGEST or abs(round(chunk / token) * token - chunk) > 1e-6:
            raise UserError(
                f"chunk={chunk:g}: must be a multiple of {token:g} seconds, the codec's token, up to "
                f"{LONGEST:g}"
            )
        self._tokens = round(chunk / token)
        self.frames = self._tokens * codec.stride
        self._codes = jitted(run, lambda nets, *args: nets(name, *args, method="codes"))
        self._decode = jitted(run, lambda nets, *args: nets(name, *args, method="decode"))

    def encoder(self) -> CodeStream:
        """For a new recording."""
        return CodeStream(self, SlidingWindow(self.codec.looks_back()[0], 0, self._tokens))

    def decoder(self) -> FrameStream:
        """For new codes."""
        return FrameStream(self, SlidingWindow(self.codec.looks_back()[1], 0, self._tokens))

    def codes_of(self, view: View, frames: int) -> np.ndarray:
        """int32 [new, stages] of groups of frames [size, stride, bands], `frames` of them real."""
        mel = view.steps.reshape(1, -1, self.codec.bands)
        found = np.asarray(self._codes(mel, np.array([frames], np.int32)))[0]
        return found[view.first : view.first + view.new]

    def frames_of(self, view: View) -> np.ndarray:
        """float32 [new * stride, bands] of codes [size, stages]."""
        made = np.asarray(self._decode(view.steps[None]), np.float32)[0]
        stride = self.codec.stride
        return made[view.first * stride : (view.first + view.new) * stride]


class CodeStream:
    """Codes of one recording, as soon as all frames of a token are there."""

    def __init__(self, streamed: StreamedCodec, window: SlidingWindow):
        self._streamed, self._window = streamed, window
        self._stride, self._bands = streamed.codec.stride, streamed.codec.bands
        self._rest = np.zeros((0, self._bands), np.float32)

    def feed(self, mel: np.ndarray) -> np.ndarray:
        """int32 [new tokens, stages], with frames [n, bands] more."""
        mel = np.concatenate([self._rest, mel.astype(np.float32)])
        whole = len(mel) // self._stride * self._stride
        self._rest = mel[whole:]
        views = self._window.feed(mel[:whole].reshape(-1, self._stride, self._bands))
        return self._all(self._streamed.codes_of(v, v.steps.shape[0] * self._stride) for v in views)

    def finish(self) -> np.ndarray:
        """The token of the last frames, fewer than a token has."""
        if not len(self._rest):
            return self._all(())
        missing = self._stride - len(self._rest)
        last = np.pad(self._rest, ((0, missing), (0, 0)))[None]
        self._rest = self._rest[:0]
        views = self._window.feed(last)
        # It is the last of its view.
        return self._all(
            self._streamed.codes_of(v, (v.first + v.new) * self._stride - missing) for v in views
        )

    def _all(self, parts) -> np.ndarray:
        nothing = np.zeros((0, self._streamed.codec.quantiser.stages), np.int32)
        return np.concatenate([nothing, *parts])


class FrameStream:
    """Log-mel frames of codes, as soon as these are there."""

    def __init__(self, streamed: StreamedCodec, window: SlidingWindow):
        self._streamed, self._window = streamed, window

    def feed(self, codes: np.ndarray) -> np.ndarray:
        """float32 [n * stride, bands] of codes [n, stages], of all stages or of the first few."""
        nothing = np.zeros((0, self._streamed.codec.bands), np.float32)
        views = self._window.feed(np.asarray(codes, np.int32))
        return np.concatenate([nothing, *(self._streamed.frames_of(view) for view in views)])
