"""VQGAN on the stamps' pictures: 64 pixels as 8 x 8 codes out of 512, judged by a discriminator.

    python launch/train.py --config configs/vision/vqgan_stamps.py

Pixels and adversary only; to compare a trained network's states too, add the network, name it in
`perceptual`, and restore and freeze it (taichu_jax/objectives/vision/vqgan.py).
Commitment 0.25, weight 0.8, delta 1e-4, b1 and b2: the authors' code; codebook as in vqvae_stamps;
the discriminator's start and learning rate, sizes and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.picture_tokens import PictureTokens
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.models.patch_discriminator import PatchDiscriminator
from taichu_jax.objectives.vision.vqgan import VQGAN
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Rule

SIZE, ENTRIES, DIM = 64, 512, 64


def get_config(steps=4000):
    config = defaults()
    config.name = "vqgan_stamps"
    config.steps = steps
    pictures = spec(Pictures, batch_size=24, image_size=SIZE)
    config.streams = {"pictures": pictures}
    config.networks = {
        "image_tokeniser": spec(
            VQTokeniser, entries=ENTRIES, dim=DIM, widths=(16, 32, 64), blocks=2
        ),
        "discriminator": spec(PatchDiscriminator, widths=(16, 32)),
    }
    config.objectives = {
        "vqgan": spec(
            VQGAN,
            source="pictures",
            entries=ENTRIES,
            dim=DIM,
            revive=1.0,
            delta=1e-4,
            start=steps // 4,
        )
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 20, steps=steps)
    # One clip over both players would let the one's large gradient shorten the other's.
    config.optimizer = spec(
        AdamW,
        learning_rate=rate,
        b1=0.5,
        b2=0.9,
        weight_decay=0.0,
        clip=None,
        rules=(
            Rule(pattern=r"^discriminator/", rate=0.2, decay=0.0),
            *DEFAULT_RULES,
        ),
    )
    config.evaluations = {"tokens": spec(PictureTokens, stream=pictures)}
    return config
