"""Momentum contrast (v2: projection, temperature 0.2, colour and crop augmentation) on the stamps.

    python launch/train.py --config configs/vision/moco_stamps.py

Temperature and momentum: MoCo v2. The queue holds 512 keys, not 65,536: there are 841 pictures, and
a longer queue would hold the query's own picture many times. Optimiser and size: ours.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.images import ImageAugment
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.models.heads import Projection
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.base import Teacher
from taichu_jax.objectives.vision.moco import MoCo
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW


def get_config(steps=2000):
    config = defaults()
    config.name = "moco_stamps"
    config.steps = steps
    crops = spec(
        ImageAugment,
        zoom=(0.7, 1.8),
        move=0.2,
        degrees=15.0,
        mirror=True,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
    )
    views = spec(Pictures, batch_size=64, views=2, image_augment=crops)
    config.streams = {"views": views}
    config.networks = {
        "image": spec(ViT, width=128, depth=4, heads=4),
        "image_projection": spec(Projection, features=128, hidden=256),
    }
    teacher = spec(Teacher, nets=("image", "image_projection"), decay=0.99)
    config.objectives = {
        "moco": spec(MoCo, source="views", width=128, negatives=512, teacher=teacher)
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.95, weight_decay=0.05)
    config.evaluations = {"category": spec(CategoryProbe, stream=spec(Pictures, batch_size=64))}
    return config
