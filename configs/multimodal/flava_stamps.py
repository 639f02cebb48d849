"""FLAVA on the stamps' pictures and words, with the codes of the tokeniser of `dvae_stamps.py`.

    python launch/train.py --config configs/vision/dvae_stamps.py
    python launch/train.py --config configs/multimodal/flava_stamps.py

--config.restore.image_tokeniser=RUN takes the tokeniser of another run.
Six losses of weight 1: contrastive, matching and masked modelling over pairs, MIM over pictures, MLM
over texts. Rates, blocks, temperature and its bounds: FLAVA and its authors' code; the smallest block
has 4 of 64 patches instead of 16 of 196, and there are 512 codes instead of 8,192. FLAVA starts from
encoders that were trained alone first and takes turns between its data; here all begin together, and
every step has a batch of each. Sizes and learning rate: ours, for two cores. Not run to its end yet.
"""

from configs.vision.dvae_stamps import SIZE
from configs.vision.dvae_stamps import get_config as tokeniser_config
from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.streams import Pictures, Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.models.heads import ClampedLogitScale, Projection
from taichu_jax.models.layers import Linear
from taichu_jax.models.pair_fusion import PairFusion
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.encoders import ClassTokenEncoders
from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.objectives.vision.beit import BEiT
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW, Rule

VOCAB, WORDS, PATCH = 2048, 24, 8
WIDTH = 128
RATE, LEAST = 0.383, 4  # 75 of 196 patches


def get_config(steps=4000):
    config = defaults()
    config.name = "flava_stamps"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB, dropout=0.1)
    both = ("text", "image")
    pictures = spec(Pictures, batch_size=32, image_size=SIZE)
    config.streams = {
        "pairs": spec(Triplets, batch_size=32, image_size=SIZE, text_length=WORDS, modalities=both),
        "pictures": pictures,
        "texts": spec(Sentences, batch_size=32, text_length=WORDS),
    }
    size = {"width": WIDTH, "heads": 4}
    tokeniser = tokeniser_config().networks.image_tokeniser

    def masked_head(features):
        return spec(Projection, features=features, hidden=WIDTH, norm="after")

    config.networks = {
        "text": spec(
            TextEncoder,
            vocab_size=VOCAB,
            length=WORDS,
            depth=2,
            style=spec(Style, first_norm=True),
            token_types=1,
            head_kind="untied",
            **size,
        ),
        "image": spec(
            ViT,
            size=SIZE,
            patch=PATCH,
            depth=2,
            cls=True,
            position="learned",
            cls_position=True,
            **size,
        ),
        "fusion": spec(PairFusion, depth=1, **size),
        "text_projection": spec(Linear, features=WIDTH),
        "image_projection": spec(Linear, features=WIDTH),
        "scale": spec(ClampedLogitScale),
        "mim_head": masked_head(tokeniser.entries),
        "mmm_image_head": masked_head(tokeniser.entries),
        "mmm_text_head": masked_head(VOCAB),
        "itm_head": spec(Projection, features=2, hidden=WIDTH, activation="tanh", norm="none"),
        "image_tokeniser": tokeniser,
    }
    config.restore = {"image_tokeniser": "runs/dvae_stamps"}
    hiding = {"patch": PATCH, "least": LEAST}
    config.objectives = {
        "alignment": spec(
            ContrastiveAlignment,
            source="pairs",
            modalities=both,
            encoders=spec(ClassTokenEncoders),
        ),
        "masked_pairs": spec(
            FLAVAMaskedPairs, source="pairs", vocab_size=VOCAB, image_rate=RATE, **hiding
        ),
        "mim": spec(BEiT, source="pictures", head="mim_head", rate=RATE, **hiding),
        "mlm": spec(MaskedLanguageModel, source="texts", vocab_size=VOCAB),
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 20, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, weight_decay=0.1)
    still = spec(Rule, pattern="^image_tokeniser/", rate=0.0, decay=0.0)
    config.optimizer.rules = (still, *config.optimizer.rules)
    config.evaluations = {"category": spec(CategoryProbe, stream=pictures)}
    return config
