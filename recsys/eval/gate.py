"""Whether a candidate may take the live model's place: no loss that is shown, in no segment.

Both rank the same rows. A loss counts where it is larger than what the config lets through and
where so few resamples of the rows (paired bootstrap) have the candidate ahead that chance is no
excuse. Segments are many, so each is asked for more certainty: Bonferroni's bound, alpha / m.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recsys.config import GateConfig
from recsys.eval.bootstrap import RESAMPLES, Difference, paired_differences
from recsys.eval.report_numbers import interval_text, number, signed
from recsys.eval.row_scores import ROW_METRICS, RowScores
from recsys.eval.segments import ALL

LIVE, CANDIDATE = "live", "candidate"
"""Names of the two models in the row scores."""


@dataclass(frozen=True)
class Judged:
    """One segment: means of both, how far the candidate is ahead, and whether that is a loss."""

    segment: str
    rows: int
    live: float
    candidate: float
    ahead: Difference
    allowed_loss: float
    is_loss: bool


@dataclass(frozen=True)
class Verdict:
    """`reasons` say what stops the candidate; `not_judged` are segments with too few rows."""

    reasons: list[str]
    judged: list[Judged]
    not_judged: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether the candidate may go on."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """As the artifact holds it."""
        return {"passed": self.passed, **asdict(self)}


def judge(scores: RowScores, config: GateConfig) -> Verdict:
    """Compare the models `candidate` and `live` over all rows and in every segment.

    Raises:
        ValueError: one of them has no scores, or a score is not a number.
    """
    if missing := {LIVE, CANDIDATE} - set(scores.models):
        raise ValueError(f"no scores of {sorted(missing)}; there are those of {scores.models}")
    sizes = {name: len(rows) for name, rows in scores.rows.items()}
    few = {name: rows for name, rows in sizes.items() if rows < config.min_rows}
    if ALL in few:
        told = (
            f"{few[ALL]} rows are too few to judge by: refresh.gate.min_rows is {config.min_rows}"
        )
        return Verdict([told], [], few)
    segments = [name for name in sizes if name not in few and name != ALL]
    # Half of what chance may do is for all rows, half for the segments together.
    alpha = (1 - config.level) / 2
    judged = [_judge_segment(scores, ALL, config.metric, config.max_loss, alpha)]
    for name in segments:
        share = alpha / len(segments)
        judged.append(_judge_segment(scores, name, config.metric, config.max_segment_loss, share))
    return Verdict([_reason(j, config.metric) for j in judged if j.is_loss], judged, few)


def _judge_segment(
    scores: RowScores, segment: str, metric: str, max_loss: float, alpha: float
) -> Judged:
    at = ROW_METRICS.index(metric)
    values = scores.of(segment)[:, :, at]
    live, candidate = (values[:, [scores.models.index(name)]] for name in (LIVE, CANDIDATE))
    ahead = paired_differences(live, candidate)[0]
    allowed = max_loss * float(live.mean())
    # With alpha below a resample's share, losing in every resample is all that can be shown.
    is_shown = ahead.share_ahead <= max(alpha, 1 / RESAMPLES)
    return Judged(
        segment=segment,
        rows=len(values),
        live=float(live.mean()),
        candidate=float(candidate.mean()),
        ahead=ahead,
        allowed_loss=allowed,
        is_loss=is_shown and ahead.difference < -allowed,
    )


def _reason(judged: Judged, metric: str) -> str:
    ends = interval_text(judged.ahead.low, judged.ahead.high, with_sign=True)
    return (
        f"{judged.segment}: {metric} {number(judged.candidate)} against {number(judged.live)} "
        f"live, {signed(judged.ahead.difference)} {ends}, over {judged.rows} rows; "
        f"a loss of {number(judged.allowed_loss)} is let through"
    )
