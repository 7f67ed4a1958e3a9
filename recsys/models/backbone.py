"""A pretrained language model: load, add LoRA, pool tokens to one vector a text.

Shapes: N texts, T tokens, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from recsys.config import ModelConfig
from recsys.pretrained import resolve_backbone


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts padded on the right: `ids` and `mask` are (N, T) int64, the mask 1 at real tokens."""

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on a device."""
        return Tokens(self.ids.to(device), self.mask.to(device))


def pad_tokens(rows: Sequence[Sequence[int]]) -> Tokens:
    """Token lists of any lengths as one padded pair of tensors.

    A text without tokens keeps one masked slot, so that T is at least 1.
    """
    size = max([1, *(len(row) for row in rows)])
    ids = torch.zeros(len(rows), size, dtype=torch.int64)
    mask = torch.zeros(len(rows), size, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.as_tensor(row, dtype=torch.int64)
        mask[number, : len(row)] = 1
    return Tokens(ids, mask)


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

    def forward(self, tokens: Tokens) -> torch.Tensor:
        """(N, E) float32 text vectors."""
        return self.whiten(self.pooled(tokens))

    def pooled(self, tokens: Tokens) -> torch.Tensor:
        """(N, E) float32 text vectors as the backbone makes them, never whitened."""
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
