"""VQ-VAE on the stamps' pictures: 64 pixels as 8 x 8 codes out of 512.

    python launch/train.py --config configs/vision/vqvae_stamps.py

Commitment 0.25, decay 0.99 and pictures shrunk by 8: VQ-VAE and OPT's tokeniser; revival: Jukebox's
threshold; variance: measured; sizes and learning rate: ours, for two cores.
18 minutes on two cores with other programs beside it. Held-out pictures from their codes: PSNR 20.6, SSIM
0.71 (blocks of one colour: 16.3, 0.45); 429 of the 512 codes are used.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.picture_tokens import PictureTokens
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.objectives.vision.vqvae import VQVAE
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

SIZE, ENTRIES, DIM = 64, 512, 64
VARIANCE = 0.471  # of the 841 training pictures' values, on the scale from -1 to 1


def get_config(steps=4000):
    config = defaults()
    config.name = "vqvae_stamps"
    config.steps = steps
    pictures = spec(Pictures, batch_size=32, image_size=SIZE)
    config.streams = {"pictures": pictures}
    config.networks = {
        "image_tokeniser": spec(
            VQTokeniser, entries=ENTRIES, dim=DIM, widths=(16, 32, 64), blocks=2
        ),
    }
    config.objectives = {
        "vqvae": spec(
            VQVAE, source="pictures", entries=ENTRIES, dim=DIM, revive=1.0, variance=VARIANCE
        )
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 20, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.99, weight_decay=0.0)
    config.evaluations = {"tokens": spec(PictureTokens, stream=pictures)}
    return config
