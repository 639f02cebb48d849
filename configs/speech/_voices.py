"""What every configuration of speech on the stamps shares: the voices, the step's length, the probe.

Not a configuration itself. A method's file names its networks and objectives and what it changes.
"""

from taichu_jax.config import spec
from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.streams import Recordings
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

BANDS = 80  # mel bands
SECONDS = 2.0  # the recordings' mean is 1.4
FRAMES = int(100 * SECONDS)


def whole():
    """Augmentation without masks: methods hide parts themselves, and reconstruct what has no holes."""
    return spec(AudioAugment, band_masks=0, frame_masks=0)


def on_stamps(
    name,
    networks,
    objectives,
    *,
    steps=2000,
    batch_size=32,
    audio="mel",
    peak=1e-3,
    b2=0.98,
    weight_decay=0.01,
    clip=1.0,
):
    """A config whose objectives read the stream `voices` and whose encoder is called `speech`."""
    config = defaults()
    config.name = name
    config.steps = steps
    voices = spec(
        Recordings,
        batch_size=batch_size,
        seconds=SECONDS,
        mel_bands=BANDS,
        audio=audio,
        audio_augment=whole(),
    )
    config.streams = {"voices": voices}
    config.networks = networks
    config.objectives = objectives
    rate = spec(WarmupCosine, peak=peak, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=b2, weight_decay=weight_decay, clip=clip)
    config.evaluations = {"language": spec(LanguageProbe, stream=voices, encoder="speech")}
    return config
