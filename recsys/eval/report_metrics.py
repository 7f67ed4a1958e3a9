"""The metrics of a report page: how right the rankings are, and what they are like beside."""

from __future__ import annotations

from html import escape

from recsys.eval.report_models import Models, by_cutoff
from recsys.eval.report_numbers import best_in_bold, is_number, number
from recsys.eval.report_plots import metric_plot
from recsys.eval.segments import ALL
from recsys.page import figure, folded, grid, section, table, words

FAMILIES = ("recall", "ndcg", "mrr", "hit_rate", "map", "precision", "coverage")
"""Metrics that are better the higher they are."""
BEST = '<p class="note">Bold: the best.</p>'
MEANINGS = {
    "gini": "how unevenly recommendations fall on the catalogue: 0 is even",
    "novelty": "mean -log2 of a recommended item's share of the training events, in bits",
    "diversity": "mean 1 - cosine over the pairs of a list, by the trained model's item vectors",
    "serendipity": "share of a list that is right and not in the popularity ranking's own list",
    "popularity": "mean popularity percentile of the recommended items",
    "popularity_lift": "that, less the percentile of the user's own history",
}


def metrics(models: Models) -> str:
    """A card for each metric at all its cutoffs."""
    names = _names(models)
    found = {name.partition("@")[0] for name in names}
    cards = [_family(models, family) for family in FAMILIES if family in found]
    if not cards:
        return ""
    return section("Metrics", models.legend() + grid(cards) + BEST)


def _family(models: Models, family: str) -> str:
    curves = {
        models.colours[name]: by_cutoff(segments[ALL], family)
        for name, segments in models.drawn.items()
    }
    values = {name: by_cutoff(s[ALL], family) for name, s in models.segments.items()}
    cutoffs = sorted({k for of_model in values.values() for k in of_model})
    columns = [best_in_bold([of_model.get(k) for of_model in values.values()]) for k in cutoffs]
    rows = [[models.name(name), *cells] for name, *cells in zip(values, *columns, strict=True)]
    head = ["model", *(f"@{k:g}" for k in cutoffs)]
    return figure(metric_plot(family, curves), words(family)) + table(head, rows)


def beyond_accuracy(models: Models) -> str:
    """What is neither better nor worse: a table of models by such metrics."""
    names = [name for name in _names(models) if name.partition("@")[0] not in FAMILIES]
    if not names:
        return ""
    rows = [
        [models.name(model), *(number(segments[ALL].get(name)) for name in names)]
        for model, segments in models.segments.items()
    ]
    meanings = "".join(
        f"<li>{escape(words(family))}: {escape(meaning)}.</li>"
        for family, meaning in MEANINGS.items()
        if any(name.startswith(f"{family}@") for name in names)
    )
    html = table(["model", *map(words, names)], rows)
    return section("Beyond accuracy", html + folded("What they mean", f"<ul>{meanings}</ul>"))


def _names(models: Models) -> list[str]:
    """Every metric of segment `all` in the order in which it is first met."""
    return list(
        dict.fromkeys(
            name
            for segments in models.segments.values()
            for name, value in segments[ALL].items()
            if name != "users" and is_number(value)
        )
    )
