"""What the promises rest on: what was compared, in tables and in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smart_engine.amounts import usd
from smart_engine.batch.certificate import Certificate
from smart_engine.report.costs import saving
from smart_engine.report.parts import labels, slices
from smart_engine.report.words import NONE, Grid, grid, name_of, percent, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["comparisons", "evidence_tables", "policies", "self_agreement"]


def policies(report: Report) -> str:
    """Return which policies served, and in how many batches and streams each."""
    batches = Counter(map(_policy, report.certificates))
    streams = Counter(stream.policy for stream in report.streams)
    return "; ".join(
        f"{plain(policy)} ({', '.join(_counts(batches[policy], streams[policy]))})"
        for policy in dict.fromkeys((*batches, *streams))
    )


def comparisons(report: Report) -> Iterator[str]:
    """Yield how often candidates differed where they were compared.

    A candidate's share is of the items drawn from all. Those drawn later, from the part
    that a policy may serve, are not like the others.
    """
    draws: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for each in (e for record in report.certificates for e in record.evidence):
        draws[each.model] += each.draws
        errors[each.model] += each.errors
    for model, count in draws.items():
        if count:
            differed = f"{errors[model]:,} of {count:,} items drawn from all"
            yield f"{plain(model)} differed on {differed}"
    within = sum(_drawn_within(record) for record in report.certificates)
    if within and draws:
        yield f"{within:,} more were drawn from the parts that policies may serve"
    if audits := sum(stream.audits for stream in report.streams):
        found = sum(stream.found for stream in report.streams)
        yield f"{found:,} of {audits:,} audits in streams detected an error"


def _drawn_within(record: Certificate) -> int:
    """Return how many items were drawn from a part of a batch, to audit a policy."""
    whole = max((each.draws for each in record.evidence), default=0)
    if record.promise is not None or not record.tests:
        return 0
    return max(0, record.profiled - whole)


def _policy(record: Certificate) -> str:
    """Return by which policy a batch was served."""
    proven = [test.policy for test in record.tests if test.ended is not None]
    served = [name for name, count in record.served.items() if count]
    return " and ".join(dict.fromkeys(proven or served))


def _counts(batches: int, streams: int) -> Iterator[str]:
    if batches:
        yield f"{batches:,} batch{'' if batches == 1 else 'es'}"
    if streams:
        yield f"{streams:,} stream{'' if streams == 1 else 's'}"


def evidence_tables(report: Report) -> tuple[Grid, ...]:
    """Return the tables of what the promises rest on, empty ones too."""
    return (
        _audits(report),
        _tasks(report),
        _candidates(report),
        slices(report),
        *labels(report),
        self_agreement(report),
        _streams(report),
        _shadows(report),
    )


def _audits(report: Report) -> Grid:
    rows = [
        (
            *(name_of(c), test.policy),
            "not proven" if test.ended is None else "proven",
            *(test.items, test.max_errors, test.draws, len(test.errors)),
            NONE if test.ended is None else test.ended,
        )
        for c in report.certificates
        for test in c.tests
    ]
    return grid(
        "Audits: draws, and the errors they detected",
        ("what", "policy", "outcome"),
        ("items", "allowance", "draws", "errors", "proven after"),
        rows,
    )


def _tasks(report: Report) -> Grid:
    rows = [
        (
            *(name_of(c), p.jobs, p.answers, p.allowed, p.possible),
            *(p.audits, p.found, p.corrected),
        )
        for c in report.certificates
        if (p := c.promise) is not None
    ]
    return grid(
        "One promise over the jobs of a task, after each of them",
        ("what",),
        (
            *("jobs", "answers", "allowance", "bound"),
            *("audits", "detected errors", "corrected later"),
        ),
        rows,
    )


def _candidates(report: Report) -> Grid:
    rows = [
        (
            *(name_of(c), e.model, e.verdict, e.draws, e.errors),
            percent(e.errors / e.draws) if e.draws else NONE,
            usd(1000 * e.mean_cost),
        )
        for c in report.certificates
        for e in c.evidence
    ]
    return grid(
        "Candidates compared with the reference, on drawn items",
        ("what", "candidate", "verdict"),
        ("draws", "differ", "share", "USD per 1,000"),
        rows,
    )


def self_agreement(report: Report) -> Grid:
    """Return how often the reference differs from itself, where that was measured."""
    rows = [
        (
            *(n.task, n.reference, n.items, n.disagreements, percent(n.rate)),
            " to ".join(percent(end) for end in n.interval),
            *(percent(n.confidence), usd(n.cost)),
        )
        for n in report.noise
    ]
    return grid(
        "How often the reference differs from itself",
        ("task", "reference"),
        ("items", "differ", "share", "interval", "confidence", "USD"),
        rows,
    )


def _streams(report: Report) -> Grid:
    rows = [
        (
            *(name_of(s), s.policy, s.answered, s.allowed, s.possible_misses),
            *(s.audits, s.found, percent(s.audit_rate)),
        )
        for s in report.streams
    ]
    return grid(
        "Streams: allowed errors, and the upper bound of undetected errors",
        ("what", "served by"),
        ("answers", "allowance", "bound", "audits", "detected errors", "audit rate"),
        rows,
    )


def _shadows(report: Report) -> Grid:
    return grid(
        "Shadow mode: what would have been saved (estimated)",
        ("what", "would be served by"),
        ("items", "would be paid", "reference alone", "saved", "share"),
        [(name_of(s), s.policy, s.answered, *saving(s)) for s in report.shadows],
    )
