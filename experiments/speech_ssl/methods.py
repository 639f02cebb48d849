"""Which methods are compared. Order is that of the table."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
      label: as people know it.
      config: configs/speech/CONFIG_stamps.py.
      family: what it predicts.
      units: where its targets come from: '' for none, 'mfcc_cmvn', or the config whose run gives them.
    """

    label: str
    config: str
    family: str
    units: str = ""


METHODS = (
    Method("APC", "apc", "next frames"),
    Method("APC, transformer", "apc_transformer", "next frames"),
    Method("VQ-APC", "vq_apc", "next frames"),
    Method("Mockingjay", "mockingjay", "masked frames"),
    Method("Audio ALBERT", "audio_albert", "masked frames"),
    Method("TERA", "tera", "masked frames"),
    Method("DeCoAR", "decoar", "masked frames"),
    Method("DeCoAR 2.0", "decoar2", "masked frames"),
    Method("NPC", "npc", "masked frames"),
    Method("CPC", "cpc", "contrast"),
    Method("wav2vec", "wav2vec", "contrast"),
    Method("vq-wav2vec, Gumbel", "vq_wav2vec", "contrast"),
    Method("vq-wav2vec, k-means", "vq_wav2vec_kmeans", "contrast"),
    Method("wav2vec 2.0", "wav2vec2", "contrast"),
    Method("w2v-BERT", "w2v_bert", "contrast and masked units"),
    Method("HuBERT, iteration 1", "hubert", "masked units", units="mfcc_cmvn"),
    Method("HuBERT, iteration 2", "hubert_iteration2", "masked units", units="hubert"),
    Method("WavLM", "wavlm", "masked units", units="mfcc_cmvn"),
    Method("data2vec", "data2vec", "teacher's states"),
    Method("PASE+", "pase", "many workers"),
)
