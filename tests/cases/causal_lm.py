from taichu_jax.config import spec
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.causal_lm import CausalLanguageModel
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "text": spec(
            TextEncoder,
            vocab_size=batches.VOCAB,
            width=16,
            depth=1,
            heads=2,
            length=16,
            causal=True,
        )
    },
    objective=spec(CausalLanguageModel, source="stream"),
    batch=batches.text(),
)
