from taichu_jax.config import spec
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.models.patch_discriminator import PatchDiscriminator
from taichu_jax.objectives.vision.vqgan import VQGAN
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image_tokeniser": spec(VQTokeniser, entries=24, dim=6, widths=(8, 16), blocks=0, groups=4),
        "discriminator": spec(PatchDiscriminator, widths=(8, 8), groups=4),
    },
    objective=spec(VQGAN, source="stream", present="has_image", entries=24, dim=6, decay=None),
    batch=batches.triplets(),
)
