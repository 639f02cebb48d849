from taichu_jax.config import spec
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.models.layers import Linear
from taichu_jax.models.style import Style
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.vision.beit import BEiT
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "image": spec(
            ViT,
            width=16,
            depth=1,
            heads=2,
            patch=4,
            size=batches.SIZE,
            cls=True,
            position="none",
            relative_position="grid",
            style=spec(Style, key_bias=False, layer_scale=0.1),
        ),
        "beit_head": spec(Linear, features=24),
        "image_tokeniser": spec(VQTokeniser, entries=24, dim=6, widths=(8, 16), blocks=0, groups=4),
    },
    objective=spec(BEiT, source="stream", patch=4, least=3, present="has_image"),
    batch=batches.triplets(),
    frozen=("image_tokeniser",),
)
