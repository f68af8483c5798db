"""Checks a certificate: does what it claims follow from the draws it records?"""

from __future__ import annotations

import math

from smart_engine.batch.certificate import AuditTest, Certificate
from smart_engine.batch.parts_verification import (
    MOST,
    Check,
    check_compared,
    check_label_counts,
    check_labels,
    check_slices,
)
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.repair import repairs
from smart_engine.evidence.task_promise import OWN_SHARE, TaskPromise
from smart_engine.guarantee import Guarantee

__all__ = ["Check", "unseen", "verify"]

_UNSEEN = (
    "that the draws were random, and no other run was thrown away",
    "that answers were compared by the rule that is named",
    "that the models are what they are called",
    "that each model answered as it would have at any other time",
)
_UNSEEN_OF_JOBS = "that the sums over the jobs of the task are right"

_ROUNDING = 1e-6

_STEEPEST = 1.0
"""Largest slope with which the bound of `stream/bound.py` begins; slopes never rise."""


def unseen(certificate: Certificate) -> tuple[str, ...]:
    """Return what a promise rests on besides, and no record can show."""
    shared = certificate.promise is not None
    return (*_UNSEEN, *((_UNSEEN_OF_JOBS,) if shared else ()))


def verify(certificate: Certificate) -> list[Check]:
    """Recompute the claim of an audit's certificate from its recorded draws.

    Args:
        certificate: A certificate of strategy "audit".

    Returns:
        The checks; the claim follows if all of them hold.

    Raises:
        InvalidInputError: If the certificate records no audit.

    Example:
        ```python
        from smart_engine import BatchSession, Guarantee, Outcome, Tier

        session = BatchSession(
            500, [Tier("big", role="reference"), Tier("small")], Guarantee(0.05, 0.95)
        )
        while calls := session.next_calls():
            for call in calls:
                cost = 1.0 if call.tier == "big" else 0.01
                session.record(call, Outcome("yes", cost))
        assert all(check.holds for check in verify(session.certificate))
        ```
    """
    if certificate.strategy != "audit":
        hint = "only certificates of strategy 'audit' record every draw"
        raise InvalidInputError("certificate", certificate.strategy, hint)
    guarantee = _guarantee(certificate)
    possible = _possible_counts(certificate)
    checks = [
        Check(certificate.valid, "it claims that the guarantee holds"),
        Check(possible, "no count is below zero, or above what it is a part of"),
    ]
    if not possible:
        return checks
    answered, served = certificate.answered, sum(certificate.served.values())
    promise = certificate.promise
    checks += [
        Check(
            served == answered,
            f"{served} items have an answer and {certificate.unanswered} have none: "
            f"all N = {certificate.items}",
        ),
        Check(
            certificate.uncertified == 0,
            f"{certificate.uncertified} items are left out by the guarantee",
        ),
    ]
    checks += [check_compared(each, certificate) for each in certificate.compared]
    if certificate.labels or certificate.promised:
        checks.append(check_label_counts(certificate))
    if promise is not None:
        checks.append(
            Check(
                not certificate.promised and not certificate.slices,
                "a promise that jobs share is about no single label or slice",
            )
        )
        return [*checks, *_check_task(promise, certificate, guarantee)]
    if certificate.promised:
        return [*checks, *check_labels(certificate, guarantee)]
    levels = sum(test.level + test.repair_level for test in certificate.tests)
    checks.append(
        Check(
            levels <= guarantee.alpha * (1 + 1e-9),
            f"the levels of all tests ({len(certificate.tests)}) sum to {levels:.6g}, "
            f"at most α = {guarantee.alpha:.6g}",
        )
    )
    if certificate.slices:
        return [*checks, *_check_slices(certificate, guarantee)]
    return [*checks, *_check_audits(certificate, guarantee)]


_OF_ALL = {"slices": (), "compared": (), "evidence": (), "escalated": 0, "wasted": 0}
"""What a certificate counts of all slices together."""


def _check_slices(certificate: Certificate, guarantee: Guarantee) -> list[Check]:
    """Check each slice as a batch of its own; the levels sum over all of them."""
    checks = [check_slices(certificate, guarantee)]
    for each in certificate.slices:
        tests = [test for test in certificate.tests if test.in_slice == each.name]
        part = certificate.model_copy(
            update={
                **each.model_dump(exclude={"name"}),
                "tests": tests,
                "max_errors": guarantee.max_errors(each.answered),
                **_OF_ALL,
            }
        )
        if not _possible_counts(part):
            return [*checks, Check(False, f"{each.name!r}: its counts are possible")]
        checks += [
            Check(check.holds, f"{each.name!r}: {check.statement}")
            for check in _check_audits(part, guarantee)
        ]
    return checks


def _check_audits(certificate: Certificate, guarantee: Guarantee) -> list[Check]:
    """Check the audits of all answers."""
    allowed = guarantee.max_errors(certificate.answered)
    checks = [
        Check(
            certificate.max_errors == allowed,
            f"B = {allowed}: that is how many of {certificate.answered} answers may "
            "differ",
        ),
        _check_draws(certificate),
    ]
    for test in certificate.tests:
        checks += _check(test, certificate, guarantee)
    return [*checks, _check_served(certificate)]


def _check_task(
    promise: TaskPromise, certificate: Certificate, guarantee: Guarantee
) -> list[Check]:
    """Check a promise over all jobs of a task."""
    allowed = guarantee.max_errors(promise.answers)
    alpha = (1 - OWN_SHARE) * guarantee.alpha
    reached = promise.log_mixture(promise.undetected + 1) + math.log(alpha)
    start = sum(map(math.exp, promise.log_wealth))
    hidden = promise.unseen
    if promise.hidden is not None:
        hidden = min(hidden, promise.hidden)
    possible = min(promise.undetected - promise.corrected, promise.before + hidden)
    by_reference = certificate.served.get(certificate.reference, 0)
    served = certificate.answered - by_reference
    return [
        Check(
            promise.allowed == certificate.max_errors == allowed
            and promise.answers >= certificate.answered,
            f"B = {allowed}: so many of all {promise.answers} answers may differ, "
            f"jobs: {promise.jobs}",
        ),
        Check(
            start <= 1 + _ROUNDING and reached >= -_ROUNDING,
            f"more than {promise.undetected} undetected errors are excluded at level "
            f"{alpha:.6g}, by {promise.audits} audits of which {promise.found} showed "
            f"an error and {promise.unresolved} are counted as if they had",
        ),
        Check(
            promise.found + promise.unresolved <= promise.audits,
            "no more audits have an outcome, or none, than there were",
        ),
        Check(
            promise.unseen + promise.again == served,
            f"{served} answers of this job were not compared with "
            f"{certificate.reference}, of which {promise.again} had been handed out "
            "before",
        ),
        Check(
            promise.possible == max(0, possible),
            f"at most {promise.possible} answers differ: {promise.undetected} less "
            f"{promise.corrected} corrected ones, or {promise.before} before this job "
            f"and {hidden} in it",
        ),
        *(
            []
            if promise.hidden is None
            else _check_own(promise, certificate, guarantee)
        ),
        Check(
            promise.possible <= allowed,
            f"{promise.possible} are no more than the {allowed} that are allowed",
        ),
    ]


def _check_own(
    promise: TaskPromise, certificate: Certificate, guarantee: Guarantee
) -> list[Check]:
    """Check the audit of its own that a job of a task has made."""
    most = OWN_SHARE * guarantee.alpha
    accepted = [test for test in certificate.tests if test.accepted is not None]
    if len(accepted) != 1 or not _possible(accepted[0], certificate.items, promise):
        return [Check(False, "one audit of its own bounds its errors")]
    test = accepted[0]
    replayed = test.replay(guarantee)
    served = promise.unseen + promise.again
    others = max(0, served - (test.items - test.draws))
    answers = test.answers or 0
    return [
        Check(
            test.max_errors == guarantee.max_errors(answers) - test.elsewhere
            and replayed.accepted == test.accepted
            and test.level <= most * (1 + _ROUNDING),
            f"'{test.policy}': M = {test.items} items, with {len(test.errors)} errors "
            f"detected {test.accepted} draws suffice at level {test.level:.6g}, "
            f"at most {most:.6g}",
        ),
        Check(
            promise.hidden is not None
            and promise.hidden >= replayed.undetected + others
            and test.draws <= certificate.profiled,
            f"so at most {promise.hidden} of its answers differ, less "
            f"{guarantee.max_disagreement:.4g} for each of {len(test.failures)} failed "
            "draws",
        ),
    ]


def _guarantee(certificate: Certificate) -> Guarantee:
    """Return the guarantee that a certificate is about."""
    shares = {
        kind: {
            each.label or "": each.share
            for each in certificate.promised
            if each.of == kind and each.share is not None
        }
        for kind in ("recall", "precision")
    }
    return Guarantee(certificate.max_disagreement, certificate.confidence, **shares)


def _possible_counts(certificate: Certificate) -> bool:
    """Whether all counts can be those of a batch."""
    parts = (
        *(certificate.unanswered, certificate.uncertified, certificate.escalated),
        *(certificate.profiled, certificate.wasted, *certificate.served.values()),
        *(each.draws for each in certificate.evidence),
    )
    promise = certificate.promise
    return (promise is None or _possible_promise(promise)) and (
        0 <= certificate.items <= MOST
        and all(0 <= part <= certificate.items for part in parts)
        and all(0 <= each.errors <= each.draws for each in certificate.evidence)
        and all(0 <= each.failures <= each.calls for each in certificate.spend.values())
    )


def _possible_promise(promise: TaskPromise) -> bool:
    """Whether a task's figures are possible, so that something can be computed."""
    counts = [part for part in promise.model_dump().values() if type(part) is int]
    return (
        all(0 <= count <= MOST for count in counts)
        and 0 < len(promise.slopes) == len(promise.log_wealth)
        and all(0 < slope <= _STEEPEST for slope in promise.slopes)
        and all(-math.inf < wealth <= 0 for wealth in promise.log_wealth)
    )


def _check_draws(certificate: Certificate) -> Check:
    """Check that there are as many drawn items as the tests have used."""
    whole, parts = [0], [0]
    for test in certificate.tests:
        (whole if test.items == certificate.items else parts).append(test.draws)
    used = max(whole) + sum(parts)  # all items are drawn in one order, parts afresh
    return Check(
        used <= certificate.profiled,
        f"{certificate.profiled} items were drawn; the tests rest on {used}",
    )


def _check(
    test: AuditTest, certificate: Certificate, guarantee: Guarantee
) -> list[Check]:
    """Check one test, whether it accepted or not."""
    name, items = f"'{test.policy}'", certificate.items
    if not _possible(test, items):
        return [Check(False, f"{name}: its figures are possible for an audit")]
    answers = items if test.answers is None else test.answers
    lost, failures = answers - certificate.answered, len(test.failures)
    # On all items, those that will fail later count as errors not yet found. On fewer,
    # the reference was asked about all others before, and what failed there is known.
    replayed = test.replay(guarantee)
    counted = lost <= failures
    if test.repaired is not None:
        counted = replayed.covers(certificate.answered)
    if test.items == items:
        counted = answers == items and replayed.covers(certificate.answered)
    end = test.draws if test.accepted is None else test.accepted
    errors = sum(number <= end for number in test.errors)
    enough = replayed.acceptance.draws(errors)
    detected = f"{errors} error{'' if errors == 1 else 's'} detected"
    lessened = ""
    if failures:
        share = f"{guarantee.max_disagreement:.4g}"
        lessened = f", less {share} for each of {failures} failed draws"
    outcome = "it did not accept"
    if test.accepted is not None:
        outcome = f"it accepted after {test.accepted}"
    ended = []
    if test.repaired is not None:
        least = repairs(replayed)
        ended = [
            Check(
                least <= test.repaired,
                f"{name}: {least} repairs suffice after that at level "
                f"{test.repair_level:.6g}; it ended by {test.repaired}",
            )
        ]
    return [
        *ended,
        Check(
            test.max_errors == guarantee.max_errors(answers)
            and (counted or test.ended is None),
            f"{name}: M = {test.items} items, at most {test.max_errors} of {answers} "
            f"answers may stay wrong undetected{lessened}",
        ),
        Check(
            replayed.accepted == test.accepted,
            f"{name}: with {detected} {enough} draws suffice at "
            f"level {test.level:.6g}; {outcome} (of {test.draws} draws)",
        ),
    ]


def _possible(test: AuditTest, items: int, promise: TaskPromise | None = None) -> bool:
    """Whether an audit can have such figures, so that something can be computed."""
    numbers, answers = (
        list(test.errors),
        items if test.answers is None else test.answers,
    )
    return (
        0 <= test.draws <= test.items <= items
        and 0 <= test.max_errors <= answers <= (MOST if promise else items)
        and 0 <= test.elsewhere <= (MOST if promise else 0)
        and 0 < test.level < 1
        and 0 <= test.expected_errors <= MOST
        and 0 <= (test.accepted or 0) <= test.draws
        and 0 <= test.repair_level < 1
        and 0 <= (test.repaired or 0) <= test.items - test.draws
        and numbers == sorted(set(numbers))
        and all(1 <= number <= test.draws for number in numbers)
        and list(test.failures) == [n for n in numbers if n in set(test.failures)]
    )


def _check_served(certificate: Certificate) -> Check:
    """Check that one accepted test covers all answers that were not compared."""
    by = {
        name: count
        for name, count in certificate.served.items()
        if name != certificate.reference and count
    }
    unseen = sum(by.values())
    covering = [
        test
        for test in certificate.tests
        if test.ended is not None and all(_asks(test.policy, name) for name in by)
    ]
    unasked = [test.items - test.draws - (test.repaired or 0) for test in covering]
    most = max(unasked, default=0)
    statement = f"{unseen} answers were not compared with {certificate.reference}"
    if by:
        statement += f", at most the {most} that an accepted audit of "
        statement += f"{', '.join(by)} left undrawn"
    left = certificate.items - certificate.profiled
    return Check(unseen <= min(most, left), statement)


def _asks(policy: str, model: str) -> bool:
    """Whether a policy, by its name, asks that model."""
    marked = policy.replace(" → ", " = ")
    return f" = {model.replace(' → ', ' = ')} = " in f" = {marked} = "
