"""The explanations of a recommender as one page: what moves it, in rules and in examples."""

from __future__ import annotations

from html import escape

from recsys.page import bar, grid, page, section, table, words

GOOD_AUC = 0.7
"""Below this the rules are too unlike the model to say anything of it (0.5 is chance)."""


def render_explanations(report: dict) -> str:
    """The page of explanations.json as HTML text."""
    parts = [
        section("What moves recommendations", _shares(report["shares"], report["num_users"])),
        section("Simple rules that imitate the model", _surrogate(report["surrogate"])),
        section("Examples", "".join(_example(example) for example in report["examples"])),
    ]
    return page("Why these recommendations", "\n".join(parts))


def _shares(shares: dict[str, dict[str, dict[str, float]]], num_users: int) -> str:
    note = (
        f"Each event of {num_users:,} users' histories was left out once. Its contribution is how "
        "far that lowers the score of a recommended item; those below 0 are not counted. A group "
        "with a larger share of the contributions than of the events matters more than others."
    )
    tables = (_share_table(kind, groups) for kind, groups in shares.items())
    return f'<p class="note">{note}</p>{grid(tables)}'


def _share_table(kind: str, groups: dict[str, dict[str, float]]) -> str:
    ordered = sorted(groups.items(), key=lambda group: -group[1]["contribution"])
    rows = [
        [escape(label), f"{told['events']:.1%}", *_measured(told["contribution"])]
        for label, told in ordered
    ]
    return _bars([words(kind), "of events", "of contributions", ""], rows)


def _measured(share: float) -> list[str]:
    return [f"{share:.1%}", bar(max(0.0, share))]


def _bars(head: list[str], rows: list[list[str]]) -> str:
    return f'<div class="bars">{table(head, rows)}</div>'


def _surrogate(surrogate: dict | None) -> str:
    if surrogate is None:
        return "<p>Too few users for rules whose quality could be told.</p>"
    ordered = sorted(surrogate["importance"].items(), key=lambda entry: -entry[1])
    rows = [[escape(words(name)), *_measured(share)] for name, share in ordered]
    rules = escape(surrogate["rules"])
    return (
        f"{_fidelity(surrogate)}{_bars(['feature', 'importance', ''], rows)}"
        f'<p class="note">A value is the share of the pairs under a rule whose item is '
        f'recommended; the others are random items.</p><div class="wide"><pre>{rules}</pre></div>'
    )


def _fidelity(surrogate: dict) -> str:
    verdict = (
        "" if surrogate["auc"] >= GOOD_AUC else " They are too unlike the model to trust them."
    )
    return (
        f"<p>Fidelity: AUC {surrogate['auc']:.3f} (0.5 is chance, 1 is the model itself) and R2 "
        f"{surrogate['r2']:.3f}, on {surrogate['num_scored']:,} users that the rules were not "
        f"fitted to; fitted to {surrogate['num_fitted']:,}.{verdict}</p>"
    )


def _example(example: dict) -> str:
    history = "".join(f"<li>{escape(title)}</li>" for title in example["history"])
    told = "".join(
        f"<li><b>{escape(item['title'])}</b><br>{escape(item['sentence'])}</li>"
        for item in example["recommended"]
    )
    return (
        f'<div class="example"><div><h3>History, oldest first</h3><ol>{history}</ol></div>'
        f"<div><h3>Recommended, and why</h3><ol>{told}</ol></div></div>"
    )
