"""Checks what a certificate says of labels and slices, for `verification`."""

from __future__ import annotations

from typing import NamedTuple

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.label_draws import Confusion
from smart_engine.batch.slice_counts import SliceCount
from smart_engine.guarantee import Guarantee
from smart_engine.labels.promise import LabelTest, Promised

__all__ = [
    "MOST",
    "Check",
    "check_compared",
    "check_label_counts",
    "check_labels",
    "check_slices",
]

MOST = 10**9
"""Items beyond which no audit is recomputed."""


class Check(NamedTuple):
    """One statement that has to hold.

    Attributes:
        holds: Whether it does.
        statement: What was checked, with its figures.
    """

    holds: bool
    statement: str


def check_slices(certificate: Certificate, guarantee: Guarantee) -> Check:
    """Check that the slices are all of the batch, and each once."""
    slices, count = certificate.slices, len(certificate.slices)
    names = {each.name for each in slices}
    served = {
        model: sum(each.served.get(model, 0) for each in slices)
        for model in certificate.served
    }
    allowed = sum(guarantee.max_errors(each.answered) for each in slices)
    return Check(
        len(names) == count
        and all(test.in_slice in names for test in certificate.tests)
        and all(sum(each.served.values()) == each.answered for each in slices)
        and sum(each.items for each in slices) == certificate.items
        and sum(each.unanswered for each in slices) == certificate.unanswered
        and sum(each.profiled for each in slices) == certificate.profiled
        and served == certificate.served
        and allowed == certificate.max_errors,
        f"{count} slices are all {certificate.items} items, and B = {allowed} is how "
        "many of their answers may differ",
    )


def check_compared(compared: Confusion, certificate: Certificate) -> Check:
    """Check that draws which say something about labels are those of an audit."""
    counts = [count for *_, count in compared.cells]
    differing = sum(count for said, true, count in compared.cells if said != true)
    audits = [
        test
        for test in certificate.tests
        if test.accepted is not None
        and (test.in_slice, test.items) == (compared.in_slice, compared.items)
        and (test.draws, test.level) == (compared.draws, compared.level)
        and differing <= len(test.errors)
    ]
    return Check(
        sum(counts) == compared.draws
        and min(counts, default=0) >= 0
        and bool(audits) == (compared.level > 0),
        f"{compared.draws} items are compared label by label, of {compared.items}"
        + (" from which an audit drew them" if compared.level else ""),
    )


def check_label_counts(certificate: Certificate) -> Check:
    """Check that no more answers have a label than there are, wherever it is said."""
    by_reference = certificate.served.get(certificate.reference, 0)
    counts = {each.label: (each.answers, each.unseen) for each in certificate.labels}
    promised = {
        each.label or "": (each.answers, each.unseen)
        for each in certificate.promised
        if each.of == "precision"
    }
    every = (counts | promised).values()
    answers, unseen = (sum(each[place] for each in every) for place in (0, 1))
    return Check(
        len(counts) == len(certificate.labels)
        and all(counts.get(label, of) == of for label, of in promised.items())
        and all(0 <= hidden <= count for count, hidden in every)
        and answers - unseen <= by_reference
        and unseen <= certificate.answered - by_reference,
        f"of {certificate.answered} answers {answers} have one of {len(every)} labels, "
        f"and {unseen} of these were not compared with {certificate.reference}'s",
    )


def check_labels(certificate: Certificate, guarantee: Guarantee) -> list[Check]:
    """Check the promises about labels, and the agreement beside them."""
    alpha, allowed = guarantee.alpha, guarantee.max_errors(certificate.answered)
    unseen = certificate.answered - certificate.served.get(certificate.reference, 0)
    first = sum(each.level for each in certificate.promised if each.of == "precision")
    levels = sum(each.level for each in certificate.promised if not each.passed_on)
    passed_on = [each for each in certificate.promised if each.passed_on]
    kinds = [(each.of, each.label, each.in_slice) for each in certificate.promised]
    false = {
        each.label: each.undetected
        for each in certificate.promised
        if each.of == "precision"
    }
    checks = [
        Check(
            len(set(kinds)) == len(kinds)
            and all(each in kinds for each in _audited(guarantee, certificate)),
            f"{len(kinds)} bounds are recorded: one of each kind that is needed",
        ),
        Check(
            max(first, levels) <= alpha * (1 + 1e-9)
            and all(map(_may_pass_on, passed_on)),
            f"their levels sum to {levels:.6g}, at most α = {alpha:.6g}"
            + (
                f", {len(passed_on)} not counted: passed on, for no error was detected"
                if passed_on
                else ""
            ),
        ),
    ]
    if not checks[0].holds:
        return checks
    if certificate.slices:
        checks.append(check_slices(certificate, guarantee))
    elif certificate.max_disagreement is not None:
        several = f"B = {allowed} of {certificate.answered} answers may differ"
        checks.append(Check(certificate.max_errors == allowed, several))
    for each in certificate.promised:
        name = _named(each)
        counted = _counted(each, certificate)
        checks += [
            Check(
                counted and 0 <= each.unseen <= unseen and each.answers >= 0,
                f"{name}: {each.unseen} answers in which it may fail were not compared "
                f"with {certificate.reference}'s",
            ),
            Check(
                each.test is None or _follows(each.test, each, certificate.items),
                f"{name}: its test at level {each.level:.6g} accepts"
                if each.test
                else f"{name}: it has no test, and needs none",
            ),
            Check(
                each.undetected == _bound(each),
                f"{name}: at most {each.undetected} of them do fail"
                + (
                    f", {each.test.undetected} and {each.test.detected} detected by "
                    f"then, less {each.found} found"
                    if each.test
                    else ""
                ),
            ),
            Check(
                each.excess(false.get(each.label, 0)) <= 0,
                f"{name}: with {each.answers} answers, that keeps "
                + ("a bound" if each.share is None else f"a share of {each.share:.4g}"),
            ),
        ]
    return checks


def _named(promised: Promised) -> str:
    """Return what was promised, in words."""
    if promised.label is not None:
        return f"{promised.of} of {promised.label!r}"
    if promised.in_slice is not None:
        return f"{promised.of} in {promised.in_slice!r}"
    return promised.of


def _audited(
    guarantee: Guarantee, certificate: Certificate
) -> list[tuple[str, str | None, str | None]]:
    """Return what needs a bound under a guarantee: kind, label and slice of each."""
    needed: list[tuple[str, str | None, str | None]] = []
    needed += [("precision", name, None) for name in guarantee.labels]
    needed += [("recall", name, None) for name in guarantee.recall]
    if guarantee.max_disagreement is None:
        return needed
    if not certificate.slices:
        return [*needed, ("agreement", None, None)]
    return [*needed, *(("agreement", None, each.name) for each in certificate.slices)]


def _counted(promised: Promised, certificate: Certificate) -> bool:
    """Whether answers and those not compared are as many as the certificate says."""
    if promised.of == "agreement":
        of: Certificate | SliceCount = certificate
        for each in certificate.slices:
            of = each if each.name == promised.in_slice else of
        unseen = of.answered - of.served.get(certificate.reference, 0)
        return (
            promised.answers == of.answered
            and promised.unseen == unseen
            and promised.found <= of.items - unseen
            and promised.share == certificate.max_disagreement
        )
    false = next(
        each
        for each in certificate.promised
        if (each.of, each.label) == ("precision", promised.label)
    )
    by_reference = certificate.served.get(certificate.reference, 0)
    unseen, compared = certificate.answered - by_reference, false.answers - false.unseen
    seen = by_reference - compared  # of these, errors of a kind were found
    if promised.of == "recall":
        unseen, seen = unseen - false.unseen, compared
    return (
        promised.answers == false.answers
        and 0 <= promised.found <= seen + certificate.unanswered
        and (promised is false or promised.unseen == unseen)
    )


def _may_pass_on(promised: Promised) -> bool:
    """Whether an audit was of the first stage, and detected no error."""
    test = promised.test
    return promised.of == "precision" and test is not None and not test.errors


def _follows(test: LabelTest, promised: Promised, items: int) -> bool:
    """Whether a test accepts, by the draws that are recorded."""
    numbers = list(test.errors)
    possible = (
        0 <= test.draws <= test.items <= items
        and 0 <= test.max_errors <= MOST
        and 0 <= test.gain <= MOST
        and 0 <= test.foreseen <= MOST
        and 0 <= test.surplus <= MOST
        and 0 < promised.level < 1
        and 0 <= test.expected_errors <= MOST
        and numbers == sorted(set(numbers))
        and all(1 <= number <= test.draws for number in numbers)
    )
    if not possible:
        return False
    replayed = test.replay(promised.level)
    return replayed.accepted == test.accepted


def _bound(promised: Promised) -> int:
    """Return the bound on errors left that follows; −1 if the counts are impossible."""
    if promised.test is not None:
        last = promised.test
        counted = len(last.errors) <= promised.found <= last.items - promised.unseen
        if not counted or promised.unseen > last.items - last.draws:
            return -1
    return promised.bound
