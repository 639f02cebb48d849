import numpy as np

from taichu_jax.config import spec
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.hubert import HuBERT
from tests import batches
from tests.case import Case

CODES = 7


def units(count, batch=8, seed=4):
    """Units that are missing in places, and at the end of some rows."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, CODES, (batch, count))
    found[rng.uniform(size=found.shape) < 0.1] = -1
    found[::3, -3:] = -1
    return found.astype(np.int32)


CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=1,
            heads=2,
            stride=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "hubert_head": spec(Projection, features=8),
        "hubert_codebook": spec(Codebook, codes=CODES, dim=8),
    },
    objective=spec(HuBERT, source="stream", input="mel", span=2, on_unmasked=0.5),
    batch=batches.mel() | {"units": units(batches.FRAMES)},
)
