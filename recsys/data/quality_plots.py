"""The pictures of the quality page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from recsys.plots import drawn_colour, new_figure, plot_style, to_svg
from recsys.schema import SECONDS_A_DAY

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
_PERCENT = FuncFormatter(lambda value, _: f"{value:.0%}")
DATE_LABELS = 6
MAX_LABEL_CHARACTERS = 28
"""Longer labels together do not fit side by side below a narrow plot."""
EPOCH = datetime.date(1970, 1, 1)


def day_plot(events_by_day: Mapping[str, int], cuts: Mapping[str, int]) -> str:
    """Events of every day (`2024-02-29`) from the first to the last, as one area.

    `cuts` maps the name of a part to the Unix second from which on events belong to it.
    """
    days = {
        (datetime.date.fromisoformat(day) - EPOCH).days: count
        for day, count in events_by_day.items()
    }
    first, last = min(days), max(days)
    counts = np.zeros(last - first + 1)
    counts[np.array([*days]) - first] = [*days.values()]
    with plot_style():
        figure, axes = new_figure(9, 2.6)
        edges = np.arange(first, last + 2)
        axes.stairs(counts, edges, fill=True, color=drawn_colour(0))
        _mark_cuts(axes, {n: s / SECONDS_A_DAY for n, s in cuts.items()}, first, last + 1)
        ticks = np.unique(np.linspace(first, last, DATE_LABELS).round().astype(int))
        labels = [(EPOCH + datetime.timedelta(days=int(day))).isoformat() for day in ticks]
        axes.set_xticks(ticks + 0.5, labels)
        axes.set_xlim(first - 0.5, last + 1.5)
        axes.grid(visible=False, axis="x")
        _count_axis(axes.yaxis)
        return to_svg(figure, "days", f"Events per day from {labels[0]} to {labels[-1]}")


def _mark_cuts(axes: Axes, cuts: Mapping[str, float], first: int, last: int) -> None:
    """A line at each cut within the days; names stand on the outer sides, so they never meet."""
    for number, (name, day) in enumerate(cuts.items()):
        if not first < day < last:
            continue
        side = "right" if number == 0 and len(cuts) > 1 else "left"
        label = f"{name} starts "
        axes.axvline(day, color=drawn_colour(1), linewidth=1.5)
        axes.text(
            day,
            1.02,
            label if side == "right" else f" {label}",
            transform=axes.get_xaxis_transform(),
            horizontalalignment=side,
        )


def length_plot(users_by_length: Mapping[str, int | None]) -> str:
    """Users by the number of their events, one bar a bucket; a hidden count is a word."""
    labels, counts = [*users_by_length], [*users_by_length.values()]
    with plot_style():
        figure, axes = new_figure(4.4, 2.8)
        axes.bar(range(len(labels)), [count or 0 for count in counts], color=drawn_colour(0))
        for at in (at for at, count in enumerate(counts) if count is None):
            axes.text(at, 0, " hidden", rotation=90, ha="center", va="bottom")
        crowded = len("".join(labels)) > MAX_LABEL_CHARACTERS
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(labels)), labels, **(turned if crowded else {}))
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("events a user")
        _count_axis(axes.yaxis)
        return to_svg(figure, "lengths", "Users by the number of their events")


def popularity_plot(points: Sequence[tuple[int, int]]) -> str:
    """Train events over the item's rank, both axes logarithmic."""
    with plot_style():
        figure, axes = new_figure(4.4, 2.8)
        ranks, events = zip(*points, strict=True)
        axes.plot(ranks, events, color=drawn_colour(0), marker="o", markersize=3, linewidth=1.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(*_log_axis(axes.xaxis, ranks))
        axes.set_ylim(*_log_axis(axes.yaxis, events))
        axes.set_xlabel("rank of the item")
        axes.set_ylabel("train events")
        return to_svg(figure, "popularity", "Train events over the rank of the item, log-log")


def _log_axis(axis: Axis, values: Sequence[int]) -> tuple[float, float]:
    """Label with plain numbers, in steps of 1, 2, 5 where powers of ten would be too few.

    Returns the limits, with room on both sides so that a single point has an axis too.
    """
    low, high = min(values), max(values)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(_THOUSANDS)
    axis.set_minor_formatter(NullFormatter())
    return low / 1.3, high * 1.3


def share_plot(names: Sequence[str], shares: Mapping[str, Sequence[float]]) -> str:
    """One bar of stacked shares for each entry of `shares`, in the order of `names`."""
    with plot_style():
        figure, axes = new_figure(4.4, 0.6 + 0.45 * len(shares))
        for row, parts in enumerate(shares.values()):
            starts = np.cumsum([0.0, *parts[:-1]])
            colours = [drawn_colour(at) for at in range(len(parts))]
            axes.barh([row] * len(parts), parts, 0.7, left=starts, color=colours)
        axes.set_yticks(range(len(shares)), [*shares])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.invert_yaxis()
        return to_svg(
            figure, "shares", f"Shares of {', '.join(names)}, of {' and of '.join(shares)}"
        )


def _count_axis(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_major_formatter(_THOUSANDS)
