from taichu_jax.config import spec
from taichu_jax.models.hifi_gan import HifiGanDiscriminators, HifiGanGenerator
from taichu_jax.objectives.speech.hifi_gan import HifiGan
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "vocoder": spec(
            HifiGanGenerator,
            channels=8,
            rates=(16, 10),
            sizes=(32, 20),
            block_sizes=(3,),
            dilations=((2,),),
            paired=False,
        ),
        "discriminators": spec(
            HifiGanDiscriminators,
            periods=(3,),
            period_channels=(2, 4),
            scales=1,
            scale_channels=(4, 4),
            scale_sizes=(5, 9),
            scale_strides=(1, 4),
            scale_groups=(1, 2),
        ),
    },
    objective=spec(HifiGan, source="stream", frames=4, bands=12),
    batch=batches.waveform(),
)
