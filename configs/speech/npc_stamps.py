"""Non-autoregressive predictive coding (four blocks, 23 frames around a hidden 5) on the stamps' voices.

    python launch/train.py --config configs/speech/npc_stamps.py

Blocks, kernel, mask, 4 x 64 codes, temperature 1, dropout 0.1, learning rate 1e-3: the authors' code;
layer norm stands for its batch norm (models/local_context.py). Width 128 instead of 512 and the batch of
16 instead of 32: ours, for two cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.codes import GroupQuantiser
from taichu_jax.models.heads import Projection
from taichu_jax.models.local_context import LocalContextEncoder
from taichu_jax.objectives.speech.npc import NonAutoregressivePredictiveCoding


def get_config(steps=2000):
    networks = {
        "speech": spec(LocalContextEncoder, width=128, blocks=4, kernel=15, mask=5, dropout=0.1),
        "quantiser": spec(GroupQuantiser, groups=4, codes=64),
        "npc_head": spec(Projection, features=BANDS),
    }
    objectives = {"npc": spec(NonAutoregressivePredictiveCoding, source="voices", gumbel=1.0)}
    return on_stamps(
        "npc_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        b2=0.999,
        weight_decay=0.0,
    )
