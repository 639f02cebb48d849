"""The tri-modal model of taichu_stamps_tiny.py, larger and trained longer.

    python launch/train.py --config configs/multimodal/taichu_stamps.py

Width 192 instead of 128, three layers instead of two, 6,000 steps instead of 1,200.
"""

from configs.multimodal import taichu_stamps_tiny


def get_config(without=""):
    config = taichu_stamps_tiny.get_config(without, width=192, depth=3, steps=6000)
    config.name = "taichu_stamps"
    return config
