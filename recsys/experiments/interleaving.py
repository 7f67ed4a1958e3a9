"""Two rankers in one answer: team-draft interleaving, and whose items users click.

Radlinski, Kurup & Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008. As
every user judges both rankers, it takes far fewer users than an A/B test; it says which ranker is
preferred, not what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import bdtr


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One answer: its items, and which ranker, 0 or 1, each counts for."""

    item_ids: list[str]
    teams: list[int]


def team_draft(
    first: Sequence[str], second: Sequence[str], length: int, rng: np.random.Generator
) -> Interleaved:
    """Let two rankings choose in turn, each its best item not yet there; a coin says who begins.

    The answer is shorter than `length` where a ranking runs out: to go on with the other alone
    would favour it. Rankings of at least `length` items never run out.
    """
    rankings, taken, teams = (iter(first), iter(second)), [], []
    while len(taken) < length:
        turn = len(teams) % 2
        team = int(rng.integers(2)) if turn == 0 else 1 - teams[-1]
        item = next((i for i in rankings[team] if i not in taken), None)
        if item is None:
            break
        taken.append(item)
        teams.append(team)
    return Interleaved(taken, teams)


@dataclass(frozen=True)
class Preference:
    """For how many users which ranker won, and how likely that is where neither is better."""

    first_wins: int
    second_wins: int
    ties: int
    p_value: float

    def to_json(self) -> dict[str, float]:
        """As it stands in a report."""
        return asdict(self)


def preference(first_clicks: np.ndarray, second_clicks: np.ndarray) -> Preference:
    """Who won, by each user's clicks on the items of either ranker (U,).

    The p-value is that of the two-sided sign test without ties. A user counts once, whatever the
    number of answers: those of one user are not independent.
    """
    first = int((first_clicks > second_clicks).sum())
    second = int((second_clicks > first_clicks).sum())
    total = first + second
    p_value = min(1.0, 2 * float(bdtr(min(first, second), total, 0.5))) if total else 1.0
    return Preference(first, second, len(first_clicks) - total, p_value)
