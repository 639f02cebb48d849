"""Tri-modal model of 10 billion parameters, compiled for TPU slices and never trained.

    python launch/compile.py --config configs/multimodal/taichu_stamps_10b.py --topology v5p:4x4x4
    python launch/train.py --config configs/multimodal/taichu_stamps_10b.py

What it needs per chip: experiments/scale/table.md. The second command is for such a slice.

taichu_stamps_1b.py with the fusion of the released "10B" configuration of Zidong Taichu
(mindspore-ai/zidongtaichu): 48 x 4096, 16,384 units. Its number of heads could not be read there; 32 as
in "1B", 128 dimensions each. The released one splits tensors over 8 and the optimiser over 4
devices; here fsdp splits both over all of them.
"""

from configs.multimodal import taichu_stamps_1b


def get_config():
    config = taichu_stamps_1b.get_config(width=4096, depth=48, heads=32)
    config.name = "taichu_stamps_10b"
    return config
