"""FastSpeech 2 with learned alignments: the words of the stamps read aloud, letter by letter.

    python launch/train.py --config configs/speech/fast_speech2_stamps.py

    --config.evaluations.synthesis.vocoder=vocoder                       a trained vocoder instead of
    --config.evaluations.synthesis.vocoder_run=runs/hifi_gan_stamps      Griffin-Lim
    --config.evaluations.synthesis.recogniser=runs/ctc_stamps            character errors

Losses and their weights, kernels, dropout, two heads: the papers and their code (objectives/speech/
fast_speech2.py). For two cores: width 128, three blocks on either side with 256 channels, a post-net of
three layers. A language has mostly one speaker, so the language stands for the speaker. Recordings are
neither changed nor noisy, and cut to what is said; those of more than SECONDS or LETTERS are left out.
Means and deviations are those of 256 recordings of the training split.
Alignments need centred distances (models/aligner.py), and come sooner with 40 times the authors'
temperature: experiments/LOG.md has what was tried.
2,000 steps: about half an hour on one core (1.0 to 1.7 steps a second). The alignments' L_sum ends at
2.1, and 31 % of the test split's symbols have one frame. Its 52 recordings: log-mel distance 1.25 of what
is synthesised, 1.14 with the recording's durations, pitch and energy, 1.77 of other words; lengths are
off by 15 %, by 28 % where every symbol has as many frames. Nobody has listened; spectrograms have the
words' syllables and lowest formants, blurred.
"""

from configs.speech._transcribed import LANGUAGES, VOCAB
from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.data.languages import LANGUAGES as EVERY
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import CharacterTokenizer
from taichu_jax.evals.speech_synthesis import SpeechSynthesis
from taichu_jax.models.aligner import Aligner
from taichu_jax.models.fast_speech import FastSpeech
from taichu_jax.objectives.speech.fast_speech2 import FastSpeech2
from taichu_jax.ops.schedules import Linear

SECONDS, LETTERS = 2.4, 48
MEL = {"mel_mean": -8.6, "mel_deviation": 4.2}


def get_config(steps=2000):
    networks = {
        "speech": spec(
            FastSpeech,
            vocab_size=VOCAB,
            languages=len(EVERY),
            width=128,
            encoder_depth=3,
            decoder_depth=3,
            hidden=256,
            predictor_width=128,
            post_layers=3,
            post_width=128,
            bands=BANDS,
            **MEL,
        ),
        "aligner": spec(Aligner, temperature=2e-2, centred=True, **MEL),
    }
    objective = spec(
        FastSpeech2,
        source="voices",
        bands=BANDS,
        pitch_mean=5.25,
        pitch_deviation=0.37,
        energy_mean=1.9,
        energy_deviation=1.54,
        binarisation=spec(Linear, start=0.0, end=1.0, steps=steps),
    )
    config = on_stamps(
        "fast_speech2_stamps",
        networks,
        {"fast_speech2": objective},
        steps=steps,
        batch_size=16,
    )
    config.tokenizer = spec(CharacterTokenizer, vocab_size=VOCAB, languages=LANGUAGES, spoken=True)
    config.streams.voices = spec(
        Triplets,
        batch_size=16,
        modalities=("text", "audio"),
        same_language=False,
        languages=LANGUAGES,
        text_length=LETTERS,
        audio="waveform",
        seconds=SECONDS,
        normalise=False,
        trim=True,
        augment=False,
    )
    config.evaluations = {"synthesis": spec(SpeechSynthesis, objective="fast_speech2")}
    return config
