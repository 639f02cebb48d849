"""The tri-modal model of taichu_stamps_tiny.py, one layer deeper, trained more than twice as long.

    python launch/train.py --config configs/multimodal/taichu_stamps.py

44 minutes on two cores of an Intel Xeon with other programs beside it, 1.2 steps a second alone. R@10 on
held-out pictures: voice to words 87.9 %, picture to words 47.3 %, voice to picture 40.2 % (tiny: 89.1,
45.4 and 34.0; chance 19.2 %). The text decoder gets more examples and its full weight, because writing
is what the tiny run learns least: chrF of words written from picture and voice is 17.0 (tiny: 8.3;
another item's words: 7.9).
"""

from configs.multimodal import taichu_stamps_tiny


def get_config(without=""):
    config = taichu_stamps_tiny.get_config(without, depth=3, steps=2400)
    config.name = "taichu_stamps"
    if "modality" in config.objectives:
        config.objectives.modality.update(weight=1.0, share=0.5)
    return config
