"""Tri-modal model that understands and makes words, pictures and voices, on the Tux Paint stamps.

    python launch/train.py --config configs/vision/vqvae_stamps.py
    python launch/train.py --config configs/speech/mel_codec_stamps.py
    python launch/train.py --config configs/multimodal/taichu_stamps.py
    python launch/train.py --config configs/multimodal/judge_stamps.py
    python launch/evaluate.py --run runs/taichu_stamps

The first two train the tokenisers, which stay as they are here; `FILE:VQVAE_RUN,CODEC_RUN` takes other
runs of theirs. Their weights are then part of this run. The last one trains the judge of what is made.

Encoders, fusion and understanding: taichu_stamps_tiny.py, with pictures of 64 pixels, the tokeniser's,
trained three times as long. Three decoders of two layers write words, the 64 codes of a picture, and the
codes of a voice, two of the codec's four 25 times a second (docs/decisions.md). All are masked as in the
released code of OPT, which always hides what is to be written: next to visible codes a decoder of this
size learns to copy and little else. Pictures and voices are learnt without the words in half of the rows
(0.3 there). There is no label smoothing (0.1 there), since codes are sampled, not only ranked. Weights,
shares and steps: ours, for two cores.
68 minutes on two cores of an Intel Xeon with other programs beside it, and 5 to evaluate; results are in
the README, and what was tried in experiments/LOG.md.
"""

from configs.multimodal import taichu_stamps_tiny
from configs.multimodal.taichu_stamps_tiny import FRAMES
from configs.speech import mel_codec_stamps
from configs.vision import vqvae_stamps
from taichu_jax.config import spec
from taichu_jax.data.languages import LANGUAGES
from taichu_jax.errors import UserError
from taichu_jax.evals.generation import Generation
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction
from taichu_jax.ops.delay import step_count
from taichu_jax.training.optim import Rule

RUNS = "runs/vqvae_stamps,runs/mel_codec_stamps"
WIDTH, DEPTH = 128, 2
STAGES = 2  # of the codec's four that are written
HIDE = (0.5, 0.3)  # shares of the rows in which words, and the third modality, are hidden


def get_config(runs=RUNS):
    """`FILE:VQVAE_RUN,CODEC_RUN` names the runs of the tokenisers."""
    if runs.count(",") != 1:
        raise UserError(f"{runs!r}: must be two runs, VQVAE_RUN,CODEC_RUN")
    vqvae_run, codec_run = runs.split(",")
    config = taichu_stamps_tiny.get_config(
        width=WIDTH, depth=DEPTH, steps=3000, image=vqvae_stamps.SIZE
    )
    config.name = "taichu_stamps"
    config.streams.stamps.clean_mel = True

    pictures = vqvae_stamps.get_config().networks.image_tokeniser
    voices = mel_codec_stamps.get_config().networks.speech
    side = vqvae_stamps.SIZE // 2 ** len(pictures.widths)  # of the grid of codes
    decoder = {"width": WIDTH, "depth": DEPTH, "heads": WIDTH // 32}
    config.networks.update(
        image_tokeniser=pictures,
        audio_tokeniser=voices,
        image_code_decoder=spec(
            CodeDecoder, entries=pictures.entries, length=side**2, grid=(side, side), **decoder
        ),
        audio_code_decoder=spec(
            CodeDecoder,
            entries=voices.quantiser.codes,
            length=step_count(FRAMES // voices.stride, STAGES, ends=True),
            stages=STAGES,
            ends=True,
            languages=len(LANGUAGES),
            **decoder,
        ),
    )
    config.restore = {
        "image_tokeniser": vqvae_run,
        "audio_tokeniser": f"{codec_run}:speech",  # what it is called there
    }
    still = spec(Rule, pattern="^(image|audio)_tokeniser/", rate=0.0, decay=0.0)
    config.optimizer.rules = (still, *config.optimizer.rules)

    config.objectives.modality.update(weight=1.0, share=0.5)
    decoding = {"source": "stamps", "weight": 1.0, "share": 0.5}
    decoding.update(masking="released", hide=HIDE)
    config.objectives.update(
        image_reconstruction=spec(OPTImageReconstruction, **decoding),
        audio_reconstruction=spec(OPTAudioReconstruction, **decoding),
    )
    config.evaluations.generation = spec(Generation, stream=config.streams.stamps)
    return config
