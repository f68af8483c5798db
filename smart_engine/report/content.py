"""What a report says, in whatever form: headline figures, promises, notes, tables.

The forms lay this out and escape it; they compute no figure of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from smart_engine.amounts import usd
from smart_engine.batch.certificate import Certificate
from smart_engine.batch.slice_counts import SliceCount
from smart_engine.money.spending import Spend
from smart_engine.report.parts import labels, slices, vanishing
from smart_engine.report.words import (
    NONE,
    Grid,
    Row,
    at_least,
    exact_percent,
    grid,
    name_of,
    percent,
    plain,
)

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = [
    "Headline",
    "Promise",
    "comparisons",
    "cost_tables",
    "evidence_tables",
    "failures",
    "headlines",
    "models",
    "notes",
    "policies",
    "promises",
    "self_agreement",
    "summary",
    "tables",
    "untried",
]

_ROUNDING = 1e-9
"""Differences below this share of an amount are rounding errors."""

_BROKEN = "The claim does not follow from the record."


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


class Promise(NamedTuple):
    """What is claimed for a batch or a stream.

    Attributes:
        name: The batch or stream.
        claim: The claim, in one sentence.
        valid: Whether it holds in the worst case.
    """

    name: str
    claim: str
    valid: bool


# -- the headline ----------------------------------------------------------------------


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
    text = f"{answers:,} answers for {usd(paid)} USD"
    references = {plain(record.reference) for record in report.records}
    name = references.pop() if len(references) == 1 else "the reference"
    alone = report.reference_only_cost
    if alone is None:
        return f"{text}; what {name} alone would have cost is not known."
    if alone == 0:
        return f"{text}; {name} alone would have cost nothing."
    known = ", where that is known" if report.not_compared else ""
    if report.saved < -_ROUNDING * alone:
        more = usd(-report.saved)
        return f"Nothing saved: {text}, about {more} USD more than {name} alone{known}."
    share = at_least(max(0.0, report.saved / alone))
    if not (report.earlier.valid or any(record.valid for record in report.records)):
        text += ", of which nothing is promised"
    return f"Saved about {share} against {name} alone{known}: {text}."


def policies(report: Report) -> str:
    """Return which policies served, and in how many batches and streams each."""
    batches = Counter(map(_policy, report.certificates))
    streams = Counter(stream.policy for stream in report.streams)
    return "; ".join(
        f"{plain(policy)} ({', '.join(_counts(batches[policy], streams[policy]))})"
        for policy in dict.fromkeys((*batches, *streams))
    )


def comparisons(report: Report) -> Iterator[str]:
    """Yield how often candidates differed where they were compared."""
    draws: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for each in (e for record in report.certificates for e in record.evidence):
        draws[each.model] += each.draws
        errors[each.model] += each.errors
    for model, count in draws.items():
        if count:
            differed = f"{errors[model]:,} of {count:,} items drawn"
            yield f"{plain(model)} differed on {differed}"
    if audits := sum(stream.audits for stream in report.streams):
        found = sum(stream.found for stream in report.streams)
        yield f"{found:,} of {audits:,} audits in streams detected an error"


def untried(report: Report) -> Iterator[str]:
    """Yield why nothing may have been saved, if no candidate was asked."""
    candidates = report.served.keys() - {r.reference for r in report.records}
    asked = any(report.spend[name].calls for name in candidates if name in report.spend)
    if report.records and not asked:
        yield (
            "No candidate was asked: with so few items, or at these prices, trying "
            "them may cost more than it saves (min_saving)."
        )


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
    valid = [record for record in records if _holds(record, broken)]
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
        Headline("Guarantee", counted, _promised(valid) + left_out),
    )


def _holds(record: Certificate | StreamState, broken: Container[str]) -> bool:
    """Whether a claim holds in the worst case, and follows from its record."""
    followed = not isinstance(record, Certificate) or record.id not in broken
    return record.valid and followed


def _promised(valid: Sequence[Certificate | StreamState]) -> str:
    """Return the guarantee in plain words, if all valid records share it."""
    held = {
        (
            *(r.max_disagreement, r.confidence, plain(r.reference), _of_labels(r)),
            bool(_slices_of(r)),
        )
        for r in valid
    }
    if not held:
        return "nothing is promised"
    if len(held) > 1:
        return "promises differ"
    ((share, confidence, reference, parts, sliced),) = held
    if share is not None:
        most = exact_percent(share)
        where = " in each slice" if sliced else ""
        differ = f"at most {most} of the answers{where} differ from {reference}'s"
        parts = (differ, *parts)
    return f"{', '.join(parts)}, with {exact_percent(confidence)} confidence"


def _of_labels(record: Certificate | StreamState) -> tuple[str, ...]:
    """Return what is promised of single labels, in plain words."""
    if not isinstance(record, Certificate):
        return ()
    return tuple(
        f"{each.of} of {plain(each.label)!r} at least {exact_percent(each.share)}"
        for each in record.promised
        if each.label is not None and each.share is not None
    )


def _slices_of(record: Certificate | StreamState) -> Sequence[SliceCount]:
    """Return the slices of which the share is promised."""
    return record.slices if isinstance(record, Certificate) else ()


def notes(report: Report) -> tuple[str, ...]:
    """Return what a reader must know to understand the amounts and the promises."""
    tiny = _ROUNDING * report.cost
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


def promises(
    report: Report, broken: Container[str] = frozenset()
) -> tuple[Promise, ...]:
    """Return what is claimed, batch by batch and stream by stream.

    `broken` holds the ids of certificates whose claim was recomputed and fails.
    """
    found = []
    for record in report.records:
        valid = _holds(record, broken)
        claim = plain(record.claim) if valid or not record.valid else _BROKEN
        found.append(Promise(name_of(record), claim, valid))
    return tuple(found)


# -- tables ----------------------------------------------------------------------------


def tables(report: Report) -> tuple[Grid, ...]:
    """Return every table that has a row, in reading order."""
    every = (*cost_tables(report), *evidence_tables(report), failures(report))
    return tuple(grid for grid in every if grid.rows)


def cost_tables(report: Report) -> tuple[Grid, ...]:
    """Return the tables of answers and costs, empty ones too."""
    return models(report), _inside(report), _savings(report)


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


def models(report: Report) -> Grid:
    """Return calls, answers and cost by model."""
    estimated = ("estimated",) if report.estimated else ()

    def row(name: str, answers: int | str, spend: Spend) -> Row:
        return (
            *(name, answers, spend.calls, spend.failures),
            *(spend.input_tokens, spend.output_tokens, usd(spend.cost)),
            *(usd(spend.estimated) for _ in estimated),
            percent(spend.cost / report.cost) if report.cost else NONE,
        )

    served = report.served
    rows = [row(n, served.get(n, NONE), spend) for n, spend in report.spend.items()]
    total = row("all", sum(served.values()), sum(report.spend.values(), Spend()))
    calls = ("answers", "calls", "failed", "tokens in", "tokens out")
    return grid(
        "Who answered, and what it cost",
        ("model",),
        (*calls, "USD", *estimated, "of cost"),
        rows,
        total if len(rows) > 1 else (),
    )


def _inside(report: Report) -> Grid:
    return grid(
        "Models inside the chains (counted above, chain by chain)",
        ("model",),
        ("calls", "failed", "USD"),
        [(n, s.calls, s.failures, usd(s.cost)) for n, s in report.inside.items()],
    )


def _savings(report: Report) -> Grid:
    rows: list[Row] = [
        (name_of(c), c.strategy, c.items, *_saving(c)) for c in report.certificates
    ]
    rows += [(name_of(s), "stream", s.answered, *_saving(s)) for s in report.streams]
    return grid(
        "What was saved (estimated)",
        ("what", "strategy"),
        ("items", "paid, USD", "reference alone", "saved", "share"),
        rows,
    )


def _shadows(report: Report) -> Grid:
    return grid(
        "Shadow mode: what would have been saved (estimated)",
        ("what", "would be served by"),
        ("items", "would be paid", "reference alone", "saved", "share"),
        [(name_of(s), s.policy, s.answered, *_saving(s)) for s in report.shadows],
    )


def _saving(record: Certificate | StreamState) -> tuple[str, ...]:
    """Return the cells: paid, reference alone, saved, share saved."""
    cost, alone = record.cost, record.reference_only_cost
    if alone is None:
        return usd(cost), *(NONE,) * 3
    share = at_least(1 - cost / alone) if alone else NONE
    return usd(cost), usd(alone), usd(alone - cost), share


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


def failures(report: Report) -> Grid:
    """Return the batches and streams in which something went wrong."""
    rows: list[Row] = [(name_of(r), *_troubles(r)) for r in report.records]
    return grid(
        "Failed calls, escalations, and items that are not certified",
        ("what",),
        ("failed calls", "escalated", "unanswered", "not certified", "abandoned"),
        [row for row in rows if any(row[1:])],
    )


def _troubles(record: Certificate | StreamState) -> tuple[int, ...]:
    failed = sum(spend.failures for spend in record.spend.values())
    if isinstance(record, Certificate):
        escalated, abandoned = record.escalated, 0
    else:
        escalated, abandoned = record.roles.get("escalated", 0), record.abandoned
    return failed, escalated, record.unanswered, record.uncertified, abandoned
