"""What the recognisers of the stamps' voices share: recordings with their words, the encoder, the scores.

Not a configuration itself. Languages in Latin script, of which somebody reads at least a few aloud;
3.0 s hold nearly all recordings, and the objectives leave out the rest. The encoder is that of
mockingjay_stamps.

    --config.streams.voices.minutes=10                  only so much is transcribed (60: an hour)
    --config.restore.speech=runs/mockingjay_stamps      the encoder starts from that run, and with wav2vec
    --config.objectives.NAME.freeze_encoder_until=500   2.0's schedule, scaled to this run's steps, waits
    --config.objectives.NAME.freeze_front_end=true      until the new layers have settled
"""

from configs.speech._voices import BANDS, on_stamps, whole
from taichu_jax.config import spec
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import CharacterTokenizer
from taichu_jax.evals.recognition import SpeechRecognition
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.ops.spec_augment import SpecAugment

LANGUAGES = ("ca", "da", "en", "es", "fr", "nl", "ro")
VOCAB = 96  # ids: these languages need about 70
SECONDS, LETTERS = 3.0, 64
WIDTH, STRIDE = 128, 3


def policy():
    """SpecAugment's SM (Switchboard mild): the paper's own for short and scarce speech."""
    return spec(SpecAugment, time_masks=2, time_width=70, time_share=0.2, band_width=15)


def on_transcripts(name, networks, objective, *, steps, peak=1e-3, **scoring):
    """A config with one objective, called `name` without its ending, on `voices` with their words."""
    encoder = spec(
        SpeechEncoder,
        width=WIDTH,
        depth=3,
        heads=4,
        stride=STRIDE,
        frames=int(100 * SECONDS),
        dropout=0.1,
    )
    key = name.removesuffix("_stamps")
    networks, objectives = {"speech": encoder, **networks}, {key: objective}
    # Without weight decay, so that what is frozen stands still.
    config = on_stamps(
        name, networks, objectives, steps=steps, batch_size=16, peak=peak, weight_decay=0.0
    )
    config.tokenizer = spec(CharacterTokenizer, vocab_size=VOCAB, languages=LANGUAGES, spoken=True)
    config.streams.voices = spec(
        Triplets,
        batch_size=16,
        modalities=("text", "audio"),
        same_language=False,
        languages=LANGUAGES,
        text_length=LETTERS,
        seconds=SECONDS,
        mel_bands=BANDS,
        audio_augment=whole(),  # SpecAugment is the objective's
    )
    config.restore = {"speech": ""}
    config.evaluations.recognition = spec(SpeechRecognition, objective=key, **scoring)
    return config
