"""The training curves of a report page."""

from __future__ import annotations

from html import escape

from recsys.eval.report_numbers import count, is_number
from recsys.eval.report_plots import training_plot
from recsys.page import figure, grid, legend, section


def training(log: list[dict]) -> str:
    """Loss and validation metrics over the steps; `log` mixes rows of both and may be empty."""
    if not log:
        return section("Training", "<p>There is no training log.</p>")
    losses = {"train loss": _by_step(log, "loss"), "valid loss": _by_step(log, "valid_loss")}
    measured = dict.fromkeys(
        key for row in log for key in row if key.startswith("valid_") and key != "valid_loss"
    )
    metrics = {key.replace("_", " ", 1): _by_step(log, key) for key in measured}
    plots = [_curves("loss", losses, 0), _curves("validation metric", metrics, len(losses))]
    return section("Training", grid(plots) + _best_steps(metrics))


def _by_step(log: list[dict], key: str) -> dict[float, float]:
    """`key` by step. After a resume the log has some steps twice: the later row counts."""
    return {row["step"]: row[key] for row in log if "step" in row and is_number(row.get(key))}


def _curves(title: str, curves: dict[str, dict[float, float]], first_colour: int) -> str:
    if not any(curves.values()):
        return ""
    plot = training_plot(title, list(curves.values()), first_colour)
    colours = {name: number for number, name in enumerate(curves, start=first_colour)}
    return figure(plot, title, legend(colours))


def _best_steps(metrics: dict[str, dict[float, float]]) -> str:
    lines = "".join(
        f"<li>Best {escape(name)}: {max(curve.values()):.4f} "
        f"at step {count(max(curve, key=lambda step: curve[step]))}.</li>"
        for name, curve in metrics.items()
        if curve
    )
    return f"<ul>{lines}</ul>" if lines else ""
