"""Masked autoencoder with ViT-H/14 at 224 pixels, compiled for TPU slices and never trained.

    python launch/compile.py --config configs/vision/mae_stamps_vit_h.py --topology v5e:8x8
    python launch/train.py --config configs/vision/mae_stamps_vit_h.py

What it needs per chip: experiments/scale/table.md. The second command is for such a slice.

Encoder 32 x 1280 with 16 heads and patches of 14, decoder 8 x 512 with 16 heads, masking 0.75, batch
4,096, learning rate 1.5e-4 a 256 pictures, b2, decay, 800 epochs of ImageNet's length with 40 of
warm-up: MAE (arXiv 2111.06377, appendix A). Data: the stamps' pictures, the only ones that every
machine can have.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.models.transformer import Stack
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW
from taichu_jax.training.sharding import MeshShape

SIZE, PATCH, BATCH = 224, 14, 4096
EPOCH = 1_281_167 // BATCH  # steps


def get_config():
    config = defaults()
    config.name = "mae_stamps_vit_h"
    config.steps = 800 * EPOCH
    config.streams = {"pictures": spec(Pictures, batch_size=BATCH, image_size=SIZE)}
    stack = spec(Stack, remat="dots", scan=True)
    config.networks = {
        "image": spec(
            ViT, width=1280, depth=32, heads=16, size=SIZE, patch=PATCH, cls=True, stack=stack
        ),
        "image_decoder": spec(
            MAEDecoder,
            width=512,
            depth=8,
            heads=16,
            patch=PATCH,
            patches=(SIZE // PATCH) ** 2,
            cls=True,
            stack=stack,
        ),
    }
    config.objectives = {"mae": spec(MaskedAutoencoder, source="pictures", patch=PATCH)}
    rate = spec(WarmupCosine, peak=1.5e-4 * BATCH / 256, warmup=40 * EPOCH, steps=config.steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.95, weight_decay=0.05)
    config.mesh = spec(MeshShape, data=-1, fsdp=8)
    return config
