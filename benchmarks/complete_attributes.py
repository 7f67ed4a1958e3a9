"""Filling in categories and brands from text, on a real catalogue whose known values are masked.

    python -m benchmarks.complete_attributes --data <directory with items.parquet>

One tenth of the known values of each attribute is masked and filled again from the others, for all
methods the same tenth. Vectors are those of the default language model, of title and description.
Peers: the most frequent value; the most frequent among items that share the first word of the
title; and the same neighbours' vote with TF-IDF vectors of the same text (scikit-learn). Ratio:
accuracy of all answers over that of the TF-IDF peer, averaged over the attributes.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.config import ModelConfig, PrepareConfig
from recsys.data.item_rules import check_items
from recsys.data.tokenize import item_texts, load_tokenizer, tokenize
from recsys.index.complete import (
    ATTRIBUTES,
    FIELDS,
    MIN_LABELLED,
    NUM_NEIGHBOURS,
    Masked,
    find_threshold,
    make_plan,
    masked_tenth,
    measure,
    vote,
    whitened,
)
from recsys.models.backbone import load_text_encoder, pad_tokens

BATCH, MAX_TOKENS, CHUNK = 128, 128, 1024

AnswersOf = Callable[[torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor]]
"""Rows, and whether to leave out each row's own label -> labels and confidences."""


@dataclass(frozen=True)
class Known:
    """(L,) labels of the items that have one, the rows that are masked, and the other rows."""

    labels: torch.Tensor
    masked: torch.Tensor
    rest: torch.Tensor


@dataclass(frozen=True)
class Arguments:
    """What is read."""

    data: Path
    """Directory with items.parquet."""
    min_precision: float = 0.9
    """Precision that the threshold is chosen for."""


def main(arguments: Arguments) -> None:
    """Fill every attribute that is known of some items; print the result as one JSON object."""
    items = check_items(pq.read_table(arguments.data / "items.parquet"), PrepareConfig()).good
    texts = item_texts(items, FIELDS)
    readable = np.array([bool(text) for text in texts])
    vectors = _embed(texts)
    near = {False: vectors, True: whitened(vectors, readable)}
    detail = {}
    for name in [n for n in ATTRIBUTES if n in items.column_names]:
        rows = np.flatnonzero(readable & _has_value(items, name))
        if len(rows) >= MIN_LABELLED:
            detail[name] = _compare(items, name, rows, texts, near, arguments.min_precision)
    _report(detail, arguments.min_precision)


def _has_value(items: pa.Table, name: str) -> np.ndarray:
    return np.array([value is not None for value in items[name].to_pylist()])


def _embed(texts: list[str]) -> torch.Tensor:
    """(N, E) vectors of the texts, encoded in the order of their lengths."""
    config = ModelConfig()
    tokens = tokenize(load_tokenizer(config.backbone), texts, MAX_TOKENS)
    encoder = load_text_encoder(config).eval()
    vectors = torch.empty(len(texts), encoder.size)
    order = torch.tensor([len(ids) for ids in tokens]).argsort()
    with torch.inference_mode():
        for rows in order.split(BATCH):
            vectors[rows] = encoder(pad_tokens([tokens[row] for row in rows.tolist()]))
    return vectors


def _compare(
    items: pa.Table,
    name: str,
    rows: np.ndarray,
    texts: list[str],
    near: dict[bool, torch.Tensor],
    min_precision: float,
) -> dict:
    """Accuracy, precision and coverage of every method on one attribute."""
    values = np.array(items[name].to_pylist(), dtype=object)[rows].astype(str)
    labels = torch.as_tensor(np.unique(values, return_inverse=True)[1])
    known = Known(labels, *masked_tenth(len(labels)))
    plan = make_plan({way: v[rows] for way, v in near.items()}, labels, min_precision)
    assert plan is not None
    peers = {
        "most_frequent": _by_word([""] * len(rows), known),
        "first_title_word": _by_word(_first_words(items, rows), known),
        "tf_idf": _by_tf_idf([texts[row] for row in rows], known),
    }
    found = {peer: _masked(answers_of, known, min_precision) for peer, answers_of in peers.items()}
    seen = torch.isin(labels[known.masked], labels[known.rest]).double().mean()
    return {
        "known": len(labels),
        "values": len(labels.unique()),
        "masked_values_seen_elsewhere": round(float(seen), 3),
        "whiten": plan.whiten,
        "methods": {
            peer: _shown(m) for peer, m in (found | {"language_model": plan.masked}).items()
        },
    }


def _masked(answers_of: AnswersOf, known: Known, min_precision: float) -> Masked:
    """A peer measured as `make_plan` measures: a threshold from the rest, tried on the tenth."""
    answers, confidences = answers_of(known.rest, True)
    right = answers == known.labels[known.rest]
    threshold = find_threshold(confidences, right, min_precision)
    return measure(*answers_of(known.masked, False), known.labels[known.masked], threshold)


def _first_words(items: pa.Table, rows: np.ndarray) -> list[str]:
    titles = items["title"].to_pylist()
    return [(titles[row] or "").casefold().partition(" ")[0] for row in rows]


def _by_word(words: list[str], known: Known) -> AnswersOf:
    """The most frequent label of each word, its share as the confidence; else of all items."""
    counts: dict[str, Counter[int]] = {}
    for row in known.rest.tolist():
        counts.setdefault(words[row], Counter())[int(known.labels[row])] += 1
    overall = Counter(known.labels[known.rest].tolist())

    def answer_one(row: int, left_out: bool) -> tuple[int, float]:
        own = Counter([int(known.labels[row])] if left_out else [])
        among = (counts.get(words[row], Counter()) - own) or overall
        label, num = among.most_common(1)[0]
        return label, num / among.total()

    def answers_of(rows: torch.Tensor, left_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
        found = [answer_one(row, left_out) for row in rows.tolist()]
        return torch.tensor([f[0] for f in found]), torch.tensor([f[1] for f in found])

    return answers_of


def _by_tf_idf(texts: list[str], known: Known) -> AnswersOf:
    """The vote of the neighbours by TF-IDF of words and pairs of words."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    labelled = vectorizer.fit_transform([texts[row] for row in known.rest.tolist()])

    def answers_of(rows: torch.Tensor, left_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
        found = []
        for part in torch.arange(len(rows)).split(CHUNK):
            queries = vectorizer.transform([texts[row] for row in rows[part].tolist()])
            similarities = torch.as_tensor((queries @ labelled.T).toarray(), dtype=torch.float32)
            if left_out:
                similarities[torch.arange(len(part)), part] = -torch.inf
            nearest = similarities.topk(NUM_NEIGHBOURS, dim=1)
            found.append(vote(nearest.values, known.labels[known.rest][nearest.indices]))
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    return answers_of


def _shown(masked: Masked) -> dict:
    return {n: None if value is None else round(value, 3) for n, value in asdict(masked).items()}


def _report(detail: dict[str, dict], min_precision: float) -> None:
    ratios = [
        found["methods"]["language_model"]["accuracy"] / found["methods"]["tf_idf"]["accuracy"]
        for found in detail.values()
    ]
    result = {
        "benchmark": "complete_attributes",
        "peer": "the same vote with TF-IDF vectors",
        "ratio": round(statistics.mean(ratios), 3),
        "target": 1.0,
        "higher_is_better": True,
        "detail": detail | {"min_precision": min_precision},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
