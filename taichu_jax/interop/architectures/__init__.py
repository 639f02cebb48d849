"""The architectures that can be converted, by the model_type of their config.json."""

from taichu_jax.interop.architecture import Architecture
from taichu_jax.interop.architectures.bart import Bart
from taichu_jax.interop.architectures.beit import Beit, Data2VecVision
from taichu_jax.interop.architectures.bert import Bert, Data2VecText, Roberta
from taichu_jax.interop.architectures.clip import CLIP
from taichu_jax.interop.architectures.dinov2 import DINOv2, DINOv2WithRegisters
from taichu_jax.interop.architectures.flava import Flava
from taichu_jax.interop.architectures.gpt2 import GPT2
from taichu_jax.interop.architectures.s3prl import S3prlAPC, S3prlNPC, S3prlTransformer
from taichu_jax.interop.architectures.vit import VisionTransformer, ViTMAE
from taichu_jax.interop.architectures.wave import Data2VecSpeech, Hubert, Wav2Vec2Speech
from taichu_jax.interop.architectures.whisper import Whisper
from taichu_jax.interop.architectures.xlnet import XLNetText

ARCHITECTURES: dict[str, Architecture] = {
    kind.model_type: kind()
    for kind in (
        Bert,
        Roberta,
        GPT2,
        XLNetText,
        Bart,
        VisionTransformer,
        ViTMAE,
        Wav2Vec2Speech,
        Hubert,
        Data2VecSpeech,
        CLIP,
        Flava,
        Data2VecText,
        DINOv2,
        DINOv2WithRegisters,
        Beit,
        Data2VecVision,
        Whisper,
        S3prlAPC,
        S3prlNPC,
        S3prlTransformer,
    )
}
