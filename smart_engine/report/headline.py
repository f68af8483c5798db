"""What a report says first: one sentence, and its main figures."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple

from smart_engine.amounts import usd
from smart_engine.report.promises import holds, promised
from smart_engine.report.words import at_least, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["ROUNDING", "Headline", "headlines", "summary"]

ROUNDING = 1e-9
"""Differences below this share of an amount are rounding errors."""


class Headline(NamedTuple):
    """One figure of the headline.

    Attributes:
        label: What it is.
        value: The figure.
        note: What it means, in few words.
    """

    label: str
    value: str
    note: str


def summary(report: Report) -> str:
    """Return one sentence: what the answers cost, beside the reference alone."""
    answers = sum(report.served.values())
    tried = sum(shadow.answered for shadow in report.shadows)
    if tried and not answers:
        saved = usd(sum(shadow.saved or 0.0 for shadow in report.shadows))
        text = f"Shadow mode: the reference answered all of {tried:,} items"
        return f"{text}; about {saved} USD would have been saved."
    if not answers:
        return f"Nothing has been answered yet; {usd(report.cost)} USD were spent."
    paid = sum((record.cost for record in report.records), report.earlier.cost)
    text = f"{answers:,} answer{'' if answers == 1 else 's'} for {usd(paid)} USD"
    references = {plain(record.reference) for record in report.records}
    name = references.pop() if len(references) == 1 else "the reference"
    alone = report.reference_only_cost
    if alone is None:
        return f"{text}; what {name} alone would have cost is not known."
    if alone == 0:
        return f"{text}; {name} alone would have cost nothing."
    known = ", where that is known" if report.not_compared else ""
    if report.saved < -ROUNDING * alone:
        more = usd(-report.saved)
        return f"Nothing saved: {text}, about {more} USD more than {name} alone{known}."
    share = at_least(max(0.0, report.saved / alone))
    if not (report.earlier.valid or any(record.valid for record in report.records)):
        text += ", of which nothing is promised"
    return f"Saved about {share} against {name} alone{known}: {text}."


def headlines(
    report: Report, broken: Container[str] = frozenset()
) -> tuple[Headline, ...]:
    """Return the figures to show first; see `promises` for `broken`."""
    alone, saved, note = "not known", "not known", "the reference was never paid"
    if (cost := report.reference_only_cost) is not None:
        alone, saved = f"{usd(cost)} USD", f"{usd(report.saved)} USD"
        share = f"; {at_least(report.saved / cost)} of that" if cost else ""
        note = f"estimated{share}"
    paid = "by all models and judges"
    if report.estimated:
        paid += f"; {usd(report.estimated)} USD of it estimated"
    if report.unknown:
        paid += f"; {usd(report.unknown)} USD of it unknown, at most"
    batches, streams = report.batches, len(report.streams)
    work = (
        f"in {batches:,} batch{'' if batches == 1 else 'es'} "
        f"and {streams:,} stream{'' if streams == 1 else 's'}"
    )
    records = report.records
    valid = [record for record in records if holds(record, broken)]
    earlier = report.earlier
    hold, total = len(valid) + earlier.valid, len(records) + earlier.batches
    counted = f"{hold:,} of {total:,} valid" if total else "none yet"
    uncertified = sum((r.uncertified for r in records), earlier.uncertified)
    left_out = f"; {uncertified:,} items are not certified" if uncertified else ""
    return (
        Headline("Paid", f"{usd(report.cost)} USD", paid),
        Headline("The reference alone", alone, "estimated"),
        Headline("Saved", saved, note),
        Headline("Answers", f"{sum(report.served.values()):,}", work),
        Headline("Guarantee", counted, promised(valid) + left_out),
    )
