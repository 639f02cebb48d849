"""Tri-modal model on the Tux Paint stamps, small enough for a coffee break on two cores.

    python launch/train.py --config configs/multimodal/taichu_stamps_tiny.py

8.6 minutes without compiling, on two cores of an Intel Xeon. R@10 on held-out pictures, about 80
candidates of the same language: voice to words 88.9 %, picture to words 44.8 %, voice to picture
34.2 % (chance 19.2 %).

One picture in one language a row: 841 pictures, 5,914 recordings in 14 languages with their words. All
examples of a batch share the language, so that the negatives of the contrastive loss are hard.
Masking rates, classes and modality dropping: OPT. The decoder's input is masked as in the released
code (words always hidden), because copying visible words teaches a model of this size nothing. Sizes,
learning rate, weights and shares: ours, for two cores.
"""

from taichu_jax.config import choices, spec
from taichu_jax.data.images import ImageAugment
from taichu_jax.data.languages import LANGUAGES
from taichu_jax.data.streams import Pictures, Recordings, Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.errors import UserError
from taichu_jax.evals.captions import Captions
from taichu_jax.evals.probes import CategoryProbe, LanguageProbe
from taichu_jax.evals.reconstructions import PictureReconstructions, SpectrogramReconstructions
from taichu_jax.evals.retrieval import Retrieval
from taichu_jax.evals.subsets import ModalitySubsets
from taichu_jax.models.fusion import CrossModalEncoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB = 2048
IMAGE, PATCH = 48, 8  # pixels
SECONDS, STRIDE, BANDS = 2.0, 4, 80  # of speech; mel frames (10 ms) per token
WORDS = 20  # text tokens
FRAMES = int(100 * SECONDS)


def get_config(without="", width=128, depth=2, steps=1000, image=IMAGE):
    """`FILE:token,sample` leaves these objectives out, for ablations."""
    patches = (image // PATCH) ** 2
    config = defaults()
    config.name = "taichu_stamps_tiny"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB, dropout=0.1)
    # Colours name things here, and most pictures are on white: random ones left the picture encoder at
    # 12 % training accuracy against words after 1,200 steps; without them it is at 25 % after 1,000.
    augment = spec(ImageAugment, background=False, brightness=0.0, contrast=0.0, saturation=0.0)
    stamps = spec(
        Triplets,
        batch_size=64,
        image_size=image,
        text_length=WORDS,
        seconds=SECONDS,
        mel_bands=BANDS,
        trim=True,
        image_augment=augment,
    )
    config.streams = {"stamps": stamps}
    size = {"width": width, "depth": depth, "heads": width // 32}
    config.networks = {
        "text": spec(TextEncoder, vocab_size=VOCAB, length=WORDS, **size),
        "image": spec(ViT, size=image, patch=PATCH, **size),
        "audio": spec(SpeechEncoder, frames=FRAMES, stride=STRIDE, bands=BANDS, **size),
        "fusion": spec(CrossModalEncoder, lengths=(WORDS, patches, FRAMES // STRIDE), **size),
        "text_decoder": spec(
            TextDecoder, vocab_size=VOCAB, length=WORDS, languages=len(LANGUAGES), **size
        ),
        "image_decoder": spec(MAEDecoder, width=64, depth=1, patch=PATCH, patches=patches),
        "text_projection": spec(Projection, features=128),
        "image_projection": spec(Projection, features=128),
        "audio_projection": spec(Projection, features=128),
        "scale": spec(LogitScale),
        "image_prediction": spec(Projection, features=PATCH**2 * 3, hidden=width),
        "audio_prediction": spec(Projection, features=STRIDE * BANDS, hidden=width),
        "matching": spec(Projection, features=5, hidden=width),
    }
    config.objectives = {
        "alignment": spec(ContrastiveAlignment, source="stamps"),
        "mae": spec(MaskedAutoencoder, source="stamps", weight=0.3, patch=PATCH),
        "token": spec(
            OPTTokenLevel,
            source="stamps",
            weight=0.2,
            vocab_size=VOCAB,
            patch=PATCH,
            stride=STRIDE,
            share=0.25,
        ),
        "modality": spec(
            OPTModalityLevel, source="stamps", weight=0.3, masking="released", share=0.25
        ),
        "sample": spec(OPTSampleLevel, source="stamps", weight=0.3, share=0.25),
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=100, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, weight_decay=0.1)
    config.checkpoint_every = 300
    pictures = spec(Pictures, batch_size=64, image_size=image)
    voices = spec(Recordings, batch_size=64, seconds=SECONDS, mel_bands=BANDS, trim=True)
    config.evaluations = {
        "retrieval": spec(Retrieval, stream=stamps),
        "captions": spec(Captions, stream=stamps),
        "subsets": spec(ModalitySubsets, stream=stamps),
        "pictures": spec(PictureReconstructions, stream=pictures, objective="mae"),
        "spectrograms": spec(SpectrogramReconstructions, stream=stamps, objective="token"),
        "category": spec(CategoryProbe, stream=pictures),
        "language": spec(LanguageProbe, stream=voices),
    }
    _leave_out(config, [name for name in without.split(",") if name])
    return config


def _leave_out(config, names):
    """Deletes objectives, and the networks and evaluations that only they have."""
    only = {
        "mae": (["image_decoder"], ["pictures"]),
        "token": (["image_prediction", "audio_prediction"], ["spectrograms"]),
        "modality": (["text_decoder"], ["captions", "subsets"]),
        "sample": (["matching"], []),
    }
    for name in names:
        if name not in config.objectives:
            raise UserError(
                f"no objective {name!r} to leave out; {choices(name, config.objectives)}"
            )
        del config.objectives[name]
        networks, evaluations = only.get(name, ([], []))
        for key in networks:
            del config.networks[key]
        for key in evaluations:
            if key in config.evaluations:
                del config.evaluations[key]
