"""Recognition of the stamps' voices by a decoder that attends over the speech (listen, attend and spell).

    python launch/train.py --config configs/speech/attention_asr_stamps.py

From nothing, on all transcripts; _transcribed.py has the arguments for a pre-trained encoder and for ten
minutes or an hour of transcripts. Label smoothing 0.1: ESPnet. SpecAugment: the SM policy of its paper.
A two-layer transformer in place of the paper's recurrent speller, sizes, learning rate: ours, for two
cores.
Not run to its end yet.
"""

from configs.speech._transcribed import LETTERS, VOCAB, WIDTH, on_transcripts, policy
from taichu_jax.config import spec
from taichu_jax.models.text import TextDecoder
from taichu_jax.objectives.speech.attention_asr import AttentionRecognition


def get_config(steps=2000):
    decoder = spec(
        TextDecoder, vocab_size=VOCAB, width=WIDTH, depth=2, heads=4, length=LETTERS, dropout=0.1
    )
    objective = spec(AttentionRecognition, source="voices", augment=policy())
    return on_transcripts("attention_asr_stamps", {"text_decoder": decoder}, objective, steps=steps)
