"""What a report says is promised, batch by batch and stream by stream."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, NamedTuple

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.slice_counts import SliceCount
from smart_engine.report.words import exact_percent, name_of, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = ["Promise", "holds", "promised", "promises"]


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


_BROKEN = "The claim does not follow from the record."


def promises(
    report: Report, broken: Container[str] = frozenset()
) -> tuple[Promise, ...]:
    """Return what is claimed, batch by batch and stream by stream.

    `broken` holds the ids of certificates whose claim was recomputed and fails.
    """
    found = []
    for record in report.records:
        valid = holds(record, broken)
        claim = plain(record.claim) if valid or not record.valid else _BROKEN
        found.append(Promise(name_of(record), claim, valid))
    return tuple(found)


def holds(record: Certificate | StreamState, broken: Container[str]) -> bool:
    """Whether a claim holds in the worst case, and follows from its record."""
    followed = not isinstance(record, Certificate) or record.id not in broken
    return record.valid and followed


def promised(valid: Sequence[Certificate | StreamState]) -> str:
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
