"""How good a forecast was: errors beside those of a naive one, and how often intervals held.

Shapes: N items.
"""

from __future__ import annotations

import numpy as np

from recsys.bulk.forecaster import Forecast

BUSY = 1.0
"""Expected events from which an item counts as busy: of the others nearly all intervals hold."""


def errors(actual: np.ndarray, expected: np.ndarray) -> dict[str, float | None]:
    """Over items, sums of events in one window.

    - `mae` = mean |actual - expected|, and `rmse` the root of the mean square.
    - `wape` = sum |actual - expected| / sum actual (Kolassa & Schuetz, "Advantages of the MAD/mean
      ratio over the MAPE", Foresight 6, 2007); None where nothing was taken.
    - `bias` = sum expected / sum actual - 1; None as well.

    The median has the least MAE, not the mean that is expected: for rare items a forecast of 0 has
    a smaller MAE than the right mean, and `rmse` tells them apart.
    """
    off, total = np.abs(actual - expected), float(actual.sum())
    return {
        "mae": float(off.mean()) if len(off) else 0.0,
        "rmse": float(np.sqrt((off**2).mean())) if len(off) else 0.0,
        "wape": float(off.sum() / total) if total else None,
        "bias": float(expected.sum() / total - 1) if total else None,
    }


def coverage(actual: np.ndarray, forecast: Forecast) -> dict[str, dict[str, float | int | None]]:
    """How often the count lay within the bounds, and how wide they are: of all items, of busy ones
    and of those that were new."""
    held = (actual >= forecast.low) & (actual <= forecast.high)
    widths = forecast.high - forecast.low
    groups = {
        "all": np.ones(len(actual), dtype=bool),
        "busy": forecast.expected >= BUSY,
        "new": forecast.is_new,
    }
    return {
        name: {
            "items": int(chosen.sum()),
            "coverage": float(held[chosen].mean()) if chosen.any() else None,
            "mean_width": float(widths[chosen].mean()) if chosen.any() else None,
        }
        for name, chosen in groups.items()
    }


def judge(actual: np.ndarray, forecast: Forecast, naive: np.ndarray) -> dict:
    """All of a held-out window: `forecast` and `last_week` errors, of all and of new items."""
    new = forecast.is_new
    return {
        "items": len(actual),
        "events": int(actual.sum()),
        "forecast": errors(actual, forecast.expected),
        "last_week": errors(actual, naive),
        "forecast_of_new": errors(actual[new], forecast.expected[new]),
        "last_week_of_new": errors(actual[new], naive[new]),
        "intervals": coverage(actual, forecast),
    }
