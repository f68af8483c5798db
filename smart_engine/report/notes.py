"""What a reader must know to understand the amounts and the promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from smart_engine.amounts import usd
from smart_engine.batch.certificate import Certificate
from smart_engine.report.headline import ROUNDING
from smart_engine.report.parts import vanishing
from smart_engine.report.words import plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["notes", "untried"]


def notes(report: Report) -> tuple[str, ...]:
    """Return what a reader must know to understand the amounts and the promises."""
    tiny = ROUNDING * report.cost
    lines = [*untried(report), *vanishing(report.certificates)]
    if report.estimated:
        lines.append(
            f"{usd(report.estimated)} USD of the amount paid is estimated from the "
            "texts, because models reported no usage; hidden reasoning is not included."
        )
    if report.unknown:
        lines.append(
            f"{usd(report.unknown)} USD of the amount paid is the worst case of failed "
            "calls that reported no usage, and may have been billed."
        )
    if report.restored > tiny:
        lines.append(
            f"{usd(report.restored)} USD of the amount paid was spent in earlier runs, "
            "on answers that came from a store."
        )
    rules = sum(s.cost for name, s in report.spend.items() if name not in report.served)
    if rules > tiny:
        lines.append(
            f"{usd(rules)} USD of the amount paid was spent on comparing answers, by "
            "judges or embeddings."
        )
    beside = report.cost - report.compared_cost
    if beside > tiny:
        lines.append(
            f"{usd(beside)} USD was paid outside the savings shown: in shadow mode, "
            "for models called by name, and for work that is unfinished, was "
            "interrupted or cannot be compared."
        )
    elif beside < -tiny:
        lines.append(
            f"The batches and streams below cost {usd(report.compared_cost)} USD; the "
            "part that this report does not count as paid was paid by other processes "
            "that share them."
        )
    if report.earlier.batches:
        lines.append(
            f"The first {report.earlier.batches:,} batches are in all totals, and not "
            "in the tables of single batches."
        )
    if report.not_compared:
        lines.append(
            f"In {report.not_compared:,} of the batches and streams the reference was "
            "never paid: their savings are not known and not counted."
        )
    if shared := sum(each.promise is not None for each in report.certificates):
        lines.append(
            f"{shared:,} of the batches keep a promise together with others of their "
            "task: what their certificates claim is about all answers given under it, "
            "and about no batch alone."
        )
    lines += _unused(report.certificates)
    return tuple(lines)


def untried(report: Report) -> Iterator[str]:
    """Yield why nothing may have been saved, if no candidate was asked."""
    candidates = report.served.keys() - {r.reference for r in report.records}
    asked = any(report.spend[name].calls for name in candidates if name in report.spend)
    if report.records and not asked:
        yield (
            "No candidate was asked: with so few items, or at these prices, trying "
            "them may cost more than it saves (min_saving)."
        )


def _unused(certificates: Iterable[Certificate]) -> Iterator[str]:
    """Yield which candidates were of no use in batches, and what can be done."""
    never_right: Counter[tuple[str, str, str]] = Counter()
    alone = []
    for each in certificates:
        for seen in each.evidence:
            if seen.verdict == "never right":
                never_right[seen.model, each.reference, each.equivalence] += seen.draws
        calls = sum(spend.calls for spend in each.spend.values())
        unasked = each.strategy == "audit" and each.promise is None
        if unasked and calls == each.spend[each.reference].calls > 0:
            alone.append(each.items)
    for (model, reference, rule), draws in never_right.items():
        yield (
            f"{plain(model)} agreed with {plain(reference)} on 0 of {draws:,} items by "
            f"'{plain(rule)}': compare free text by Similar or ChatJudge, or remove "
            f"{plain(model)}."
        )
    if alone:
        yield (
            f"In {len(alone):,} of the batches, of at most {max(alone):,} items, no "
            "candidate was asked: none could save enough to be worth trying. More "
            "items at once or cheaper candidates save more; so does a name, task=…, "
            "with a store=, for jobs that come again."
        )
