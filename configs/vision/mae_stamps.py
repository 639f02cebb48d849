"""Masked autoencoder on the stamps' pictures.

    python launch/train.py --config configs/vision/mae_stamps.py

Masking 0.75, normalised targets, b2 and decay: MAE; size and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.evals.reconstructions import PictureReconstructions
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

SIZE, PATCH = 64, 8


def get_config(steps=2000):
    config = defaults()
    config.name = "mae_stamps"
    config.steps = steps
    pictures = spec(Pictures, batch_size=64, image_size=SIZE)
    config.streams = {"pictures": pictures}
    config.networks = {
        "image": spec(ViT, width=128, depth=4, heads=4, size=SIZE, patch=PATCH, cls=True),
        "image_decoder": spec(
            MAEDecoder,
            width=64,
            depth=2,
            heads=4,
            patch=PATCH,
            patches=(SIZE // PATCH) ** 2,
            cls=True,
        ),
    }
    config.objectives = {"mae": spec(MaskedAutoencoder, source="pictures", patch=PATCH)}
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.95, weight_decay=0.05)
    config.evaluations = {
        "pictures": spec(PictureReconstructions, stream=pictures, objective="mae"),
        "category": spec(CategoryProbe, stream=pictures),
    }
    return config
