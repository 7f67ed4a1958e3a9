"""The pictures of the report page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from recsys.plots import drawn_colour, new_figure, plot_style, to_svg

Curve = Mapping[float, float]
"""y by x; points that are not finite are left out."""


def metric_plot(name: str, curves: Sequence[Curve]) -> str:
    """One metric over the cutoffs, one line per model."""
    cutoffs = sorted({k for curve in curves for k in curve})
    with plot_style():
        figure, axes = new_figure(4.4, 2.6)
        _draw_lines(axes, curves, marker="o")
        axes.set_xscale("log")
        axes.set_xticks(cutoffs, [f"{k:g}" for k in cutoffs])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("k")
        return to_svg(figure, f"metric {name}", f"{name} at each cutoff, one line per model")


def training_plot(name: str, curves: Sequence[Curve], first_colour: int = 0) -> str:
    """Curves over the steps of training; `first_colour` is the colour number of the first."""
    with plot_style():
        figure, axes = new_figure(4.4, 2.8)
        _draw_lines(axes, curves, first_colour=first_colour)
        axes.set_xlabel("step")
        return to_svg(figure, f"training {name}", f"{name} over the steps of training")


def segment_plot(
    name: str, segments: Sequence[str], values: Sequence[Sequence[float | None]]
) -> str:
    """Grouped bars: `values[m][s]` is the metric of model m in segment s, None where unknown."""
    height = 0.8 / len(values)
    with plot_style():
        figure, axes = new_figure(4.4, 0.4 + len(segments) * (0.1 + 0.13 * len(values)))
        for number, row in enumerate(values):
            places = [at - 0.4 + (number + 0.5) * height for at in range(len(segments))]
            widths = [value if value is not None else 0.0 for value in row]
            axes.barh(places, widths, height * 0.9, color=drawn_colour(number))
        axes.set_yticks(range(len(segments)), segments)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.margins(y=0.01)
        axes.invert_yaxis()
        return to_svg(figure, f"segment {name}", f"{name} by segment, one bar per model")


def _draw_lines(
    axes: Axes, curves: Sequence[Curve], marker: str | None = None, first_colour: int = 0
) -> None:
    for number, curve in enumerate(curves, start=first_colour):
        points = sorted((x, y) for x, y in curve.items() if math.isfinite(y))
        # One point draws no line, so it is shown as a dot.
        dot = marker or ("o" if len(points) == 1 else None)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=drawn_colour(number),
            marker=dot,
            markersize=4,
            linewidth=1.8,
        )
