"""What the pictures of all pages share: palette, style, and SVG to put inside HTML.

Colours are written as CSS variables, so that the page decides them for light and for dark.
Pictures are small and their legends are HTML: both stay readable on a phone. Names that people
chose belong in HTML as well: matplotlib's font has no Chinese.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUM_COLOURS = 6
"""A page defines `--series-0` to `--series-5`; more series than that repeat colours."""
_INK, _LINE = "#0a0b0c", "#0a0b0d"
_SERIES = [f"#0a0b1{number}" for number in range(NUM_COLOURS)]
# matplotlib knows no CSS variables: it draws in these stand-ins, which to_svg then renames.
_CSS = {_INK: "var(--ink)", _LINE: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def series_colour(number: int) -> str:
    """The colour of series `number` in HTML."""
    return f"var(--series-{number % NUM_COLOURS})"


def drawn_colour(number: int) -> str:
    """The colour of series `number` in a picture; `to_svg` turns it into `series_colour`."""
    return _SERIES[number % NUM_COLOURS]


def plot_style() -> AbstractContextManager[None]:
    """The style of the pictures: make, draw and save a figure inside it."""
    return matplotlib.rc_context(_STYLE)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with one pair of axes, both without a background."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def to_svg(figure: Figure, salt: str, label: str) -> str:
    """`figure` as one svg element, read out as `label`.

    `salt` differs between the pictures of a page: it keeps their ids apart. The same figure makes
    the same bytes.
    """
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(target, format="svg", metadata=_NO_METADATA)
    text = target.getvalue()
    text = text[text.index("<svg") :].strip()
    # Groups are named figure_1, axes_1 in every picture; nothing refers to those names.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _CSS.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
