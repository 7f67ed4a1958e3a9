"""What all pages share: pieces of HTML, and their style. A page loads nothing and runs no script.

Arguments with `html` in their name are markup and go in as they are; every other text is escaped
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from recsys.plots import series_colour


def section(title: str, html: str) -> str:
    """One titled part of the page."""
    return f"<section><h2>{escape(title)}</h2>{html}</section>"


def grid(html_cells: Iterable[str]) -> str:
    """Cells side by side where the window is wide enough; empty ones are left out."""
    cells = "".join(f"<div>{cell}</div>" for cell in html_cells if cell)
    return f'<div class="grid">{cells}</div>'


def figure(svg_html: str, caption: str, legend_html: str = "") -> str:
    """A picture with its caption and legend above."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{legend_html}{svg_html}</figure>"


def folded(title: str, html: str) -> str:
    """Something that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def legend(colours: Mapping[str, int]) -> str:
    """Names and the number of the series whose colour each has."""
    keys = " ".join(key(name, number) for name, number in colours.items())
    return f'<p class="legend">{keys}</p>'


def key(name: str, number: int) -> str:
    """A name behind the colour of series `number`."""
    colour = series_colour(number)
    return f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'


def bar(share: float) -> str:
    """A bar as long as its share of the cell it stands in."""
    return f'<i class="bar" style="width:{share:.1%}"></i>'


def facts(html_values: Mapping[str, str]) -> str:
    """Values, each below its name."""
    cells = "".join(
        f"<div><dt>{escape(words(name))}</dt><dd>{value}</dd></div>"
        for name, value in html_values.items()
    )
    return f'<dl class="facts">{cells}</dl>'


def table(head: Sequence[str], html_rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows; cells are markup, titles are text."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in html_rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def page(title: str, html: str) -> str:
    """The whole document."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{html}
</main>
</body>
</html>
"""


def words(name: str) -> str:
    """A name from the code as words; still to be escaped."""
    return name.replace("_", " ")


def share_of(part: int | None, whole: int | None) -> str:
    """A share in percent, "-" where one of the two is unknown or there is nothing to share."""
    return f"{part / whole:.1%}" if whole and part is not None else "-"


_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --ink: #1c2330; --soft: #5b6575; --line: #d5dae2;
  --series-0: #1565c0; --series-1: #d9730d; --series-2: #2e8b57;
  --series-3: #8e44ad; --series-4: #b8860b; --series-5: #546e7a;
  --bad: #c62828;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161d; --card: #1b212b; --ink: #e6e9ef; --soft: #9aa5b6; --line: #3a4453;
    --series-0: #6cb2ff; --series-1: #ffa657; --series-2: #63d199;
    --series-3: #d2a8ff; --series-4: #e3c64f; --series-5: #a7b8c4;
    --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .85rem; margin: .75rem 0 .25rem; color: var(--soft); }
p, ul, ol { margin: .5rem 0; }
ul, ol { padding-left: 1.4rem; }
.verdict { font-size: 1.2rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .9rem; }
th, td {
  padding: .25rem 0 .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums;
}
th { font-weight: normal; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); white-space: normal; overflow-wrap: normal; vertical-align: bottom; }
.grid {
  display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
}
.grid > div { min-width: 0; }
.grid table { font-size: .8rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; margin-bottom: 1rem; }
.beside > * { flex: 1 1 20rem; min-width: 0; }
@media (max-width: 30rem) { table { font-size: .8rem; } }
figure { margin: .5rem 0; }
figcaption { font-weight: 600; font-size: .9rem; }
svg { display: block; width: 100%; height: auto; max-width: 30rem; }
.full figure { overflow-x: auto; }
.full svg { max-width: none; min-width: 36rem; }
svg text { font-family: inherit !important; }
.legend, details { margin: .25rem 0; font-size: .85rem; }
summary { cursor: pointer; color: var(--soft); }
details td, details th, .rules td:last-child, .rules th:last-child { text-align: left; }
details td, .rules td:last-child { white-space: normal; }
.key { margin-right: 1rem; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; }
.flow { display: flex; height: 1.1rem; border-radius: .25rem; overflow: hidden; gap: 1px; }
.flow i { flex: 0 0 2px; }
.bars table { width: 100%; }
.bars th:first-child { white-space: normal; max-width: 12rem; }
.bars td:last-child { width: 40%; text-align: left; }
.bar { display: block; height: .7rem; background: var(--series-0); border-radius: .15rem; }
.pill { font-weight: 600; }
.stable { color: var(--series-2); }
.moderate { color: var(--series-1); }
.shifted { color: var(--bad); }
.hidden, .unknown, .facts dt, .note { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .5rem 0; }
.facts dt, .note { font-size: .85rem; }
.facts dd { margin: 0; }
.example {
  display: grid; gap: .5rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr));
  background: var(--card); border-radius: .5rem; padding: .75rem 1rem; margin: .75rem 0;
  font-size: .9rem;
}
.example h3 { margin: 0; }
.hit { color: var(--series-2); font-weight: 600; }
"""
