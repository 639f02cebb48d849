from taichu_jax.config import spec
from taichu_jax.models.xlnet import XLNet
from taichu_jax.objectives.text.permutation_lm import PermutationLanguageModel
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "text": spec(XLNet, vocab_size=batches.VOCAB, width=16, depth=1, heads=2, segments=True)
    },
    objective=spec(PermutationLanguageModel, source="stream", one_in=3),
    batch=batches.text(),
)
