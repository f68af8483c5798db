"""Checks a certificate: does what it claims follow from the draws it records?"""

from __future__ import annotations

from typing import NamedTuple

from smart_engine.batch.certificate import AuditTest, Certificate
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.acceptance import Acceptance
from smart_engine.guarantee import Guarantee

__all__ = ["Check", "verify"]

_MOST = 10**9
"""Items beyond which no audit is recomputed."""


class Check(NamedTuple):
    """One statement that has to hold.

    Attributes:
        holds: Whether it does.
        statement: What was checked, with its figures.
    """

    holds: bool
    statement: str


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
    guarantee = Guarantee(certificate.max_disagreement, certificate.confidence)
    allowed = guarantee.max_errors(certificate.items)
    levels = sum(test.level for test in certificate.tests)
    served = sum(certificate.served.values())
    by_candidates = served - certificate.served.get(certificate.reference, 0)
    checks = [
        Check(
            certificate.max_errors == allowed,
            f"B = {allowed}: that is how many of N = {certificate.items} may differ",
        ),
        Check(
            levels <= guarantee.alpha * (1 + 1e-9),
            f"levels of {len(certificate.tests)} tests sum to {levels:.6g}, "
            f"at most α = {guarantee.alpha:.6g}",
        ),
        Check(
            served == certificate.items,
            f"{served} of {certificate.items} items have an answer",
        ),
    ]
    accepted = [test for test in certificate.tests if test.accepted is not None]
    for test in accepted:
        checks.extend(_check(test, certificate.items, allowed))
    most = max((test.items - test.draws for test in accepted), default=0)
    statement = (
        f"{by_candidates} answers were not compared with {certificate.reference}"
    )
    if accepted:
        statement += f", at most the {most} that the audit left undrawn"
    checks.append(Check(by_candidates <= most, statement))
    return checks


def _check(test: AuditTest, items: int, allowed: int) -> list[Check]:
    """Check one test that accepted."""
    if not _possible(test):
        return [Check(False, f"'{test.policy}': its figures are possible for an audit")]
    accepted = test.accepted or 0
    errors = sum(number <= accepted for number in test.errors)
    design = Acceptance(test.items, test.max_errors, test.level, test.expected_errors)
    enough = design.draws(errors)
    rising = list(test.errors) == sorted(set(test.errors))
    return [
        Check(
            test.max_errors <= allowed and test.items <= items,
            f"'{test.policy}': M = {test.items} items, at most {test.max_errors} may "
            "stay wrong unseen",
        ),
        Check(
            rising and accepted <= test.draws <= test.items,
            f"'{test.policy}': {test.draws} draws showed {len(test.errors)} errors",
        ),
        Check(
            enough <= accepted,
            f"'{test.policy}': with {errors} errors found {enough} draws suffice at "
            f"level {test.level:.6g}; it accepted after {accepted}",
        ),
    ]


def _possible(test: AuditTest) -> bool:
    """Whether an audit can have such figures, so that something can be computed."""
    return (
        0 <= test.items <= _MOST
        and 0 <= test.max_errors <= _MOST
        and 0 < test.level < 1
        and 0 <= test.expected_errors <= _MOST
        and 0 <= (test.accepted or 0) <= test.draws <= test.items
        and len(test.errors) <= test.draws
    )
