"""A pretrained language model: load, add LoRA, pool tokens to one vector a text.

Shapes: N texts, T tokens, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from recsys.config import ModelConfig
from recsys.pretrained import resolve_backbone

NUM_GROUPS = 8
"""Groups of similar length that texts are packed in."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts padded on the right: `ids` and `mask` are (N, T) int64, the mask 1 at real tokens."""

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on a device."""
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Texts in groups of similar length, each padded on its own, so that little is padding.

    Text n is row `places[n]` of all groups' rows one after another; a row may be nobody's.
    """

    groups: tuple[Tokens, ...]
    places: torch.Tensor

    def to(self, device: torch.device) -> PackedTokens:
        """The same texts on a device."""
        groups = tuple(group.to(device) for group in self.groups)
        return PackedTokens(groups, self.places.to(device))


def pad_tokens(rows: Sequence[Sequence[int]]) -> Tokens:
    """Token lists of any lengths as one padded pair of tensors.

    A text without tokens keeps one masked slot, so that T is at least 1.
    """
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))


def pack_tokens(rows: Sequence[Sequence[int]], num_groups: int = NUM_GROUPS) -> PackedTokens:
    """Token lists of any lengths, at least one, in the groups that take the fewest slots.

    There are always so many groups, the longest texts first: ranks that share out their weights
    (ZeRO-3) must run the language model equally often. What fewer do not need is a group with a
    copy of the shortest text, which is nobody's.
    """
    lengths = np.fromiter((max(1, len(row)) for row in rows), np.int64, len(rows))
    order = np.argsort(-lengths, kind="stable")
    parts = np.split(order, _cheapest_cuts(lengths, num_groups))
    filled = [part if len(part) else order[-1:] for part in parts]
    starts = np.cumsum([0, *(len(part) for part in filled)])
    places = np.empty(len(rows), dtype=np.int64)
    for start, part in zip(starts, parts, strict=False):
        places[part] = start + np.arange(len(part))
    groups = tuple(pad_tokens([rows[row] for row in part]) for part in filled)
    return PackedTokens(groups, torch.from_numpy(places))


def _cheapest_cuts(lengths_N: np.ndarray, num_groups: int) -> np.ndarray:
    """Where to cut texts, longest first, so that the groups' padded slots are the fewest."""
    sizes, counts = np.unique(lengths_N, return_counts=True)
    sizes, ends = sizes[::-1], np.append(0, np.cumsum(counts[::-1]))
    # slots[i, j]: of a group with the i-th to the j-th longest size, none if they are the same.
    slots = np.append(sizes, 0)[:, None] * (ends - ends[:, None])
    slots = np.where(slots < 0, np.inf, slots)
    fewest, back = slots[0], []
    for _ in range(num_groups - 1):
        totals = fewest[:, None] + slots
        back.append(totals.argmin(0))
        fewest = totals.min(0)
    cuts = [len(sizes)]
    for before in reversed(back):
        cuts.append(before[cuts[-1]])
    return ends[cuts[:0:-1]]


class TextEncoder(nn.Module):
    """Tokens -> one text vector, whitened where `whiten` was called."""

    whitening_mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, backbone: nn.Module, size: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.pooling = pooling
        self.register_buffer("whitening_mean", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size))

    def forward(self, tokens: Tokens | PackedTokens) -> torch.Tensor:
        """(N, E) float32 text vectors."""
        return self.whiten(self.pooled(tokens))

    def pooled(self, tokens: Tokens | PackedTokens) -> torch.Tensor:
        """(N, E) float32 text vectors as the backbone makes them, never whitened."""
        if isinstance(tokens, PackedTokens):
            return torch.cat([self.pooled(group) for group in tokens.groups])[tokens.places]
        hidden_NTE = self.backbone(
            input_ids=tokens.ids, attention_mask=tokens.mask
        ).last_hidden_state
        return pool(hidden_NTE.float(), tokens.mask, self.pooling)

    def whiten(self, pooled_NE: torch.Tensor) -> torch.Tensor:
        """What `forward` makes of `pooled`."""
        return (pooled_NE - self.whitening_mean.float()) @ self.whitening.float()

    def set_whitening(self, mean_E: torch.Tensor, whitening_EE: torch.Tensor) -> None:
        """Whiten every text vector from now on."""
        self.whitening_mean.copy_(mean_E)
        self.whitening.copy_(whitening_EE)


def pool(hidden_NTE: torch.Tensor, mask_NT: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a text: the mean of its real tokens, or the last real token."""
    if pooling == "last":
        last_N = (mask_NT.sum(1) - 1).clamp_min(0)
        return hidden_NTE[torch.arange(len(last_N), device=last_N.device), last_N]
    weights_NT1 = mask_NT[..., None].to(hidden_NTE.dtype)
    return (hidden_NTE * weights_NT1).sum(1) / weights_NT1.sum(1).clamp_min(1)


def fit_whitening(text_NE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and matrix that give the text vectors unit covariance (PCA whitening).

    Language models put text in a narrow cone; whitening spreads it, which helps a small
    projection (Su et al. 2021, arXiv 2103.15316). Directions with under 1e-5 of the largest
    variance are noise and are not blown up further than that.
    """
    mean_E = text_NE.mean(0)
    centred_NE = text_NE - mean_E
    variances_E, directions_EE = torch.linalg.eigh(centred_NE.T @ centred_NE / len(text_NE))
    floor = max(1e-5 * float(variances_E[-1]), 1e-12)
    return mean_E, (directions_EE / variances_E.clamp_min(floor).sqrt()).contiguous()


def load_text_encoder(config: ModelConfig, directory: Path | None = None) -> TextEncoder:
    """The text encoder of a config, from its pretrained weights or from a checkpoint's directory.

    LoRA matrices are added for a pretrained backbone with tuning `lora`; a checkpoint's are
    already merged.
    """
    source = str(directory) if directory else resolve_backbone(config.backbone)
    frozen_half = config.tuning == "frozen" and config.backbone_precision == "bf16"
    backbone = AutoModel.from_pretrained(
        source, dtype=torch.bfloat16 if frozen_half else torch.float32, trust_remote_code=False
    )
    size = backbone.config.hidden_size
    if config.activation_checkpointing and config.tuning != "frozen" and directory is None:
        backbone.activation_checkpointing_enable()
    if config.tuning == "lora" and directory is None:
        backbone = _add_lora(backbone, config.lora_rank)
    return TextEncoder(backbone, size, config.pooling)


def _add_lora(backbone: PreTrainedModel, rank: int) -> nn.Module:
    # peft is an extra of training; serving a merged checkpoint does without it.
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(backbone, lora)


def merge_lora(backbone: nn.Module) -> PreTrainedModel:
    """The backbone with LoRA matrices, if it has any, folded into its weights."""
    merge = getattr(backbone, "merge_and_unload", None)
    return merge() if merge else backbone  # pyright: ignore
