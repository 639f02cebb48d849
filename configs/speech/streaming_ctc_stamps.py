"""Recognition while it is spoken: ctc_stamps with an encoder that hears in chunks of 0.24 s.

    python launch/train.py --config configs/speech/streaming_ctc_stamps.py
    python launch/stream.py --run runs/streaming_ctc_stamps --audio X.wav

A token is 30 ms; it sees its chunk of 8 tokens and the 32 before it (0.96 s) in each block, so a letter
is known at most 0.24 s and the window of a frame after it was spoken. Recordings are not normalised, as
a stream does not know its end: -8.9 and 4.2 are mean and deviation of the frames over the training split.
Positions begin anew every 48 tokens (1.44 s): a stream may be longer than anything that was trained on,
and no token sees two of the same position. No SpecAugment: so few updates do not fit the training
recordings yet. Chunks and context, sizes and learning rate: ours, for two cores.
700 steps (`:700`) took 5.5 minutes on two shared cores. Greedy character error rate on 60 held-out
recordings each: 63.3 % of new things, 66.4 % of known ones; all 120 streamed texts, and that of three
minutes of recordings joined, equal those of the whole. 2.1 ms of one core per chunk of 240 ms (real-time
factor 0.017).
"""

from configs.speech._transcribed import VOCAB, on_transcripts
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.objectives.speech.ctc import CTC


def get_config(steps=2000):
    networks = {"ctc_head": spec(Projection, features=VOCAB)}
    objective = spec(CTC, source="voices")
    config = on_transcripts(
        "streaming_ctc_stamps", networks, objective, steps=steps, peak=2e-3, beam=16
    )
    encoder = config.networks.speech
    encoder.chunk_size, encoder.left_context, encoder.position_period = 8, 32, 48
    encoder.mel_mean, encoder.mel_deviation = -8.9, 4.2
    encoder.dropout = 0.0
    config.streams.voices.normalise = False
    config.evaluations.language.stream.normalise = False
    return config
