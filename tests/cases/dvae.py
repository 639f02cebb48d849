from taichu_jax.config import spec
from taichu_jax.models.image_tokeniser import GumbelTokeniser
from taichu_jax.objectives.vision.dvae import DiscreteVAE
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image_tokeniser": spec(
            GumbelTokeniser, entries=24, dim=6, widths=(8, 16), blocks=0, groups=4
        ),
    },
    objective=spec(
        DiscreteVAE, source="stream", present="has_image", temperature=0.7, divergence=6.6
    ),
    batch=batches.triplets(),
)
