"""A report as one HTML page that stands alone, and its small form for notebooks.

No script, nothing fetched: the page forbids both to itself. Whatever comes from users
or models passes through `_safe` on its way in.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.verification import Check, verify
from smart_engine.errors import InvalidInputError
from smart_engine.report import content
from smart_engine.report.plots import Kind, plot_report
from smart_engine.report.theme import DARK, LIGHT, css

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = ["notebook", "page"]

_SHOWN = 8
"""Batches, and streams, whose evidence is shown in full: the newest."""

_POLICIES = (
    "<p>Whom a policy asks: <code>a = b</code> serves where both agree, "
    "<code>a → b → c</code> asks in turn until two agree; all else goes to the "
    "reference.</p>\n"
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
    title = content.summary(report)
    checked = [_checked(certificate) for certificate in _newest(report)]
    broken = {
        c.id
        for c, checks in zip(_newest(report), checked, strict=True)
        if not _hold(checks)
    }
    parts = [
        _header(report, title, broken),
        _section("What is promised", _promises(report, broken)),
        _section("Cost and answers", _lacking() + _money(report)),
        _section("Evidence", _evidence(report, checked)),
        _section("Failures", _failures(report)),
        _section("Records", _records(report, checked)),
        _footer(),
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
        for each in content.headlines(report)
    )
    return (
        f"<div><p><b>{_tied(content.summary(report))}</b></p><ul>{figures}</ul>"
        f"{_grid(content.models(report))}</div>"
    )


# -- sections --------------------------------------------------------------------------


def _header(report: Report, title: str, broken: set[str]) -> str:
    figures = "".join(
        f'<div><dt>{_safe(each.label)}</dt><dd class="value">{_safe(each.value)}</dd>'
        f'<dd class="note">{_tied(each.note)}</dd></div>\n'
        for each in content.headlines(report, broken)
    )
    notes = "".join(f"<li>{_safe(note)}</li>\n" for note in content.notes(report))
    return (
        f'<header>\n<p class="eyebrow">Cost and proof</p>\n<h1>{_tied(title)}</h1>\n'
        f'<dl class="figures">\n{figures}</dl>\n'
        + (f'<ul class="notes">\n{notes}</ul>\n' if notes else "")
        + "</header>\n"
    )


def _promises(report: Report, broken: set[str]) -> str:
    lines = []
    for promise in content.promises(report, broken):
        kind, mark = ("good", "✓") if promise.valid else ("bad", "✗ not")
        lines.append(
            f'<li class="{kind}"><span class="mark">{mark} valid</span> '
            f"<b>{_safe(promise.name)}</b><br>{_safe(promise.claim)}</li>\n"
        )
    return f'<ul class="promises">\n{"".join(lines)}</ul>\n' if lines else ""


def _money(report: Report) -> str:
    pictures = _pictures(report, [("cost", 0), ("items", 0)])
    grids = (content.models(report), content.inside(report), content.savings(report))
    return pictures + "".join(map(_grid, grids))


def _evidence(report: Report, checked: list[tuple[Check, ...]]) -> str:
    first = len(report.certificates) - len(checked)
    kinds: list[tuple[Kind, int]] = []
    kinds += [("evidence", first + n) for n, c in enumerate(checked) if _hold(c)]
    kinds += [("stream", place) for place in range(len(report.streams))[-_SHOWN:]]
    grids = (
        *content.evidence(report),
        content.noise(report),
        content.streams(report),
        content.shadows(report),
    )
    policies = any(certificate.tests for certificate in report.certificates)
    return (
        (_POLICIES if policies or report.streams else "")
        + _pictures(report, kinds)
        + "".join(map(_grid, grids))
    )


def _failures(report: Report) -> str:
    grid = content.failures(report)
    none = "<p>In batches and streams no call failed and no item escalated.</p>\n"
    return _grid(grid) or none


def _records(report: Report, checked: list[tuple[Check, ...]]) -> str:
    """Certificates and streams as JSON, with what was recomputed of them."""
    parts = [
        _record(certificate, checks)
        for certificate, checks in zip(_newest(report), checked, strict=True)
    ]
    parts += [_record(stream, ()) for stream in report.streams[-_SHOWN:]]
    if not parts:
        return ""
    how = (
        "<p>Save an audited batch's record as <code>certificate.json</code>, and "
        "<code>smart verify certificate.json</code> recomputes its claim from the "
        "draws it records.</p>\n"
    )
    older = len(report.certificates) + len(report.streams) - len(parts)
    if older:
        how += (
            f'<p class="soft">The newest are shown; {older:,} more are in '
            "<code>to_json()</code>.</p>\n"
        )
    return how + "".join(parts)


def _record(record: Certificate | StreamState, checks: tuple[Check, ...]) -> str:
    failed = sum(not check.holds for check in checks)
    told = ""
    if checks:
        verdict = f"{failed} fail" if failed else "all hold"
        told = f": {len(checks)} checks recomputed for this page, {verdict}"
    lines = "".join(
        f"<li>{'holds' if check.holds else 'FAILS'}: "
        f"{_safe(content.plain(check.statement))}</li>\n"
        for check in checks
    )
    return (
        f"<details><summary><b>{_safe(content.name_of(record))}</b>"
        f"{_safe(told)}</summary>\n"
        + (f"<ul>\n{lines}</ul>\n" if lines else "")
        + f'<pre tabindex="0">{_safe(record.model_dump_json(indent=2))}</pre>'
        + "</details>\n"
    )


def _footer() -> str:
    return (
        '<footer class="soft"><p>Agreement with the reference is not truth: where the '
        "reference is wrong, agreeing with it is wrong, too. What the reference alone "
        "would have cost is estimated by its mean cost on the items it was paid for."
        "</p></footer>\n"
    )


# -- parts -----------------------------------------------------------------------------


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{body}</section>\n" if body else ""


def _grid(grid: content.Grid) -> str:
    """Return a table that can be scrolled where it is too wide; none without rows."""
    if not grid.rows:
        return ""
    count = len(grid.words)

    def row(cells: Iterable[str], tag: str) -> str:
        parts = []
        for place, cell in enumerate(cells):
            name = tag if place else "th"
            scope = ' scope="row"' if name == "th" and tag == "td" else ""
            scope = ' scope="col"' if tag == "th" else scope
            kind = "word" if place < count else "number"
            parts.append(f'<{name}{scope} class="{kind}">{_safe(cell)}</{name}>')
        return f"<tr>{''.join(parts)}</tr>\n"

    foot = f"<tfoot>{row(grid.total, 'td')}</tfoot>\n" if grid.total else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{grid.caption}">'
        f"<table>\n<caption>{_safe(grid.caption)}</caption>\n"
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
        name = f"{kind}{which}"
        drawn = svg.inline(picture, name, picture.says)
        parts.append(f"<figure>{drawn}<figcaption>{_safe(picture.says)}</figcaption>")
        parts.append("</figure>\n")
    return f'<div class="pictures">\n{"".join(parts)}</div>\n' if parts else ""


def _lacking() -> str:
    """Say how to get pictures, where they cannot be drawn."""
    if find_spec("matplotlib"):
        return ""
    return (
        '<p class="soft">This page has no pictures: they need <code>pip install '
        "'smart-llm[plots]'</code>.</p>\n"
    )


def _newest(report: Report) -> tuple[Certificate, ...]:
    return report.certificates[-_SHOWN:]


def _checked(certificate: Certificate) -> tuple[Check, ...]:
    """Recompute what an audit's certificate claims; nothing where it claims nothing."""
    if certificate.strategy != "audit" or not certificate.valid:
        return ()
    return tuple(verify(certificate))


def _hold(checks: tuple[Check, ...]) -> bool:
    return all(check.holds for check in checks)


def _tied(text: str) -> str:
    """Return a text whose figures stay with their units where lines break."""
    return _safe(text).replace(" %", "&nbsp;%").replace(" USD", "&nbsp;USD")


def _safe(text: str) -> str:
    """Return a text with nothing in it that HTML would read."""
    return html.escape(text)
