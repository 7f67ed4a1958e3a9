"""How well a candidate's text continues a query and a history, by a causal language model.

Query and history are read once: their keys and values are what every candidate attends to. The
candidates stand packed in rows behind them, without padding and without a copy of keys and values
for each, which for 200 candidates of a model of 28 layers would be 12 GB. Reading prefix and
candidate anew for each one gives the same scores. The model must attend to all that is before a
token, by a mask: sliding windows and flash attention do not.

Shapes: C candidates, P tokens of the prefix, T tokens of a pack of candidates, V tokens there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from recsys.data.tokenize import load_tokenizer
from recsys.pretrained import resolve_backbone

MAX_PREFIX_TOKENS, MAX_CANDIDATE_TOKENS = 512, 32
PACKED = 128
"""Tokens of candidates that are read together. Each also sees a row of all, so more cost more."""
NEWEST = 20
"""Titles of the history that are read."""


class CrossScorer:
    """Query, history and title -> mean log-likelihood of the title's tokens after the others."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, name: str) -> Self:
        """The causal language model of this name, as `model.backbone` names one."""
        model = AutoModelForCausalLM.from_pretrained(
            resolve_backbone(name), dtype=torch.float32, trust_remote_code=False
        )
        return cls(model, load_tokenizer(name))

    def score(self, query: str, history: Sequence[str], titles: Sequence[str]) -> torch.Tensor:
        """(C,) scores of candidates' titles; `history` are titles, oldest first.

        A title without tokens has the score 0.
        """
        prefix = self._ids(prefix_text(query, history))[-MAX_PREFIX_TOKENS:]
        candidates = [self._ids(title)[:MAX_CANDIDATE_TOKENS] for title in titles]
        return shared_prefix_scores(self._model, prefix, candidates)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


def prefix_text(query: str, history: Sequence[str]) -> str:
    """What stands before a candidate: the same for all, so that it is read once. The query stands
    last, where a cut leaves it."""
    liked = "; ".join(history[-NEWEST:])
    return f"History: {liked}\nQuery: {query}\nItem: "


@torch.inference_mode()
def shared_prefix_scores(
    model: PreTrainedModel, prefix: Sequence[int], candidates: Sequence[Sequence[int]]
) -> torch.Tensor:
    """(C,) mean log-likelihood of each candidate's tokens after the prefix, which is read once.

    Raises:
        ValueError: the prefix is empty.
    """
    if not prefix:
        raise ValueError("the prefix has no token: nothing can be said of what follows")
    if not candidates:
        return torch.empty(0)
    cache = DynamicCache(config=model.config)
    ids_1P = torch.tensor([list(prefix)], device=model.device)
    first_1V = model(ids_1P, past_key_values=cache, logits_to_keep=1).logits[:, -1]
    scores = []
    for some in _packs(candidates):
        scores.append(_continued(model, cache, first_1V, some))
        cache.crop(len(prefix) - cache.get_seq_length())
    return torch.cat(scores)


def _packs(candidates: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Candidates in order, as many at once as have `PACKED` tokens together, and at least one."""
    pack: list[Sequence[int]] = []
    for candidate in candidates:
        if pack and sum(map(len, pack)) + len(candidate) > PACKED:
            yield pack
            pack = []
        pack.append(candidate)
    yield pack


def _continued(
    model: PreTrainedModel,
    cache: DynamicCache,
    first_1V: torch.Tensor,
    candidates: Sequence[Sequence[int]],
) -> torch.Tensor:
    """(C,) scores after a prefix whose keys and values, and next logits, are known.

    The tokens of all stand in one row, each at its place after the prefix, and see the prefix and
    the earlier ones of their own candidate.
    """
    sizes = torch.tensor([len(candidate) for candidate in candidates])
    ids_T = torch.tensor([token for candidate in candidates for token in candidate])
    if not len(ids_T):
        return torch.zeros(len(candidates))
    owner_T = torch.arange(len(sizes)).repeat_interleave(sizes)
    place_T = torch.arange(len(ids_T)) - (sizes.cumsum(0) - sizes)[owner_T]
    size = cache.get_seq_length()
    logits_TV = model(
        ids_T[None].to(model.device),
        attention_mask=_sight(owner_T, size)[None, None].to(model.device),
        position_ids=(size + place_T)[None].to(model.device),
        past_key_values=cache,
    ).logits[0]
    before_TV = logits_TV.roll(1, dims=0)
    before_TV[place_T == 0] = first_1V
    likelihood_T = -F.cross_entropy(before_TV.float(), ids_T.to(model.device), reduction="none")
    sums_C = torch.zeros(len(sizes)).index_add_(0, owner_T, likelihood_T.cpu())
    return sums_C / sizes.clamp_min(1)


def _sight(owner_T: torch.Tensor, size: int) -> torch.Tensor:
    """(T, size + T) bool: which of a prefix's tokens and of a pack's each token of a pack sees."""
    own_TT = (owner_T[:, None] == owner_T).tril()
    return torch.cat([torch.ones(len(owner_T), size, dtype=torch.bool), own_TT], dim=1)
