"""FLAVA's losses over masked pairs in PyTorch."""

from __future__ import annotations

import torch
import transformers
from torch.nn.functional import cross_entropy


class MaskedPairs(torch.nn.Module):
    """One pass of FlavaForPreTraining's FlavaModel, and the heads of its losses over masked pairs.

    The forward of FlavaForPreTraining reads every pair a second time, unmasked, which only the
    contrastive loss needs. The heads of texts and of pictures alone are taken out; what else has no part
    in these losses (poolers, projections) has no gradients, so that AdamW leaves it alone. Tokens and
    positions, zero at first, are drawn, or no patch would differ from its neighbours by its place.
    """

    def __init__(self, config: transformers.FlavaConfig):
        super().__init__()
        self.net = transformers.FlavaForPreTraining(config)
        self.net.mim_head, self.net.mlm_head = torch.nn.Identity(), torch.nn.Identity()
        for parameter in self.net.parameters():
            if parameter.dim() == 3:
                torch.nn.init.normal_(parameter, std=0.02)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor,
        itm_labels: torch.Tensor,
        word_places: torch.Tensor,
        words: torch.Tensor,
        patch_places: torch.Tensor,
        codes: torch.Tensor,
    ) -> torch.Tensor:
        """The sum of the three losses; places count the fusion's states of all pairs, flat."""
        read = self.net.flava(
            input_ids=input_ids, pixel_values=pixel_values, bool_masked_pos=bool_masked_pos
        )
        states = read.multimodal_embeddings
        flat = states.flatten(0, 1)
        return (
            cross_entropy(self.net.itm_head(states), itm_labels)
            + cross_entropy(self.net.mmm_text_head(flat[word_places]), words)
            + cross_entropy(self.net.mmm_image_head(flat[patch_places]), codes)
        )
