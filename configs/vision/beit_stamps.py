"""BEiT on the stamps' pictures: the codes of hidden patches, by the tokeniser of `dvae_stamps.py`.

    python launch/train.py --config configs/vision/dvae_stamps.py
    python launch/train.py --config configs/vision/beit_stamps.py

--config.restore.image_tokeniser=RUN takes the tokeniser of another run.
40 % hidden, one table of relative positions for all blocks, layer scale 0.1, no absolute positions, b2,
decay and clipping: BEiT. The smallest block has 4 of 64 patches instead of 16 of 196; sizes and learning
rate: ours, for two cores. Not run to its end yet.
"""

from configs.vision.dvae_stamps import SIZE
from configs.vision.dvae_stamps import get_config as tokeniser_config
from taichu_jax.config import spec
from taichu_jax.data.streams import Pictures
from taichu_jax.evals.probes import CategoryProbe
from taichu_jax.models.layers import Linear
from taichu_jax.models.style import Style
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.vision.beit import BEiT
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW, Rule

PATCH = 8


def get_config(steps=2000):
    config = defaults()
    config.name = "beit_stamps"
    config.steps = steps
    pictures = spec(Pictures, batch_size=64, image_size=SIZE)
    config.streams = {"pictures": pictures}
    tokeniser = tokeniser_config().networks.image_tokeniser
    config.networks = {
        "image": spec(
            ViT,
            width=128,
            depth=4,
            heads=4,
            size=SIZE,
            patch=PATCH,
            cls=True,
            position="none",
            relative_position="grid",
            style=spec(Style, key_bias=False, layer_scale=0.1),
        ),
        "beit_head": spec(Linear, features=tokeniser.entries),
        "image_tokeniser": tokeniser,
    }
    config.restore = {"image_tokeniser": "runs/dvae_stamps"}
    config.objectives = {"beit": spec(BEiT, source="pictures", patch=PATCH, least=4)}
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.05, clip=3.0)
    still = spec(Rule, pattern="^image_tokeniser/", rate=0.0, decay=0.0)
    config.optimizer.rules = (still, *config.optimizer.rules)
    config.evaluations = {"category": spec(CategoryProbe, stream=pictures)}
    return config
