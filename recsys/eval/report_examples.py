"""What a report page shows to look at: the map of the items, worst mistakes, examples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from recsys.eval.item_map import ItemMap
from recsys.eval.report_numbers import count
from recsys.eval.report_plots import map_plot
from recsys.page import figure, legend, section

_HIT = ' <span class="hit">(came next)</span>'


def item_map(shown: ItemMap) -> str:
    """The items' vectors in two dimensions. Names stand in the legend, in any language."""
    colours = {name: number for number, name in enumerate(shown.names)}
    caption = (
        f"{len(shown.points):,} items by category; the two axes keep {shown.kept_variance:.0%} of "
        "the variance of their vectors"
    )
    plot = map_plot(shown.points, shown.categories)
    return section("Map of the items", figure(plot, caption, legend(colours)))


def mistakes(found: list[dict]) -> str:
    """Users with long histories whose next item was ranked furthest down."""
    cards = "".join(
        f'<p class="note">{count(each.get("events"))} events of history; what came next was '
        f"ranked {_rank(each)}.</p>{_example(each)}"
        for each in found
    )
    return section("Worst mistakes", cards) if cards else ""


def _rank(mistake: dict) -> str:
    if mistake.get("rank") is None:
        return f"below {count(mistake.get('depth'))}"
    return count(mistake["rank"])


def examples(found: list[dict]) -> str:
    """Rows from all over the data, good or bad."""
    cards = "".join(_example(example) for example in found)
    return section("Examples", cards) if cards else ""


def _example(example: dict) -> str:
    targets = example.get("target") or []
    return (
        '<div class="example">'
        f"<div><h3>History, oldest first</h3>{_titles(example.get('history') or [])}</div>"
        f"<div><h3>What came next</h3>{_titles(targets)}</div>"
        "<div><h3>Recommended, best first</h3>"
        f"{_titles(example.get('recommended') or [], targets)}</div></div>"
    )


def _titles(titles: Sequence[str | None], targets: Sequence[str | None] = ()) -> str:
    lines = "".join(
        f"<li>{escape(title or '(no title)')}{_HIT if title and title in targets else ''}</li>"
        for title in titles
    )
    return f"<ol>{lines}</ol>" if lines else "<p>none</p>"
