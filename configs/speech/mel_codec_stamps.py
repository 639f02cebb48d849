"""A codec of log-mel frames, four codes of 8 bits 25 times a second, on the stamps' voices.

    python launch/train.py --config configs/speech/mel_codec_stamps.py

Residual quantisation, dropped stages, commitment, ELU, weight normalisation: SoundStream and EnCodec
(models/audio_tokeniser.py and objectives/speech/mel_codec.py say what differs). 4 stages of 256 codes
instead of 8 of 1024, 800 bits a second; width 96 and latents of 32; batch and learning rate: ours, for
two cores. Entries learn CODEBOOK_RATE times as fast: an unused one should reach the data before these
have moved on. Frames are not normalised by utterance, so that they can be made into sound again; -8.9 and
4.2 are their mean and deviation over the training split. No noise is added: it would be coded.
6 minutes on two cores with other programs beside it. Held-out recordings from 1, 2, 3 and 4 codes:
log-mel error 1.15, 1.05, 1.02 and 1.01 nepers of power (a recording's mean spectrum: 2.05).
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.evals.resynthesis import Resynthesis
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.objectives.speech.mel_codec import MelCodec
from taichu_jax.training.optim import Rule

STAGES, CODES, DIM = 4, 256, 32
CODEBOOK_RATE = 5.0


def get_config(steps=2000):
    networks = {
        "speech": spec(
            MelTokeniser,
            width=96,
            depth=3,
            stride=4,
            bands=BANDS,
            mel_mean=-8.9,
            mel_deviation=4.2,
            quantiser=spec(ResidualQuantiser, stages=STAGES, codes=CODES, dim=DIM),
        )
    }
    objectives = {"codec": spec(MelCodec, source="voices", stages=STAGES, codes=CODES, dim=DIM)}
    config = on_stamps(
        "mel_codec_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        b2=0.99,
        weight_decay=0.0,
    )
    config.optimizer.rules = (
        spec(Rule, pattern="code_embedding$", rate=CODEBOOK_RATE, decay=0.0),
        *config.optimizer.rules,
    )
    voices = config.streams.voices
    voices.normalise = False
    voices.audio_augment.noise_probability = 0.0
    config.evaluations.sounds = spec(Resynthesis, stream=voices, codec="speech")
    config.evaluations.language.stream = voices
    return config
