from taichu_jax.config import spec
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.objectives.vision.vqvae import VQVAE
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image_tokeniser": spec(VQTokeniser, entries=24, dim=6, widths=(8, 16), blocks=0, groups=4),
    },
    objective=spec(
        VQVAE,
        source="stream",
        present="has_image",
        entries=24,
        dim=6,
        decay=0.9,
        revive=0.5,
        variance=0.3,
    ),
    batch=batches.triplets(),
)
