"""The tri-modal model of taichu_stamps_tiny.py, one layer deeper, trained more than twice as long.

    python launch/train.py --config configs/multimodal/taichu_stamps.py

Not run to its end yet. The text decoder gets more examples and its full weight: writing is what the
tiny run learns least.
"""

from configs.multimodal import taichu_stamps_tiny


def get_config(without=""):
    config = taichu_stamps_tiny.get_config(without, depth=3, steps=2400)
    config.name = "taichu_stamps"
    if "modality" in config.objectives:
        config.objectives.modality.update(weight=1.0, share=0.5)
    return config
