"""HiFi-GAN: a vocoder of log-mel frames on the stamps' voices, with its discriminators.

    python launch/train.py --config configs/speech/hifi_gan_stamps.py

Losses and their weights, AdamW with betas 0.8 and 0.99, decay 0.01, no clipping, one learning rate for
both sides, residual blocks as in its V3: the paper (models/hifi_gan.py says what differs).
DISCRIMINATOR_RATE is the factor on the discriminators' rate. 16 kHz and 160 samples a frame, segments
of 20 frames (3,200 samples) instead of 8,192, 64 channels instead of 256, periods 2, 5 and 11 and two
scales instead of five and three, all narrower and without groups; batch and learning rate: ours, for
two cores. Samples are not normalised; -8.9 and 4.2 are mean and deviation of the frames over the
training split.
10,000 steps: 51 minutes on one core (`--config.data.workers=0`) with other programs beside it, 5.7 steps
a second without, and still far too few. Log-mel error of held-out recordings 0.85 nepers of power, 8.8 dB
(after 2,000 steps 1.02 and 9.4); with random phases 0.86 and 7.9, by Griffin-Lim, fitted to these
very frames, 0.13 and 6.1. The error in training was still falling (1.6 after 100 steps, 1.05 after 2,000,
0.90 at last).
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.evals.resynthesis import Resynthesis
from taichu_jax.models.hifi_gan import HifiGanDiscriminators, HifiGanGenerator
from taichu_jax.objectives.speech.hifi_gan import HifiGan
from taichu_jax.training.optim import Rule

FRAMES = 20  # of a segment
DISCRIMINATOR_RATE = 1.0
NOT_DECAYED = r"(bias|scale)$"


def get_config(steps=10_000):
    networks = {
        "vocoder": spec(
            HifiGanGenerator,
            channels=64,
            rates=(8, 5, 4),
            sizes=(16, 15, 8),
            block_sizes=(3, 5, 7),
            dilations=((1, 2), (2, 6), (3, 12)),
            paired=False,
            mel_mean=-8.9,
            mel_deviation=4.2,
        ),
        "discriminators": spec(
            HifiGanDiscriminators,
            periods=(2, 5, 11),
            period_channels=(8, 16, 32, 64, 64),
            scales=2,
            scale_channels=(8, 16, 32, 64, 64),
            scale_sizes=(15, 21, 21, 21, 5),
            scale_strides=(1, 4, 4, 4, 1),
            scale_groups=(1, 1, 1, 1, 1),
        ),
    }
    objectives = {"hifi_gan": spec(HifiGan, source="voices", frames=FRAMES, bands=BANDS)}
    config = on_stamps(
        "hifi_gan_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        peak=1e-3,
        b2=0.99,
        weight_decay=0.01,
        clip=None,
    )
    config.optimizer.b1 = 0.8
    config.optimizer.rules = (
        spec(Rule, pattern=f"^discriminators/.*{NOT_DECAYED}", rate=DISCRIMINATOR_RATE, decay=0.0),
        spec(Rule, pattern="^discriminators/", rate=DISCRIMINATOR_RATE),
        spec(Rule, pattern=NOT_DECAYED, decay=0.0),
        spec(Rule, pattern=".*"),
    )
    voices = config.streams.voices
    voices.normalise = False
    voices.audio_augment.noise_probability = 0.0
    config.evaluations = {"sounds": spec(Resynthesis, stream=voices, vocoder="vocoder")}
    return config
