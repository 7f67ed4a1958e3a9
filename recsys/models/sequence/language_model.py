"""A pretrained decoder that reads item vectors in place of tokens.

Shapes: B users, H positions, D embedding size, E width and V tokens of the language model.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from recsys.pretrained import resolve_backbone

PROBED = 8
"""Positions of the test for causality."""
LEAK = 1e-5
"""Largest change of an earlier state by a later position, as a share of the largest state. Causal
models are at the rounding of float32, 1e-7; an untrained BERT of width 16 is at 1e-3."""


class LanguageModelLayers(nn.Module):
    """Projection, decoder body, projection. The body's token table is dropped: nothing reads it."""

    def __init__(self, size: int, body: PreTrainedModel) -> None:
        super().__init__()
        tokens_VE = _token_vectors(body)
        width = tokens_VE.shape[1]
        self.project_in = nn.Linear(size, width)
        self.body = body
        self.project_out = nn.Linear(width, size)
        # What comes in has variance 1, and the body expects it as large as its token vectors.
        nn.init.normal_(self.project_in.weight, std=float(tokens_VE.std()) / size**0.5)
        nn.init.zeros_(self.project_in.bias)
        nn.init.zeros_(self.project_out.bias)
        body.set_input_embeddings(nn.Identity())

    def forward(self, x_BHD: torch.Tensor, timestamps_BH: torch.Tensor) -> torch.Tensor:
        """(B, H, D) to (B, H, D)."""
        states_BHE = self.body(inputs_embeds=self.project_in(x_BHD)).last_hidden_state
        return self.project_out(states_BHE)


def load_body(
    name: str, max_history: int, architecture: PreTrainedConfig | None = None
) -> PreTrainedModel:
    """The decoder a config's `user_backbone` names, or one of random weights by an architecture.

    Raises:
        ValueError: it is no causal decoder, or reads fewer than `max_history` positions.
    """
    if architecture is None:
        body = AutoModel.from_pretrained(
            resolve_backbone(name), dtype=torch.float32, trust_remote_code=False
        )
    else:
        body = AutoModel.from_config(architecture, dtype=torch.float32, trust_remote_code=False)
    body.config.use_cache = False
    longest = getattr(body.config, "max_position_embeddings", None) or max_history
    if longest < max_history:
        raise ValueError(
            f"user_backbone '{name}' reads {longest} positions and histories have up to "
            f"{max_history}: lower prepare.max_history or name another"
        )
    if body.config.is_encoder_decoder or _leak(body) > LEAK:
        raise ValueError(
            f"user_backbone '{name}' is no causal decoder: an earlier state changes with a later "
            "position. Name a decoder, as of the GPT-2, Llama or Qwen families"
        )
    return body


@torch.no_grad()
def _leak(body: PreTrainedModel) -> float:
    """How much the last position changes the states before it, as a share of the largest state."""
    tokens_VE = _token_vectors(body)
    generator = torch.Generator().manual_seed(0)
    x_BHE = torch.randn(1, PROBED, tokens_VE.shape[1], generator=generator).repeat(2, 1, 1)
    x_BHE[1, -1] = -x_BHE[1, -1]
    learning = body.training
    states_BHE = body.eval()(inputs_embeds=x_BHE * tokens_VE.std()).last_hidden_state
    body.train(learning)
    moved_HE = (states_BHE[0] - states_BHE[1])[:-1]
    return float(moved_HE.abs().max() / states_BHE.abs().max())


def _token_vectors(body: PreTrainedModel) -> torch.Tensor:
    tokens = body.get_input_embeddings()
    assert isinstance(tokens, nn.Embedding)
    return tokens.weight.detach()
