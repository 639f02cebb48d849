"""Masked language modelling with everything of a large stack: experts, a scan, rematerialisation."""

from taichu_jax.config import spec
from taichu_jax.models.experts import Experts
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.transformer import Stack
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "text": spec(
            TextEncoder,
            vocab_size=batches.VOCAB,
            width=16,
            depth=4,
            heads=2,
            length=16,
            stack=spec(
                Stack,
                remat="dots",
                scan=True,
                experts=spec(Experts, count=4, chosen=2, every=2, capacity=1.0, z=1e-3),
            ),
        )
    },
    objective=spec(MaskedLanguageModel, source="stream", vocab_size=batches.VOCAB),
    batch=batches.text(),
)
