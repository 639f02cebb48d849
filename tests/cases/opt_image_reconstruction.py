from taichu_jax.config import spec
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction
from tests import batches, light
from tests.case import Case

ENTRIES, SIDE = 24, batches.SIZE // 8
CASE = Case(
    networks=light.NETWORKS
    | {
        "image_tokeniser": spec(
            VQTokeniser, entries=ENTRIES, dim=6, widths=(4, 4, 8), blocks=0, groups=4
        ),
        "image_code_decoder": spec(
            CodeDecoder,
            entries=ENTRIES,
            length=SIDE**2,
            grid=(SIDE, SIDE),
            width=light.WIDTH,
            depth=1,
            heads=2,
        ),
    },
    objective=spec(OPTImageReconstruction, source="stream", smoothing=0.1),
    batch=batches.triplets(),
    frozen=("image_tokeniser",),
)
