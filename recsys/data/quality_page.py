"""The quality page: one HTML file that says what became of the raw rows, and what data is left.

`render_quality` takes the content of quality.json. The page loads nothing from elsewhere and runs
no script.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from recsys.data.profile import SEGMENTS, UNKNOWN_DAY, Counts, ItemProfile, Profile
from recsys.data.quality_plots import day_plot, length_plot, popularity_plot, share_plot
from recsys.data.sources import NUM_NAMED
from recsys.data.split import BY_TIME
from recsys.page import (
    bar,
    facts,
    figure,
    folded,
    grid,
    key,
    legend,
    page,
    section,
    share_of,
    table,
    words,
)
from recsys.plots import series_colour

MAIN_TABLE = "interactions"
KEPT, QUARANTINED, DROPPED = "kept", "quarantined", "dropped"
FLOW_COLOURS = {KEPT: 2, QUARANTINED: 1, DROPPED: 5}
MAX_EXAMPLE_CHARACTERS = 200
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def render_quality(quality: dict) -> str:
    """The page for one dataset, as HTML text.

    Args:
        quality: the content of quality.json: `tables`, `files`, `profile`, `items_profile`,
            `drift`, `split` and `settings`. Profiles are published ones.

    Raises:
        ValueError: `tables` has no `interactions`, or a profile does not fit its schema.
    """
    if MAIN_TABLE not in quality["tables"]:
        raise ValueError(f"quality.json has no counts of the table '{MAIN_TABLE}'")
    profile = Profile.model_validate(quality["profile"])
    items = ItemProfile.model_validate(quality["items_profile"])
    split, settings = quality.get("split") or {}, quality.get("settings") or {}
    parts = [
        _flow(quality["tables"], quality.get("files") or {}),
        _rules(quality["tables"]),
        _facts(profile, items, split),
        _events(profile, split),
        _items(items),
        _drift(quality.get("drift")),
        _hidden(profile, items, settings),
        _settings(settings),
    ]
    return page("Data quality", "\n".join(part for part in parts if part))


# What became of the rows


def _flow(tables: Mapping[str, dict], files: Mapping[str, Sequence[str]]) -> str:
    sentence = f'<p class="verdict">{escape(_sentence(tables[MAIN_TABLE]))}</p>'
    bars = "".join(_flow_bar(name, counts) for name, counts in tables.items())
    return section("Rows", sentence + legend(FLOW_COLOURS) + bars + _files(files))


def _sentence(counts: dict) -> str:
    parts = ", ".join(f"{count:,} {name}" for name, count in _flow_of(counts).items())
    return f"{counts['read']:,} rows read: {parts}"


def _flow_of(counts: dict) -> dict[str, int]:
    dropped = sum((counts.get(DROPPED) or {}).values())
    return {KEPT: counts[KEPT], QUARANTINED: counts[QUARANTINED], DROPPED: dropped}


def _flow_bar(name: str, counts: dict) -> str:
    flow = _flow_of(counts)
    slices = "".join(
        f'<i style="flex-grow:{count};background:{series_colour(FLOW_COLOURS[part])}"></i>'
        for part, count in flow.items()
        if count
    )
    wrong = "" if sum(flow.values()) == counts["read"] else _NOT_ADDING_UP
    label = escape(_sentence(counts))
    return (
        f"<h3>{escape(words(name))}</h3>"
        f'<div class="flow" role="img" aria-label="{label}">{slices}</div>'
        f'<p class="note">{label}. {wrong}{escape(_drops(counts))}</p>{_warnings(counts)}'
    )


_NOT_ADDING_UP = "<b>The counts do not add up.</b> "


def _drops(counts: dict) -> str:
    dropped = {name: count for name, count in (counts.get(DROPPED) or {}).items() if count}
    parts = ", ".join(f"{words(name)} {count:,}" for name, count in dropped.items())
    return f"Dropped: {parts}." if parts else ""


def _warnings(counts: dict) -> str:
    """Values of kept rows that were not used, most frequent first."""
    found = sorted((counts.get("warnings") or {}).items(), key=lambda entry: -entry[1])
    rows = [
        [escape(words(what)), _count(count), share_of(count, counts[KEPT])]
        for what, count in found
        if count
    ]
    return table(["values set to null", "rows", "of rows kept"], rows) if rows else ""


def _files(files: Mapping[str, Sequence[str]]) -> str:
    """Which files hold what is unusual (`timestamps in ms`)."""
    lines = "".join(
        f"<li>These files hold {escape(_spelled(what))}: {escape(', '.join(names))}.</li>"
        for what, names in files.items()
    )
    note = f"Of each kind at most {NUM_NAMED} files are named."
    return f'<ul>{lines}</ul><p class="note">{note}</p>' if lines else ""


def _spelled(what: str) -> str:
    start, space, unit = what.rpartition(" ")
    return start + space + UNITS.get(unit, unit)


def _rules(tables: Mapping[str, dict]) -> str:
    broken = "".join(_rules_of(name, counts) for name, counts in tables.items())
    return section("Quarantined rows by rule", broken or "<p>No row broke a rule.</p>")


def _rules_of(name: str, counts: dict) -> str:
    reasons = sorted((counts.get("reasons") or {}).items(), key=lambda entry: -entry[1])
    advice, examples = counts.get("advice") or {}, counts.get("examples") or {}
    rows = [
        [
            escape(words(rule)),
            _count(count),
            share_of(count, counts["read"]),
            escape(advice.get(rule, "")),
        ]
        for rule, count in reasons
    ]
    if not rows:
        return ""
    samples = "".join(_examples(rule, examples[rule]) for rule, _ in reasons if examples.get(rule))
    head = [words(name), "rows", "of rows read", "what to do"]
    return f'<div class="rules">{table(head, rows)}</div>{samples}'


def _examples(rule: str, examples: Sequence[dict]) -> str:
    columns = [*dict.fromkeys(column for example in examples for column in example)]
    rows = [[_clipped(example.get(column)) for column in columns] for example in examples]
    titles = [words(column) for column in columns]
    return folded(f"Examples of {words(rule)}", table(titles, rows))


def _clipped(value: object) -> str:
    text = "(null)" if value is None else str(value)
    if len(text) > MAX_EXAMPLE_CHARACTERS:
        text = f"{text[:MAX_EXAMPLE_CHARACTERS]}..."
    return escape(text)


# The data that is left


def _facts(profile: Profile, items: ItemProfile, split: dict) -> str:
    days = sorted(day for day in profile.events_by_day if day != UNKNOWN_DAY)
    known: dict[str, object] = {
        "users": profile.num_users,
        "events": profile.num_events,
        "items": items.num_items,
        "first day (UTC)": days[0] if days else "-",
        "last day (UTC)": days[-1] if days else "-",
    }
    if UNKNOWN_DAY in profile.events_by_day:
        known["events without a time"] = profile.events_by_day[UNKNOWN_DAY]
    known |= {"split": split.get("strategy", "-")}
    known |= {f"{part} rows": count for part, count in (split.get("rows") or {}).items()}
    known |= {f"{part} starts (UTC)": _moment(cut) for part, cut in _cuts(split).items()}
    return section("What is left", facts({name: _count(value) for name, value in known.items()}))


def _cuts(split: dict) -> dict[str, int]:
    if split.get("strategy") not in BY_TIME:
        return {}
    return {"valid": split["valid_from"], "test": split["test_from"]}


def _events(profile: Profile, split: dict) -> str:
    days = _known({d: n for d, n in profile.events_by_day.items() if d != UNKNOWN_DAY})
    lengths = profile.users_by_length
    when = (
        figure(day_plot(days, _cuts(split)), "Events per day (UTC)") if any(days.values()) else ""
    )
    note = "" if when else "<p>No day can be shown: there are no times, or too few events.</p>"
    users = figure(length_plot(lengths), "Users by history length") if any(lengths.values()) else ""
    types = _bars("event type", "events", profile.events_by_type, profile.num_events)
    return section("Events", f'<div class="full">{when}</div>{note}{grid([users, types])}')


def _items(items: ItemProfile) -> str:
    points = [(point.rank, point.events) for point in items.popularity]
    curve = figure(popularity_plot(points), "Popularity of items") if points else ""
    cells = [
        curve,
        _segments(items),
        _bars("category", "train events", items.events_by_category, items.num_events),
        _bars("attribute that is missing", "items", items.missing, items.num_items),
    ]
    return section("Items", grid(cells))


def _segments(items: ItemProfile) -> str:
    """How few items take most of the events, as picture and as table."""
    totals = {"items": items.num_items, "events": items.num_events}
    counts: dict[str, Counts] = {
        "items": {**items.items_by_segment},
        "events": items.events_by_segment,
    }
    shares = {
        name: [(counts[name][segment] or 0) / total for segment in SEGMENTS]
        for name, total in totals.items()
        if total and None not in counts[name].values()
    }
    rows = [
        [
            key(segment, at),
            *(
                cell
                for name, total in totals.items()
                for cell in (_count(counts[name][segment]), share_of(counts[name][segment], total))
            ),
        ]
        for at, segment in enumerate(SEGMENTS)
    ]
    plot = figure(share_plot(SEGMENTS, shares), "Head, mid, tail and cold items") if shares else ""
    return plot + table(["segment", "items", "of all", "train events", "of all"], rows) + _SEGMENTS


_SEGMENTS = (
    '<p class="note">Head: the most popular items that together take half of the train events. '
    "Mid: the next, up to 80%. Tail: the rest. Cold: items without a train event.</p>"
)


def _drift(drift: Sequence[dict] | None) -> str:
    title = "Compared with the previous dataset"
    if drift is None:
        return section(title, "<p>There is no previous dataset to compare with.</p>")
    rows = [
        [
            escape(row["what"]),
            escape(row["measure"]),
            "-" if row["value"] is None else f"{row['value']:.3f}",
            f'<span class="pill {escape(row["verdict"])}">{escape(row["verdict"])}</span>',
        ]
        for row in drift
    ]
    return section(title, table(["what", "measure", "value", "verdict"], rows) + _MEASURES)


_MEASURES = (
    '<p class="note">PSI: population stability index. KS: largest difference of the cumulative '
    "shares. Both are 0 where nothing changed. Stable: below 0.1. Moderate: below 0.25. "
    "Shifted: 0.25 or more; look at the data before training on it.</p>"
)


def _hidden(profile: Profile, items: ItemProfile, settings: dict) -> str:
    breakdowns = {
        "days": profile.events_by_day,
        "event types": profile.events_by_type,
        "history lengths": profile.users_by_length,
        "segments": items.events_by_segment,
        "categories": items.events_by_category,
    }
    found = {name: [*counts.values()].count(None) for name, counts in breakdowns.items()}
    parts = ", ".join(f"{count:,} {name}" for name, count in found.items() if count)
    if not parts:
        return ""
    k = settings.get("min_published_count", "the smallest published count")
    text = (
        f"Hidden counts: {parts}. A count is hidden where it is fewer than {k}, or where such a "
        "one could be worked out from it and the total. Pictures leave hidden counts out."
    )
    return section("What is hidden", f"<p>{escape(text)}</p>")


def _settings(settings: dict) -> str:
    rows = [[escape(name), escape(str(value))] for name, value in _flat("", settings)]
    return section("Settings", folded("All settings of prepare", table(["key", "value"], rows)))


def _flat(prefix: str, settings: dict) -> Iterable[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _known(counts: Counts) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


def _bars(title: str, unit: str, counts: Mapping[str, int | None], total: int | None) -> str:
    """A table with a bar behind each count: its share of `total`."""
    rows = [
        [escape(name), _count(count), share_of(count, total), bar((count or 0) / (total or 1))]
        for name, count in counts.items()
    ]
    return f'<div class="bars">{table([title, unit, "of all", ""], rows)}</div>' if rows else ""


# Numbers as text


def _count(value: object) -> str:
    if value is None:
        return '<span class="hidden">hidden</span>'
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _moment(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M}"
