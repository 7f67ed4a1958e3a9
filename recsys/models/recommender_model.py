"""The module that joins item encoder and user encoder.

Shapes: B users, H positions, P positions with a target, C items, D embedding size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from recsys.models.backbone import TextEncoder
from recsys.models.heads import Heads
from recsys.models.item_encoder import (
    HybridItemEncoder,
    IdItemEncoder,
    ItemInputs,
    TextItemEncoder,
)
from recsys.models.temperature import Temperature
from recsys.models.user_encoder import HybridUserEncoder, UserEncoder
from recsys.schema import NO_TARGET, Batch


class RecommenderModel(nn.Module):
    """Users and items as vectors of length 1; their dot product is the score.

    `text_encoder` is None where items come with their text vectors already computed (a frozen
    backbone in training) or have none (IDs).
    """

    def __init__(
        self,
        item_encoder: TextItemEncoder | IdItemEncoder | HybridItemEncoder,
        user_encoder: UserEncoder | HybridUserEncoder,
        text_encoder: TextEncoder | None = None,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.text_encoder = text_encoder
        self.temperature = Temperature(temperature, learn_temperature)
        self.heads: Heads | None = None

    def forward(
        self, batch: Batch, inputs: ItemInputs
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """User vectors where there is a target (P, D), item vectors (C, D), and targets (P,).

        The batch's item indexes and targets are rows of `inputs`.
        """
        items_CD = self.encode_items(inputs)
        users_BHD = self.user_encoder(items_CD[batch.item_indexes], batch)
        has_target_BH = batch.targets != NO_TARGET
        return users_BHD[has_target_BH], items_CD, batch.targets[has_target_BH]

    def encode_items(self, inputs: ItemInputs) -> torch.Tensor:
        """(C, D) item vectors."""
        if self.text_encoder is not None and inputs.tokens is not None:
            inputs = replace(inputs, text=self.text_encoder(inputs.tokens))
        return self.item_encoder(inputs)

    def encode_users(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, D) user vectors after the last event of each history."""
        users_BHD = self.user_encoder(items_BHD, batch)
        rows_B = torch.arange(len(batch.lengths), device=batch.lengths.device)
        return users_BHD[rows_B, batch.lengths - 1]
