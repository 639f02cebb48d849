"""PASE+ on the stamps' voices: nine workers over one encoder of distorted speech.

    python launch/train.py --config configs/speech/pase_stamps.py

Workers, equal weights, distortions, slopes of the small descriptions: the authors' configuration of
PASE+; SPC is PASE's. For two cores filters, convolutions, their kernels and the workers' hidden
layers are smaller, with strides 8, 5, 2, 2 instead of 1, 10, 2, 1, 2, 1, 2, 2 (10 ms either way); log
power has 257 columns instead of 1025 and no slopes; a worker describes its frame (as in PASE) instead
of seven; the workers of long windows (`window`) are left out.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.pase import PaseEncoder
from taichu_jax.objectives.speech.pase_discrimination import PaseDiscrimination
from taichu_jax.objectives.speech.pase_regression import PaseRegression
from taichu_jax.ops.distortions import Distortions

# worker -> (columns of its target, fields)
REGRESSIONS = {
    "wave": (160, {}),
    "log_power": (257, {"size": 512}),
    "mfcc": (39, {"size": 13, "slopes": 2}),
    "filter_bank": (120, {"slopes": 2}),
    "gammatone": (120, {"slopes": 2}),
    "prosody": (12, {"slopes": 2}),
}
DISCRIMINATIONS = {
    "lim": {"mode": "local"},
    "gim": {"mode": "global", "swapped": True},
    "spc": {"mode": "sequence"},
}


def get_config(steps=2000):
    networks = {
        "speech": spec(
            PaseEncoder,
            width=128,
            channels=(32, 32, 64, 96),
            kernels=(251, 11, 5, 5),
            strides=(8, 5, 2, 2),
            recurrent=128,
            distortions=spec(Distortions),
        )
    }
    objectives = {}
    for name, (columns, fields) in REGRESSIONS.items():
        networks[f"{name}_head"] = spec(Projection, features=columns, hidden=64)
        fields = {"target": name, "head": f"{name}_head", **fields}
        objectives[name] = spec(PaseRegression, source="voices", distorted=True, **fields)
    for name, fields in DISCRIMINATIONS.items():
        networks[f"{name}_head"] = spec(Projection, features=1, hidden=64)
        fields = {"head": f"{name}_head", **fields}
        objectives[name] = spec(PaseDiscrimination, source="voices", distorted=True, **fields)
    return on_stamps(
        "pase_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        audio="waveform",
        weight_decay=0.0,
    )
