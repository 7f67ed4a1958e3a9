"""The page of an experiment: the verdict, whether the split is sound, and every comparison."""

from __future__ import annotations

from html import escape
from typing import Any

from recsys.eval.report_numbers import count, interval_text, number, signed
from recsys.eval.report_plots import difference_plot
from recsys.page import facts, figure, page, section, table, words

_NOTE = (
    '<p class="note">An interval is sure by itself; a verdict reads p by Holm, which allows for '
    "all comparisons on this page. Where users did something before the experiment, the difference "
    "is adjusted for it (CUPED) and can be a little off the difference of the two means.</p>"
)
_ASSUMED = '<p class="note">No config was given: the shares count as equal.</p>'


def render_experiment(report: dict[str, Any]) -> str:
    """The page for the report of `experiments.analysis.analyse`, as HTML text."""
    metrics = list(dict.fromkeys(each["metric"] for each in report["comparisons"]))
    parts = [
        _result(report),
        _settings(report),
        _split(report["split"]),
        *(_metric(name, report) for name in metrics),
        _rows(report["counts"]),
    ]
    return page(f"Experiment {report['experiment']}", "\n".join(parts))


def _result(report: dict[str, Any]) -> str:
    first, *others = report["verdicts"]
    lines = "".join(f"<li>{escape(line)}</li>" for line in others)
    return section("Result", f'<p class="verdict">{escape(first)}</p><ul>{lines}</ul>')


def _settings(report: dict[str, Any]) -> str:
    used = report["analysis"]
    told = {
        "level": f"{used['level']:.0%}",
        "looks": "any number" if used["sequential"] else "one",
        "window": f"{used['window_hours']:g} h",
        "clicks": escape(", ".join(used["click_events"])),
        "conversions": escape(", ".join(used["conversion_events"])),
    }
    effect, power = used["expected_effect"], used["power"]
    needed = {
        f"users a variant for {effect:+.0%} {name}, power {power:.0%}": count(users)
        for name, users in report["users_needed"].items()
    }
    return section("How it was judged", facts(told | needed))


def _split(split: dict[str, Any]) -> str:
    total = sum(split["users"].values())
    rows = [
        [escape(name), count(users), f"{users / total:.2%}", f"{split['shares'][name]:.2%}"]
        for name, users in split["users"].items()
    ]
    state, css = ("does not fit", "shifted") if split["mismatch"] else ("fits", "stable")
    told = f'<p>The split <span class="pill {css}">{state}</span>: p = {split["p_value"]:.3g}</p>'
    html = table(["variant", "users", "share", "planned"], rows)
    return section("Split", told + html + (_ASSUMED if split["shares_assumed"] else ""))


def _metric(metric: str, report: dict[str, Any]) -> str:
    means = {name: each[metric] for name, each in report["variants"].items()}
    rows = [
        [escape(name), number(each["value"]), interval_text(each["low"], each["high"])]
        for name, each in means.items()
    ]
    html = table(["variant", words(metric), "interval"], rows)
    found = [each for each in report["comparisons"] if each["metric"] == metric]
    judged = [each for each in found if "p_value" in each]
    if judged:
        spans = [(each["difference"], (each["low"], each["high"])) for each in judged]
        html += figure(difference_plot(metric, spans), f"variant - control in {words(metric)}")
        html += table(
            ["variant", "difference", "interval", "relative", "p", "p by Holm", "variance saved"],
            [_cells(at, each) for at, each in enumerate(judged, start=1)],
        )
    return section(words(metric), html + _NOTE)


def _cells(at: int, found: dict[str, Any]) -> list[str]:
    return [
        escape(f"{at}. {found['variant']}"),
        signed(found["difference"]),
        interval_text(found["low"], found["high"], with_sign=True),
        f"{found['difference'] / found['first']:+.1%}",
        f"{found['p_value']:.3g}",
        f"{found['p_holm']:.3g}",
        f"{found['variance_saved']:.1%}",
    ]


def _rows(counts: dict[str, dict[str, int]]) -> str:
    lines = [
        [escape(f"{log}: {words(name)}"), count(rows)]
        for log, by_name in counts.items()
        for name, rows in by_name.items()
    ]
    return section("Rows of the logs", table(["what", "rows"], lines))
