"""What a language model is pretrained for: each objective is tokens in, loss out.

Shapes: N texts, T tokens, V tokens of the vocabulary, B pairs, E width of the language model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from recsys.config import ModelConfig, PretrainingConfig
from recsys.models.backbone import TextEncoder, Tokens
from recsys.pretrained import resolve_backbone

MASKED_SHARE = 0.15
"""Of these tokens 80% become [MASK], 10% a random token and 10% stay (Devlin et al. 2019,
arXiv 1810.04805, section 3.1)."""
IGNORED = -100
"""Stands in labels where nothing is to be guessed."""


class LanguageModeling(nn.Module):
    """Guess tokens: those that were hidden, or with `causal` each next one."""

    def __init__(self, model: PreTrainedModel, causal: bool) -> None:
        super().__init__()
        self.model = model
        self.causal = causal

    def forward(self, tokens: Tokens, labels_NT: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of the labels; 0 where there are none."""
        logits_NTV = self.model(input_ids=tokens.ids, attention_mask=tokens.mask).logits.float()
        if self.causal:
            logits_NTV, labels_NT = logits_NTV[:, :-1], labels_NT[:, 1:]
        total = F.cross_entropy(
            logits_NTV.flatten(0, 1), labels_NT.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (labels_NT != IGNORED).sum().clamp_min(1)

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model without the head that guesses tokens."""
        return self.model.base_model  # pyright: ignore


class Contrasting(nn.Module):
    """Tell which texts belong together: the first half of a batch's texts and the second."""

    def __init__(self, encoder: TextEncoder, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature

    def forward(self, tokens: Tokens, groups_2B: torch.Tensor) -> torch.Tensor:
        """Symmetric InfoNCE of B pairs; see `info_nce`."""
        left_BE, right_BE = F.normalize(self.encoder(tokens), dim=-1).chunk(2)
        left_B, right_B = groups_2B.chunk(2)
        return info_nce(left_BE, right_BE, left_B, right_B, self.temperature)

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model itself."""
        return self.encoder.backbone  # pyright: ignore


def info_nce(
    left_BE: torch.Tensor,
    right_BE: torch.Tensor,
    left_B: torch.Tensor,
    right_B: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean cross entropy of each text's partner among all on the other side, in both directions.

    InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), symmetric as in CLIP (Radford et al. 2021,
    arXiv 2103.00020). Vectors have length 1. `left_B` and `right_B` are the texts' groups: another
    pair that shares a group with this one is no negative.
    """
    logits_BB = left_BE @ right_BE.T / temperature
    alike_BB = (
        (left_B[:, None] == left_B)
        | (right_B[:, None] == right_B)
        | (left_B[:, None] == right_B)
        | (right_B[:, None] == left_B)
    )
    alike_BB = alike_BB.fill_diagonal_(False)
    logits_BB = logits_BB.masked_fill(alike_BB, -torch.inf)
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2


def mask_tokens(
    tokens: Tokens, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[Tokens, torch.Tensor]:
    """The tokens with some hidden, and (N, T) what they were, `IGNORED` elsewhere.

    Padding and special tokens are never hidden.
    """
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED_SHARE)
    collator.generator = torch.Generator().manual_seed(seed)
    special = torch.isin(tokens.ids, torch.tensor(tokenizer.all_special_ids))
    ids, labels = collator.torch_mask_tokens(tokens.ids.clone(), special | (tokens.mask == 0))
    return Tokens(ids, tokens.mask), labels


def next_tokens(tokens: Tokens) -> torch.Tensor:
    """(N, T) the labels of `causal`: the tokens themselves, `IGNORED` where padded."""
    return tokens.ids.masked_fill(tokens.mask == 0, IGNORED)


def make_objective(
    model: ModelConfig, config: PretrainingConfig
) -> tuple[LanguageModeling | Contrasting, bool]:
    """The backbone with its objective, and whether it came without a trained head for it.

    A sentence encoder's file has no head that guesses tokens; that head then starts at random, and
    first learns on its own account.

    Raises:
        ValueError: the backbone is of a kind that the objective does not know.
    """
    source = resolve_backbone(model.backbone)
    if config.objective == "contrastive":
        backbone = AutoModel.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
        encoder = TextEncoder(backbone, backbone.config.hidden_size, model.pooling)
        return Contrasting(encoder, config.temperature), False
    causal = config.objective == "causal"
    loader = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    try:
        backbone, told = loader.from_pretrained(  # pyright: ignore
            source, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    except ValueError as error:
        raise ValueError(
            f"pretraining.objective '{config.objective}' does not fit model.backbone "
            f"'{model.backbone}': masked is for encoders, causal for decoders, contrastive for both"
        ) from error
    return LanguageModeling(backbone, causal), bool(told["missing_keys"])
