"""Index to report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from recsys.config.section import Names, Section

Baseline = Literal[
    "popularity",
    "popularity_7d",
    "item_knn",
    "user_knn",
    "user_knn_pearson",
    "tfidf",
    "lm_zero_shot",
    "als",
    "bpr",
    "bilinear_mf",
    "logistic",
    "linear_svm",
    "id_only",
    "sasrec",
    "gru4rec",
]


class EvaluationConfig(Section):
    """Full ranking over all items on the held-out split."""

    split: Literal["valid", "test"] = "test"
    """Which held-out rows are scored. Choose settings on `valid`."""
    cutoffs: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (1, 5, 10, 20, 50, 100)
    """The k of Recall@k and the others; 10 is always among them."""
    filter_seen: bool = False
    """Take items of the history out of the ranking."""
    baselines: Annotated[tuple[Baseline, ...], Field(strict=False)] = ("popularity", "id_only")
    """What the model is compared with. `id_only`, `sasrec` and `gru4rec` are trained as the model
    is; the others learn in one process, and all but the first need the extra `eval`."""
    user_columns: Names = ()
    """Columns of the dataset's users that make segments, such as country; prepare keeps them."""
    item_columns: Names = ()
    """Columns of the items that make segments, such as category."""
    min_group_size: PositiveInt = 50
    """k-anonymity: a value of these columns with fewer held-out rows joins `other`."""
    batch_size: PositiveInt = 256
    """Histories scored together."""
