"""A report as one HTML page that stands alone, and its small form for notebooks.

The page has no script and fetches nothing; its own policy forbids both. All text from
users and models passes through `_safe`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.verification import Check, verify
from smart_engine.errors import InvalidInputError
from smart_engine.report.costs import cost_tables, models
from smart_engine.report.evidence import evidence_tables
from smart_engine.report.failures import failures
from smart_engine.report.headline import headlines, summary
from smart_engine.report.notes import notes
from smart_engine.report.outlook import outlook_tables
from smart_engine.report.plots import Kind, plot_report
from smart_engine.report.promises import promises
from smart_engine.report.theme import DARK, LIGHT, css
from smart_engine.report.words import Grid, name_of, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = ["notebook", "page"]

_Checked = list[tuple[Certificate, tuple[Check, ...]]]
"""Certificates, each with the checks recomputed from it."""

_SHOWN = 8
"""Number of newest batches, and of newest streams, whose evidence is shown in full."""

_POLICIES = (
    "<p>How policies answer: <code>a = b</code> serves an answer on which both agree, "
    "<code>a → b → c</code> asks in turn until two agree; other items go to the "
    "reference.</p>\n"
)

_NO_FAILURES = "<p>In batches and streams no call failed and no item escalated.</p>\n"

_NO_PICTURES = (
    '<p class="soft">This page has no pictures: they need <code>pip install '
    "'smart-llm[plots]'</code>.</p>\n"
)

_HOW_TO_VERIFY = (
    "<p>Save an audited batch's record as <code>certificate.json</code>, and "
    "<code>smart verify certificate.json</code> recomputes its claim from the draws it "
    "records.</p>\n"
)

_FOOTER = (
    '<footer class="soft"><p>Agreement with the reference is not truth: where the '
    "reference is wrong, agreeing with it is wrong, too. What the reference alone "
    "would have cost is estimated by its mean cost on the items it was paid for."
    "</p></footer>\n"
)

_STYLE = (
    f":root{{color-scheme:light dark;{css(LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{:root{{{css(DARK)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--smart-paper);color:var(--smart-ink);
 font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:68rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;font-weight:600;margin:.2rem 0 1.6rem;
 max-width:48rem;text-wrap:balance}
h2{font-size:1.15rem;font-weight:600;margin:3rem 0 1rem}
p{max-width:44rem;margin:.5rem 0}
.eyebrow{color:var(--smart-soft);margin:0}
.soft{color:var(--smart-soft)}
.figures{display:flex;flex-wrap:wrap;gap:1px;margin:0;border-radius:.6rem;
 border:1px solid var(--smart-rule);overflow:hidden;background:var(--smart-rule)}
.figures>div{flex:1 1 9rem;background:var(--smart-panel);padding:.9rem 1rem}
dt{color:var(--smart-soft);font-size:.9rem}
dd{margin:0}
dd.value{font-size:clamp(1.15rem,4vw,1.35rem);font-weight:600;white-space:nowrap;
 font-variant-numeric:tabular-nums}
dd.note{font-size:.85rem;color:var(--smart-soft);overflow-wrap:anywhere}
.notes{padding-left:1.1rem;max-width:44rem}
.promises{list-style:none;padding:0;margin:0}
.promises li{border-left:.25rem solid var(--smart-good);padding:.1rem 0 .1rem .9rem;
 margin:0 0 1rem;max-width:44rem;overflow-wrap:anywhere}
.promises li.bad{border-color:var(--smart-bad)}
.mark{font-weight:600;color:var(--smart-good)}
.bad .mark,p.bad{color:var(--smart-bad)}
.pictures{display:grid;gap:2rem;align-items:start;margin:1rem 0 0;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),26rem))}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto}
figcaption{font-size:.85rem;color:var(--smart-soft)}
.scroll{overflow-x:auto;margin:1.5rem 0 0}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--smart-m1);
 outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;font-weight:600;padding:0 0 .4rem}
th,td{padding:.4rem .9rem .4rem 0;text-align:left;vertical-align:top;font-weight:400}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--smart-soft);border-bottom:1px solid var(--smart-rule);
 vertical-align:bottom}
tbody tr+tr>*{border-top:1px solid var(--smart-rule)}
tfoot>tr>*{border-top:2px solid var(--smart-rule);font-weight:600}
tbody th,td.word{overflow-wrap:break-word;min-width:7rem}
thead th:first-child,tbody th,tfoot th{position:sticky;left:0;
 background:var(--smart-paper)}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
thead .number{white-space:normal}
details{border-top:1px solid var(--smart-rule);padding:.6rem 0}
summary{cursor:pointer;overflow-wrap:anywhere}
pre,code{font:.85rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{overflow:auto;max-height:24rem;padding:.8rem;background:var(--smart-panel);
 border-radius:.4rem}
footer{margin-top:3rem;font-size:.9rem}
@media print{details{display:none}.scroll{overflow:visible}}
"""
)


def page(report: Report) -> str:
    """Return a report as a page; see `Report.to_html`."""
    title = summary(report)
    checked = [(c, _checked(c)) for c in report.certificates[-_SHOWN:]]
    broken = {c.id for c, checks in checked if not _hold(checks)}
    parts = [
        _header(report, title, broken),
        _section("What is promised", _promises(report, broken)),
        _section("Cost and answers", _cost(report)),
        _section("What other jobs would save", _outlook(report)),
        _section("Evidence", _evidence(report, checked)),
        _section("Failures", _grid(failures(report)) or _NO_FAILURES),
        _section("Records", _records(report, checked)),
        _FOOTER,
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def notebook(report: Report) -> str:
    """Return a report's headline and first table, in the notebook's own colours."""
    figures = "".join(
        f"<li>{_safe(each.label)}: <b>{_tied(each.value)}</b> ({_tied(each.note)})</li>"
        for each in headlines(report)
    )
    return (
        f"<div><p><b>{_tied(summary(report))}</b></p><ul>{figures}</ul>"
        f"{_grid(models(report))}</div>"
    )


# -- sections --------------------------------------------------------------------------


def _header(report: Report, title: str, broken: set[str]) -> str:
    figures = "".join(
        f'<div><dt>{_safe(each.label)}</dt><dd class="value">{_safe(each.value)}</dd>'
        f'<dd class="note">{_tied(each.note)}</dd></div>\n'
        for each in headlines(report, broken)
    )
    lines = "".join(f"<li>{_safe(note)}</li>\n" for note in notes(report))
    return (
        f'<header>\n<p class="eyebrow">Cost and proof</p>\n<h1>{_tied(title)}</h1>\n'
        f'<dl class="figures">\n{figures}</dl>\n'
        + (f'<ul class="notes">\n{lines}</ul>\n' if lines else "")
        + "</header>\n"
    )


def _promises(report: Report, broken: set[str]) -> str:
    lines = []
    for promise in promises(report, broken):
        kind, mark = ("good", "✓") if promise.valid else ("bad", "✗ not")
        lines.append(
            f'<li class="{kind}"><span class="mark">{mark} valid</span> '
            f"<b>{_safe(promise.name)}</b><br>{_safe(promise.claim)}</li>\n"
        )
    return f'<ul class="promises">\n{"".join(lines)}</ul>\n' if lines else ""


def _cost(report: Report) -> str:
    pictures = _pictures(report, [("cost", 0), ("items", 0)])
    grids = "".join(map(_grid, cost_tables(report)))
    return ("" if find_spec("matplotlib") else _NO_PICTURES) + pictures + grids


def _outlook(report: Report) -> str:
    kinds: list[tuple[Kind, int]] = [
        ("outlook", place) for place in range(len(report.estimates))[-_SHOWN:]
    ]
    return _pictures(report, kinds) + "".join(map(_grid, outlook_tables(report)))


def _evidence(report: Report, checked: _Checked) -> str:
    first = len(report.certificates) - len(checked)
    kinds: list[tuple[Kind, int]] = [
        ("evidence", first + place)
        for place, (_, checks) in enumerate(checked)
        if _hold(checks)
    ]
    kinds += [("stream", place) for place in range(len(report.streams))[-_SHOWN:]]
    policies = report.streams or any(c.tests for c in report.certificates)
    return (
        (_POLICIES if policies else "")
        + _pictures(report, kinds)
        + "".join(map(_grid, evidence_tables(report)))
    )


def _records(report: Report, checked: _Checked) -> str:
    """Return certificates and streams as JSON, with the checks recomputed from them."""
    parts = [_record(certificate, checks) for certificate, checks in checked]
    parts += [_record(stream, ()) for stream in report.streams[-_SHOWN:]]
    if not parts:
        return ""
    older = len(report.records) - len(parts)
    more = f"The newest are shown; {older:,} more are in <code>to_json()</code>."
    more = f'<p class="soft">{more}</p>\n' if older else ""
    return _HOW_TO_VERIFY + more + "".join(parts)


def _record(record: Certificate | StreamState, checks: tuple[Check, ...]) -> str:
    failed = sum(not check.holds for check in checks)
    verdict = f"{failed} fail" if failed else "all hold"
    summary = f": {len(checks)} checks recomputed for this page, {verdict}"
    lines = "".join(
        f"<li>{'holds' if check.holds else 'FAILS'}: "
        f"{_safe(plain(check.statement))}</li>\n"
        for check in checks
    )
    return (
        f"<details><summary><b>{_safe(name_of(record))}</b>"
        f"{summary if checks else ''}</summary>\n"
        + (f"<ul>\n{lines}</ul>\n" if lines else "")
        + f'<pre tabindex="0">{_safe(record.model_dump_json(indent=2))}</pre>'
        + "</details>\n"
    )


# -- parts -----------------------------------------------------------------------------


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{body}</section>\n" if body else ""


def _grid(grid: Grid) -> str:
    """Return a table that scrolls if it is too wide; nothing if it has no rows."""
    if not grid.rows:
        return ""

    def row(cells: Iterable[str], tag: str) -> str:
        parts = []
        for place, cell in enumerate(cells):
            name = tag if place else "th"
            scope = ' scope="row"' if name == "th" and tag == "td" else ""
            scope = ' scope="col"' if tag == "th" else scope
            kind = "word" if place < len(grid.words) else "number"
            parts.append(f'<{name}{scope} class="{kind}">{_safe(cell)}</{name}>')
        return f"<tr>{''.join(parts)}</tr>\n"

    foot = f"<tfoot>{row(grid.total, 'td')}</tfoot>\n" if grid.total else ""
    caption = _safe(grid.caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f"<table>\n<caption>{caption}</caption>\n"
        f"<thead>{row((*grid.words, *grid.numbers), 'th')}</thead>\n"
        f"<tbody>{''.join(row(cells, 'td') for cells in grid.rows)}</tbody>\n"
        f"{foot}</table></div>\n"
    )


def _pictures(report: Report, kinds: Iterable[tuple[Kind, int]]) -> str:
    """Return pictures side by side, without those that have nothing to show."""
    try:
        from smart_engine.report import svg
    except ModuleNotFoundError:
        return ""
    parts = []
    for kind, which in kinds:
        try:
            picture = plot_report(report, kind, which)
        except InvalidInputError:
            continue
        drawn = svg.inline(picture, f"{kind}{which}", picture.alt_text)
        caption = f"<figcaption>{_safe(picture.alt_text)}</figcaption>"
        parts.append(f"<figure>{drawn}{caption}</figure>\n")
    return f'<div class="pictures">\n{"".join(parts)}</div>\n' if parts else ""


def _checked(certificate: Certificate) -> tuple[Check, ...]:
    """Recompute the claim of an audit's certificate; nothing if it claims nothing."""
    if certificate.strategy != "audit" or not certificate.valid:
        return ()
    return tuple(verify(certificate))


def _hold(checks: tuple[Check, ...]) -> bool:
    return all(check.holds for check in checks)


def _tied(text: str) -> str:
    """Return a text whose figures and units stay on one line."""
    return _safe(text).replace(" %", "&nbsp;%").replace(" USD", "&nbsp;USD")


def _safe(text: str) -> str:
    """Return a text without anything that HTML would interpret."""
    return html.escape(text)
