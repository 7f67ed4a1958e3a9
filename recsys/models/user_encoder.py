"""A history of item vectors -> a user vector at every position.

Every kind of user encoder is this one with its own layers, from `recsys/models/sequence/`.

Shapes: B users, H positions, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from recsys.config import ModelConfig
from recsys.models.event_features import (
    NUM_GAPS,
    CalendarVectors,
    RepeatVectors,
    gap_buckets,
    small_embedding,
)
from recsys.models.sequence.layers import SequenceLayers
from recsys.models.sequence.transformer import Past, TransformerLayers
from recsys.schema import Batch

UserState = list[Past]
"""What an encoder keeps of a history to read later events: one part, or one a half."""


class UserEncoder(nn.Module):
    """Events as vectors, layers that join them; position t sees events 0 .. t and nothing later."""

    def __init__(
        self,
        config: ModelConfig,
        max_history: int,
        num_events: int,
        make_layers: Callable[[], SequenceLayers],
    ) -> None:
        super().__init__()
        size = config.part_size
        # A transformer's attention is blind to order; all other layers know it by themselves.
        needs_position = config.user_encoder == "transformer"
        self.norm_in = nn.LayerNorm(size)
        self.position = small_embedding(max_history, size) if needs_position else None
        self.event = small_embedding(num_events, size)
        self.gap = small_embedding(NUM_GAPS + 1, size) if config.use_time else None
        self.calendar = CalendarVectors(size) if config.use_calendar else None
        self.repeats = RepeatVectors(size) if config.use_repeats else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = make_layers()
        self.norm_out = nn.LayerNorm(size)

    def forward(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, H, D) float32 user vectors of length 1; positions past a length are meaningless."""
        x_BHD = self.dropout(self._events(items_BHD, batch))
        x_BHD = self.layers(x_BHD, batch.timestamps)
        return F.normalize(self.norm_out(x_BHD).float(), dim=-1)

    def read_on(
        self, items_BHD: torch.Tensor, batch: Batch, past: UserState | None
    ) -> tuple[torch.Tensor, UserState]:
        """(B, M, D) what `forward` says of the positions after `past`, and a state with them in it.

        Only for layers that can; see `can_read_on`.
        """
        assert isinstance(self.layers, TransformerLayers)
        num_before = past[0][0][0].shape[2] if past else 0
        x_BMD = self._events(items_BHD, batch)[:, num_before:]
        x_BMD, seen = self.layers.read_on(x_BMD, past[0] if past else None)
        return F.normalize(self.norm_out(x_BMD).float(), dim=-1), [seen]

    @property
    def can_read_on(self) -> bool:
        """Whether a state can be kept, so that a new event need not read the whole history."""
        return isinstance(self.layers, TransformerLayers)

    def _events(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, H, D) sum of what is known of each event."""
        x_BHD = self.norm_in(items_BHD.to(self.norm_in.weight.dtype))
        if self.position is not None:
            x_BHD = x_BHD + self.position(torch.arange(x_BHD.shape[1], device=x_BHD.device))
        x_BHD = x_BHD + self.event(batch.events)
        if self.gap is not None:
            x_BHD = x_BHD + self.gap(gap_buckets(batch.timestamps))
        for vectors in (self.calendar, self.repeats):
            if vectors is not None:
                x_BHD = x_BHD + vectors(batch)
        return x_BHD


class HybridUserEncoder(nn.Module):
    """One encoder for the text halves of item vectors and one for their ID halves.

    Neither sees the other's half, so that each learns as it would alone, and their scores add up
    as those of an ensemble. `id_share` is the share of the ID half in a user vector's squared
    length; validation sets it, because training data overrate what is known by heart.
    """

    id_share: torch.Tensor

    def __init__(self, text: UserEncoder, ids: UserEncoder) -> None:
        super().__init__()
        self.text = text
        self.ids = ids
        self.register_buffer("id_share", torch.tensor(0.1))

    def forward(self, items_BHD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, H, D) float32 user vectors of length 1 from item vectors (B, H, D)."""
        text_BHD, ids_BHD = items_BHD.chunk(2, dim=-1)
        users_BHD = torch.cat([self.text(text_BHD, batch), self.ids(ids_BHD, batch)], dim=-1)
        return weigh_halves(users_BHD, self.id_share)

    def read_on(
        self, items_BHD: torch.Tensor, batch: Batch, past: UserState | None
    ) -> tuple[torch.Tensor, UserState]:
        """As `UserEncoder.read_on`."""
        pasts = [past[:1], past[1:]] if past else [None, None]
        halves = zip((self.text, self.ids), items_BHD.chunk(2, dim=-1), pasts, strict=True)
        found = [encoder.read_on(half, batch, one) for encoder, half, one in halves]
        users_BMD = torch.cat([users for users, _ in found], dim=-1)
        state = [seen for _, states in found for seen in states]
        return weigh_halves(users_BMD, self.id_share), state

    @property
    def can_read_on(self) -> bool:
        """As `UserEncoder.can_read_on`."""
        return self.text.can_read_on and self.ids.can_read_on


def weigh_halves(vectors_XD: torch.Tensor, second_share: float | torch.Tensor) -> torch.Tensor:
    """Vectors of length 1 in which the second half has this share of the squared length."""
    first, second = (F.normalize(half, dim=-1) for half in vectors_XD.chunk(2, dim=-1))
    return torch.cat([(1 - second_share) ** 0.5 * first, second_share**0.5 * second], dim=-1)
