"""The dVAE of DALL-E on the stamps' pictures: 64 pixels as 8 x 8 codes out of 512.

    python launch/train.py --config configs/vision/dvae_stamps.py

Temperature 1 to 1/16, divergence up to 6.6, logit-Laplace density, b2 and decay: DALL-E, with its
schedules shortened; sizes and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.picture_tokens import PictureTokens
from taichu_jax.models.image_tokeniser import GumbelTokeniser
from taichu_jax.objectives.vision.dvae import DiscreteVAE
from taichu_jax.ops.schedules import Cosine, WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

SIZE = 64


def get_config(steps=4000):
    config = defaults()
    config.name = "dvae_stamps"
    config.steps = steps
    pictures = spec(Pictures, batch_size=24, image_size=SIZE)
    config.streams = {"pictures": pictures}
    config.networks = {
        "image_tokeniser": spec(
            GumbelTokeniser, entries=512, dim=64, widths=(16, 32, 64), blocks=2
        ),
    }
    config.objectives = {
        "dvae": spec(
            DiscreteVAE,
            source="pictures",
            temperature=spec(Cosine, start=1.0, end=1 / 16, steps=steps // 2),
            divergence=spec(Cosine, start=0.0, end=6.6, steps=steps // 20),
        )
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 20, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.999, weight_decay=1e-4)
    config.evaluations = {"tokens": spec(PictureTokens, stream=pictures)}
    return config
