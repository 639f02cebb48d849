from taichu_jax.config import spec
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image": spec(ViT, width=16, depth=1, heads=2, patch=4, size=batches.SIZE, cls=True),
        "image_decoder": spec(MAEDecoder, width=8, depth=1, heads=2, patch=4, patches=16, cls=True),
    },
    objective=spec(MaskedAutoencoder, source="stream", patch=4, present="has_image"),
    batch=batches.triplets(),
)
