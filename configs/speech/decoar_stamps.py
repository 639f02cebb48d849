"""DeCoAR (slices of 19 frames from what is before and behind them) on the stamps' voices.

    python launch/train.py --config configs/speech/decoar_stamps.py

K = 18: the paper. Three LSTM layers of 96 in each direction instead of four of 1024, 64 hidden units in
the head instead of 512, batch and learning rate: ours, for two cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.bidirectional import BidirectionalEncoder, SliceHead
from taichu_jax.objectives.speech.decoar import DeCoAR

AHEAD = 18


def get_config(steps=2000):
    networks = {
        "speech": spec(BidirectionalEncoder, width=96, depth=3),
        "decoar_head": spec(SliceHead, frames=AHEAD + 1, bands=BANDS, hidden=64),
    }
    objectives = {"decoar": spec(DeCoAR, source="voices", ahead=AHEAD)}
    return on_stamps(
        "decoar_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        b2=0.999,
        weight_decay=0.0,
    )
