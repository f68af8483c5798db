"""What a report says, whatever its form: headline figures, promises, tables.

Forms lay this out and escape it; none of them counts anything by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, NamedTuple

from smart_engine.batch.certificate import Certificate
from smart_engine.money.spending import Spend

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = [
    "Grid",
    "Headline",
    "Promise",
    "at_least",
    "evidence",
    "failures",
    "headlines",
    "inside",
    "models",
    "money",
    "name_of",
    "noise",
    "notes",
    "percent",
    "plain",
    "promises",
    "savings",
    "shadows",
    "streams",
    "summary",
    "tables",
]

_ROUNDING = 1e-9
"""Share of an amount below which a difference is one of rounding."""

_NONE = "–"
"""Stands where there is no figure."""


_BROKEN = "The claim does not follow from the record."


class Headline(NamedTuple):
    """One figure that the eye falls on first.

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
        valid: Whether it is kept at the worst case.
    """

    name: str
    claim: str
    valid: bool


class Grid(NamedTuple):
    """A table.

    Attributes:
        caption: What it shows.
        words: Headings of the first columns, which hold words.
        numbers: Headings of the other columns, which hold numbers.
        rows: Cells, row by row.
        total: The last row, where there is one.
    """

    caption: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...] = ()


# -- words and numbers -----------------------------------------------------------------


def plain(text: str) -> str:
    r"""Return a text on one line, with nothing in it that steers a terminal or a page.

    Example:
        ```python
        assert plain("a\n b\x1b[31m") == "a b�[31m"
        ```
    """
    line = " ".join(text.split())
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line
    )


def percent(share: float) -> str:
    """Return a share in percent, to three digits.

    Example:
        ```python
        assert (percent(0.05), percent(0.00021)) == ("5 %", "0.021 %")
        ```
    """
    return f"{100 * share:.3g} %"


def at_least(share: float) -> str:
    """Return a share in percent, rounded down, so that no saving is overstated.

    Example:
        ```python
        assert (at_least(0.29), at_least(0.99999)) == ("29 %", "99.9 %")
        ```
    """
    # In floats 0.29 * 1000 lies just below 290.
    tenths = math.floor(round(share * 1000, 9)) / 10
    return f"{tenths:g} %".replace("-", "−")


def money(total: float) -> Callable[[float], str]:
    """Return what writes USD, with as many digits as amounts up to `total` need.

    Example:
        ```python
        assert money(0.0421)(0.0421) == "0.042100"
        assert money(250.0)(1234.5) == "1,234.50"
        assert money(250.0)(0.00001) == "< 0.01"
        ```
    """
    digits = 2 if total >= 100 else 4 if total >= 0.1 else 6

    def write(amount: float) -> str:
        if 0 < amount < 0.5 * 10**-digits:
            return f"< {10**-digits:.{digits}f}"
        rounded = round(amount, digits) + 0.0  # 0.0 takes the sign from zero
        return f"{rounded:,.{digits}f}".replace("-", "−")

    return write


def name_of(record: Certificate | StreamState) -> str:
    """Return how a batch or a stream is called in all tables."""
    batch = record.id[:8] if isinstance(record, Certificate) else ""
    if task := plain(record.task or ""):
        return f"{task} ({batch or 'stream'})"
    return f"batch {batch}" if batch else "stream"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _money_of(report: Report) -> Callable[[float], str]:
    """Return what writes the amounts of a report."""
    return money(max(report.cost, report.reference_only_cost or 0.0))


# -- the headline ----------------------------------------------------------------------


def summary(report: Report) -> str:
    """Return the whole report in one sentence: what the answers cost, no more."""
    usd = _money_of(report)
    answers = sum(report.served.values())
    if not answers:
        return f"Nothing has been answered yet; {usd(report.cost)} USD were spent."
    paid = sum(record.cost for record in report.records)
    text = f"{answers:,} answers for {usd(paid)} USD"
    alone = report.reference_only_cost
    if alone is None:
        return f"{text}; what the reference alone would have cost is not known."
    if alone == 0:
        return f"{text}; the reference alone would have cost nothing."
    known = ", where that is known" if report.compared != report.records else ""
    if report.saved < -_ROUNDING * alone:
        more = usd(-report.saved)
        return f"{text}: about {more} USD more than the reference alone{known}."
    share = at_least(max(0.0, report.saved / alone))
    return f"{text}: about {share} less than the reference alone would cost{known}."


def headlines(
    report: Report, broken: Container[str] = frozenset()
) -> tuple[Headline, ...]:
    """Return the figures to show first; see `promises`."""
    usd = _money_of(report)
    alone = report.reference_only_cost
    answers = sum(report.served.values())
    records = report.records
    valid = [record for record in records if _holds(record, broken)]
    batches, streams = len(report.certificates), len(report.streams)
    work = [_plural(batches, "batch"), _plural(streams, "stream")]
    known = alone is not None
    share = f"; {at_least(report.saved / alone)} of that" if alone else ""
    note = f"estimated{share}" if known else "the reference was never paid"
    paid = "by all models and judges"
    if report.estimated:
        paid += f"; {usd(report.estimated)} USD of it estimated"
    return (
        Headline("Paid", f"{usd(report.cost)} USD", paid),
        Headline("The reference alone", _known(alone, usd), "estimated"),
        Headline("Saved", _known(report.saved if known else None, usd), note),
        Headline("Answers", _count(answers), f"in {' and '.join(work)}"),
        Headline(
            "Guarantee",
            f"{len(valid):,} of {len(records):,} valid" if records else "none yet",
            _promised(valid),
        ),
    )


def _known(amount: float | None, usd: Callable[[float], str]) -> str:
    return "not known" if amount is None else f"{usd(amount)} USD"


def _plural(count: int, word: str) -> str:
    ending = "es" if word.endswith("ch") else "s"
    return f"{count:,} {word}{'' if count == 1 else ending}"


def _holds(record: Certificate | StreamState, broken: Container[str]) -> bool:
    """Whether a claim is kept at the worst case, and follows from its record."""
    followed = not isinstance(record, Certificate) or record.id not in broken
    return record.valid and followed


def _promised(valid: Sequence[Certificate | StreamState]) -> str:
    """Say in plain words what holds, where it is the same everywhere."""
    held = {
        (record.max_disagreement, record.confidence, plain(record.reference))
        for record in valid
    }
    if not held:
        return "nothing is promised"
    if len(held) > 1:
        return "promises differ"
    ((share, confidence, reference),) = held
    return (
        f"at most {_share(share)} of the answers differ from {reference}'s, "
        f"with {_share(confidence)} confidence"
    )


def _share(share: float) -> str:
    """Return a share as it was promised, in percent, nothing rounded away."""
    return f"{100 * share:.6g} %"


def notes(report: Report) -> tuple[str, ...]:
    """Return what must be known to read the money rightly."""
    usd = _money_of(report)
    tiny = _ROUNDING * report.cost
    found = []
    if report.estimated:
        found.append(
            f"{usd(report.estimated)} USD of what was paid is estimated from the "
            "texts, for models reported no usage; hidden reasoning is not in it."
        )
    if report.restored > tiny:
        found.append(
            f"{usd(report.restored)} USD of what was paid was paid in earlier runs, "
            "for answers that a store kept."
        )
    rules = sum(s.cost for name, s in report.spend.items() if name not in report.served)
    if rules > tiny:
        found.append(
            f"{usd(rules)} USD of what was paid compared answers, as judges do."
        )
    compared = report.compared_cost
    if report.cost - compared > tiny:
        found.append(
            f"{usd(report.cost - compared)} USD was paid outside the savings shown: "
            "for shadows, for models asked by name, and for work that has not ended, "
            "was cut short or has nothing to be compared with."
        )
    elif compared - report.cost > tiny:
        found.append(
            f"The batches and streams below cost {usd(compared)} USD; what this report "
            "does not count as paid was paid by other processes that share them."
        )
    unknown = len(report.records) - len(report.compared)
    if unknown:
        found.append(
            f"In {unknown:,} of the batches and streams the reference was never paid: "
            "their savings are not known and not counted."
        )
    return tuple(found)


def promises(
    report: Report, broken: Container[str] = frozenset()
) -> tuple[Promise, ...]:
    """Return what is claimed, batch by batch and stream by stream.

    Args:
        report: The report.
        broken: Ids of certificates whose claim was found not to follow.
    """
    found = []
    for record in report.records:
        valid = _holds(record, broken)
        claim = plain(record.claim) if valid or not record.valid else _BROKEN
        found.append(Promise(name_of(record), claim, valid))
    return tuple(found)


# -- tables ----------------------------------------------------------------------------


def tables(report: Report) -> tuple[Grid, ...]:
    """Return every table that has a row, in the order in which to read them."""
    every = (
        models(report),
        inside(report),
        savings(report),
        *evidence(report),
        noise(report),
        streams(report),
        shadows(report),
        failures(report),
    )
    return tuple(grid for grid in every if grid.rows)


def models(report: Report) -> Grid:
    """Who was asked, who answered, what it cost."""
    usd = _money_of(report)

    def cells(spend: Spend) -> tuple[str, ...]:
        share = percent(spend.cost / report.cost) if report.cost else _NONE
        return (
            _count(spend.calls),
            _count(spend.failures),
            _count(spend.input_tokens),
            _count(spend.output_tokens),
            usd(spend.cost),
            *((usd(spend.estimated),) if report.estimated else ()),
            share,
        )

    rows = [
        (
            plain(name),
            _count(report.served[name]) if name in report.served else _NONE,
            *cells(spend),
        )
        for name, spend in report.spend.items()
    ]
    total = sum(report.spend.values(), Spend())
    answers = _count(sum(report.served.values()))
    return Grid(
        "Who answered, and what it cost",
        ("model",),
        (
            "answers",
            "calls",
            "failed",
            "tokens in",
            "tokens out",
            "USD",
            *(("estimated",) if report.estimated else ()),
            "of cost",
        ),
        tuple(rows),
        ("all", answers, *cells(total)) if len(rows) > 1 else (),
    )


def inside(report: Report) -> Grid:
    """Which models were asked inside the chains."""
    usd = _money_of(report)
    return Grid(
        "Models inside the chains (counted above, chain by chain)",
        ("model",),
        ("calls", "failed", "USD"),
        tuple(
            (plain(name), _count(s.calls), _count(s.failures), usd(s.cost))
            for name, s in report.inside.items()
        ),
    )


def savings(report: Report) -> Grid:
    """What each batch and stream cost, and would have cost."""
    usd = _money_of(report)
    rows = [
        (
            name_of(c),
            plain(c.strategy),
            _count(c.items),
            *_saving(c.cost, c.reference_only_cost, usd),
        )
        for c in report.certificates
    ]
    rows += [
        (name_of(s), "stream", _count(s.answered), *_saved_by(s, usd))
        for s in report.streams
    ]
    return Grid(
        "What was saved (estimated)",
        ("what", "strategy"),
        ("items", "paid, USD", "reference alone", "saved", "share"),
        tuple(rows),
    )


def _saved_by(stream: StreamState, usd: Callable[[float], str]) -> tuple[str, ...]:
    return _saving(stream.cost, stream.reference_only_cost, usd)


def _saving(
    cost: float, alone: float | None, usd: Callable[[float], str]
) -> tuple[str, ...]:
    if alone is None:
        return usd(cost), *(_NONE,) * 3
    share = at_least(1 - cost / alone) if alone else _NONE
    return usd(cost), usd(alone), usd(alone - cost), share


def evidence(report: Report) -> tuple[Grid, Grid]:
    """What audits and profiling have shown, and what followed."""
    audits = [
        (
            name_of(c),
            plain(test.policy),
            "not proven" if test.accepted is None else "proven",
            _count(test.items),
            _count(test.max_errors),
            _count(test.draws),
            _count(len(test.errors)),
            _NONE if test.accepted is None else _count(test.accepted),
        )
        for c in report.certificates
        for test in c.tests
    ]
    seen = [
        (
            name_of(c),
            plain(e.model),
            e.verdict,
            _count(e.draws),
            _count(e.errors),
            percent(e.errors / e.draws) if e.draws else _NONE,
            f"{1000 * e.mean_cost:,.4g}",
        )
        for c in report.certificates
        for e in c.evidence
    ]
    return (
        Grid(
            "The audits: draws, and the errors they showed",
            ("what", "policy", "outcome"),
            (
                "items",
                "may stay wrong",
                "draws",
                "errors",
                "proven after",
            ),
            tuple(audits),
        ),
        Grid(
            "The candidates beside the reference, on drawn items",
            ("what", "candidate", "verdict"),
            ("draws", "differ", "share", "USD per 1,000"),
            tuple(seen),
        ),
    )


def noise(report: Report) -> Grid:
    """How often the reference differs from itself, where that was measured."""
    usd = _money_of(report)
    rows = [
        (
            plain(n.task),
            plain(n.reference),
            _count(n.items),
            _count(n.disagreements),
            percent(n.rate),
            " to ".join(percent(end) for end in n.interval),
            percent(n.confidence),
            usd(n.cost),
        )
        for n in report.noise
    ]
    return Grid(
        "How often the reference differs from itself",
        ("task", "reference"),
        ("items", "differ", "share", "interval", "confidence", "USD"),
        tuple(rows),
    )


def streams(report: Report) -> Grid:
    """Where each stream stands."""
    rows = [
        (
            name_of(s),
            plain(s.policy),
            _count(s.answered),
            _count(s.allowed),
            _count(s.possible_misses),
            _count(s.audits),
            _count(s.found),
            percent(s.audit_rate),
        )
        for s in report.streams
    ]
    return Grid(
        "Streams: what may differ, and what can differ at most",
        ("what", "served by"),
        ("answers", "may differ", "at most", "audits", "errors found", "audit rate"),
        tuple(rows),
    )


def shadows(report: Report) -> Grid:
    """What streams would have saved that were only tried."""
    usd = _money_of(report)
    return Grid(
        "In shadow: what would have been saved (estimated)",
        ("what", "would be served by"),
        ("items", "would be paid", "reference alone", "saved", "share"),
        tuple(
            (
                name_of(s),
                plain(s.policy),
                _count(s.answered),
                *_saved_by(s, usd),
            )
            for s in report.shadows
        ),
    )


def failures(report: Report) -> Grid:
    """What did not go as planned; only those to whom something happened."""
    rows = [
        _happened(
            c,
            sum(spend.failures for spend in c.spend.values()),
            c.escalated,
            c.unanswered,
            c.uncertified,
            0,
        )
        for c in report.certificates
    ]
    rows += [
        _happened(
            s,
            sum(spend.failures for spend in s.spend.values()),
            s.roles.get("escalated", 0),
            s.unanswered,
            s.roles.get("uncertified", 0),
            s.abandoned,
        )
        for s in report.streams
    ]
    return Grid(
        "Failed calls, escalations, and items that are not certified",
        ("what",),
        (
            "failed calls",
            "escalated",
            "unanswered",
            "not certified",
            "abandoned",
        ),
        tuple(row for row in rows if set(row[1:]) != {"0"}),
    )


def _happened(record: Certificate | StreamState, *counts: int) -> tuple[str, ...]:
    return (name_of(record), *map(_count, counts))
