from taichu_jax.config import spec
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "text": spec(TextEncoder, vocab_size=batches.VOCAB, width=16, depth=1, heads=2, length=16)
    },
    objective=spec(MaskedLanguageModel, source="stream", vocab_size=batches.VOCAB),
    batch=batches.text(),
)
