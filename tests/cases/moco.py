from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.vision.moco import MoCo
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image": spec(ViT, width=16, depth=1, heads=2, patch=4, size=batches.SIZE),
        "image_projection": spec(Projection, features=8, hidden=16),
    },
    # A full queue, as an empty one gives no gradient; the batch of 8 does not divide its 20 places.
    objective=spec(MoCo, source="stream", width=8, negatives=20, random_start=True),
    batch=batches.image() | batches.image(seed=1, name="image2"),
)
