"""Language models by their sizes, and what a token costs.

Shapes in formulas: L layers, D width, A width of all attention heads, S tokens of a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pass = Literal["forward", "lora", "full"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a transformer; `gated` are the three matrices of SwiGLU, else there are two."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    gated: bool
    source: str

    @property
    def matrix_weights(self) -> int:
        """Weights of the layers' matrices, without token table, norms and biases."""
        attention = 2 * self.width * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.inner)

    @property
    def weights(self) -> int:
        """Those and the token table."""
        return self.matrix_weights + self.vocabulary * self.width

    def flops_a_token(self, length: int, learns: Pass) -> float:
        """Floating-point operations of one token of a text of `length`.

        2 N forward, 2 N for the gradient of what went in and 2 N for the weights' own: 6 N in
        full (Kaplan et al. 2020, arXiv 2001.08361), 4 N with LoRA, whose own matrices are small.
        Attention adds 4 L A S forward and 12 L A S with backward, which LoRA does not spare
        (PaLM, arXiv 2204.02311, appendix B). Nothing is taken off for a causal mask.
        """
        weights = {"forward": 2, "lora": 4, "full": 6}[learns]
        attention = 4 if learns == "forward" else 12
        seen = self.layers * self.heads * self.head_size * length
        return weights * self.matrix_weights + attention * seen


MODELS = {
    "minilm-22m": Architecture(6, 384, 12, 12, 32, 1_536, 30_522, False, "all-MiniLM-L6-v2"),
    "qwen3-0.6b": Architecture(28, 1_024, 16, 8, 128, 3_072, 151_669, True, "Qwen3-Embedding-0.6B"),
    "tinyllama-1.1b": Architecture(22, 2_048, 32, 4, 64, 5_632, 32_000, True, "TinyLlama-1.1B"),
    "baichuan2-7b": Architecture(32, 4_096, 32, 32, 128, 11_008, 125_696, True, "Baichuan2-7B"),
    "qwen3-8b": Architecture(36, 4_096, 32, 8, 128, 12_288, 151_665, True, "Qwen3-Embedding-8B"),
}
"""Sizes as in each model's `config.json` on the hub."""
